//! A loop device on a file in memory: nothing of it is left when the process ends, however it does.

#![expect(clippy::disallowed_methods, reason = "the harness runs mkfs")]

use std::ffi::c_ulong;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::{FileExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::fs::{MemfdFlags, memfd_create};

use super::boot_clock;

const SIZE: u64 = 16 << 20;
/// Of one whose file lies on another one's file system.
const INNER_SIZE: u64 = 8 << 20;
/// Reads beyond it fail once the tail is lost.
const KEPT: u64 = 1 << 20;
const BLOCK: usize = 4096;

// include/uapi/linux/loop.h
const LOOP_CTL_GET_FREE: c_ulong = 0x4c82;
const LOOP_CONFIGURE: c_ulong = 0x4c0a;
/// Detached by the kernel when the last user closes it.
const LO_FLAGS_AUTOCLEAR: u32 = 4;

#[repr(C)]
struct LoopConfig {
    fd: u32,
    block_size: u32,
    /// `struct loop_info64` up to `lo_flags`.
    before_flags: [u8; 52],
    flags: u32,
    after_flags: [u8; 176],
    reserved: [u64; 8],
}

/// Detached on drop.
pub struct LoopDisk {
    device: File,
    name: String,
    backing: File,
}

impl LoopDisk {
    pub fn new() -> anyhow::Result<Self> {
        let backing = memfd_create(
            "nodemend-loop-disk",
            MemfdFlags::CLOEXEC | MemfdFlags::ALLOW_SEALING,
        )
        .map(File::from)
        .context("make a file for a loop device")?;
        Self::of(backing, SIZE)
    }

    /// A larger one.
    pub fn of_size(bytes: u64) -> anyhow::Result<Self> {
        let backing = memfd_create("nodemend-loop-disk", MemfdFlags::CLOEXEC)
            .map(File::from)
            .context("make a file for a loop device")?;
        Self::of(backing, bytes)
    }

    /// A smaller one, whose file lies in this folder.
    pub(super) fn inside(folder: &Path) -> anyhow::Result<Self> {
        let backing = tempfile::tempfile_in(folder).context("make a file for a loop device")?;
        Self::of(backing, INNER_SIZE)
    }

    fn of(backing: File, size: u64) -> anyhow::Result<Self> {
        backing
            .set_len(size)
            .context("make a file for a loop device")?;
        Self::on(backing)
    }

    /// Made of this file.
    pub(super) fn on(backing: File) -> anyhow::Result<Self> {
        let control = File::options()
            .read(true)
            .write(true)
            .open("/dev/loop-control")
            .context("open /dev/loop-control (is the module `loop` there?)")?;
        // Somebody else may take the free number first.
        for _ in 0..100 {
            let number = ioctl(&control, LOOP_CTL_GET_FREE, std::ptr::null_mut())
                .context("ask for a free loop device")?;
            let name = format!("loop{number}");
            let device = File::options()
                .read(true)
                .write(true)
                .open(format!("/dev/{name}"))
                .with_context(|| format!("open /dev/{name}"))?;
            let mut config = LoopConfig {
                fd: backing.as_raw_fd().unsigned_abs(),
                block_size: 0,
                before_flags: [0; 52],
                flags: LO_FLAGS_AUTOCLEAR,
                after_flags: [0; 176],
                reserved: [0; 8],
            };
            match ioctl(&device, LOOP_CONFIGURE, (&raw mut config).cast()) {
                Ok(_) => {
                    return Ok(Self {
                        device,
                        name,
                        backing,
                    });
                }
                Err(error) if error.raw_os_error() == Some(libc::EBUSY) => {}
                Err(error) => return Err(error).with_context(|| format!("set up /dev/{name}")),
            }
        }
        bail!("find a free loop device: each one was taken by somebody else")
    }

    /// As the kernel log and the detector name it: `loop3`.
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn path(&self) -> PathBuf {
        PathBuf::from("/dev").join(&self.name)
    }

    /// Whatever is read or written beyond the first MiB fails from now on, and the file that the
    /// device is made of does not grow again.
    pub(super) fn lose_tail(&self) -> anyhow::Result<()> {
        self.backing
            .set_len(KEPT)
            .context("cut the file of a loop device")?;
        rustix::fs::fcntl_add_seals(&self.backing, rustix::fs::SealFlags::GROW)
            .context("keep the file of a loop device from growing")
    }

    /// A block I/O error: the device loses its tail and a read there fails. May be called again.
    /// Returns when the read began.
    pub fn read_error(&self) -> anyhow::Result<Duration> {
        self.backing
            .set_len(KEPT)
            .context("cut the file of a loop device")?;
        let device = OpenOptions::new()
            .read(true)
            .custom_flags(libc::O_DIRECT)
            .open(self.path())
            .with_context(|| format!("open {}", self.path().display()))?;
        let mut buffer = vec![0; 2 * BLOCK];
        let aligned = buffer.as_ptr().align_offset(BLOCK);
        let at = boot_clock();
        match device.read_at(&mut buffer[aligned..aligned + BLOCK], 4 << 20) {
            Ok(_) => bail!(
                "a read beyond the end of the file of {} went well",
                self.name
            ),
            Err(error) if error.raw_os_error() == Some(libc::EIO) => Ok(at),
            Err(error) => Err(error).with_context(|| format!("read {}", self.name)),
        }
    }

    /// Discards and write-zeroes that a loop device may not support: no fault.
    pub fn mkfs_ext4(&self) -> anyhow::Result<()> {
        let program = ["/usr/sbin/mkfs.ext4", "/sbin/mkfs.ext4"]
            .into_iter()
            .find(|path| Path::new(path).exists())
            .context("find mkfs.ext4: install e2fsprogs")?;
        let output = Command::new(program)
            .args(["-q", "-F", "-E", "lazy_itable_init=0,lazy_journal_init=0"])
            .arg(self.path())
            .output()
            .with_context(|| format!("run {program}"))?;
        if !output.status.success() {
            bail!(
                "{program} {}: {}",
                self.path().display(),
                String::from_utf8_lossy(&output.stderr)
            );
        }
        self.device
            .sync_all()
            .with_context(|| format!("sync {}", self.name))
    }
}

fn ioctl(file: &File, request: c_ulong, argument: *mut std::ffi::c_void) -> io::Result<i32> {
    #[expect(unsafe_code, reason = "ioctl is a C function")]
    // SAFETY: `argument` is null or points to what the request reads, and outlives the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), request, argument) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}
