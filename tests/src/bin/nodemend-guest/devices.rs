//! Disks of the machine, found by what they are, and reads that fail on them.

use std::fs::{self, File, OpenOptions};
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::PathBuf;

use anyhow::{Context, bail};

const BLOCK: usize = 4096;
const SECTOR: u64 = 512;

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
