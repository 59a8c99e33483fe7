//! An ext4 file system that the kernel turns read-only, under a path that the node needs or not.

use anyhow::{Context, ensure};
use nodemend_tests::faults::Ext4;
use serde_json::Value;

use crate::Test;
use crate::support::Needs::Root;
use crate::watch::Watch;

pub(crate) const TESTS: &[Test] = &[
    (
        "a_read_only_file_system_under_a_critical_path_makes_storage_not_ready_until_it_is_gone",
        Root,
        critical,
    ),
    (
        "a_restart_while_the_file_system_is_read_only_does_not_heal_it",
        Root,
        restart,
    ),
    (
        "a_read_only_file_system_that_the_node_does_not_need_is_a_warning",
        Root,
        not_critical,
    ),
];

fn is_storage(line: &Value, status: &str) -> bool {
    line["condition"] == "StorageReady" && line["status"] == status
}

/// Starts a watch to which the file system is critical, and turns it read-only.
fn broken(file_system: &Ext4) -> anyhow::Result<Watch> {
    let path = file_system
        .path()
        .to_str()
        .context("read the path of a mount")?;
    let mut watch = Watch::start(&["--critical-mount", path])?;
    watch.line("StorageReady=True", |line| is_storage(line, "True"))?;
    file_system.turn_read_only()?;
    let condition = watch.line("StorageReady=False", |line| is_storage(line, "False"))?;
    ensure!(condition["reason"] == "FilesystemReadOnly", "{condition}");
    let message = condition["message"].as_str().unwrap_or_default();
    ensure!(
        message.contains(file_system.device()) && message.contains(path),
        "{condition}"
    );
    let finding = watch.only_finding("FilesystemReadOnly", "device", file_system.device())?;
    ensure!(finding["severity"] == "Fatal", "{finding}");
    watch.only_finding("FilesystemError", "device", file_system.device())?;
    Ok(watch)
}

fn critical() -> anyhow::Result<()> {
    let file_system = Ext4::mounted()?;
    let mut watch = broken(&file_system)?;
    drop(file_system);
    watch
        .line("StorageReady=True again", |line| is_storage(line, "True"))
        .map(drop)
}

fn restart() -> anyhow::Result<()> {
    let file_system = Ext4::mounted()?;
    let mut watch = broken(&file_system)?;
    watch.restart()?;
    let condition = watch.line("StorageReady", |line| {
        line["condition"] == "StorageReady" && line["status"].is_string()
    })?;
    ensure!(condition["status"] == "False", "{condition}");
    Ok(())
}

fn not_critical() -> anyhow::Result<()> {
    let file_system = Ext4::mounted()?;
    let mut watch = Watch::start(&["--critical-mount", "/"])?;
    watch.line("StorageReady=True", |line| is_storage(line, "True"))?;
    file_system.turn_read_only()?;
    let finding = watch.only_finding("FilesystemReadOnly", "device", file_system.device())?;
    ensure!(finding["severity"] == "Warning", "{finding}");
    let unready = watch.line_so_far(|line| is_storage(line, "False"));
    ensure!(unready.is_none(), "{unready:?}");
    Ok(())
}
