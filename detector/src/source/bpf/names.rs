//! What numbers in a record are called on this host.

use std::fs;
use std::path::{Path, PathBuf};

use crate::{mounts, signal};

pub(super) trait Names {
    /// `sda1`; absent once the device is gone.
    fn disk(&self, device: (u32, u32)) -> Option<String>;
    /// What lies on top of a disk, from the bottom up: `md0`, `dm-0 (vg-data)`.
    fn above(&self, disk: &str) -> Vec<String>;
    /// Where the file system is mounted whose files have this device number.
    fn mount_point(&self, device: (u32, u32)) -> Option<String>;
    /// The disk at `host:channel:id:lun`.
    fn scsi_disk(&self, address: &str) -> Option<String>;
    /// Whether libata poses as this SCSI host.
    fn is_ata(&self, host: u32) -> bool;
}

pub(super) struct HostNames {
    pub host_proc: PathBuf,
    pub host_sys: PathBuf,
}

impl HostNames {
    /// Device mapper numbers its devices; people know them by their names.
    fn with_alias(&self, device: String) -> String {
        let path = self
            .host_sys
            .join("class/block")
            .join(&device)
            .join("dm/name");
        match fs::read(path) {
            Ok(name) => {
                let name = crate::text::part(name.trim_ascii(), 60);
                format!("{device} ({name})")
            }
            Err(_) => device,
        }
    }

    fn last_part(&self, link: &str) -> Option<String> {
        let link = fs::read_link(self.host_sys.join(link)).ok()?;
        signal::device_name(link.file_name()?.to_str()?)
    }
}

/// A disk carries few others; more are a strange host, or none at all.
const MOST_ABOVE: usize = 8;

impl Names for HostNames {
    fn above(&self, disk: &str) -> Vec<String> {
        let mut found: Vec<String> = Vec::new();
        let mut names = vec![disk.to_owned()];
        while let Some(name) = names.pop() {
            let block = self.host_sys.join("class/block").join(&name);
            // What uses the disk as a whole, and what uses its partitions.
            let partitions = list(&block).filter(|part| part.starts_with(&name));
            let holders = list(&block.join("holders"))
                .chain(partitions.flat_map(|part| list(&block.join(part).join("holders"))));
            for holder in holders {
                if found.len() == MOST_ABOVE {
                    return found;
                }
                if !found.contains(&holder) {
                    names.push(holder.clone());
                    found.push(holder);
                }
            }
        }
        found
            .into_iter()
            .map(|name| self.with_alias(name))
            .collect()
    }

    fn disk(&self, (major, minor): (u32, u32)) -> Option<String> {
        self.last_part(&format!("dev/block/{major}:{minor}"))
    }

    fn mount_point(&self, device: (u32, u32)) -> Option<String> {
        let mounts = fs::read_to_string(self.host_proc.join("1/mountinfo")).ok()?;
        let point = mounts::mount_point(&mounts, device)?;
        Some(crate::text::printable(
            point.as_os_str().as_encoded_bytes(),
            120,
        ))
    }

    fn scsi_disk(&self, address: &str) -> Option<String> {
        let folder = self
            .host_sys
            .join("bus/scsi/devices")
            .join(address)
            .join("block");
        let disk = fs::read_dir(folder).ok()?.flatten().next()?;
        signal::device_name(disk.file_name().to_str()?)
    }

    fn is_ata(&self, host: u32) -> bool {
        // `../../devices/pci0000:00/0000:00:1f.2/ata1/host0/scsi_host/host0`
        let link = self.host_sys.join(format!("class/scsi_host/host{host}"));
        fs::read_link(link)
            .is_ok_and(|target| target.components().any(|part| is_ata_port(part.as_ref())))
    }
}

/// Names of block devices in a folder; none where there is no such folder.
fn list(folder: &Path) -> impl Iterator<Item = String> + use<> {
    let entries = fs::read_dir(folder).into_iter().flatten().flatten();
    entries.filter_map(|entry| signal::device_name(entry.file_name().to_str()?))
}

fn is_ata_port(part: &Path) -> bool {
    part.to_str()
        .and_then(|name| name.strip_prefix("ata"))
        .is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_lies_on_a_disk_and_its_partitions_is_found_to_the_top() {
        let sys = tempfile::tempdir().unwrap();
        let block = sys.path().join("class/block");
        for path in [
            "sda/sda1/holders/md0",
            "sda/sda2/holders/dm-1",
            "sda/holders",
            "sda/queue",
            "md0/holders/dm-0",
            "dm-0/dm",
            // A circle, as no kernel makes one.
            "dm-0/holders/md0",
        ] {
            fs::create_dir_all(block.join(path)).unwrap();
        }
        fs::write(block.join("dm-0/dm/name"), "vg-data\n").unwrap();
        let names = HostNames {
            host_proc: PathBuf::from("/proc"),
            host_sys: sys.path().to_owned(),
        };
        let mut above = names.above("sda");
        above.sort();
        assert_eq!(above, ["dm-0 (vg-data)", "dm-1", "md0"]);
        assert!(names.above("sdb").is_empty());
    }
}
