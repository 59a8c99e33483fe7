//! What numbers in a record are called on this host.

use std::fs;
use std::path::{Path, PathBuf};

use crate::{mounts, signal};

pub(super) trait Names {
    /// `sda1`; absent once the device is gone.
    fn disk(&self, device: (u32, u32)) -> Option<String>;
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
    fn last_part(&self, link: &str) -> Option<String> {
        let link = fs::read_link(self.host_sys.join(link)).ok()?;
        signal::device_name(link.file_name()?.to_str()?)
    }
}

impl Names for HostNames {
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

fn is_ata_port(part: &Path) -> bool {
    part.to_str()
        .and_then(|name| name.strip_prefix("ata"))
        .is_some_and(|number| !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
}
