//! A disk that answers no request any more, and a process that waits for it: the disk is a file on a
//! frozen file system.

use super::Ext4;
use super::ext4::Frozen;
use super::hung_task::wait_until_blocked;
use super::victim::Victim;

/// Dropping it lets the disk go on and undoes the rest.
pub struct StuckDisk {
    // Dropped in this order.
    _frozen: Frozen,
    victim: Victim,
    _on_it: Ext4,
    _below: Ext4,
}

impl StuckDisk {
    /// Returns when a process of this name is blocked on it.
    pub fn start(comm: &str) -> anyhow::Result<Self> {
        let below = Ext4::mounted()?;
        let on_it = below.inner()?;
        let file = on_it.path().join("file").display().to_string();
        let mut victim = Victim::start("sync", comm, Some(&file))?;
        let frozen = below.freeze()?;
        victim.go()?;
        wait_until_blocked(victim.pid())?;
        Ok(Self {
            _frozen: frozen,
            victim,
            _on_it: on_it,
            _below: below,
        })
    }

    pub fn pid(&self) -> u32 {
        self.victim.pid()
    }
}
