//! PURE. btrfs: `BTRFS error (device sda1): ...`, with `: state EA` or ` state EA` behind the name
//! since 5.18 (fs/btrfs/messages.c).

use super::fault::{digits, errno, on_device};
use super::{Record, What, at_level, device_name};
use crate::reason::Reason;

pub(super) fn read(record: &Record<'_>) -> Option<What> {
    record.text.strip_prefix("BTRFS")?;
    error_in(record)
        .or_else(|| read_only(record))
        .or_else(|| critical(record))
        .or_else(|| error(record))
        .or_else(|| checksum(record))
}

/// `BTRFS: error (device sda1) in function:123: errno=-5 IO failure (text)`, KERN_CRIT.
fn error_in(record: &Record<'_>) -> Option<What> {
    let (device, rest) = device(at_level(record, 2)?.strip_prefix("BTRFS: error (device ")?)?;
    let (function, rest) = rest.strip_prefix(" in ")?.split_once(':')?;
    let (line, rest) = rest.split_once(": errno=")?;
    let (number, error) = rest.split_once(' ')?;
    let error = match error.split_once(" (") {
        Some((error, text)) if text.ends_with(')') => error,
        _ => error,
    };
    let words = error.bytes().all(|b| b.is_ascii_alphabetic() || b == b' ');
    let fits = is_name(function) && digits(line) && errno(number) && words;
    fits.then(|| failed(device, record.text))
}

/// `BTRFS info (device sda1): forced readonly`, KERN_INFO.
fn read_only(record: &Record<'_>) -> Option<What> {
    let (device, rest) = device(at_level(record, 6)?.strip_prefix("BTRFS info (device ")?)?;
    let message = format!("btrfs made the file system on {device} read-only after an error");
    (rest == ": forced readonly").then(|| on_device(Reason::BtrfsReadOnly, device, &message))
}

/// `BTRFS critical (device sda1): corrupt leaf: root=5 block=30539776 slot=0, invalid ...`,
/// KERN_CRIT.
fn critical(record: &Record<'_>) -> Option<What> {
    let (device, rest) = device(at_level(record, 2)?.strip_prefix("BTRFS critical (device ")?)?;
    let rest = rest.strip_prefix(": ")?;
    let damaged = ["corrupt leaf: ", "corrupt node: "].iter().any(|begin| {
        rest.strip_prefix(begin).is_some_and(|place| {
            begins_with_numbers(place, "root=# block=# ") || begins_with_numbers(place, "block=# ")
        })
    });
    let lost = is_numbers(rest, "unable to find logical # length #");
    (damaged && !is_packet(rest) || lost).then(|| failed(device, record.text))
}

/// KERN_ERR. Not all: `open_ctree failed` is what mounting garbage says.
fn error(record: &Record<'_>) -> Option<What> {
    const DAMAGE: [&str; 5] = [
        "Transaction aborted (error #)",
        "parent transid verify failed on # wanted # found #",
        "parent transid verify failed on logical # mirror # wanted # found #",
        "bad tree block start, want # have #",
        "bad tree block start, mirror # want # have #",
    ];
    let (device, rest) = device(at_level(record, 3)?.strip_prefix("BTRFS error (device ")?)?;
    let rest = rest.strip_prefix(": ")?;
    let counts = errors_of_disk(rest) || DAMAGE.iter().any(|pattern| is_numbers(rest, pattern));
    counts.then(|| failed(device, record.text))
}

/// `bdev /dev/sda1 errs: wr 1, rd 0, flush 0, corrupt 0, gen 0`. At mount the same comes at
/// KERN_INFO: counts of long ago.
fn errors_of_disk(text: &str) -> bool {
    text.strip_prefix("bdev ")
        .and_then(|rest| rest.split_once(" errs: "))
        .is_some_and(|(_, counts)| is_numbers(counts, "wr #, rd #, flush #, corrupt #, gen #"))
}

/// `BTRFS warning (device sda1): csum failed root 5 ino 257 off 0 csum 0x1 expected csum 0x2 mirror
/// 1`, KERN_WARNING: data that was read is not what was written.
fn checksum(record: &Record<'_>) -> Option<What> {
    let (device, rest) = device(at_level(record, 4)?.strip_prefix("BTRFS warning (device ")?)?;
    let rest = rest.strip_prefix(": csum failed root ")?;
    let (root, rest) = rest.split_once(" ino ")?;
    let (inode, rest) = rest.split_once(" off ")?;
    let (offset, rest) = rest.split_once(' ')?;
    let (_, mirror) = rest.rsplit_once(" mirror ")?;
    let numbers = errno(root) && digits(inode) && digits(offset) && digits(mirror);
    numbers.then(|| failed(device, record.text))
}

fn failed(device: String, text: &str) -> What {
    on_device(Reason::FilesystemError, device, text)
}

