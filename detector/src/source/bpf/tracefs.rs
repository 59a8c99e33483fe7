//! tracefs: finding it, and where the fields of an event lie.

use std::collections::HashMap;
use std::path::{Path, PathBuf};
use std::{fs, io};

use anyhow::{Context, bail};
use rustix::mount::{MountFlags, MountPropagationFlags, mount, mount_change};
use rustix::thread::UnshareFlags;
use tracing::debug;

/// The two places where aya looks too.
const PLACES: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// Where tracefs is mounted, for the calling thread.
pub(super) struct Tracefs(PathBuf);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Field {
    pub offset: u32,
    /// A location inside the record instead of the bytes themselves.
    pub dynamic: bool,
}

impl Tracefs {
    /// Finds it mounted, or mounts it for the calling thread alone: then that thread gets a mount
    /// namespace of its own, which ends with it and leaves the host as it was.
    pub(super) fn open() -> anyhow::Result<Self> {
        if let Some(place) = PLACES
            .iter()
            .find(|place| Path::new(place).join("events").is_dir())
        {
            return Ok(Self(PathBuf::from(place)));
        }
        let place = PLACES[0];
        mount_for_this_thread(place).with_context(|| {
            format!("mount tracefs, which this host has not mounted: run as root, or `mount -t tracefs nodev {place}`")
        })?;
        debug!(place, "mounted tracefs while the programs are attached");
        Ok(Self(PathBuf::from(place)))
    }

    /// The fields of an event, or `None` where the kernel does not have it.
    pub(super) fn fields(
        &self,
        category: &str,
        event: &str,
    ) -> anyhow::Result<Option<HashMap<String, Field>>> {
        let path = self
            .0
            .join("events")
            .join(category)
            .join(event)
            .join("format");
        match fs::read_to_string(&path) {
            Ok(text) => {
                let fields = parse_format(&text);
                if fields.is_empty() {
                    bail!("{} lists no field", path.display());
                }
                Ok(Some(fields))
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error).with_context(|| format!("read {}", path.display())),
        }
    }
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

/// `field:__data_loc char[] comm; offset:8; size:4; signed:0;`
fn parse_format(text: &str) -> HashMap<String, Field> {
    text.lines()
        .filter_map(|line| {
            let mut parts = line.trim().split(';').map(str::trim);
            let declaration = parts.next()?.strip_prefix("field:")?;
            let offset = parts.next()?.strip_prefix("offset:")?.parse().ok()?;
            let name = declaration.rsplit([' ', '*']).next()?;
            let name = name.split('[').next()?.to_owned();
            Some((
                name,
                Field {
                    offset,
                    dynamic: declaration.starts_with("__data_loc"),
                },
            ))
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_fields_in_place_and_dynamic() {
        let text = "name: sched_process_hang\nID: 1\nformat:\n\
            \tfield:unsigned short common_type;\toffset:0;\tsize:2;\tsigned:0;\n\n\
            \tfield:__data_loc char[] comm;\toffset:8;\tsize:4;\tsigned:0;\n\
            \tfield:char rwbs[10];\toffset:34;\tsize:10;\tsigned:0;\n\
            \tfield:pid_t pid;\toffset:12;\tsize:4;\tsigned:1;\n\nprint fmt: \"x\"\n";
        let fields = parse_format(text);
        assert_eq!(
            fields["comm"],
            Field {
                offset: 8,
                dynamic: true
            }
        );
        assert_eq!(
            fields["rwbs"],
            Field {
                offset: 34,
                dynamic: false
            }
        );
        assert_eq!(
            fields["pid"],
            Field {
                offset: 12,
                dynamic: false
            }
        );
    }

    #[test]
    fn an_empty_or_strange_format_has_no_field() {
        assert!(parse_format("").is_empty());
        assert!(parse_format("field:;offset:x;\nfield").is_empty());
    }
}
