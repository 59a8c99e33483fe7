//! Between cargo and rustc (`RUSTC_WORKSPACE_WRAPPER`): the repairer is linked statically, in the
//! one build that everything comes from, so that what is tested is what ships.
//!
//! Only its last step differs, so no dependency is compiled for it anew: `RUSTFLAGS` would reach
//! them all, and `cargo rustc` knows no `--workspace`, whose features they were compiled with.
//! glibc 2.34 and later look names up in a static program as in any other.

use std::env;
use std::ffi::OsString;
use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::Context;

pub(crate) const WRAPPER: &str = "RUSTC_WORKSPACE_WRAPPER";
const STATIC: &str = "nodemend_repairer";

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
    if is_static(args) {
        command.args(["-C", "target-feature=+crt-static"]);
    }
    Err(command.exec()).with_context(|| format!("start {}", rustc.display()))
}

fn is_static(args: &[OsString]) -> bool {
    let says = |name: &str, value: &str| {
        args.windows(2)
            .any(|pair| pair[0] == name && pair[1] == value)
    };
    says("--crate-name", STATIC) && says("--crate-type", "bin")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_repairer_alone_is_static() {
        let is_static =
            |line: &str| is_static(&line.split(' ').map(OsString::from).collect::<Vec<_>>());
        let of = |name: &str, kind: &str| {
            is_static(&format!(
                "--crate-name {name} --edition=2024 a.rs --crate-type {kind}"
            ))
        };
        assert!(of("nodemend_repairer", "bin"));
        // Its library; a test of it; the detector, which loads NVML.
        assert!(!of("nodemend_repairer", "lib"));
        assert!(!is_static("--crate-name nodemend_repairer a.rs --test"));
        assert!(!of("nodemend_detector", "bin"));
    }
}
