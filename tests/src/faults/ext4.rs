//! An ext4 file system of its own on a loop device: turned read-only by the kernel, or frozen.

use std::ffi::{CStr, c_ulong};
use std::fs::{self, File};
use std::io;
use std::os::fd::AsRawFd;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use anyhow::Context;
use rustix::mount::{MountFlags, UnmountFlags, mount, unmount};
use tempfile::TempDir;

use super::{LoopDisk, boot_clock};

// include/uapi/linux/fs.h
const FIFREEZE: c_ulong = 0xc004_5877;
const FITHAW: c_ulong = 0xc004_5878;
/// `EXT4_IOC_SHUTDOWN` and `XFS_IOC_GOINGDOWN`.
const SHUTDOWN: c_ulong = 0x8004_587d;

/// Mounted with `errors=remount-ro`. Unmounted on drop.
pub struct Ext4 {
    path: PathBuf,
    disk: LoopDisk,
    /// Dropped after the unmount.
    _folder: TempDir,
}

impl Ext4 {
    /// Makes a file system and mounts it in a folder of its own.
    pub fn mounted() -> anyhow::Result<Self> {
        Self::mounted_with(c"errors=remount-ro")
    }

    /// The same, but the kernel only reports errors, each of them.
    pub fn mounted_reporting() -> anyhow::Result<Self> {
        let file_system = Self::mounted_with(c"errors=continue")?;
        file_system.set("err_ratelimit_burst", "1000000")?;
        Ok(file_system)
    }

    /// On a disk that stops when this file system is frozen.
    pub(super) fn inner(&self) -> anyhow::Result<Self> {
        Self::mounted_on(LoopDisk::inside(&self.path)?, c"errors=continue")
    }

    fn mounted_with(options: &CStr) -> anyhow::Result<Self> {
        Self::mounted_on(LoopDisk::new()?, options)
    }

    fn mounted_on(disk: LoopDisk, options: &CStr) -> anyhow::Result<Self> {
        disk.mkfs_ext4()?;
        let folder = tempfile::Builder::new()
            .prefix("nodemend-ext4-")
            .tempdir()
            .context("make a mount point")?;
        let path = folder.path().to_owned();
        mount(
            disk.path(),
            &path,
            "ext4",
            MountFlags::empty(),
            Some(options),
        )
        .with_context(|| format!("mount {} on {}", disk.name(), path.display()))?;
        Ok(Self {
            path,
            disk,
            _folder: folder,
        })
    }

    pub fn path(&self) -> &Path {
        &self.path
    }

    /// As the kernel log and the detector name it: `loop3`.
    pub fn device(&self) -> &str {
        self.disk.name()
    }

    /// Makes the kernel find an error and turn the file system read-only. Returns when.
    pub fn turn_read_only(&self) -> anyhow::Result<Duration> {
        let at = boot_clock();
        self.set("trigger_fs_error", "provoked")?;
        Ok(at)
    }

    /// Makes the kernel find an error.
    pub fn report_error(&self) -> anyhow::Result<()> {
        self.set("trigger_fs_error", "provoked")
    }

    /// Shuts it down with everything on it lost, as when its device goes away. Returns when.
    pub fn shut_down(&self) -> anyhow::Result<Duration> {
        // EXT4_GOING_FLAGS_NOLOGFLUSH.
        let mut flags: u32 = 2;
        let folder =
            File::open(&self.path).with_context(|| format!("open {}", self.path.display()))?;
        let at = boot_clock();
        ioctl(&folder, SHUTDOWN, (&raw mut flags).cast())
            .with_context(|| format!("shut {} down", self.path.display()))?;
        Ok(at)
    }

    /// Writes a file of which nothing can reach the disk, and tells the kernel to write it.
    pub fn lose_a_write(&self) -> anyhow::Result<()> {
        let file = File::create(self.path.join("lost")).context("create a file")?;
        file.set_len(1 << 20).context("make room in a file")?;
        file.sync_all().context("write the file's size")?;
        self.disk.lose_tail()?;
        for block in 0..64 {
            file.write_at(&[1; 4096], block * 4096)
                .context("write a file")?;
        }
        match file.sync_all() {
            Ok(()) => anyhow::bail!("the data reached a disk that is not there"),
            Err(_lost) => Ok(()),
        }
    }

    fn set(&self, attribute: &str, value: &str) -> anyhow::Result<()> {
        let path = PathBuf::from("/sys/fs/ext4")
            .join(self.device())
            .join(attribute);
        fs::write(&path, value).with_context(|| format!("write {}", path.display()))
    }

    /// Makes every writer wait until the guard is dropped.
    pub fn freeze(&self) -> anyhow::Result<Frozen> {
        let folder =
            File::open(&self.path).with_context(|| format!("open {}", self.path.display()))?;
        ioctl(&folder, FIFREEZE, std::ptr::null_mut())
            .with_context(|| format!("freeze {}", self.path.display()))?;
        Ok(Frozen { folder })
    }
}

impl Drop for Ext4 {
    fn drop(&mut self) {
        for _ in 0..100 {
            match unmount(&self.path, UnmountFlags::NOFOLLOW) {
                Ok(()) => return,
                // Somebody looks at it, or a writer is on its way out.
                Err(rustix::io::Errno::BUSY) => thread::sleep(Duration::from_millis(20)),
                Err(_) => break,
            }
        }
        if let Err(error) = unmount(&self.path, UnmountFlags::DETACH | UnmountFlags::NOFOLLOW) {
            eprintln!("could not unmount {}: {error}", self.path.display());
        }
    }
}

pub struct Frozen {
    folder: File,
}

impl Drop for Frozen {
    fn drop(&mut self) {
        if let Err(error) = ioctl(&self.folder, FITHAW, std::ptr::null_mut()) {
            eprintln!("could not thaw a file system: {error}");
        }
    }
}

fn ioctl(file: &File, request: c_ulong, argument: *mut std::ffi::c_void) -> io::Result<()> {
    #[expect(unsafe_code, reason = "ioctl is a C function")]
    // SAFETY: `argument` is null or points to what the request reads, and outlives the call.
    let result = unsafe { libc::ioctl(file.as_raw_fd(), request, argument) };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(())
    }
}
