//! A kernel log that is overwritten faster than it is read, or whose device is refused.

use anyhow::{Context, ensure};
use nodemend_tests::faults::{Ext4, overrun_kernel_log, where_refused};

use crate::Test;
use crate::support;
use crate::support::Needs::{Hook, Root};
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
    (
        "where_the_device_is_refused_the_log_is_read_by_syslog_2",
        Root,
        refused,
    ),
    (
        "an_overrun_of_syslog_2_is_told_though_nobody_knows_its_number",
        Root,
        overrun_by_syslog,
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

/// Of an ext4 error only the log tells then.
const BY_LOG: [&str; 4] = ["--disable-hook", "ext4-error", "--disable-hook", "console"];

fn refused() -> anyhow::Result<()> {
    let past = Ext4::mounted_reporting()?;
    past.report_error()?;
    let (rows, mut watch) = where_refused("/dev/kmsg", || {
        Ok((support::check(), Watch::start(&BY_LOG)?))
    })?;
    let row = rows.iter().find(|row| row["what"] == "source kernel log");
    let row = row.context("check says nothing of the kernel log")?;
    ensure!(
        row["using"]
            .as_str()
            .is_some_and(|using| using.starts_with("syslog(2)"))
            && row["missing"]
                .as_str()
                .is_some_and(|why| why.starts_with("open /dev/kmsg: ")),
        "{row}"
    );
    ensure!(
        watch
            .line_so_far(
                |line| line["subject"]["device"] == past.device() && line["historic"] == true
            )
            .is_some(),
        "what was in the log before is not told"
    );
    let now = Ext4::mounted_reporting()?;
    now.report_error()?;
    watch.only_finding("FilesystemError", "device", now.device())?;
    Ok(())
}

fn overrun_by_syslog() -> anyhow::Result<()> {
    let mut watch = where_refused("/dev/kmsg", || Watch::start(&BY_LOG))?;
    watch.pause()?;
    overrun_kernel_log()?;
    watch.resume()?;
    let lost = watch.line("SignalsLost", |line| line["reason"] == "SignalsLost")?;
    ensure!(
        lost["message"] == "records of the kernel log were lost; nobody knows how many",
        "{lost}"
    );
    let file_system = Ext4::mounted_reporting()?;
    file_system.report_error()?;
    watch.only_finding("FilesystemError", "device", file_system.device())?;
    Ok(())
}
