//! A kernel log that is overwritten faster than it is read.

use anyhow::ensure;
use nodemend_tests::faults::{Ext4, overrun_kernel_log};

use crate::Test;
use crate::support::Needs::Hook;
use crate::watch::Watch;

pub(crate) const TESTS: &[Test] = &[
    (
        "a_fault_whose_line_was_overwritten_unread_is_told_from_its_copy",
        Hook("console"),
        || overrun(&[], true),
    ),
    (
        "without_copies_an_overrun_is_counted_and_what_it_took_is_lost",
        Hook("console"),
        || overrun(&["--disable-hook", "console"], false),
    ),
];

/// Of the fault only the log tells.
fn overrun(args: &[&str], told: bool) -> anyhow::Result<()> {
    let file_system = Ext4::mounted_reporting()?;
    let args: Vec<_> = ["--disable-hook", "ext4-error"]
        .into_iter()
        .chain(args.iter().copied())
        .collect();
    let mut watch = Watch::start(&args)?;
    watch.pause()?;
    file_system.report_error()?;
    overrun_kernel_log()?;
    watch.resume()?;
    watch.line("SignalsLost", |line| line["reason"] == "SignalsLost")?;
    if told {
        watch.only_finding("FilesystemError", "device", file_system.device())?;
        return Ok(());
    }
    // A later one shows that everything before was read.
    let other = Ext4::mounted_reporting()?;
    other.report_error()?;
    watch.only_finding("FilesystemError", "device", other.device())?;
    let findings = watch.findings();
    ensure!(
        findings
            .iter()
            .all(|line| line["subject"]["device"] != file_system.device()),
        "the line was not overwritten: the log is larger than what the test writes: {findings:#?}"
    );
    Ok(())
}
