//! What virtual machines are made of: QEMU, a userland and Debian's kernels, unpacked from Debian's
//! packages into the cache, none of it installed.

pub(crate) mod debian;
mod kernel;
mod module;
pub(crate) mod tree;

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::Context;

use crate::cache;

use self::debian::Suite;
pub(crate) use self::kernel::{Kernel, in_tree};

/// The environment variable by which the harness finds them.
pub(crate) const FOLDER: &str = "NODEMEND_VM_DIR";

/// Of QEMU and of what runs in the guest: a libc that is at least as new as the builder's.
pub(crate) const TOOLS: &str = "trixie";
/// Without the parts that draw.
const QEMU: &[&str] = &["qemu-system-x86"];
/// What makes the guest's file systems, devices and rules.
const GUEST: &[&str] = &[
    "busybox-static",
    "btrfs-progs",
    "dmsetup",
    "e2fsprogs",
    "iproute2",
    "kmod",
    "libgcc-s1",
    "nftables",
    "xfsprogs",
];

/// The folder with `qemu/`, `guest/`, and a folder for each of these kernels. `newest`: what Debian
/// has today; else what an earlier call has left there is taken as it is.
pub(crate) fn ensure(repo: &Path, kernels: &[Kernel], newest: bool) -> anyhow::Result<PathBuf> {
    let folder = cache::dir()?.join("vm");
    fs::create_dir_all(&folder).with_context(|| format!("create {}", folder.display()))?;
    let lock = fs::File::create(folder.join("lock")).context("create the lock of the machines")?;
    lock.lock()
        .context("wait for another set-up of the machines")?;
    let tools = |name: &str, packages: &[&str]| {
        tree::once(&folder.join(name), |tree| {
            Suite::open(TOOLS, &folder, newest)?.unpack_with_dependencies(packages, tree)
        })
    };
    tools("qemu", QEMU)?;
    tools("guest", GUEST)?;
    for kernel in kernels {
        kernel.ensure(repo, &folder, newest)?;
    }
    Ok(folder)
}
