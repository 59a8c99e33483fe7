//! Crashing processes whose names begin like the lines of a broken node: a crash is all that is said.

use anyhow::ensure;
use nodemend_tests::faults::{Ext4, FORGED_NAMES, crash, where_refused};

use crate::Test;
use crate::support::Needs::Root;
use crate::watch::Watch;

pub(crate) const TESTS: &[Test] = &[
    (
        "a_process_named_like_a_soft_lockup_is_a_crash_and_nothing_else",
        Root,
        || forged(FORGED_NAMES[0], watch),
    ),
    (
        "a_process_named_like_a_gpu_error_is_a_crash_and_nothing_else",
        Root,
        || forged(FORGED_NAMES[1], watch),
    ),
    (
        "a_process_named_like_a_panic_is_a_crash_and_nothing_else",
        Root,
        || forged(FORGED_NAMES[2], watch),
    ),
    (
        "a_process_named_like_an_ext4_error_with_a_newline_is_a_crash_and_nothing_else",
        Root,
        || forged(FORGED_NAMES[3], watch),
    ),
    (
        "by_syslog_2_a_process_named_like_an_ext4_error_with_a_newline_is_a_crash_and_nothing_else",
        Root,
        || forged(FORGED_NAMES[3], || where_refused("/dev/kmsg", watch)),
    ),
];

/// Never said because of a line in the log.
const BY_OTHERS: &[&str] = &[
    "OOMKilling",
    "AppBlocked",
    "BlockDeviceIOError",
    "PacketsDropped",
    "CPUStarvation",
    "CPUStealHigh",
    "MemoryStall",
];

fn watch() -> anyhow::Result<Watch> {
    Watch::start(&["--critical-mount", "/"])
}

fn forged(name: &str, watch: impl FnOnce() -> anyhow::Result<Watch>) -> anyhow::Result<()> {
    let file_system = Ext4::mounted()?;
    let mut watch = watch()?;
    let crash = crash(name)?;
    // The line is really there, and begins with the name.
    let (_, text) = crash.record.split_once(';').unwrap_or_default();
    ensure!(
        text.starts_with(&name.replace('\n', "\\x0a")),
        "the kernel wrote: {text}"
    );
    // A true error later in the log: once it is reported, the forged line was read.
    file_system.turn_read_only()?;
    watch.only_finding("FilesystemError", "device", file_system.device())?;
    // Other programs may provoke faults on this host meanwhile: what comes from a tracepoint or a counter, and
    // from the log about a loop device, is theirs.
    let forged: Vec<_> = watch
        .findings()
        .into_iter()
        .filter(|line| !BY_OTHERS.iter().any(|reason| line["reason"] == *reason))
        .filter(|line| {
            !line["subject"]["device"]
                .as_str()
                .is_some_and(|device| device.starts_with("loop"))
        })
        .filter(|line| !(line["reason"] == "AppCrash" && line["severity"] == "Warning"))
        .collect();
    let crashes = watch
        .findings()
        .into_iter()
        .filter(|line| line["reason"] == "AppCrash" && line["subject"]["pid"] == crash.pid);
    let crashes: Vec<_> = crashes.collect();
    ensure!(crashes.len() == 1, "of one crash: {crashes:#?}");
    ensure!(
        forged.is_empty(),
        "reported beside the true error: {forged:#?}"
    );
    Ok(())
}
