//! A process that crashes under a name of its choice, which the kernel prints first on a line.

use std::fs::OpenOptions;
use std::io::{Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::Signal;

use super::setting::Setting;
use super::victim::Victim;

/// Beginnings of lines that would mean a broken node, as long as a name may be (15 bytes).
pub const FORGED_NAMES: [&str; 4] = [
    "BUG: soft locku",
    "NVRM: Xid (PCI:",
    "Kernel panic - ",
    "EXT4-fs error\n",
];

#[derive(Debug, Clone)]
pub struct Crash {
    pub pid: u32,
    /// The record that the kernel wrote about it: `6,711,5140900,-;NAME[pid]: segfault at ...`.
    pub record: String,
}

/// Ends a process named `comm` by SIGABRT, of which the kernel logs nothing. Returns its pid.
pub fn abort(comm: &str) -> anyhow::Result<u32> {
    let mut victim = Victim::start("abort", comm, None)?;
    victim.go()?;
    victim
        .wait_for_signal(Signal::ABORT)
        .context("wait for the abort")?;
    Ok(victim.pid())
}

/// A process named `comm` gets SIGSEGV, handles it and ends well.
pub fn handled_crash(comm: &str) -> anyhow::Result<()> {
    let mut victim = Victim::start("handle", comm, None)?;
    victim.go()?;
    victim.wait_for_success()
}

/// Crashes a process named `comm` and returns what the kernel logged about it.
pub fn crash(comm: &str) -> anyhow::Result<Crash> {
    let _logged = Setting::sysctl("debug/exception-trace", "1")?;
    let mut log = OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK)
        .open("/dev/kmsg")
        .context("open /dev/kmsg")?;
    log.seek(SeekFrom::End(0))
        .context("go to the end of /dev/kmsg")?;
    let mut victim = Victim::start("crash", comm, None)?;
    victim.go()?;
    victim
        .wait_for_signal(Signal::SEGV)
        .context("wait for the crash")?;
    let pid = victim.pid();
    let wanted = format!("[{pid}]: segfault at ");
    for _ in 0..200 {
        let mut buffer = [0; 8192];
        match log.read(&mut buffer) {
            Ok(length) => {
                let record = String::from_utf8_lossy(&buffer[..length]);
                if record.contains(&wanted) {
                    return Ok(Crash {
                        pid,
                        record: record.trim_end().to_owned(),
                    });
                }
            }
            Err(error) if error.kind() == std::io::ErrorKind::WouldBlock => {
                thread::sleep(Duration::from_millis(10))
            }
            // Overwritten before it was read; the next read goes on with what is left.
            Err(error) if error.raw_os_error() == Some(libc::EPIPE) => {}
            Err(error) => return Err(error).context("read /dev/kmsg"),
        }
    }
    bail!("the kernel logged no segfault of process {pid} (is its log limited?)")
}
