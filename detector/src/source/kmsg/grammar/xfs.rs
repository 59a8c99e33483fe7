//! PURE. XFS: `XFS (sda1): ...`; all that counts here is KERN_ALERT (fs/xfs/xfs_message.h).

use super::fault::{digits, errno, hex, on_device, word};
use super::{Record, What, at_level, device_name};
use crate::reason::Reason;

pub(super) fn read(record: &Record<'_>) -> Option<What> {
    let (name, text) = at_level(record, 1)?
        .strip_prefix("XFS (")?
        .split_once("): ")?;
    let device = device_name(name)?;
    let reason = if is_shutdown(text) {
        Reason::XfsShutdown
    } else if writeback(text).is_some() {
        Reason::WritebackError
    } else if is_error(text) {
        Reason::FilesystemError
    } else {
        return None;
    };
    let message = format!("XFS on {device}: {text}");
    Some(on_device(reason, device, &message))
}

/// A log that cannot be written shuts the file system down, whichever of its lines comes out.
fn is_shutdown(text: &str) -> bool {
    if let Some(error) = text.strip_prefix("log I/O error ") {
        return errno(error);
    }
    if let Some(flags) = text.strip_prefix("Filesystem has been shut down due to log error (") {
        return flags.strip_suffix(").").is_some_and(hex);
    }
    if text == "User initiated shutdown received." {
        return true;
    }
    let Some(why) = text
        .strip_suffix('.')
        .unwrap_or(text)
        .strip_suffix("Shutting down filesystem")
    else {
        return false;
    };
    const WHY: [&str; 8] = [
        "Metadata I/O Error",
        "Log I/O Error",
        "I/O Error",
        "Corruption of in-memory data",
        "Corruption of on-disk metadata",
        "Block device removal",
        "All device paths lost",
        "User initiated shutdown received",
    ];
    WHY.iter().any(|begin| why.starts_with(begin))
}

fn is_error(text: &str) -> bool {
    metadata_io(text).is_some() || metadata_damage(text).is_some() || internal(text).is_some()
}

/// `metadata I/O error in "function+0x1/0x2 [xfs]" at daddr 0x10 len 8 error 5`, before 4.17
/// `metadata I/O error: block 0x10 ("function") error 5 numblks 8`.
fn metadata_io(text: &str) -> Option<()> {
    let rest = text.strip_prefix("metadata I/O error")?;
    if let Some(rest) = rest.strip_prefix(" in \"") {
        let (_, rest) = rest.split_once("\" at daddr ")?;
        let (address, rest) = rest.split_once(" len ")?;
        let (length, error) = rest.split_once(" error ")?;
        return (hex(address) && digits(length) && errno(error)).then_some(());
    }
    let (block, rest) = rest.strip_prefix(": block ")?.split_once(" (\"")?;
    let (_, rest) = rest.split_once("\") error ")?;
    let (error, blocks) = rest.split_once(" numblks ")?;
    (hex(block) && errno(error) && digits(blocks)).then_some(())
}

/// `Metadata corruption detected at xfs_agf_verify+0x83/0xb0 [xfs], xfs_agf block 0x1`,
/// `... at xfs_dinode_verify+0x1/0x2 [xfs], inode 0x80 dinode`.
fn metadata_damage(text: &str) -> Option<()> {
    let rest = text
        .strip_prefix("Metadata corruption detected at ")
        .or_else(|| text.strip_prefix("Metadata CRC error detected at "))?;
    let (function, rest) = rest.split_once(", ")?;
    let words: Vec<_> = rest.split(' ').filter(|word| !word.is_empty()).collect();
    let place = match words[..] {
        [_, "block", at] | ["inode", at] => hex(at),
        [_, "block", at, by] | ["inode", at, by] => hex(at) && !by.contains('='),
        _ => false,
    };
    (word(function.split(' ').next()?) && place).then_some(())
}

/// `writeback error on inode 131, offset 0, sector 160`.
fn writeback(text: &str) -> Option<()> {
    let (inode, rest) = text
        .strip_prefix("writeback error on inode ")?
        .split_once(", offset ")?;
    let (offset, sector) = rest.split_once(", sector ")?;
    (hex(inode) && digits(offset) && errno(sector)).then_some(())
}

