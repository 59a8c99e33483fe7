//! The kernel log, overrun.

use std::fs::OpenOptions;
use std::io::Write;

use anyhow::Context;

use super::sysctl::Sysctl;

/// Longer than most logs: 2 MiB, in lines that mean nothing.
const LINES: usize = 4096;

/// Writes so much to the kernel log that its oldest records are overwritten.
pub fn overrun_kernel_log() -> anyhow::Result<()> {
    // Otherwise the kernel drops most of it.
    let _unlimited = Sysctl::set("kernel/printk_devkmsg", "on")?;
    let mut log = OpenOptions::new()
        .write(true)
        .open("/dev/kmsg")
        .context("open /dev/kmsg")?;
    let line = format!("<7>nodemend overruns the log {}\n", "x".repeat(480));
    for _ in 0..LINES {
        log.write_all(line.as_bytes()).context("write /dev/kmsg")?;
    }
    Ok(())
}
