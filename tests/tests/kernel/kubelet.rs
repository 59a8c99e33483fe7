//! kubelet that is silent on its own node: hung on a disk for real, or stopped, behind a /healthz that
//! accepts and never answers.

use std::fs;
use std::os::unix::fs::symlink;

use anyhow::{Context, ensure};
use nodemend_tests::faults::{Healthz, StoppedKubelet, StuckDisk};
use serde_json::Value;

use crate::Test;
use crate::support::Needs;
use crate::watch::Watch;

pub(crate) const TESTS: &[Test] = &[
    (
        "a_kubelet_that_hangs_on_a_disk_is_told_with_its_stack_and_clears",
        Needs::BlockedTask,
        hung,
    ),
    ("a_kubelet_that_is_stopped_is_told_so", Needs::Root, stopped),
];

fn told(line: &Value, transition: &str) -> bool {
    line["transition"] == transition && line["reason"] == "KubeletUnresponsive"
}

/// A /proc with this process alone, and a host's root with kubelet's folder.
struct Host(tempfile::TempDir);

impl Host {
    fn new(pid: u32) -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("make a folder")?;
        let proc = folder.path().join("proc");
        fs::create_dir_all(proc.join("1/root/var/lib/kubelet")).context("make a folder")?;
        symlink("/proc/self/ns", proc.join("1/ns"))
            .and_then(|()| symlink(format!("/proc/{pid}"), proc.join(pid.to_string())))
            .context("make a link")?;
        fs::write(
            folder.path().join("config.yaml"),
            "reasons: {KubeletUnresponsive: {clearAfter: 1s}}",
        )
        .context("write a configuration")?;
        Ok(Self(folder))
    }

    fn watch(&self, healthz: &Healthz) -> anyhow::Result<Watch> {
        let path = |name| self.0.path().join(name).display().to_string();
        Watch::start(&[
            "--counter-interval",
            "1s",
            "--task-interval",
            "1s",
            "--kubelet-healthz",
            &healthz.address(),
            "--config",
            &path("config.yaml"),
            "--host-proc",
            &path("proc"),
        ])
    }
}

fn hung() -> anyhow::Result<()> {
    let healthz = Healthz::start()?;
    let disk = StuckDisk::start("kubelet")?;
    let host = Host::new(disk.pid())?;
    let mut watch = host.watch(&healthz)?;
    healthz.set_well(false);
    let finding = watch.line("a kubelet that hangs", |line| told(line, "opened"))?;
    let message = finding["message"].as_str().unwrap_or_default();
    let thread = format!("kubelet[{}] is in uninterruptible sleep in ", disk.pid());
    ensure!(
        message.contains("does not answer within 5 s")
            && message.contains(&thread)
            && message.contains(" < "),
        "{finding}"
    );
    // It has hung for too short a time to call the node unhealthy.
    ensure!(finding["severity"] == "Warning", "{finding}");
    ensure!(finding["subject"]["pid"] == disk.pid(), "{finding}");
    healthz.set_well(true);
    watch
        .line("the end of it", |line| told(line, "cleared"))
        .map(drop)
}

fn stopped() -> anyhow::Result<()> {
    let healthz = Healthz::start()?;
    let kubelet = StoppedKubelet::start()?;
    let host = Host::new(kubelet.pid())?;
    healthz.set_well(false);
    let mut watch = host.watch(&healthz)?;
    let finding = watch.line("a kubelet that is stopped", |line| told(line, "opened"))?;
    let message = finding["message"].as_str().unwrap_or_default();
    ensure!(message.contains("its process is stopped"), "{finding}");
    Ok(())
}
