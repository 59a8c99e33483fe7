//! PURE. SCSI disks: `sd 2:0:0:0: [sda] ...` (drivers/scsi/scsi_logging.c, scsi_lib.c,
//! scsi_error.c).

use super::fault::{digits, on, on_device, word};
use super::{Record, What, at_level, device_name};
use crate::reason::Reason;

pub(super) fn read(record: &Record<'_>) -> Option<What> {
    let (address, text) = record.text.strip_prefix("sd ")?.split_once(": ")?;
    let mut parts = address.split(':');
    let address_fits = parts.by_ref().take(4).filter(|part| digits(part)).count() == 4;
    if !address_fits || parts.next().is_some() || address.len() > 32 {
        return None;
    }
    offline(record, address, text)
        .or_else(|| command(record, text))
        .or_else(|| waited(record, address, text))
}

/// `Device offlined - not ready after error recovery`, KERN_INFO, then for each request `rejecting
/// I/O to offline device`, KERN_ERR. They name no disk.
fn offline(record: &Record<'_>, address: &str, text: &str) -> Option<What> {
    let given_up =
        at_level(record, 6).is_some() && text == "Device offlined - not ready after error recovery";
    let rejected = at_level(record, 3).is_some() && text == "rejecting I/O to offline device";
    let message = format!("SCSI device {address}: {text}");
    (given_up || rejected).then(|| on(Reason::ScsiDeviceOffline, address.to_owned(), &message))
}

fn command(record: &Record<'_>, text: &str) -> Option<What> {
    let (name, text) = text.strip_prefix('[')?.split_once("] ")?;
    let device = device_name(name)?;
    let (tag, text) = text.strip_prefix("tag#")?.split_once(' ')?;
    digits(tag).then_some(())?;
    let failed = at_level(record, 6).is_some() && failure(text).is_some();
    let message = format!("a SCSI command of {device} failed: {text}");
    (failed || is_wait(record, text)).then(|| on_device(Reason::ScsiError, device, &message))
}

/// Long ago without the disk's name.
fn waited(record: &Record<'_>, address: &str, text: &str) -> Option<What> {
    let message = format!("a SCSI command of {address} failed: {text}");
    is_wait(record, text).then(|| on(Reason::ScsiError, address.to_owned(), &message))
}

/// `timing out command, waited 180s`, KERN_ERR.
fn is_wait(record: &Record<'_>, text: &str) -> bool {
    at_level(record, 3).is_some()
        && text
            .strip_prefix("timing out command, waited ")
            .and_then(|rest| rest.strip_suffix('s'))
            .is_some_and(digits)
}

/// `FAILED Result: hostbyte=DID_OK driverbyte=DRIVER_SENSE cmd_age=0s`, KERN_INFO, without the age
/// before 5.4; `UNKNOWN(0x2003) Result: hostbyte=0x00 driverbyte=0x08` without names. What is tried
/// again is no `FAILED`.
fn failure(text: &str) -> Option<()> {
    let (disposition, rest) = text.split_once(" Result: hostbyte=")?;
    let known = disposition == "FAILED" || disposition == "UNKNOWN(0x2003)";
    let mut words = rest.split(' ');
    let host = words.next().is_some_and(word);
    let driver = words.next()?.strip_prefix("driverbyte=").is_some_and(word);
    let age = words.next().is_none_or(|age| {
        age.strip_prefix("cmd_age=")
            .and_then(|age| age.strip_suffix('s'))
            .is_some_and(digits)
    });
    (known && host && driver && age && words.next().is_none()).then_some(())
}

#[cfg(test)]
mod tests {
    use super::super::check::{forged_by_names, nothing, reads};
    use super::*;

    #[test]
    fn a_failed_command_names_its_disk() {
        for (level, text) in [
            (
                6,
                "sd 2:0:0:0: [sda] tag#23 FAILED Result: hostbyte=DID_OK driverbyte=DRIVER_SENSE",
            ),
            (
                6,
                "sd 2:0:0:0: [sda] tag#23 FAILED Result: hostbyte=DID_TIME_OUT driverbyte=DRIVER_OK cmd_age=30s",
            ),
            (
                6,
                "sd 2:0:0:0: [sda] tag#23 UNKNOWN(0x2003) Result: hostbyte=0x00 driverbyte=0x08",
            ),
            (
                3,
                "sd 2:0:0:0: [sda] tag#12 timing out command, waited 180s",
            ),
        ] {
            let fault = reads(level, read, text);
            assert_eq!(
                (fault.reason, fault.entity.as_str()),
                (Reason::ScsiError, "sda"),
                "{text}"
            );
        }
    }

    #[test]
    fn a_command_without_a_disks_name_is_of_its_address() {
        let fault = reads(3, read, "sd 0:0:9:0: timing out command, waited 20s");
        assert_eq!(
            (fault.reason, fault.entity.as_str()),
            (Reason::ScsiError, "0:0:9:0")
        );
    }

    #[test]
    fn a_device_that_was_given_up_is_offline() {
        for (level, text) in [
            (
                6,
                "sd 2:0:0:0: Device offlined - not ready after error recovery",
            ),
            (3, "sd 2:0:0:0: rejecting I/O to offline device"),
        ] {
            let fault = reads(level, read, text);
            assert_eq!(
                (fault.reason, fault.entity.as_str()),
                (Reason::ScsiDeviceOffline, "2:0:0:0")
            );
        }
    }

    #[test]
    fn what_is_no_fault_or_not_whole_does_not_count() {
        for text in [
            "sd 2:0:0:0: Power-on or device reset occurred",
            "sd 2:0:0:0: [sda] Attached SCSI disk",
            "sd 2:0:0:0: [sda] tag#23 Sense Key : Medium Error [current] ",
            "sd 2:0:0:0: [sda] tag#23 NEEDS_RETRY Result: hostbyte=DID_OK driverbyte=DRIVER_OK",
            "sd 2:0:0:0: [sda] tag#23 FAILED Result: hostbyte=DID_OK driverbyte=DRIVER_OK IN=eth0 OUT=",
            "sd 2:0:0:0:1: [sda] tag#23 FAILED Result: hostbyte=DID_OK driverbyte=DRIVER_OK",
            "sd 2:0:0:x: [sda] tag#23 FAILED Result: hostbyte=DID_OK driverbyte=DRIVER_OK",
            "x sd 2:0:0:0: [sda] tag#23 FAILED Result: hostbyte=DID_OK driverbyte=DRIVER_OK",
        ] {
            nothing(6, read, text);
        }
        nothing(4, read, "sd 2:0:0:0: rejecting I/O to offline device");
        forged_by_names(
            read,
            &[
                "sd 2:0:0:0: [sd",
                "sd 2:0:0:0: rejecting I/O to offline device",
                "sd 2:0:0:0: [sda] tag#2 FAILED Result: hostbyte=DID_OK driverbyte=DRIVER_OK cmd_age=0s",
            ],
        );
    }
}
