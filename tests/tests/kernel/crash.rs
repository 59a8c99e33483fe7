//! Processes that crash, and one that only looks like it.

use anyhow::ensure;
use nodemend_tests::faults::{PodCgroup, abort, crash, handled_crash};

use crate::Test;
use crate::support::Needs::Hook;
use crate::watch::Watch;

pub(crate) const TESTS: &[Test] = &[
    ("a_crash_in_a_pod_names_the_pod", Hook("crash"), in_pod),
    (
        "a_crash_that_the_log_tells_as_well_is_one_finding",
        Hook("crash"),
        once,
    ),
    (
        "without_the_hook_a_crash_is_found_in_the_kernel_log",
        Hook("crash"),
        logged,
    ),
    (
        "a_signal_that_its_process_handles_is_no_crash",
        Hook("crash"),
        handled,
    ),
];

const POD: &str = "2f7a1c9e-3b7d-4c5e-9f00-1234567890ab";

/// SIGABRT: the kernel log does not say a word.
fn in_pod() -> anyhow::Result<()> {
    let cgroup = PodCgroup::systemd(POD)?;
    let mut watch = Watch::start(&[])?;
    let pid = cgroup.abort("asserting")?;
    let finding = watch.only_finding("AppCrash", "pid", pid)?;
    let subject = &finding["subject"];
    ensure!(
        subject["podUid"] == POD && subject["containerId"] == cgroup.container_id(),
        "{finding}"
    );
    ensure!(
        finding["message"] == format!("process asserting (pid {pid}) crashed: SIGABRT"),
        "{finding}"
    );
    Ok(())
}

fn once() -> anyhow::Result<()> {
    let mut watch = Watch::start(&[])?;
    let crash = crash("crashing-once")?;
    watch
        .only_finding("AppCrash", "comm", "crashing-once")
        .and_then(|finding| {
            ensure!(finding["subject"]["pid"] == crash.pid, "{finding}");
            Ok(())
        })
}

fn logged() -> anyhow::Result<()> {
    let mut watch = Watch::start(&["--disable-hook", "crash"])?;
    let crash = crash("crashing-logged")?;
    watch.only_finding("AppCrash", "pid", crash.pid).map(drop)
}

fn handled() -> anyhow::Result<()> {
    let mut watch = Watch::start(&[])?;
    handled_crash("jvm-like")?;
    // What came later has been read: so has what came before.
    let pid = abort("after-jvm")?;
    watch.only_finding("AppCrash", "pid", pid)?;
    let findings = watch.findings();
    ensure!(
        findings
            .iter()
            .all(|line| line["subject"]["comm"] != "jvm-like"),
        "{findings:#?}"
    );
    Ok(())
}
