//! In its steady state the detector starts no program.

#![expect(clippy::disallowed_methods, reason = "the harness runs the detector")]

use std::thread;
use std::time::Duration;

use anyhow::ensure;
use nodemend_tests::daemon;
use nodemend_tests::faults::Executions;

use crate::Test;
use crate::support::Needs::Executions as Trace;
use crate::watch::Watch;

pub(crate) const TESTS: &[Test] = &[
    ("in_a_minute_no_program_is_started", Trace, steady),
    ("a_program_that_is_started_is_seen", Trace, seen),
];

const A_MINUTE: Duration = Duration::from_secs(60);

/// All counters, sixty times, and two scans of all tasks.
fn steady() -> anyhow::Result<()> {
    let watch = Watch::start(&["--counter-interval", "1s"])?;
    let executions = Executions::of(watch.pid())?;
    thread::sleep(A_MINUTE);
    let started = executions.so_far()?;
    ensure!(started.is_empty(), "{started:#?}");
    Ok(())
}

/// The test before could not fail otherwise.
fn seen() -> anyhow::Result<()> {
    let executions = Executions::of(std::process::id())?;
    let program = daemon::binary("nodemend-detector")?;
    let output = std::process::Command::new(program)
        .arg("--version")
        .output();
    ensure!(output.is_ok_and(|output| output.status.success()));
    let started = executions.so_far()?;
    ensure!(
        started.len() == 1 && started[0].contains("nodemend-detector"),
        "{started:#?}"
    );
    Ok(())
}
