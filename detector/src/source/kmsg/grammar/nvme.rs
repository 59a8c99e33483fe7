//! PURE. NVMe: `nvme nvme0: ...`, KERN_WARNING unless said otherwise (drivers/nvme/host).
//!
//! Errors of single commands (`nvme0n1: Read(0x2) @ LBA ...`) are not here: those that are not
//! tried again end as a failed block request.

use super::fault::{digits, errno, hex, on_device};
use super::{Record, What, at_level, device_name};
use crate::reason::Reason;

pub(super) fn read(record: &Record<'_>) -> Option<What> {
    path_lost(record).or_else(|| controller(record))
}

/// `block nvme0n1: no available path - failing I/O` (multipath.c).
fn path_lost(record: &Record<'_>) -> Option<What> {
    let name = at_level(record, 4)?
        .strip_prefix("block ")?
        .strip_suffix(": no available path - failing I/O")?;
    let device = device_name(name).filter(|name| name.starts_with("nvme"))?;
    let message = format!("{device} has no path left: its I/O fails");
    Some(on_device(Reason::NvmeControllerFailed, device, &message))
}

fn controller(record: &Record<'_>) -> Option<What> {
    let (name, text) = record.text.strip_prefix("nvme ")?.split_once(": ")?;
    let number = name.strip_prefix("nvme")?;
    let device = device_name(name).filter(|_| digits(number))?;
    let reason = if at_level(record, 4).is_some() && timeout(text).is_some() {
        Reason::NvmeTimeout
    } else if at_level(record, 4).is_some() && is_failure(text)
        || at_level(record, 3).is_some() && is_dead(text)
    {
        Reason::NvmeControllerFailed
    } else {
        return None;
    };
    let message = format!("NVMe controller {device}: {text}");
    Some(on_device(reason, device, &message))
}

/// `I/O tag 22 (2016) opcode 0x2 (Admin Cmd) QID 0 timeout, reset controller` since 6.6,
/// `I/O 22 (Read) QID 5 timeout, aborting` or `I/O 22 QID 5 timeout, aborting` before; over a
/// network `I/O tag 22 (2016) type 4 opcode 0x2 (Read) QID 1 timeout`.
fn timeout(text: &str) -> Option<()> {
    let (command, rest) = text.strip_prefix("I/O ")?.split_once(" QID ")?;
    let command = command.strip_prefix("tag ").unwrap_or(command);
    digits(command.split(' ').next()?).then_some(())?;
    let (queue, action) = rest.split_once(" timeout")?;
    let known = match action.strip_prefix(", aborting req_op:") {
        // `WRITE(1) size:4096`
        Some(request) => request
            .split_once("size:")
            .is_some_and(|(_, size)| digits(size)),
        None => matches!(
            action,
            "" | ", aborting"
                | ", reset controller"
                | ", disable controller"
                | ", completion polled"
        ),
    };
    (digits(queue) && known).then_some(())
}

fn is_failure(text: &str) -> bool {
    if text == "frozen state error detected, reset controller" {
        return true;
    }
    // `controller is down; will reset: CSTS=0xffffffff, PCI_STATUS=0x10`, or ` PCI_STATUS read
    // failed (134)`.
    if let Some(rest) = text.strip_prefix("controller is down; will reset: CSTS=") {
        return rest.split_once(", PCI_STATUS").is_some_and(|(csts, rest)| {
            let status = rest.strip_prefix('=').is_some_and(hex);
            let no_status = rest
                .strip_prefix(" read failed (")
                .and_then(|rest| rest.strip_suffix(')'));
            hex(csts) && (status || no_status.is_some_and(errno))
        });
    }
    [
        "Disabling device after reset failure: ",
        "Removing after probe failure status: ",
    ]
    .iter()
    .any(|begin| text.strip_prefix(begin).is_some_and(errno))
}

/// KERN_ERR.
fn is_dead(text: &str) -> bool {
    ["reset", "initialisation", "shutdown"].iter().any(|what| {
        let begin = format!("Device not ready; aborting {what}");
        text.strip_prefix(&begin)
            .is_some_and(|rest| rest.is_empty() || rest.strip_prefix(", CSTS=").is_some_and(hex))
    })
}

#[cfg(test)]
mod tests {
    use super::super::check::{forged_by_names, nothing, reads};
    use super::*;

    #[test]
    fn every_wording_of_a_timeout_names_its_controller() {
        for text in [
            "nvme nvme4: I/O tag 22 (2016) opcode 0x2 (Admin Cmd) QID 0 timeout, reset controller",
            "nvme nvme4: I/O tag 0 (1000) opcode 0x1 (Write) QID 3 timeout, aborting req_op:WRITE(1) size:131072",
            "nvme nvme4: I/O tag 5 (a005) type 4 opcode 0x2 (Read) QID 1 timeout",
            "nvme nvme4: I/O 22 QID 5 timeout, aborting",
            "nvme nvme4: I/O 22 (I/O Cmd) QID 5 timeout, aborting",
            "nvme nvme4: I/O 22 QID 0 timeout, disable controller",
            "nvme nvme4: I/O 22 QID 5 timeout, completion polled",
        ] {
            let fault = reads(4, read, text);
            assert_eq!(
                (fault.reason, fault.entity.as_str()),
                (Reason::NvmeTimeout, "nvme4"),
                "{text}"
            );
        }
    }

    #[test]
    fn a_controller_that_is_down_or_given_up_has_failed() {
        for (level, text) in [
            (
                4,
                "nvme nvme0: controller is down; will reset: CSTS=0xffffffff, PCI_STATUS=0x10",
            ),
            (
                4,
                "nvme nvme0: controller is down; will reset: CSTS=0xffffffff, PCI_STATUS read failed (134)",
            ),
            (4, "nvme nvme0: Disabling device after reset failure: -19"),
            (4, "nvme nvme0: Removing after probe failure status: -5"),
            (3, "nvme nvme0: Device not ready; aborting reset, CSTS=0x1"),
            (4, "block nvme2n1: no available path - failing I/O"),
        ] {
            assert_eq!(
                reads(level, read, text).reason,
                Reason::NvmeControllerFailed,
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_fault_or_not_whole_does_not_count() {
        for text in [
            "nvme nvme0: pci function 0000:01:00.0",
            "nvme nvme0: Disabling device",
            "block nvme0n1: no available path",
            "nvme nvme0: Shutdown timeout set to 10 seconds",
            "nvme nvme0: 8/0/0 default/read/poll queues",
            "nvme nvme0: I/O 22 QID 5 timeout, abortingIN=eth0 OUT=",
            "nvme nvme0: I/O x QID 5 timeout, aborting",
            "nvme nvme0x: I/O 22 QID 5 timeout, aborting",
            "x nvme nvme0: I/O 22 QID 5 timeout, aborting",
        ] {
            nothing(4, read, text);
        }
        nothing(6, read, "nvme nvme0: I/O 22 QID 5 timeout, aborting");
        forged_by_names(
            read,
            &[
                "nvme nvme0: I/O",
                "nvme nvme0: I/O 22 QID 5 timeout, aborting",
                "nvme nvme0: Disabling device after reset failure: -19",
                "block nvme2n1: no available path - failing I/O",
            ],
        );
    }
}
