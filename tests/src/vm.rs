//! A virtual machine with another kernel, in which `nodemend-guest` provokes faults and says what two
//! detectors made of them: one that has only the hooks, and one that has only the kernel log.
//!
//! QEMU interprets the guest's instructions (`-accel tcg`), so it runs where nothing else does, and
//! takes twenty times as long as the host would.

mod configurations;
pub mod firmware;
mod holes;
mod initramfs;
mod outcome;
mod page;
mod qemu;
mod report;
mod running;
mod unprovoked;

use std::env;
use std::path::{Path, PathBuf};

use anyhow::Context;

pub use self::holes::Holes;
pub use self::outcome::{Outcome, Shown, run};
pub use self::page::Page;
pub use self::qemu::{BAD_SECTOR, Machine};
pub use self::report::{Report, Seen, Way};
pub use self::running::run_here;

/// As `cargo xtask vm` names them.
pub const KERNELS: [&str; 4] = ["5.10", "6.1", "6.12", "7.2"];

/// What tables call the kernel that runs here.
pub const RUNNING: &str = "running";

/// Not loaded before the detectors have started: its hook is attached when it comes.
pub const LATE: &str = "xfs";

/// The kernel modules that the guest loads, and so those that it is given.
pub const MODULES: &[&str] = &[
    "crc32c_generic",
    "loop",
    "ext4",
    LATE,
    "btrfs",
    "dm_mod",
    "scsi_debug",
    "sd_mod",
    "ahci",
    "nvme",
    "virtio_blk",
    "virtio_pci",
    "nf_conntrack_netlink",
    "nft_ct",
    "e1000e",
    "veth",
    "cxl_acpi",
    "cxl_pci",
    "cxl_mem",
];

/// Where `cargo xtask` keeps QEMU, the guest's userland and this kernel.
pub struct Parts {
    qemu: PathBuf,
    guest: PathBuf,
    kernel: PathBuf,
}

impl Parts {
    pub fn of(version: &str) -> anyhow::Result<Self> {
        let folder = env::var_os("NODEMEND_VM_DIR")
            .map(PathBuf::from)
            .context("find the parts of a virtual machine: `cargo xtask` sets NODEMEND_VM_DIR")?;
        Ok(Self {
            qemu: folder.join("qemu"),
            guest: folder.join("guest"),
            kernel: folder.join(version),
        })
    }

    /// Debian's package and its version.
    pub fn package(&self) -> anyhow::Result<String> {
        read(&self.kernel.join("package"))
    }

    /// What `uname -r` says.
    fn release(&self) -> anyhow::Result<String> {
        read(&self.kernel.join("release"))
    }
}

fn read(path: &Path) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("read {}", path.display()))
}
