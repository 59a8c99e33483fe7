//! Disks of the machine, found by what they are, reads that fail on them, and what makes them silent.

use std::fs::{self, File, OpenOptions};
use std::num::NonZeroU64;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use nodemend_tests::faults::{Setting, boot_clock};
use rustix::fs::{Advice, fadvise};

const BLOCK: usize = 4096;
const SECTOR: u64 = 512;
/// For a command to be sent, or done with.
const PATIENCE: Duration = Duration::from_secs(10);
const SOON: Duration = Duration::from_millis(20);

/// The disk whose place among the devices has this in it.
pub(crate) fn disk(kind: &str) -> anyhow::Result<String> {
    for entry in fs::read_dir("/sys/block").context("list the disks")? {
        let name = entry.context("list the disks")?.file_name();
        let name = name.to_string_lossy().into_owned();
        let link = fs::read_link(PathBuf::from("/sys/block").join(&name)).context("read a link")?;
        if link.to_string_lossy().contains(kind) {
            return Ok(name);
        }
    }
    bail!("there is no {kind} disk: this kernel has no driver for it")
}

/// Reads the block with this sector; an error if that goes well.
pub(crate) fn cannot_read(disk: &str, sector: u64) -> anyhow::Result<()> {
    let path = format!("/dev/{disk}");
    match read(
        &open(&path)?,
        sector * SECTOR / BLOCK as u64 * BLOCK as u64,
        BLOCK,
    ) {
        Ok(()) => bail!("sector {sector} of {path} was read"),
        Err(error) if error.raw_os_error().is_some() => Ok(()),
        Err(error) => Err(error).with_context(|| format!("read {path}")),
    }
}

/// Past the page cache.
pub(crate) fn open(path: &str) -> anyhow::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_DIRECT)
        .open(path)
        .with_context(|| format!("open {path}"))
}

/// Both aligned to a block.
pub(crate) fn read(disk: &File, offset: u64, length: usize) -> std::io::Result<()> {
    let mut buffer = vec![0; length + BLOCK];
    let aligned = buffer.as_ptr().align_offset(BLOCK);
    disk.read_exact_at(&mut buffer[aligned..aligned + length], offset)
}

/// How many seconds a command of the disk may take, for a while.
pub(crate) fn timeout(disk: &str, seconds: &str) -> anyhow::Result<Setting> {
    Setting::change(format!("/sys/block/{disk}/device/timeout"), seconds)
}

/// A command that never reaches the disk: its controller may not use the bus meanwhile.
pub(crate) fn lose_a_command(disk: &str) -> anyhow::Result<()> {
    let controller = Controller::of(disk)?;
    controller.let_use_bus(false)?;
    let sent = Sent::to(disk);
    controller.let_use_bus(true)?;
    sent?.until_done()
}

/// A read that nobody waits for, so that the kernel seldom tries it again.
pub(crate) struct Sent<'a> {
    disk: &'a str,
    /// Whoever closes it waits for the read.
    _open: File,
}

impl<'a> Sent<'a> {
    pub(crate) fn to(disk: &'a str) -> anyhow::Result<Self> {
        /// Where nobody has read yet.
        const OFFSET: u64 = 4 << 20;
        let path = format!("/dev/{disk}");
        let open = File::open(&path).with_context(|| format!("open {path}"))?;
        fadvise(&open, OFFSET, NonZeroU64::new(4096), Advice::WillNeed)
            .with_context(|| format!("ask {path} for data"))?;
        until(disk, true)?;
        Ok(Self { disk, _open: open })
    }

    pub(crate) fn until_done(self) -> anyhow::Result<()> {
        until(self.disk, false)
    }
}

fn until(disk: &str, busy: bool) -> anyhow::Result<()> {
    let inflight = format!("/sys/block/{disk}/inflight");
    let deadline = boot_clock() + PATIENCE;
    loop {
        let commands = fs::read_to_string(&inflight).context("look for commands")?;
        if commands.trim_start().starts_with('0') != busy {
            return Ok(());
        }
        ensure!(boot_clock() < deadline, "{disk} has {commands} in flight");
        thread::sleep(SOON);
    }
}

/// What a disk hangs on: a PCI device.
struct Controller {
    configuration: File,
}

impl Controller {
    fn of(disk: &str) -> anyhow::Result<Self> {
        let place = fs::canonicalize(format!("/sys/block/{disk}")).context("find a disk")?;
        let path = place
            .ancestors()
            .map(|folder| folder.join("config"))
            .find(|path| path.exists())
            .with_context(|| format!("{} is below no PCI device", place.display()))?;
        let configuration = File::options()
            .read(true)
            .write(true)
            .open(&path)
            .with_context(|| format!("open {}", path.display()))?;
        Ok(Self { configuration })
    }

    /// Its commands, data and interrupts are lost without.
    fn let_use_bus(&self, may: bool) -> anyhow::Result<()> {
        // include/uapi/linux/pci_regs.h
        const PCI_COMMAND: u64 = 4;
        const PCI_COMMAND_MASTER: u16 = 4;
        let mut command = [0; 2];
        self.configuration
            .read_exact_at(&mut command, PCI_COMMAND)
            .context("read a PCI command register")?;
        let others = u16::from_le_bytes(command) & !PCI_COMMAND_MASTER;
        let command = others | if may { PCI_COMMAND_MASTER } else { 0 };
        self.configuration
            .write_all_at(&command.to_le_bytes(), PCI_COMMAND)
            .context("write a PCI command register")
    }
}
