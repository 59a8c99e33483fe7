//! Between cargo and rustc (`RUSTC_WORKSPACE_WRAPPER`): both daemons are linked with a list of their
//! crates, and the repairer statically, in the one build that everything comes from, so that what is
//! tested is what ships.
//!
//! Only its last step differs, so no dependency is compiled for it anew: `RUSTFLAGS` would reach
//! them all, and `cargo rustc` knows no `--workspace`, whose features they were compiled with.
//! glibc 2.34 and later look names up in a static program as in any other.

use std::env;
use std::env::consts::ARCH;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::Context;

use crate::audit;

pub(crate) const WRAPPER: &str = "RUSTC_WORKSPACE_WRAPPER";
const DETECTOR: &str = "nodemend_detector";
const REPAIRER: &str = "nodemend_repairer";

/// Cargo names rustc and then its arguments; None where a person has started this.
pub(crate) fn asked_by_cargo() -> Option<Vec<OsString>> {
    let line: Vec<_> = env::args_os().skip(1).collect();
    let rustc = Path::new(line.first()?).file_name()?;
    (rustc == "rustc").then_some(line)
}

/// Becomes rustc.
pub(crate) fn run(line: &[OsString]) -> anyhow::Result<()> {
    let (rustc, args) = line.split_first().context("no rustc to run")?;
    let mut command = Command::new(rustc);
    command.args(args);
    if is_binary(args, REPAIRER) {
        command.args(["-C", "target-feature=+crt-static"]);
    }
    for name in [DETECTOR, REPAIRER] {
        if is_binary(args, name) {
            let folder = after(args, "--out-dir").context("rustc is told no --out-dir")?;
            let package = name.replace('_', "-");
            let platform = match after(args, "--target") {
                Some(target) => target.to_string_lossy().into_owned(),
                None => format!("{ARCH}-unknown-linux-gnu"),
            };
            let object = audit::object(&crate::repo(), &package, &platform, Path::new(folder))
                .with_context(|| format!("list the crates of {package}"))?;
            let mut argument = OsString::from("link-arg=");
            argument.push(object);
            command.arg("-C").arg(argument);
        }
    }
    Err(command.exec()).with_context(|| format!("start {}", rustc.display()))
}

fn is_binary(args: &[OsString], name: &str) -> bool {
    let says = |option: &str, value: &str| after(args, option).is_some_and(|said| said == value);
    says("--crate-name", name) && says("--crate-type", "bin")
}

fn after<'a>(args: &'a [OsString], option: &str) -> Option<&'a OsString> {
    let pair = args.windows(2).find(|pair| pair[0] == option);
    pair.map(|pair| &pair[1])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn binaries_are_told_from_libraries_and_tests() {
        let is_binary = |line: &str, name: &str| {
            let line: Vec<_> = line.split(' ').map(OsString::from).collect();
            is_binary(&line, name)
        };
        let of = |name: &str, kind: &str| {
            format!("--crate-name {name} --edition=2024 a.rs --crate-type {kind}")
        };
        assert!(is_binary(&of(REPAIRER, "bin"), REPAIRER));
        assert!(is_binary(&of(DETECTOR, "bin"), DETECTOR));
        assert!(!is_binary(&of(DETECTOR, "bin"), REPAIRER));
        assert!(!is_binary(&of(REPAIRER, "lib"), REPAIRER));
        let test = format!("--crate-name {REPAIRER} a.rs --test");
        assert!(!is_binary(&test, REPAIRER));
    }
}
