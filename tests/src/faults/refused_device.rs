//! A device that may not be opened, as in a container whose device cgroup does not allow it.

use std::path::Path;
use std::thread;

use anyhow::{Context, bail};
use rustix::mount::{MountFlags, MountPropagationFlags};
use rustix::thread::UnshareFlags;

/// Does something where `device` is refused (EACCES). Processes that it starts stay there.
pub fn where_refused<T: Send>(
    device: &str,
    work: impl FnOnce() -> anyhow::Result<T> + Send,
) -> anyhow::Result<T> {
    // A thread of its own, because it leaves the mount namespace of the others.
    thread::scope(|scope| {
        let thread = scope.spawn(|| {
            refuse(Path::new(device))?;
            work()
        });
        match thread.join() {
            Ok(result) => result,
            Err(_) => bail!("the thread without {device} panicked"),
        }
    })
}

fn refuse(device: &Path) -> anyhow::Result<()> {
    #[expect(
        unsafe_code,
        reason = "unshare is, as a thread may not share all with others"
    )]
    // SAFETY: only the mounts are left, and the thread closes no descriptor.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }
        .context("make a mount namespace")?;
    rustix::mount::mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )
    .context("make mounts private")?;
    rustix::mount::mount_bind(device, device)
        .with_context(|| format!("bind {}", device.display()))?;
    // No device of such a mount can be opened.
    rustix::mount::mount_remount(device, MountFlags::BIND | MountFlags::NODEV, c"")
        .with_context(|| format!("refuse {}", device.display()))
}
