//! PURE. File systems and disks.

use detector_ebpf::Kind;

use super::{Event, Reading, device_label};
use crate::reason::Reason;
use crate::signal::{LogFault, device_name};
use crate::source::bpf::fields::{Unreadable, Values};
use crate::source::bpf::hook::Hook;
use crate::source::bpf::names::Names;

/// fs/ext4/super.c. Not rate limited, as the line is.
pub(super) const EXT4_ERROR: Event = Event {
    hook: Hook::Ext4Error,
    kind: Kind::Ext4Error,
    category: "ext4",
    name: "ext4_error",
    module: Some("ext4"),
    fault: None,
    limited_by: Some("dev"),
    needs: &["dev", "line"],
    read: |values, names| {
        let device = device_label(values.device("dev")?, names);
        let message = format!(
            "ext4 error on {device}, found at line {} of its source",
            values.number("line")?
        );
        told(Reason::FilesystemError, device, message)
    },
};

/// fs/ext4/ioctl.c: somebody asked for it, or the device went away.
pub(super) const EXT4_SHUTDOWN: Event = Event {
    hook: Hook::Ext4Shutdown,
    kind: Kind::Ext4Shutdown,
    category: "ext4",
    name: "ext4_shutdown",
    module: Some("ext4"),
    fault: None,
    limited_by: Some("dev"),
    needs: &["dev"],
    read: |values, names| {
        let device = device_label(values.device("dev")?, names);
        let message = format!("ext4 on {device} was shut down: everything on it fails");
        told(Reason::JournalAborted, device, message)
    },
};

/// fs/xfs/xfs_fsops.c. It does not fire where the log itself cannot be written: that the kernel log
/// tells.
pub(super) const XFS_SHUTDOWN: Event = Event {
    hook: Hook::XfsShutdown,
    kind: Kind::XfsShutdown,
    category: "xfs",
    name: "xfs_force_shutdown",
    module: Some("xfs"),
    fault: None,
    limited_by: Some("dev"),
    needs: &["dev", "flags"],
    read: |values, names| {
        // SHUTDOWN_* of fs/xfs/xfs_mount.h.
        const WHY: [(u32, &str); 5] = [
            (1 << 5, "the device was removed"),
            (1 << 3, "its structures are damaged"),
            (1 << 1, "its log could not be written"),
            (1 << 0, "its metadata could not be written"),
            (1 << 2, "somebody asked for it"),
        ];
        let device = device_label(values.device("dev")?, names);
        let flags = values.word("flags")?;
        let why = WHY.iter().find(|(flag, _)| flags & flag != 0);
        let why = why.map_or("for an unknown reason", |(_, why)| why);
        let message = format!("XFS on {device} was shut down: {why}");
        told(Reason::XfsShutdown, device, message)
    },
};

/// mm/filemap.c. `errseq` is the value before, so that nothing in it tells faults from others: all are.
pub(super) const WRITEBACK_ERROR: Event = Event {
    hook: Hook::Writeback,
    kind: Kind::WritebackError,
    category: "filemap",
    name: "filemap_set_wb_err",
    module: None,
    fault: None,
    limited_by: Some("s_dev"),
    needs: &["i_ino", "s_dev"],
    read: |values, names| {
        let number = values.device("s_dev")?;
        let inode = values.number("i_ino")?;
        let disk = names.disk(number);
        let mounted = names
            .mount_point(number)
            .map(|point| format!(", mounted at {point}"))
            .unwrap_or_default();
        let place = device_label(number, names);
        let message =
            format!("data written to inode {inode} of {place}{mounted} did not reach the disk");
        let fault = LogFault::new(Reason::WritebackError, place, message);
        Ok(Some(LogFault {
            device: disk,
            ..fault
        }))
    },
};

