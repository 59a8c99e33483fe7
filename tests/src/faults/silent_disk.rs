//! A disk that has a request and does not complete it: a loop device on a file of a frozen file system.

use std::fs::{self, File};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};

use super::ext4::Frozen;
use super::victim::Victim;
use super::{Ext4, LoopDisk};

const SIZE: u64 = 4 << 20;

/// While it lives, one request is in flight. Dropping it lets the request end.
pub struct SilentDisk {
    // Dropped in this order.
    frozen: Option<Frozen>,
    _victim: Victim,
    disk: LoopDisk,
    _below: Ext4,
}

impl SilentDisk {
    /// Returns when the request is in flight.
    pub fn start() -> anyhow::Result<Self> {
        let below = Ext4::mounted()?;
        let file = File::options()
            .create_new(true)
            .read(true)
            .write(true)
            .open(below.path().join("disk"))
            .context("make a file for a loop device")?;
        file.set_len(SIZE)
            .and_then(|()| file.sync_all())
            .context("make a file for a loop device")?;
        let disk = LoopDisk::on(file)?;
        let path = disk.path().display().to_string();
        let mut victim = Victim::start("sync", "stuck-writer", Some(&path))?;
        let frozen = below.freeze()?;
        victim.go()?;
        wait_for_request(disk.name())?;
        Ok(Self {
            frozen: Some(frozen),
            _victim: victim,
            disk,
            _below: below,
        })
    }

    /// As the detector names it: `loop3`.
    pub fn device(&self) -> &str {
        self.disk.name()
    }

    /// The disk answers again.
    pub fn mend(&mut self) {
        self.frozen = None;
    }
}

fn wait_for_request(disk: &str) -> anyhow::Result<()> {
    let path = format!("/sys/block/{disk}/inflight");
    for _ in 0..1000 {
        let requests = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
        if requests.split_whitespace().any(|number| number != "0") {
            return Ok(());
        }
        thread::sleep(Duration::from_millis(5));
    }
    bail!("no request waits for {disk}, though the file system below it is frozen")
}
