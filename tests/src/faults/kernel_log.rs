//! The kernel log, overrun.

use std::fs::OpenOptions;
use std::io::Write;

use anyhow::Context;

use super::setting::Setting;

/// Writes so much to the kernel log that its oldest records are overwritten: 2 MiB.
pub fn overrun_kernel_log() -> anyhow::Result<()> {
    fill_kernel_log(
        4096,
        &format!("nodemend overruns the log {}", "x".repeat(480)),
    )
}

/// Writes this line so often, as fast as it goes.
pub fn fill_kernel_log(lines: usize, line: &str) -> anyhow::Result<()> {
    // Otherwise the kernel drops most of it.
    let _unlimited = Setting::sysctl("kernel/printk_devkmsg", "on")?;
    let mut log = OpenOptions::new()
        .write(true)
        .open("/dev/kmsg")
        .context("open /dev/kmsg")?;
    let line = format!("<7>{line}\n");
    for _ in 0..lines {
        log.write_all(line.as_bytes()).context("write /dev/kmsg")?;
    }
    Ok(())
}
