//! How the free space of a mounted file system lies, as the kernel tells it (`FS_IOC_GETFSMAP`; XFS, ext4).

use std::fs::File;
use std::io;
use std::os::fd::AsRawFd;

use rustix::fs::fstatvfs;

/// `_IOWR('X', 59, struct fsmap_head)`
const GETFSMAP: libc::c_ulong = 0xC0C0_583B;
/// `FMR_OF_SPECIAL_OWNER`, and of those owners `FMR_OWN_FREE`.
const SPECIAL: u32 = 0x10;
const FREE: u64 = 1;
const LAST: u32 = 0x8;
/// That one call tells.
const BATCH: usize = 1024;
/// Enough for a mean; a full disk in small pieces has millions.
const MOST_PIECES: u64 = 64 << 10;

/// `struct fsmap`
#[repr(C)]
#[derive(Debug, Default, Clone, Copy)]
struct Piece {
    device: u32,
    flags: u32,
    physical: u64,
    owner: u64,
    offset: u64,
    length: u64,
    reserved: [u64; 3],
}

/// `struct fsmap_head`, and room for the answer.
#[repr(C)]
struct Question {
    in_flags: u32,
    out_flags: u32,
    room: u32,
    entries: u32,
    reserved: [u64; 6],
    from: Piece,
    to: Piece,
    answer: [Piece; BATCH],
}

/// The mean size of a piece of free space, in blocks of the file system; None where none is free.
pub(super) fn mean_free_blocks(folder: &File) -> io::Result<Option<u64>> {
    let block = fstatvfs(folder)?.f_bsize.max(1);
    let mut question = Box::new(Question {
        in_flags: 0,
        out_flags: 0,
        room: u32::try_from(BATCH).unwrap_or(u32::MAX),
        entries: 0,
        reserved: [0; 6],
        from: Piece::default(),
        to: Piece {
            device: u32::MAX,
            flags: u32::MAX,
            physical: u64::MAX,
            owner: u64::MAX,
            offset: u64::MAX,
            ..Piece::default()
        },
        answer: [Piece::default(); BATCH],
    });
    let (mut pieces, mut bytes, mut seen) = (0_u64, 0_u64, 0_u64);
    loop {
        ask(folder, &mut question)?;
        let count = usize::try_from(question.entries).unwrap_or(0).min(BATCH);
        let answer = &question.answer[..count];
        for piece in answer {
            if piece.flags & SPECIAL != 0 && piece.owner == FREE {
                pieces += 1;
                bytes = bytes.saturating_add(piece.length);
            }
        }
        seen += count as u64;
        let Some(last) = answer.last().copied() else {
            break;
        };
        if last.flags & LAST != 0 || seen >= MOST_PIECES {
            break;
        }
        // As the manual says: the next one is asked for by the last of this answer.
        question.from = last;
    }
    Ok(bytes.checked_div(pieces).map(|bytes| bytes / block))
}

fn ask(folder: &File, question: &mut Question) -> io::Result<()> {
    #[expect(unsafe_code, reason = "ioctl is a C function")]
    // SAFETY: `question` has room for as many pieces as it says, and outlives the call.
    let answer = unsafe {
        libc::ioctl(
            folder.as_raw_fd(),
            GETFSMAP as _,
            std::ptr::from_mut(question),
        )
    };
    if answer < 0 {
        return Err(io::Error::last_os_error());
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_structures_have_their_sizes() {
        assert_eq!(size_of::<Piece>(), 64);
        assert_eq!(std::mem::offset_of!(Question, answer), 192);
    }

    #[test]
    fn a_file_system_that_does_not_tell_is_an_error() {
        assert!(mean_free_blocks(&File::open("/proc").unwrap()).is_err());
    }
}
