//! PURE. Failed block requests. The tracepoint tells of the same ones, and of those that the kernel's
//! rate limit keeps out of the log: the core counts each once.

use super::fault::{digits, hex, on, on_device, shown, word};
use super::{Record, What, at_level, device_name};
use crate::reason::Reason;

pub(super) fn read(record: &Record<'_>) -> Option<What> {
    request(record)
        .or_else(|| buffer(record))
        .or_else(|| beyond_end(record))
}

/// `I/O error, dev sda, sector 8 op 0x0:(READ) flags 0x0 phys_seg 1 prio class 2`, KERN_ERR
/// (block/blk-mq.c); before 5.16 with the function's name in front (`blk_update_request: `), long
/// ago without what follows the sector.
fn request(record: &Record<'_>) -> Option<What> {
    const FUNCTIONS: [&str; 3] = ["blk_update_request: ", "print_req_error: ", "end_request: "];
    // Not those that are tried again, nor requests that a device merely does not support.
    const CLASSES: [&str; 12] = [
        "I/O",
        "timeout",
        "critical medium",
        "critical target",
        "critical nexus",
        "critical space allocation",
        "reservation conflict",
        "recoverable transport",
        "protection",
        "device offline",
        "duration limit exceeded",
        "invalid",
    ];
    let text = at_level(record, 3)?;
    let text = FUNCTIONS
        .iter()
        .find_map(|function| text.strip_prefix(function))
        .unwrap_or(text);
    let (class, rest) = text.split_once(" error, dev ")?;
    let (name, rest) = rest.split_once(", sector ")?;
    let (sector, operation) = rest.split_once(' ').unwrap_or((rest, ""));
    let fits = CLASSES.contains(&class)
        && digits(sector)
        && (operation.is_empty() || is_operation(operation).is_some());
    let disk = device_name(name).filter(|_| fits)?;
    Some(What::BlockLine {
        line: shown(&format!("{disk}: {text}")),
        disk,
        buffer: false,
    })
}

/// `op 0x0:(READ) flags 0x0 phys_seg 1 prio class 2`, `op 0x1:(WRITE) flags 0x800`, `flags 801`.
fn is_operation(text: &str) -> Option<()> {
    let mut words = text.split(' ');
    while let Some(name) = words.next() {
        let value = words.next()?;
        let fits = match name {
            "op" => {
                let (number, name) = value.split_once(":(")?;
                hex(number) && word(name) && name.ends_with(')')
            }
            "flags" => hex(value),
            "phys_seg" => digits(value),
            "prio" => value == "class" && digits(words.next()?),
            _ => false,
        };
        fits.then_some(())?;
    }
    Some(())
}

/// `Buffer I/O error on dev dm-0, logical block 0, lost async page write`, KERN_ERR (fs/buffer.c);
/// `on device` long ago. One failed request makes many of them.
fn buffer(record: &Record<'_>) -> Option<What> {
    let text = at_level(record, 3)?;
    let rest = text.strip_prefix("Buffer I/O error on dev")?;
    let (name, rest) = rest
        .strip_prefix(' ')
        .or_else(|| rest.strip_prefix("ice "))?
        .split_once(", logical block ")?;
    let (block, what) = rest.split_once(',').unwrap_or((rest, ""));
    let known = matches!(
        what,
        "" | " async page read"
            | " lost async page write"
            | " lost sync page write"
            | " lost sync page read"
    );
    let device = device_name(name).filter(|_| known && digits(block))?;
    Some(What::BlockLine {
        line: shown(&format!("{device}: {text}")),
        disk: disk_of(&device).to_owned(),
        buffer: true,
    })
}

/// `comm: attempt to access beyond end of device`, KERN_INFO (block/blk-core.c), in one record with
/// `sda1: rw=0, sector=100, nr_sectors = 8 limit=64`, whose break the kernel escapes; a saved log has
/// only the first line of it. No tracepoint tells of it: the request is not even made.
fn beyond_end(record: &Record<'_>) -> Option<What> {
    const WHAT: &str = "attempt to access beyond end of device";
    let reason = Reason::AccessBeyondEndOfDevice;
    let text = at_level(record, 6)?;
    let (first, second) = match text.split_once("\\x0a") {
        Some((first, second)) => (first, Some(second)),
        None => (text, None),
    };
    let comm = first.strip_suffix(WHAT)?;
    // `TASK_COMM_LEN` is 16, worker threads have up to 64.
    let begins = comm.is_empty() || (comm.len() <= 66 && comm.ends_with(": "));
    begins.then_some(())?;
    let Some(second) = second else {
        let message = "a request beyond the end of a device was refused";
        return Some(on(reason, "block device".to_owned(), message));
    };
    let (name, rest) = second.split_once(": rw=")?;
    let fits = rest
        .split([',', ' '])
        .filter(|word| !word.is_empty() && *word != "=" && *word != "nr_sectors")
        .all(|word| digits(word.rsplit('=').next().unwrap_or(word)));
    let device = device_name(name).filter(|_| fits)?;
    let message = format!("a request beyond the end of {device} was refused: rw={rest}");
    Some(on_device(reason, device, &message))
}

