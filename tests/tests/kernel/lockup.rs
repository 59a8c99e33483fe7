//! Whether a CPU is stuck in the kernel, as it is asked when the log says so. No lockup can be provoked
//! without a module that loops; a process that outranks the question, and stays in the kernel, looks the
//! same.

#![expect(clippy::disallowed_methods, reason = "the harness runs the detector")]

use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};
use nodemend_tests::daemon;
use nodemend_tests::faults::{BusyCpu, last_cpu};

use crate::Test;
use crate::support::Needs::Root;

pub(crate) const TESTS: &[Test] = &[
    ("a_cpu_that_runs_only_the_kernel_is_in_it", Root, || {
        says("InKernel", &BusyCpu::start(true)?)
    }),
    (
        "a_cpu_that_a_program_keeps_in_user_space_is_not_in_the_kernel",
        Root,
        || says("Unknown", &BusyCpu::start(false)?),
    ),
    ("a_cpu_that_others_keep_busy_runs", Root, || {
        ensure!(look(last_cpu()?)? == "Runs");
        Ok(())
    }),
];

fn says(state: &str, busy: &BusyCpu) -> anyhow::Result<()> {
    // For the process to get there.
    thread::sleep(Duration::from_millis(500));
    let said = look(busy.cpu())?;
    ensure!(said == state, "{said}");
    Ok(())
}

fn look(cpu: usize) -> anyhow::Result<String> {
    let output = Command::new(daemon::binary("nodemend-detector")?)
        .args(["aside", "look-at-cpu", "/proc", &cpu.to_string()])
        .output()
        .context("run nodemend-detector")?;
    ensure!(
        output.status.success(),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    serde_json::from_slice(&output.stdout).context("read its answer")
}