/// The device, and what follows the bracket.
fn device(text: &str) -> Option<(String, &str)> {
    let (inside, rest) = text.split_once(')')?;
    let name = match inside.split_once(" state ") {
        Some((name, state)) => {
            state
                .bytes()
                .all(|b| b.is_ascii_alphanumeric())
                .then_some(())?;
            name.strip_suffix(':').unwrap_or(name)
        }
        None => inside,
    };
    Some((device_name(name)?, rest))
}

fn is_name(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'_')
}

/// Whether the whole text is the pattern with a number for each `#`.
fn is_numbers(text: &str, pattern: &str) -> bool {
    after_numbers(text, pattern).is_some_and(str::is_empty)
}

fn begins_with_numbers(text: &str, pattern: &str) -> bool {
    after_numbers(text, pattern).is_some()
}

fn after_numbers<'a>(text: &'a str, pattern: &str) -> Option<&'a str> {
    let mut parts = pattern.split('#');
    let mut text = text.strip_prefix(parts.next()?)?;
    for part in parts {
        let signed = text.strip_prefix('-').unwrap_or(text);
        let rest = signed.trim_start_matches(|c: char| c.is_ascii_digit());
        text = rest
            .strip_prefix(part)
            .filter(|_| rest.len() < signed.len())?;
    }
    Some(text)
}

/// What a firewall's LOG rule adds to its prefix.
fn is_packet(text: &str) -> bool {
    text.contains("IN=") && text.contains(" OUT=")
}

#[cfg(test)]
mod tests {
    use super::super::check::{forged_by_names, nothing, reads};
    use super::*;

    #[test]
    fn errors_are_of_their_device_with_and_without_a_state() {
        for (level, text) in [
            (
                2,
                "BTRFS: error (device sda1) in btrfs_commit_transaction:2234: errno=-5 IO failure (Error while writing out transaction)",
            ),
            (
                2,
                "BTRFS: error (device sda1: state A) in cleanup_transaction:2021: errno=-5 IO failure",
            ),
            (
                2,
                "BTRFS: error (device sda1 state EA) in cleanup_transaction:2021: errno=-5 IO failure",
            ),
            (
                2,
                "BTRFS critical (device sda1): corrupt leaf: root=5 block=30539776 slot=0, invalid key",
            ),
            (
                3,
                "BTRFS error (device sda1): bdev /dev/sda1 errs: wr 1, rd 0, flush 0, corrupt 0, gen 0",
            ),
            (
                3,
                "BTRFS error (device sda1 state A): Transaction aborted (error -5)",
            ),
            (
                3,
                "BTRFS error (device sda1): parent transid verify failed on logical 30490624 mirror 1 wanted 8 found 6",
            ),
            (
                4,
                "BTRFS warning (device sda1): csum failed root 5 ino 257 off 0 csum 0x98f94189 expected csum 0x94b3d1ab mirror 1",
            ),
        ] {
            let fault = reads(level, read, text);
            assert_eq!(
                (fault.reason, fault.entity.as_str()),
                (Reason::FilesystemError, "sda1"),
                "{text}"
            );
        }
    }

    #[test]
    fn a_forced_read_only_is_a_finding_by_itself() {
        for text in [
            "BTRFS info (device loop0): forced readonly",
            "BTRFS info (device loop0: state EA): forced readonly",
        ] {
            let fault = reads(6, read, text);
            assert_eq!(fault.reason, Reason::BtrfsReadOnly);
            assert_eq!(fault.device.as_deref(), Some("loop0"));
        }
    }

    #[test]
    fn what_btrfs_says_in_ordinary_life_is_no_fault() {
        for (level, text) in [
            (
                6,
                "BTRFS info (device sda1): bdev /dev/sda1 errs: wr 1, rd 0, flush 0, corrupt 0, gen 0",
            ),
            (3, "BTRFS error (device sda1): open_ctree failed: -22"),
            (
                6,
                "BTRFS info (device sda1): using crc32c (crc32c-intel) checksum algorithm",
            ),
            (4, "BTRFS: Remounting filesystem read-only"),
        ] {
            nothing(level, read, text);
        }
    }

    #[test]
    fn forged_lines_do_not_count() {
        forged_by_names(
            read,
            &[
                "BTRFS: error (d",
                "BTRFS critical (device sda1): corrupt leaf: ",
                "BTRFS: error (device sda1) in f:1: errno=-5 IO",
                "BTRFS error (device sda1): parent transid verify failed on ",
                "BTRFS info (device sda1): forced readonly",
                "BTRFS error (device sda1): bdev /dev/sda1 errs: wr 1, rd 0, flush 0, corrupt 0, gen 0",
            ],
        );
        nothing(3, read, "BTRFS info (device sda1): forced readonly");
        nothing(6, read, "BTRFS info (device a/b): forced readonly");
    }
}
