//! PURE. What mountinfo (proc(5)) says about a device: where it is mounted, whether it can be
//! written, and whether a path that the node cannot do without lies on it.

use std::path::{Path, PathBuf};

#[derive(Debug, PartialEq, Eq)]
struct Mount {
    device: (u32, u32),
    point: PathBuf,
    super_options: String,
}

/// What is known about a device without touching it.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum Situation {
    NotMounted,
    ReadOnly {
        mount_point: PathBuf,
        critical: Option<String>,
    },
    /// The options say that it can be written. Linux 5.15 to 6.12 say so even when ext4 is in its
    /// emergency read-only state: only a write tells.
    SaysWritable {
        mount_point: PathBuf,
        critical: Option<String>,
    },
}

pub(crate) fn situation(
    mountinfo: &str,
    device: (u32, u32),
    critical_paths: &[String],
) -> Situation {
    let mounts: Vec<_> = mountinfo.lines().filter_map(parse).collect();
    let Some(first) = mounts.iter().find(|mount| mount.device == device) else {
        return Situation::NotMounted;
    };
    let critical = critical_paths
        .iter()
        .find(|path| carrier(&mounts, Path::new(path)).is_some_and(|mount| mount.device == device))
        .cloned();
    let mount_point = critical
        .as_ref()
        .and_then(|path| carrier(&mounts, Path::new(path)))
        .map_or_else(|| first.point.clone(), |mount| mount.point.clone());
    // The options of the file system, not of the mount: a read-only bind mount is no fault.
    // `emergency_ro` since 6.18.
    let read_only = first
        .super_options
        .split(',')
        .any(|option| option == "ro" || option == "emergency_ro");
    if read_only {
        Situation::ReadOnly {
            mount_point,
            critical,
        }
    } else {
        Situation::SaysWritable {
            mount_point,
            critical,
        }
    }
}

/// Where a device is mounted first.
pub(crate) fn mount_point(mountinfo: &str, device: (u32, u32)) -> Option<PathBuf> {
    let mount = mountinfo.lines().filter_map(parse);
    mount
        .filter(|mount| mount.device == device)
        .map(|mount| mount.point)
        .next()
}

/// The mount that a path lies on: the longest prefix; of several at one point the last covers the others.
fn carrier<'a>(mounts: &'a [Mount], path: &Path) -> Option<&'a Mount> {
    mounts
        .iter()
        .filter(|mount| path.starts_with(&mount.point))
        .max_by_key(|mount| mount.point.components().count())
}

/// `36 35 98:0 /root /point rw,noatime master:1 - ext4 /dev/root rw,errors=continue`
fn parse(line: &str) -> Option<Mount> {
    let (before, after) = line.split_once(" - ")?;
    let mut fields = before.split(' ').skip(2);
    let (major, minor) = fields.next()?.split_once(':')?;
    let point = fields.nth(1)?;
    let super_options = after.split(' ').nth(2)?.to_owned();
    Some(Mount {
        device: (major.parse().ok()?, minor.parse().ok()?),
        point: PathBuf::from(unescape(point)),
        super_options,
    })
}

/// Space, tab, newline and backslash appear as three octal digits.
fn unescape(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once('\\') {
        out.push_str(before);
        match after
            .get(..3)
            .and_then(|digits| u8::from_str_radix(digits, 8).ok())
        {
            Some(byte) => {
                out.push(char::from(byte));
                rest = &after[3..];
            }
            None => {
                out.push('\\');
                rest = after;
            }
        }
    }
    out.push_str(rest);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    const MOUNTINFO: &str = "\
21 1 8:1 / / rw,relatime shared:1 - ext4 /dev/sda1 rw
30 21 0:25 / /proc rw - proc proc rw
40 21 8:17 / /var/lib/kubelet rw,relatime - ext4 /dev/sdb1 rw,emergency_ro,errors=remount-ro
41 21 7:0 / /mnt/my\\040disk ro,relatime - ext4 /dev/loop0 ro
42 21 8:1 /srv /srv ro,relatime - ext4 /dev/sda1 rw";

    fn paths(paths: &[&str]) -> Vec<String> {
        paths.iter().map(|&path| path.to_owned()).collect()
    }

    #[test]
    fn emergency_read_only_under_a_critical_path() {
        assert_eq!(
            situation(MOUNTINFO, (8, 17), &paths(&["/", "/var/lib/kubelet/pods"])),
            Situation::ReadOnly {
                mount_point: PathBuf::from("/var/lib/kubelet"),
                critical: Some("/var/lib/kubelet/pods".to_owned())
            }
        );
    }

    #[test]
    fn a_read_only_disk_that_nothing_needs_is_not_critical() {
        assert_eq!(
            situation(MOUNTINFO, (7, 0), &paths(&["/", "/var/lib/kubelet"])),
            Situation::ReadOnly {
                mount_point: PathBuf::from("/mnt/my disk"),
                critical: None
            }
        );
    }

    #[test]
    fn a_read_only_bind_mount_is_no_fault() {
        assert_eq!(
            situation(MOUNTINFO, (8, 1), &paths(&["/"])),
            Situation::SaysWritable {
                mount_point: PathBuf::from("/"),
                critical: Some("/".to_owned())
            }
        );
    }

    #[test]
    fn a_device_without_a_mount_is_gone() {
        assert_eq!(
            situation(MOUNTINFO, (9, 9), &paths(&["/"])),
            Situation::NotMounted
        );
        assert_eq!(
            situation("damaged - \nx", (8, 1), &paths(&["/"])),
            Situation::NotMounted
        );
    }
}
