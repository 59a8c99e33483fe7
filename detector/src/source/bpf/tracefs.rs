//! tracefs: finding it, and where the fields of an event lie.

use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::{Context, bail};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::UnshareFlags;
use tracing::debug;

use super::fields::Format;

/// The two places where aya looks too.
const PLACES: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// Where tracefs is mounted, for the calling thread.
pub(super) struct Tracefs(PathBuf);

impl Tracefs {
    /// Finds it mounted, or mounts it for the calling thread alone: then that thread gets a mount
    /// namespace of its own, which ends with it and leaves the host as it was.
    pub(super) fn open() -> anyhow::Result<Self> {
        if let Some(place) = mounted() {
            return Ok(Self(PathBuf::from(place)));
        }
        let place = PLACES[0];
        mount_for_this_thread(place).with_context(|| {
            format!("mount tracefs, which this host has not mounted: run as root, or `mount -t tracefs nodev {place}`")
        })?;
        debug!(place, "mounted tracefs while the programs are attached");
        Ok(Self(PathBuf::from(place)))
    }

    /// The layout of an event, or `None` where the kernel does not have it.
    pub(super) fn format(&self, category: &str, event: &str) -> anyhow::Result<Option<Format>> {
        let path = self
            .0
            .join("events")
            .join(category)
            .join(event)
            .join("format");
        match fs::read_to_string(&path) {
            Ok(text) => {
                let format = Format::parse(&text);
                if format.is_empty() {
                    bail!("{} lists no field", path.display());
                }
                Ok(Some(format))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    }
}

/// Where the host has mounted it.
pub(crate) fn mounted() -> Option<&'static str> {
    PLACES
        .into_iter()
        .find(|place| Path::new(place).join("events").is_dir())
}

fn mount_for_this_thread(place: &str) -> rustix::io::Result<()> {
    #[expect(
        unsafe_code,
        reason = "unshare can take file descriptors away from other threads"
    )]
    // SAFETY: file descriptors stay shared; only mounts, root and working folder become this
    // thread's own.
    unsafe { rustix::thread::unshare_unsafe(UnshareFlags::NEWNS) }?;
    // Without this the mount would appear in the host's namespace as well.
    mount_change(
        "/",
        MountPropagationFlags::PRIVATE | MountPropagationFlags::REC,
    )?;
    mount("nodev", place, "tracefs", MountFlags::empty(), None)
}
