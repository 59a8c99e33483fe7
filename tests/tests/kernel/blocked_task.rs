//! Tasks that the scan finds: earlier than khungtaskd, without it, and those that it never reports.

#![expect(clippy::disallowed_methods, reason = "the harness runs the detector")]

use std::process::Command;
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};
use nodemend_tests::faults::{FuseSleeper, HungTask, StuckDisk};
use nodemend_tests::{company, daemon};
use serde_json::Value;

use crate::Test;
use crate::support::Needs;
use crate::watch::Watch;

pub(crate) const TESTS: &[Test] = &[
    (
        "a_blocked_task_is_found_with_its_stack_while_khungtaskd_is_off",
        Needs::BlockedTask,
        without_khungtaskd,
    ),
    (
        "the_scan_is_earlier_than_khungtaskd_and_one_task_is_one_finding",
        Needs::BlockedTask,
        before_khungtaskd,
    ),
    (
        "who_waits_for_a_fuse_server_is_found_and_called_remote",
        Needs::Fuse,
        fuse,
    ),
    (
        "who_waits_for_a_disk_is_named_with_the_file_system_on_it",
        Needs::BlockedTask,
        disk,
    ),
    (
        "outside_of_the_hosts_pid_namespace_the_scan_is_off_and_says_why",
        Needs::Root,
        other_namespace,
    ),
];

/// Two looks are soon made.
const QUICK: [&str; 2] = ["--task-interval", "1s"];

fn of(line: &Value, pid: u32) -> bool {
    line["reason"] == "AppBlocked" && line["subject"]["pid"] == pid
}

fn message(line: &Value) -> &str {
    line["message"].as_str().unwrap_or_default()
}

fn without_khungtaskd() -> anyhow::Result<()> {
    let mut watch = Watch::start(&QUICK)?;
    let task = HungTask::unnoticed("stuck (D) 1)")?;
    let pid = task.pid();
    let found = watch.only_finding("AppBlocked", "pid", pid)?;
    ensure!(
        found["severity"] == "Warning" && found["subject"]["comm"] == "stuck (D) 1)",
        "{found:#}"
    );
    // What a frozen file system lets writers wait in.
    let text = message(&found);
    ensure!(
        text.contains("percpu_rwsem") || text.contains("percpu_down_read"),
        "{text}"
    );
    ensure!(text.contains(" < "), "{text}");
    // Each look says so again, which is no repeat.
    thread::sleep(Duration::from_millis(2500));
    let told = watch.findings();
    let told: Vec<_> = told.iter().filter(|line| of(line, pid)).collect();
    ensure!(told.len() == 1, "{told:#?}");
    drop(task);
    company::leave();
    watch.line("the end of it", |line| {
        line["transition"] == "cleared" && of(line, pid)
    })?;
    Ok(())
}

fn before_khungtaskd() -> anyhow::Result<()> {
    let mut scanned = Watch::start(&QUICK)?;
    let mut told = Watch::start(&[&QUICK[..], &["--disable-hook", "blocked-task"]].concat())?;
    let variant = ["--disable-variant", "iter task"];
    let mut told_too = Watch::start(&[&QUICK[..], &variant].concat())?;
    let task = HungTask::start("stuck")?;
    let pid = task.pid();
    let opened = |line: &Value| line["transition"] == "opened" && of(line, pid);
    let by_scan = scanned.line("what the scan says", opened)?;
    ensure!(message(&by_scan).contains("kernel stack: "), "{by_scan:#}");
    for watch in [&mut told, &mut told_too] {
        let by_kernel = watch.line("what khungtaskd says", opened)?;
        ensure!(
            message(&by_kernel).contains("hung_task_timeout_secs"),
            "{by_kernel:#}"
        );
        let at = |line: &Value| line["foundNs"].as_u64().context("read foundNs");
        ensure!(at(&by_scan)? < at(&by_kernel)?, "{by_scan:#} {by_kernel:#}");
    }
    // Long enough for khungtaskd to have told the first one as well.
    thread::sleep(Duration::from_millis(1500));
    let all = scanned.findings();
    let all: Vec<_> = all.iter().filter(|line| of(line, pid)).collect();
    ensure!(all.len() == 1, "{all:#?}");
    Ok(())
}

fn fuse() -> anyhow::Result<()> {
    let mut watch = Watch::start(&QUICK)?;
    let task = FuseSleeper::start("fuse-waiter")?;
    let pid = task.pid();
    let found = watch.only_finding("AppBlocked", "pid", pid)?;
    let text = message(&found);
    ensure!(
        found["severity"] == "Warning" && text.contains("blocked on FUSE (remote)"),
        "{found:#}"
    );
    drop(task);
    watch.line("the end of it", |line| {
        line["transition"] == "cleared" && of(line, pid)
    })?;
    Ok(())
}

/// That it would be Fatal in the end is a matter of time, which no test waits for.
fn disk() -> anyhow::Result<()> {
    let mut watch = Watch::start(&QUICK)?;
    let task = StuckDisk::start("kubelet")?;
    let pid = task.pid();
    let found = watch.only_finding("AppBlocked", "pid", pid)?;
    let text = message(&found);
    ensure!(text.contains(" blocked on ext4 for "), "{found:#}");
    if found["subject"]["podUid"].is_null() && !found["subject"]["cgroup"].is_null() {
        ensure!(text.contains("which the node needs"), "{found:#}");
    }
    ensure!(found["severity"] == "Warning", "{found:#}");
    drop(task);
    watch.line("the end of it", |line| {
        line["transition"] == "cleared" && of(line, pid)
    })?;
    Ok(())
}

fn other_namespace() -> anyhow::Result<()> {
    let detector = daemon::binary("nodemend-detector")?;
    let output = Command::new("unshare")
        .args(["--pid", "--fork", "--mount-proc"])
        .arg(detector)
        .args(["check", "-o", "json"])
        .output()
        .context("run unshare (util-linux)")?;
    let rows: Vec<Value> =
        serde_json::from_slice(&output.stdout).context("parse the output of check")?;
    let row = |name: &str| rows.iter().find(|row| row["what"] == name);
    let scan = row("hook blocked-task").context("find the row of the scan")?;
    let missing = scan["missing"].as_str().unwrap_or_default();
    ensure!(
        scan["using"].is_null() && missing.contains("hostPID: true"),
        "{scan:#}"
    );
    // Which the others do not mind.
    let hung = row("hook hung-task").context("find the row of khungtaskd's hook")?;
    ensure!(!hung["using"].is_null(), "{hung:#}");
    Ok(())
}
