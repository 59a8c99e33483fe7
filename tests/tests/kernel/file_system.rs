//! File systems that report errors, are shut down or lose what was written.

use anyhow::{Context, ensure};
use nodemend_tests::faults::Ext4;

use crate::Test;
use crate::support::Needs::Hook;
use crate::watch::Watch;

pub(crate) const TESTS: &[Test] = &[
    (
        "an_ext4_error_is_one_finding_by_tracepoint_and_log",
        Hook("ext4-error"),
        || ext4_error(&[]),
    ),
    (
        "without_the_hook_an_ext4_error_is_found_in_the_kernel_log",
        Hook("ext4-error"),
        || ext4_error(&["--disable-hook", "ext4-error"]),
    ),
    (
        "an_ext4_file_system_that_is_shut_down_under_a_critical_path_is_fatal",
        Hook("ext4-shutdown"),
        || shut_down(&[]),
    ),
    (
        "without_the_hook_the_aborted_journal_tells_of_the_shutdown",
        Hook("ext4-shutdown"),
        || shut_down(&["--disable-hook", "ext4-shutdown"]),
    ),
    (
        "data_that_did_not_reach_the_disk_names_device_and_mount_point",
        Hook("writeback"),
        || lost_write(&[]),
    ),
    (
        "without_the_hook_data_that_did_not_reach_the_disk_is_found_in_the_log",
        Hook("writeback"),
        || lost_write(&["--disable-hook", "writeback"]),
    ),
];

fn ext4_error(args: &[&str]) -> anyhow::Result<()> {
    let file_system = Ext4::mounted_reporting()?;
    let mut watch = Watch::start(args)?;
    file_system.report_error()?;
    let finding = watch.only_finding("FilesystemError", "device", file_system.device())?;
    ensure!(
        finding["severity"] == "Warning" && finding["count"] == 1,
        "{finding}"
    );
    Ok(())
}

fn shut_down(args: &[&str]) -> anyhow::Result<()> {
    let file_system = Ext4::mounted()?;
    let path = file_system
        .path()
        .to_str()
        .context("read the path of a mount")?;
    let args: Vec<_> = ["--critical-mount", path]
        .into_iter()
        .chain(args.iter().copied())
        .collect();
    let mut watch = Watch::start(&args)?;
    file_system.shut_down()?;
    watch.only_finding("JournalAborted", "device", file_system.device())?;
    let finding = watch.only_finding("FilesystemReadOnly", "device", file_system.device())?;
    ensure!(finding["severity"] == "Fatal", "{finding}");
    watch
        .line("StorageReady=False", |line| {
            line["condition"] == "StorageReady" && line["status"] == "False"
        })
        .map(drop)
}

fn lost_write(args: &[&str]) -> anyhow::Result<()> {
    let file_system = Ext4::mounted_reporting()?;
    let mut watch = Watch::start(args)?;
    file_system.lose_a_write()?;
    let finding = watch.only_finding("WritebackError", "device", file_system.device())?;
    let message = finding["message"].as_str().unwrap_or_default();
    let path = file_system.path().to_string_lossy();
    // The line of the log does not know where it is mounted.
    ensure!(!args.is_empty() || message.contains(&*path), "{finding}");
    Ok(())
}
