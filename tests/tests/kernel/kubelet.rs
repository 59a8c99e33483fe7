//! kubelet that is silent on its own node: hung on a disk for real, or stopped, behind a /healthz that
//! accepts and never answers.

use std::fs;

use anyhow::{Context, ensure};
use nodemend_tests::faults::{Healthz, KubeletHost, StoppedKubelet, StuckDisk};
use serde_json::Value;
use tempfile::NamedTempFile;

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

/// Says soon what is over.
const CONFIG: &str = "reasons: {KubeletUnresponsive: {clearAfter: 1s}}";

fn watch(host: &KubeletHost, healthz: &Healthz, config: &NamedTempFile) -> anyhow::Result<Watch> {
    fs::write(config.path(), CONFIG).context("write a configuration")?;
    let config = config.path().display().to_string();
    Watch::start(&[
        "--counter-interval",
        "1s",
        "--task-interval",
        "1s",
        "--kubelet-healthz",
        &healthz.address(),
        "--config",
        &config,
        "--host-proc",
        &host.proc(),
    ])
}

fn hung() -> anyhow::Result<()> {
    let healthz = Healthz::start()?;
    let disk = StuckDisk::start("kubelet")?;
    let host = KubeletHost::of(disk.pid())?;
    let config = NamedTempFile::new().context("make a file")?;
    let mut watch = watch(&host, &healthz, &config)?;
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
    let host = KubeletHost::of(kubelet.pid())?;
    healthz.set_well(false);
    let config = NamedTempFile::new().context("make a file")?;
    let mut watch = watch(&host, &healthz, &config)?;
    let finding = watch.line("a kubelet that is stopped", |line| told(line, "opened"))?;
    let message = finding["message"].as_str().unwrap_or_default();
    ensure!(message.contains("its process is stopped"), "{finding}");
    Ok(())
}
