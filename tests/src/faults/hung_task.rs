//! A task that waits in the kernel for ever: it writes to a frozen file system.

use std::fs::{self, File};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::fs::{FlockOperation, flock};

use super::Ext4;
use super::ext4::Frozen;
use super::setting::Setting;
use super::victim::Victim;

const LOCK: &str = "/run/nodemend-faults.lock";

/// Tasks count as hung after this many seconds: enough that a busy disk does not.
const TIMEOUT: &str = "3";
const CHECK_INTERVAL: &str = "1";

/// While it lives, one process is blocked and the kernel is quick to say so: about 4 to 5 seconds
/// after the start. Dropping it thaws the file system and restores the settings.
pub struct HungTask {
    // Dropped in this order.
    _frozen: Frozen,
    victim: Victim,
    _file_system: Ext4,
    _settings: Vec<Setting>,
    _alone: File,
}

impl HungTask {
    /// Returns when the process is blocked. Waits while another process has a `HungTask`.
    pub fn start(comm: &str) -> anyhow::Result<Self> {
        Self::with_timeout(comm, TIMEOUT)
    }

    /// The same, but the kernel does not look for hung tasks meanwhile.
    pub fn unnoticed(comm: &str) -> anyhow::Result<Self> {
        Self::with_timeout(comm, "0")
    }

    fn with_timeout(comm: &str, timeout: &str) -> anyhow::Result<Self> {
        let alone = File::create(LOCK).with_context(|| format!("create {LOCK}"))?;
        flock(&alone, FlockOperation::LockExclusive).with_context(|| format!("lock {LOCK}"))?;
        let settings = [
            // First of all: it must not take the host down.
            ("kernel/hung_task_panic", "0"),
            // Also restores what the kernel counts down.
            ("kernel/hung_task_warnings", "10"),
            ("kernel/hung_task_check_interval_secs", CHECK_INTERVAL),
            ("kernel/hung_task_timeout_secs", timeout),
        ];
        let mut changed = Vec::new();
        for (name, value) in settings {
            changed.extend(Setting::sysctl(name, value)?);
        }
        if changed.is_empty() {
            bail!("this kernel does not look for hung tasks (CONFIG_DETECT_HUNG_TASK)");
        }
        let file_system = Ext4::mounted()?;
        let file = file_system.path().join("file").display().to_string();
        let mut victim = Victim::start("write", comm, Some(&file))?;
        let frozen = file_system.freeze()?;
        victim.go()?;
        wait_until_blocked(victim.pid())?;
        Ok(Self {
            _frozen: frozen,
            victim,
            _file_system: file_system,
            _settings: changed,
            _alone: alone,
        })
    }

    pub fn pid(&self) -> u32 {
        self.victim.pid()
    }

    /// Why there cannot be one here, if so.
    pub fn unavailable() -> Option<&'static str> {
        (!std::path::Path::new("/proc/sys/kernel/hung_task_timeout_secs").exists())
            .then_some("this kernel does not look for hung tasks (CONFIG_DETECT_HUNG_TASK)")
    }
}

pub(super) fn wait_until_blocked(pid: u32) -> anyhow::Result<()> {
    let path = format!("/proc/{pid}/stat");
    for _ in 0..1000 {
        let stat = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        // The name before it may hold anything, also a parenthesis.
        if stat
            .rsplit_once(") ")
            .is_some_and(|(_, rest)| rest.starts_with('D'))
        {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(5));
    }
    bail!("process {pid} was not blocked")
}
