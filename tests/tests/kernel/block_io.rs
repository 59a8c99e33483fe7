//! Block I/O errors of a loop device, and what is none.

use anyhow::ensure;
use nodemend_tests::faults::LoopDisk;

use crate::Test;
use crate::support::Needs::Hook;
use crate::watch::Watch;

pub(crate) const TESTS: &[Test] = &[
    (
        "block_io_error_names_the_device",
        Hook("block-io"),
        read_error,
    ),
    (
        "block_io_error_by_block_rq_complete_names_the_device",
        Hook("block-io"),
        by_complete,
    ),
    (
        "without_the_hook_a_block_io_error_is_found_in_the_log",
        Hook("block-io"),
        || fails(&["--disable-hook", "block-io"], 1),
    ),
    (
        "block_io_errors_of_one_device_are_one_finding",
        Hook("block-io"),
        twice,
    ),
    (
        "block_io_error_is_reported_although_the_device_is_gone_before_the_detector_reads",
        Hook("block-io"),
        gone,
    ),
    (
        "an_error_is_found_during_the_error_storm_of_another_disk",
        Hook("block-io"),
        storm,
    ),
    (
        "mkfs_on_a_loop_device_reports_nothing",
        Hook("block-io"),
        mkfs,
    ),
    (
        "mkfs_on_a_loop_device_reports_nothing_by_block_rq_complete",
        Hook("block-io"),
        mkfs_by_complete,
    ),
];

const BY_COMPLETE: &[&str] = &["--disable-variant", "tracepoint block:block_rq_error"];

fn fails(args: &[&str], times: u32) -> anyhow::Result<()> {
    let disk = LoopDisk::new()?;
    let mut watch = Watch::start(args)?;
    for _ in 0..times {
        disk.read_error()?;
    }
    let finding = watch.only_finding("BlockDeviceIOError", "device", disk.name())?;
    ensure!(
        finding["severity"] == "Warning" && finding["condition"] == "StorageReady",
        "{finding}"
    );
    let message = finding["message"].as_str().unwrap_or_default();
    // Whichever of tracepoint and log is read first has the first word.
    let by_tracepoint = message.starts_with("read of 8 sectors at sector 8192 failed");
    ensure!(
        by_tracepoint || message.contains("sector 8192 op 0x0:(READ)"),
        "{finding}"
    );
    Ok(())
}

fn read_error() -> anyhow::Result<()> {
    fails(&[], 1)
}

fn by_complete() -> anyhow::Result<()> {
    fails(BY_COMPLETE, 1)
}

fn twice() -> anyhow::Result<()> {
    fails(&[], 3)
}

/// The kernel prints ten lines in five seconds; of the second disk it prints nothing.
fn storm() -> anyhow::Result<()> {
    let (noisy, quiet) = (LoopDisk::new()?, LoopDisk::new()?);
    let mut watch = Watch::start(&[])?;
    for _ in 0..500 {
        noisy.read_error()?;
    }
    quiet.read_error()?;
    watch.only_finding("BlockDeviceIOError", "device", quiet.name())?;
    watch.only_finding("BlockDeviceIOError", "device", noisy.name())?;
    Ok(())
}

/// The number stays with a loop device that is detached; its name can still be found.
fn gone() -> anyhow::Result<()> {
    let mut watch = Watch::start(&[])?;
    watch.pause()?;
    let disk = LoopDisk::new()?;
    let name = disk.name().to_owned();
    disk.read_error()?;
    drop(disk);
    watch.resume()?;
    watch
        .only_finding("BlockDeviceIOError", "device", name)
        .map(drop)
}

fn is_quiet(args: &[&str]) -> anyhow::Result<()> {
    let disk = LoopDisk::new()?;
    let witness = LoopDisk::new()?;
    let mut watch = Watch::start(args)?;
    disk.mkfs_ext4()?;
    // What comes after it was read: so would be what the mkfs did.
    witness.read_error()?;
    watch.only_finding("BlockDeviceIOError", "device", witness.name())?;
    let of_it: Vec<_> = watch
        .findings()
        .into_iter()
        .filter(|line| line["subject"]["device"] == disk.name())
        .collect();
    ensure!(of_it.is_empty(), "{of_it:#?}");
    Ok(())
}

fn mkfs() -> anyhow::Result<()> {
    is_quiet(&[])
}

fn mkfs_by_complete() -> anyhow::Result<()> {
    is_quiet(BY_COMPLETE)
}
