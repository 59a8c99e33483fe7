//! PURE. Devices made of others: md and device-mapper.
//!
//! `loop: Write error at byte offset ...` is not here: it names no device, and the failed request
//! of the loop device is seen as such.

use super::fault::{digits, on_device};
use super::{Record, What, at_level, device_name, number};
use crate::reason::Reason;

pub(super) fn read(record: &Record<'_>) -> Option<What> {
    disk_failed(record)
        .or_else(|| started_degraded(record))
        .or_else(|| path_failed(record))
        .or_else(|| thin_pool(record))
        .or_else(|| verity(record))
}

/// `md/raid1:md0: Disk failure on sda1, disabling device.`, KERN_CRIT; or ` detected, failing array.`
/// or `, this is the last device.` where nothing is left (drivers/md). One record with the next line, whose break the kernel escapes.
fn disk_failed(record: &Record<'_>) -> Option<What> {
    let (place, rest) = at_level(record, 2)?
        .strip_prefix("md/")?
        .split_once(": Disk failure on ")?;
    // `linearmd0`, without a colon.
    let (level, array) = match place.strip_prefix("linear") {
        Some(array) => ("linear", array.strip_prefix(':').unwrap_or(array)),
        None => place.split_once(':')?,
    };
    let known = level == "linear"
        || level
            .strip_prefix("raid")
            .is_some_and(|n| n.is_empty() || digits(n));
    let end = rest.find([',', ' '])?;
    let (disk, rest) = rest.split_at(end);
    let rest = rest
        .strip_prefix(", disabling device")
        .or_else(|| rest.strip_prefix(" detected, failing array"))
        .or_else(|| rest.strip_prefix(", this is the last device"))?;
    let rest = rest.strip_prefix('.').unwrap_or(rest);
    let more = rest
        .strip_prefix("\\x0a")
        .is_none_or(|next| !next.starts_with("md/"));
    if !known || (!rest.is_empty() && more) {
        return None;
    }
    let (array, disk) = (device_name(array)?, device_name(disk)?);
    let message = format!("{disk} failed in the {level} array {array}");
    Some(on_device(Reason::RaidDegraded, array, &message))
}

/// `md/raid1:md0: active with 1 out of 2 mirrors`, `md/raid10:md0: active with 3 out of 4 devices`,
/// `md/raid:md0: raid level 6 active with 5 out of 6 devices, algorithm 2`, KERN_INFO, when an array is
/// started: a disk that was lost before this boot is told of by nothing else.
fn started_degraded(record: &Record<'_>) -> Option<What> {
    let (place, rest) = at_level(record, 6)?
        .strip_prefix("md/raid")?
        .split_once(" active with ")?;
    let (working, rest) = rest.split_once(" out of ")?;
    let (all, what) = rest.split_once(' ')?;
    let algorithm = what.strip_prefix("devices, algorithm ");
    let (level, array) = match place.strip_suffix(':') {
        Some(place) => {
            let (level, array) = place.split_once(':')?;
            let known = matches!((level, what), ("1", "mirrors") | ("10", "devices"));
            known.then_some((level, array))?
        }
        None => {
            let (array, level) = place.strip_prefix(':')?.split_once(": raid level ")?;
            algorithm.is_some_and(digits).then_some((level, array))?
        }
    };
    let (working, all) = (number(working)?, number(all)?);
    let array = device_name(array).filter(|_| digits(level) && working < all)?;
    let message =
        format!("the raid{level} array {array} was started with {working} of its {all} disks");
    Some(on_device(Reason::RaidDegraded, array, &message))
}

/// `device-mapper: multipath: 253:0: Failing path 8:16.`, KERN_WARNING.
fn path_failed(record: &Record<'_>) -> Option<What> {
    let rest = at_level(record, 4)?.strip_prefix("device-mapper: multipath: ")?;
    let (map, rest) = rest.split_once(": Failing path ")?;
    let path = rest.strip_suffix('.').unwrap_or(rest);
    (is_number(map) && is_number(path)).then(|| failed(map, record.text))
}

/// `device-mapper: thin: 253:4: switching pool to read-only mode`, KERN_INFO.
fn thin_pool(record: &Record<'_>) -> Option<What> {
    let rest = at_level(record, 6)?.strip_prefix("device-mapper: thin: ")?;
    let (map, mode) = rest.split_once(": switching pool to ")?;
    let bad = matches!(
        mode.strip_suffix(" mode")?,
        "read-only"
            | "fail"
            | "failure"
            | "out-of-data-space"
            | "out-of-data-space (queue IO)"
            | "out-of-data-space (error IO)"
            | "out-of-metadata-space"
    );
    (is_number(map) && bad).then(|| failed(map, record.text))
}

/// `device-mapper: verity: 253:0: data block 123 is corrupted`, KERN_ERR.
fn verity(record: &Record<'_>) -> Option<What> {
    let rest = at_level(record, 3)?.strip_prefix("device-mapper: verity: ")?;
    let (map, rest) = rest.split_once(": ")?;
    let (kind, rest) = rest.split_once(" block ")?;
    let block = rest.strip_suffix(" is corrupted")?;
    let fits = is_number(map) && matches!(kind, "data" | "metadata") && digits(block);
    fits.then(|| failed(map, record.text))
}