/// drivers/nvme/host/core.c: runs for every command, before it is decided whether it is tried again.
pub(super) const NVME_ERROR: Event = Event {
    hook: Hook::Nvme,
    kind: Kind::NvmeError,
    category: "nvme",
    name: "nvme_complete_rq",
    module: Some("nvme_core"),
    // The field has 16 bits; the record goes on with none of its own.
    fault: Some(("status", 0x7fff)),
    limited_by: Some("ctrl_id"),
    needs: &["disk", "ctrl_id", "qid", "retries", "status"],
    read: nvme,
};

/// drivers/scsi/scsi.c.
pub(super) const SCSI_ERROR: Event = Event {
    hook: Hook::ScsiError,
    kind: Kind::ScsiError,
    category: "scsi",
    name: "scsi_dispatch_cmd_done",
    module: Some("scsi_mod"),
    fault: Some(("result", 0x00ff_00ff)),
    limited_by: Some("host_no"),
    needs: &["host_no", "channel", "id", "lun", "result"],
    read: |values, names| {
        let Some(why) = scsi_failure(values)? else {
            return Ok(None);
        };
        let (device, address) = scsi_device(values, names)?;
        let message = format!("a SCSI command of {device} ({address}) failed: {why}");
        told(Reason::ScsiError, device, message)
    },
};

/// drivers/scsi/scsi_error.c.
pub(super) const SCSI_TIMEOUT: Event = Event {
    hook: Hook::ScsiTimeout,
    kind: Kind::ScsiTimeout,
    category: "scsi",
    name: "scsi_dispatch_cmd_timeout",
    module: Some("scsi_mod"),
    fault: None,
    limited_by: Some("host_no"),
    needs: &["host_no", "channel", "id", "lun"],
    read: |values, names| {
        // Every command that fails on a SATA disk goes this way, though none timed out.
        if names.is_ata(values.word("host_no")?) {
            return Ok(None);
        }
        let (device, address) = scsi_device(values, names)?;
        let message =
            format!("a SCSI command of {device} ({address}) was not answered in its time");
        told(Reason::ScsiError, device, message)
    },
};

/// drivers/ata/libata-eh.c. Without AC_ERR_DEV alone: probing asks devices for what they do not have.
pub(super) const ATA_ERROR: Event = Event {
    hook: Hook::Ata,
    kind: Kind::AtaError,
    category: "libata",
    name: "ata_eh_link_autopsy",
    module: Some("libata"),
    fault: Some(("eh_err_mask", 0b111_1110)),
    limited_by: Some("ata_port"),
    needs: &["ata_port", "eh_err_mask"],
    read: |values, _| {
        // AC_ERR_* of include/linux/libata.h.
        const KINDS: [&str; 6] = [
            "protocol violation",
            "timeout",
            "medium error",
            "bus error",
            "host bus error",
            "system error",
        ];
        let mask = values.word("eh_err_mask")?;
        let kinds: Vec<_> = KINDS
            .iter()
            .enumerate()
            .filter(|(bit, _)| mask & (2 << bit) != 0)
            .map(|(_, kind)| *kind)
            .collect();
        let port = values.word("ata_port")?;
        let message = format!("ATA port {port}: {}", kinds.join(", "));
        told(Reason::AtaError, format!("ata{port}"), message)
    },
};

/// `place`: the name of the device, or what there is instead of one.
fn told(reason: Reason, place: String, message: String) -> Reading {
    let device = device_name(&place);
    Ok(Some(LogFault {
        device,
        ..LogFault::new(reason, place, message)
    }))
}