/// `Internal error NAME at line 12 of file fs/xfs/xfs_x.c.  Caller xfs_y+0x1/0x2 [xfs]`.
fn internal(text: &str) -> Option<()> {
    let (_, rest) = text
        .strip_prefix("Internal error ")?
        .split_once(" at line ")?;
    let (line, rest) = rest.split_once(" of file ")?;
    let (file, caller) = rest.split_once(".  Caller ")?;
    (digits(line) && word(file) && word(caller.strip_suffix(" [xfs]").unwrap_or(caller)))
        .then_some(())
}

#[cfg(test)]
mod tests {
    use super::super::check::{forged_by_names, nothing, reads};
    use super::*;

    #[test]
    fn every_wording_of_a_shutdown_is_one() {
        for text in [
            "XFS (md127): log I/O error -5",
            "XFS (dm-3): Filesystem has been shut down due to log error (0x2).",
            "XFS (sda1): Log I/O Error (0x6) detected at xfs_trans_read_buf_map+0x2/0x9 [xfs] (fs/xfs/xfs_trans_buf.c:296).  Shutting down filesystem.",
            "XFS (sda1): Corruption of in-memory data (0x8) detected at xfs_defer_finish_noroll+0x1/0x2 (fs/xfs/libxfs/xfs_defer.c:533).  Shutting down filesystem.",
            "XFS (sda1): Corruption of in-memory data detected.  Shutting down filesystem",
            "XFS (sda1): Log I/O Error Detected. Shutting down filesystem",
            "XFS (loop0): User initiated shutdown received. Shutting down filesystem",
        ] {
            let fault = reads(1, read, text);
            assert_eq!(fault.reason, Reason::XfsShutdown, "{text}");
            assert_eq!(fault.device, Some(fault.entity), "{text}");
        }
    }

    #[test]
    fn damage_is_an_error_of_the_file_system() {
        for text in [
            "XFS (dm-0): metadata I/O error in \"xfs_buf_ioend_handle_error+0x11/0x2 [xfs]\" at daddr 0x3c len 8 error 5",
            "XFS (dm-0): metadata I/O error: block 0x3c (\"xlog_iodone\") error 5 numblks 64",
            "XFS (loop0): Metadata corruption detected at xfs_agf_verify+0x83/0xb0 [xfs], xfs_agf block 0x1 ",
            "XFS (loop0): Metadata CRC error detected at xfs_agi_read_verify+0x5/0x9 [xfs], xfs_agi block 0x2",
            "XFS (loop0): Internal error ltbno + ltlen > bno at line 1955 of file fs/xfs/libxfs/xfs_alloc.c.  Caller xfs_free_ag_extent+0x3fb/0x800 [xfs]",
        ] {
            assert_eq!(
                reads(1, read, text).reason,
                Reason::FilesystemError,
                "{text}"
            );
        }
        let lost = "XFS (loop0): writeback error on inode 131, offset 0, sector 160";
        assert_eq!(reads(1, read, lost).reason, Reason::WritebackError);
    }

    #[test]
    fn what_xfs_says_in_ordinary_life_is_no_fault() {
        for text in [
            "XFS (sda1): Mounting V5 Filesystem 01234567-89ab-cdef-0123-456789abcdef",
            "XFS (sda1): Unmounting Filesystem",
            "XFS (sda1): Ending clean mount",
            "XFS (sda1): Please unmount the filesystem and rectify the problem(s)",
        ] {
            nothing(1, read, text);
        }
    }

    #[test]
    fn forged_lines_do_not_count() {
        forged_by_names(read, &["XFS (sda1): log", "XFS (dm-0): Met"]);
        for text in [
            "x XFS (md127): log I/O error -5",
            "XFS (md127): log I/O error -5IN=eth0 OUT= MAC=00 SRC=10.0.0.1",
            "XFS (../x): log I/O error -5",
            "XFS (a b): log I/O error -5",
            "XFS (sda1): log I/O Error Detected. Shutting down filesystem IN=eth0",
            "XFS (loop0): Metadata corruption detected at f, xfs_agf block 0x1 IN=eth0 OUT= MAC=",
            "XFS (loop0): Internal error x at line 1 of file f.c.  Caller IN=eth0 OUT= MAC=",
            "XFS (sda1): x. Shutting down filesystem",
        ] {
            nothing(1, read, text);
        }
        nothing(4, read, "XFS (md127): log I/O error -5");
    }
}
