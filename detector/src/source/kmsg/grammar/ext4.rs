//! PURE. ext4 and its journal, besides `EXT4-fs error` and the read-only remount.

use super::fault::{digits, errno, on_device};
use super::{Record, What, at_level, device_name};
use crate::reason::Reason;

pub(super) fn read(record: &Record<'_>) -> Option<What> {
    journal_aborted(record)
        .or_else(|| journal_io(record))
        .or_else(|| superblock(record))
        .or_else(|| writeback(record))
}

/// `Aborting journal on device sda1-8.`, KERN_ERR (fs/jbd2/journal.c): 8 is the journal's inode.
fn journal_aborted(record: &Record<'_>) -> Option<What> {
    let name = at_level(record, 3)?
        .strip_prefix("Aborting journal on device ")?
        .strip_suffix('.')?;
    let device = without_inode(name)?;
    let message = format!("the journal of {device} was aborted");
    Some(on_device(Reason::JournalAborted, device, &message))
}

/// `JBD2: I/O error when updating journal superblock for sda1-8.`, KERN_ERR;
/// `JBD2: Detected IO errors while flushing file data on sda1-8`, KERN_WARNING.
fn journal_io(record: &Record<'_>) -> Option<What> {
    let superblock = at_level(record, 3).and_then(|text| {
        text.strip_prefix("JBD2: I/O error when updating journal superblock for ")?
            .strip_suffix('.')
    });
    let name = superblock.or_else(|| {
        let rest = at_level(record, 4)?.strip_prefix("JBD2: Detected IO errors ")?;
        let (number, name) = rest.split_once("while flushing file data on ")?;
        (number.is_empty() || errno(number.strip_suffix(' ')?)).then_some(name)
    })?;
    let device = without_inode(name)?;
    Some(on_device(Reason::FilesystemError, device, record.text))
}

/// `EXT4-fs (dm-0): I/O error while writing superblock`, KERN_ERR (fs/ext4/super.c).
fn superblock(record: &Record<'_>) -> Option<What> {
    let name = at_level(record, 3)?
        .strip_prefix("EXT4-fs (")?
        .strip_suffix("): I/O error while writing superblock")?;
    let device = device_name(name)?;
    Some(on_device(Reason::FilesystemError, device, record.text))
}

/// `EXT4-fs warning (device sda1): ext4_end_bio:343: I/O error 10 writing to inode 5 starting block
/// 123)`, KERN_WARNING (fs/ext4/page-io.c, with this bracket): data that a program had written is
/// lost. Other warnings are no faults.
fn writeback(record: &Record<'_>) -> Option<What> {
    let rest = at_level(record, 4)?.strip_prefix("EXT4-fs warning (device ")?;
    let (name, rest) = rest.split_once("): ext4_end_bio:")?;
    let (line, rest) = rest.split_once(": I/O error ")?;
    let (error, rest) = rest.split_once(" writing to inode ")?;
    let (inode, rest) = rest.split_once(' ')?;
    let (_, block) = rest.split_once("starting block ")?;
    let numbers = digits(line) && errno(error) && digits(inode);
    let device = device_name(name).filter(|_| numbers && digits(block.trim_end_matches(')')))?;
    Some(on_device(Reason::WritebackError, device, record.text))
}

/// `sda1-8` is the journal in inode 8 of sda1, `dm-0-8` that of dm-0; `dm-1` a journal of its own.
fn without_inode(journal: &str) -> Option<String> {
    let device = journal
        .rsplit_once('-')
        .filter(|(device, inode)| digits(inode) && *device != "dm")
        .map_or(journal, |(device, _)| device);
    device_name(device)
}

#[cfg(test)]
mod tests {
    use super::super::check::{forged_by_names, nothing, reads};
    use super::*;

    #[test]
    fn an_aborted_journal_is_that_of_its_device() {
        for (name, device) in [
            ("sda1-8", "sda1"),
            ("dm-0-8", "dm-0"),
            ("dm-1", "dm-1"),
            ("nvme0n1p1-8", "nvme0n1p1"),
            ("sdb", "sdb"),
        ] {
            let fault = reads(3, read, &format!("Aborting journal on device {name}."));
            assert_eq!(
                (fault.reason, fault.entity.as_str()),
                (Reason::JournalAborted, device)
            );
        }
    }

    #[test]
    fn what_the_file_system_could_not_write_of_itself_is_its_error() {
        for (level, text) in [
            (3, "EXT4-fs (sda1): I/O error while writing superblock"),
            (
                3,
                "JBD2: I/O error when updating journal superblock for sda1-8.",
            ),
            (
                4,
                "JBD2: Detected IO errors while flushing file data on sda1-8",
            ),
            (
                4,
                "JBD2: Detected IO errors -5 while flushing file data on sda1-8",
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

    /// As the tracepoint has it.
    #[test]
    fn data_of_a_program_that_was_not_written_is_a_lost_write() {
        for text in [
            "EXT4-fs warning (device sda1): ext4_end_bio:343: I/O error 10 writing to inode 5 starting block 1234)",
            "EXT4-fs warning (device sda1): ext4_end_bio:314: I/O error -5 writing to inode 5 (offset 0 size 4096 starting block 1234)",
        ] {
            let fault = reads(4, read, text);
            let lost = (fault.reason, fault.entity.as_str());
            assert_eq!(lost, (Reason::WritebackError, "sda1"), "{text}");
        }
    }

    #[test]
    fn what_only_resembles_it_does_not_count() {
        for text in [
            "EXT4-fs (dm-0): metadata_csum_seed is not necessary",
            "EXT4-fs (dm-0): I/O error while reading superblock",
            "EXT4-fs (dm-0): I/O error while reading",
            "EXT4-fs (dm 0): I/O error while writing superblock",
            "x Aborting journal on device sda1-8.",
            "Aborting journal on device sda1-8. ",
            "Aborting journal on device ../x.",
        ] {
            nothing(3, read, text);
        }
        nothing(6, read, "Aborting journal on device sda1-8.");
        forged_by_names(
            read,
            &[
                "Aborting journa",
                "Aborting journal on device sda1-8.",
                "EXT4-fs (sda1):",
                "JBD2: Detected IO errors while flushing file data on sda1",
            ],
        );
    }
}