/// Only what is tried again: what is not ends as a failed block request.
fn nvme(values: &Values<'_>, _: &dyn Names) -> Reading {
    /// Do Not Retry; and `nvme_max_retries` as it is by default.
    const DNR: u64 = 0x4000;
    const MOST_RETRIES: u64 = 5;
    let (status, retries) = (values.number("status")?, values.number("retries")?);
    // Commands of the admin queue ask controllers for what they do not have, all the time.
    if values.number("qid")? == 0 || status & DNR != 0 || retries >= MOST_RETRIES {
        return Ok(None);
    }
    let (kind, code) = (status >> 8 & 7, status & 0xff);
    let what = match (kind, code) {
        (0, 0x04) => "data transfer error",
        (0, 0x06) => "internal error",
        (2, 0x80) => "write fault",
        (2, 0x81) => "unrecovered read error",
        (2, 0x82..=0x84) => "end-to-end protection error",
        (2, _) => "medium error",
        (3, _) => "path error",
        _ => return Ok(None),
    };
    let disk = values.text("disk")?;
    let controller = values.word("ctrl_id")?;
    let device = device_name(&disk).unwrap_or_else(|| format!("nvme{controller}"));
    let message = format!(
        "an NVMe command of {device} failed and is tried again (attempt {}): {what} (status {status:#x})",
        retries + 1
    );
    told(Reason::NvmeCommandRetried, device, message)
}

