//! The faults that leave a host as it was, on the kernel that runs here, in no virtual machine.

#![expect(clippy::disallowed_methods, reason = "the harness runs other programs")]

use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Command, Stdio};

use anyhow::Context;

use super::{Report, Shown, outcome};
use crate::{daemon, process};

/// As [`super::run`], and of which version the kernel is.
pub fn run_here(tell: impl FnMut(&Report)) -> anyhow::Result<(String, Shown)> {
    let release = fs::read_to_string("/proc/sys/kernel/osrelease").context("read the release")?;
    let version: Vec<_> = release.split('.').take(2).collect();
    let mut command = Command::new(daemon::binary("nodemend-guest")?);
    command.stdin(Stdio::null()).stdout(Stdio::piped());
    let mut guest = process::spawn(command)?;
    let reports = guest.stdout.take().context("read the reports")?;
    let mut lines = BufReader::new(reports).lines();
    let next = || {
        let line = lines.next().context("nodemend-guest ended")?;
        let line = line.context("read the reports")?;
        serde_json::from_str(&line).with_context(|| format!("nodemend-guest said {line:?}"))
    };
    let shown = outcome::shown(next, tell);
    // Of one that did not say why.
    let _ended = guest.kill();
    guest.wait().context("wait for nodemend-guest")?;
    Ok((version.join("."), shown?))
}