/// The whole disk, which the tracepoint names: `nvme0n1` of `nvme0n1p1`, `sda` of `sda1`.
fn disk_of(device: &str) -> &str {
    if let Some((disk, part)) = device.rsplit_once('p')
        && digits(part)
        && disk.ends_with(|c: char| c.is_ascii_digit())
    {
        return disk;
    }
    let disk = device.trim_end_matches(|c: char| c.is_ascii_digit());
    let lettered = ["sd", "vd", "xvd", "hd"].iter().any(|kind| {
        disk.strip_prefix(kind).is_some_and(|letters| {
            !letters.is_empty() && letters.bytes().all(|b| b.is_ascii_lowercase())
        })
    });
    if lettered { disk } else { device }
}

#[cfg(test)]
mod tests {
    use super::super::check::{forged_by_names, nothing, reads};
    use super::*;

    fn disk(text: &str) -> Option<(String, bool)> {
        let raw = format!("3,1,2,-;{text}");
        let record = super::super::super::record::parse(raw.as_bytes()).unwrap();
        match super::super::read(&record)? {
            What::BlockLine { disk, buffer, .. } => Some((disk, buffer)),
            other => panic!("{other:?}"),
        }
    }

    #[test]
    fn every_wording_of_a_failed_request_names_its_disk() {
        for (text, name) in [
            (
                "I/O error, dev nvme1n1, sector 1234567 op 0x0:(READ) flags 0x0 phys_seg 1 prio class 2",
                "nvme1n1",
            ),
            (
                "blk_update_request: I/O error, dev nvme2n1, sector 6442712256 op 0x1:(WRITE) flags 0x1000 phys_seg 8 prio class 0",
                "nvme2n1",
            ),
            (
                "blk_update_request: I/O error, dev dm-0, sector 7654321",
                "dm-0",
            ),
            ("end_request: I/O error, dev sde, sector 52428288", "sde"),
            (
                "print_req_error: I/O error, dev sda, sector 8 flags 801",
                "sda",
            ),
            (
                "critical medium error, dev nvme1n1, sector 1234 op 0x0:(READ) flags 0x0 phys_seg 1 prio class 2",
                "nvme1n1",
            ),
            (
                "critical space allocation error, dev loop0, sector 8192 op 0x1:(WRITE) flags 0x800 phys_seg 2 prio class 2",
                "loop0",
            ),
        ] {
            assert_eq!(disk(text), Some((name.to_owned(), false)), "{text}");
        }
    }

    #[test]
    fn a_buffer_is_of_the_disk_that_its_partition_lies_on() {
        for (text, name) in [
            (
                "Buffer I/O error on dev nvme0n1p1, logical block 789012, lost sync page read",
                "nvme0n1",
            ),
            (
                "Buffer I/O error on dev dm-0, logical block 0, lost sync page write",
                "dm-0",
            ),
            (
                "Buffer I/O error on dev sda12, logical block 1, async page read",
                "sda",
            ),
            (
                "Buffer I/O error on device md0, logical block 209713024",
                "md0",
            ),
            (
                "Buffer I/O error on dev loop3, logical block 1, lost async page write",
                "loop3",
            ),
        ] {
            assert_eq!(disk(text), Some((name.to_owned(), true)), "{text}");
        }
    }

    #[test]
    fn a_request_beyond_the_end_names_the_device_where_the_record_is_whole() {
        for (text, entity) in [
            (
                r"kworker/u203:1: attempt to access beyond end of device\x0anvme0n1: rw=2049, sector=100, nr_sectors = 8 limit=64",
                "nvme0n1",
            ),
            (
                r"mount: attempt to access beyond end of device\x0aloop0: rw=0, want=100, limit=64",
                "loop0",
            ),
            (
                "kworker/u203:1: attempt to access beyond end of device",
                "block device",
            ),
            ("attempt to access beyond end of device", "block device"),
        ] {
            let fault = reads(6, read, text);
            assert_eq!(
                (fault.reason, fault.entity.as_str()),
                (Reason::AccessBeyondEndOfDevice, entity),
                "{text}"
            );
        }
        for text in [
            "x attempt to access beyond end of device",
            r"x: attempt to access beyond end of device\x0a../x: rw=0, want=100, limit=64",
            r"x: attempt to access beyond end of device\x0asda: rw=0, IN=eth0 OUT=",
        ] {
            nothing(6, read, text);
        }
        nothing(4, read, "x: attempt to access beyond end of device");
        forged_by_names(read, &["x: attempt to access beyond end of device"]);
    }

    #[test]
    fn what_is_no_fault_or_not_whole_does_not_count() {
        for text in [
            "operation not supported error, dev loop0, sector 0 op 0x9:(WRITE_ZEROES) flags 0x0 phys_seg 0 prio class 2",
            "General I/O error detected",
            "Buffer I/O error on dev dm-0",
            "Buffer I/O error on dev dm-0, logical block 0, x",
            "I/O error, dev ../x, sector 1",
            "I/O error, dev sda, sector x",
            "I/O error, dev sda, sector 1 IN=eth0 OUT= MAC=",
            "x I/O error, dev sda, sector 1",
        ] {
            nothing(3, read, text);
        }
        nothing(6, read, "I/O error, dev sda, sector 1");
        nothing(8 + 3, super::super::read, "I/O error, dev sda, sector 1");
        forged_by_names(
            read,
            &[
                "I/O error, dev ",
                "I/O error, dev sda, sector 1",
                "Buffer I/O error on dev dm-0, logical block 0",
            ],
        );
    }
}