/// The lines tell numbers only, not names.
fn failed(map: &str, text: &str) -> What {
    on_device(Reason::DeviceMapperError, map.to_owned(), text)
}

/// `253:4`.
fn is_number(text: &str) -> bool {
    text.len() <= 16
        && text
            .split_once(':')
            .is_some_and(|(major, minor)| digits(major) && digits(minor))
}

#[cfg(test)]
mod tests {
    use super::super::check::{forged_by_names, nothing, reads};
    use super::*;

    #[test]
    fn a_failed_disk_degrades_its_array() {
        for (text, array) in [
            (
                "md/raid1:md1: Disk failure on sda1 detected, failing array",
                "md1",
            ),
            (
                "md/raid10:md2: Disk failure on nvme2n1p1 detected, failing array",
                "md2",
            ),
            (
                "md/raid5:md5: Disk failure on sdb3 detected, failing array.",
                "md5",
            ),
            (
                "md/raid:md127: Disk failure on sdb3, disabling device.",
                "md127",
            ),
            (
                r"md/raid1:md0: Disk failure on sda, disabling device.\x0amd/raid1:md0: Operation continuing on 1 devices.",
                "md0",
            ),
        ] {
            let fault = reads(2, read, text);
            assert_eq!(
                (fault.reason, fault.device.as_deref()),
                (Reason::RaidDegraded, Some(array)),
                "{text}"
            );
        }
    }

    #[test]
    fn an_array_that_has_nothing_left_is_one_too() {
        for text in [
            r"md/raid1:md0: Disk failure on sda, this is the last device.\x0amd/raid1:md0: Cannot continue operation (2/2 failed).",
            "md/linearmd0: Disk failure on sda detected, failing array.",
        ] {
            assert_eq!(reads(2, read, text).entity, "md0", "{text}");
        }
    }

    #[test]
    fn an_array_that_is_started_without_all_its_disks_is_degraded() {
        for text in [
            "md/raid1:md0: active with 1 out of 2 mirrors",
            "md/raid10:md0: active with 3 out of 4 devices",
            "md/raid:md0: raid level 6 active with 5 out of 6 devices, algorithm 2",
        ] {
            let fault = reads(6, read, text);
            assert_eq!(
                (fault.reason, fault.entity.as_str()),
                (Reason::RaidDegraded, "md0"),
                "{text}"
            );
        }
        for text in [
            "md/raid1:md0: active with 2 out of 2 mirrors",
            "md/raid:md0: raid level 6 active with 6 out of 6 devices, algorithm 2",
            "md/raid1:md0: active with 1 out of 2 mirrors or more",
            "md/raid10:md0: active with 1 out of 2 mirrors",
            "md/raid:md0: active with 1 out of 2 devices",
            "md/raid:md0: raid level x active with 5 out of 6 devices, algorithm 2",
            "md/raid1:../a: active with 1 out of 2 mirrors",
            "md/raid1:md0: active with x out of 2 mirrors",
            "x md/raid1:md0: active with 1 out of 2 mirrors",
        ] {
            nothing(6, read, text);
        }
        nothing(2, read, "md/raid1:md0: active with 1 out of 2 mirrors");
    }

    #[test]
    fn a_device_mapper_fault_names_the_map() {
        for (level, text) in [
            (4, "device-mapper: multipath: 253:4: Failing path 8:16."),
            (
                6,
                "device-mapper: thin: 253:4: switching pool to out-of-data-space (error IO) mode",
            ),
            (
                6,
                "device-mapper: thin: 253:4: switching pool to read-only mode",
            ),
            (
                3,
                "device-mapper: verity: 253:4: data block 17 is corrupted",
            ),
        ] {
            let fault = reads(level, read, text);
            assert_eq!(
                (fault.reason, fault.entity.as_str()),
                (Reason::DeviceMapperError, "253:4"),
                "{text}"
            );
        }
    }

    #[test]
    fn what_is_no_fault_or_not_whole_does_not_count() {
        for text in [
            "md: raid1 personality registered for level 1",
            "md/raid0: Disk failure detected",
            "md/raid1:md0: active with 2 out of 2 mirrors",
            "md/raid1:md0: Disk failure on sda, disabling device. IN=eth0 OUT=",
            "md/raidx:md0: Disk failure on sda, disabling device.",
            "md/raid1:md0: Disk failure on ../a, disabling device.",
            "x md/raid1:md0: Disk failure on sda, disabling device.",
        ] {
            nothing(2, read, text);
        }
        nothing(
            6,
            read,
            "md/raid1:md0: Disk failure on sda, disabling device.",
        );
        nothing(
            6,
            read,
            "device-mapper: thin: 253:4: switching pool to write mode",
        );
        forged_by_names(
            read,
            &[
                "md/raid1:md0: D",
                "md/raid1:md0: Disk failure on sda, disabling device.",
                "device-mapper: multipath: 253:4: Failing path 8:16.",
                "device-mapper: thin: 253:4: switching pool to read-only mode",
            ],
        );
    }
}