/// The host's verdict, or the sense of the device; a device that has nothing to say has not failed.
fn scsi_failure(values: &Values<'_>) -> Result<Option<&'static str>, Unreadable> {
    const CHECK_CONDITION: u32 = 2;
    let result = values.word("result")?;
    Ok(match result >> 16 & 0xff {
        // DID_* of include/scsi/scsi_status.h.
        0x01 => Some("no connection to the device"),
        0x03 => Some("timeout"),
        0x04 => Some("bad target"),
        0x06 => Some("parity error"),
        0x07 => Some("internal error"),
        0x0e => Some("transport disrupted"),
        0x0f => Some("transport failed"),
        0x00 if result & 0xff == CHECK_CONDITION => match values.number("sense_key") {
            Ok(0x3) => Some("medium error"),
            Ok(0x4) => Some("hardware error"),
            Ok(0xb) => Some("aborted command"),
            // Before 6.5 the event does not say; what fails in the end is a block error.
            Ok(_) | Err(_) => None,
        },
        _ => None,
    })
}

/// Its name, where it is a disk, and its address.
fn scsi_device(values: &Values<'_>, names: &dyn Names) -> Result<(String, String), Unreadable> {
    let mut parts = Vec::new();
    for name in ["host_no", "channel", "id", "lun"] {
        parts.push(values.word(name)?.to_string());
    }
    let address = parts.join(":");
    let device = names.scsi_disk(&address);
    Ok((device.unwrap_or_else(|| address.clone()), address))
}

#[cfg(test)]
mod tests {
    use super::super::record::{Host, read};
    use super::*;

    const DEV: &str = "field:dev_t dev;offset:8;size:4;";

    #[test]
    fn file_systems_are_named_by_their_device() {
        let format = format!("{DEV}\nfield:unsigned line;offset:24;size:4;");
        let fault = read(&EXT4_ERROR, &format, &[(8, 4, 7 << 20 | 1), (24, 4, 99)]).unwrap();
        assert_eq!(
            (fault.reason, fault.entity.as_str(), fault.device.as_deref()),
            (Reason::FilesystemError, "sda1", Some("sda1"))
        );
        let fault = read(&EXT4_SHUTDOWN, DEV, &[(8, 4, 9 << 20)]).unwrap();
        assert_eq!(
            (fault.reason, fault.entity.as_str()),
            (Reason::JournalAborted, "device 9:0")
        );
        let format = format!("{DEV}\nfield:int flags;offset:16;size:4;");
        let fault = read(&XFS_SHUTDOWN, &format, &[(8, 4, 7 << 20 | 1), (16, 4, 8)]).unwrap();
        assert_eq!(
            fault.message,
            "XFS on sda1 was shut down: its structures are damaged"
        );
    }

    #[test]
    fn a_lost_write_names_inode_and_mount_point() {
        let format =
            "field:unsigned long i_ino;offset:8;size:8;\nfield:dev_t s_dev;offset:16;size:4;";
        let fault = read(
            &WRITEBACK_ERROR,
            format,
            &[(8, 8, 12), (16, 4, 7 << 20 | 1)],
        )
        .unwrap();
        assert_eq!(
            fault.message,
            "data written to inode 12 of sda1, mounted at /data did not reach the disk"
        );
        let fault = read(&WRITEBACK_ERROR, format, &[(8, 8, 12), (16, 4, 40)]).unwrap();
        assert_eq!((fault.entity.as_str(), fault.device), ("device 0:40", None));
    }

    /// Layout of 5.10 to 7.2.
    const NVME: &str = "field:char disk[32];offset:8;size:32;\nfield:int ctrl_id;offset:40;size:4;\n\
        field:int qid;offset:44;size:4;\nfield:u8 retries;offset:64;size:1;\nfield:u16 status;offset:66;size:2;";

    fn nvme(qid: u64, retries: u64, status: u64) -> Option<LogFault> {
        let name = u64::from_ne_bytes(*b"nvme0n1\0");
        let values = [
            (8, 8, name),
            (44, 4, qid),
            (64, 1, retries),
            (66, 2, status),
        ];
        read(&NVME_ERROR, NVME, &values)
    }

    #[test]
    fn an_nvme_command_counts_while_it_is_tried_again() {
        let fault = nvme(3, 1, 0x281).unwrap();
        assert_eq!(
            (fault.reason, fault.entity.as_str()),
            (Reason::NvmeCommandRetried, "nvme0n1")
        );
        assert!(fault.message.contains("attempt 2"), "{}", fault.message);
        for (qid, retries, status) in [
            (0, 0, 0x281),
            (3, 5, 0x281),
            (3, 0, 0x4281),
            (3, 0, 0x002),
            (3, 0, 0x180),
        ] {
            assert_eq!(
                nvme(qid, retries, status),
                None,
                "{qid} {retries} {status:#x}"
            );
        }
    }

    const SCSI: &str = "field:unsigned int host_no;offset:8;size:4;\nfield:unsigned int channel;offset:12;size:4;\n\
        field:unsigned int id;offset:16;size:4;\nfield:unsigned int lun;offset:20;size:4;\nfield:int result;offset:24;size:4;\n\
        field:u8 sense_key;offset:28;size:1;";

    #[test]
    fn a_scsi_command_has_failed_by_host_or_sense() {
        let of = |result, sense| {
            read(
                &SCSI_ERROR,
                SCSI,
                &[(8, 4, 2), (24, 4, result), (28, 1, sense)],
            )
        };
        let fault = of(2, 3).unwrap();
        assert_eq!(
            (fault.reason, fault.entity.as_str()),
            (Reason::ScsiError, "sdb")
        );
        assert!(of(0x3_0000, 0).is_some());
        // Unit attention, illegal request, a queue that is full.
        for (result, sense) in [(2, 6), (2, 5), (0x28, 0)] {
            assert_eq!(of(result, sense), None, "{result:#x} {sense}");
        }
        // Before 6.5 there is no sense in it.
        let old = SCSI.replace("sense_key", "driver_tag");
        assert_eq!(read(&SCSI_ERROR, &old, &[(24, 4, 2), (28, 1, 3)]), None);
    }

    #[test]
    fn on_sata_nothing_has_timed_out() {
        assert!(read(&SCSI_TIMEOUT, SCSI, &[(8, 4, 2)]).is_some());
        assert_eq!(
            read(&SCSI_TIMEOUT, SCSI, &[(8, 4, u64::from(Host::ATA))]),
            None
        );
    }

    #[test]
    fn an_ata_error_names_its_port_and_kinds() {
        let format = "field:unsigned int ata_port;offset:8;size:4;\nfield:unsigned int eh_err_mask;offset:20;size:4;";
        let fault = read(&ATA_ERROR, format, &[(8, 4, 3), (20, 4, 0b1100)]).unwrap();
        assert_eq!(
            (fault.entity.as_str(), fault.message.as_str()),
            ("ata3", "ATA port 3: timeout, medium error")
        );
    }
}
