//! PURE. The outer form of a journal file (<https://systemd.io/JOURNAL_FILE_FORMAT/>): its header, and
//! objects. Nothing in it is believed: a file can be cut off, overwritten, or be no journal.

use std::io;

/// Of a file that others append to.
pub(super) trait Bytes {
    /// As pread(2): fewer bytes at the end of the file.
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize>;

    fn length(&self) -> io::Result<u64>;
}

#[derive(Debug, thiserror::Error)]
pub(super) enum Unreadable {
    #[error("{0}")]
    Io(#[from] io::Error),
    #[error("damaged at byte {at}: {what}")]
    Damaged { at: u64, what: &'static str },
    #[error(
        "written in a form that this release does not know (incompatible flags {0:#x}): use a newer nodemend"
    )]
    Newer(u32),
}

pub(super) type Id = [u8; 16];

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Header {
    pub(super) file: Id,
    /// Of the line of files in which sequence numbers are unique.
    pub(super) series: Id,
    /// Offsets of 32 bits.
    pub(super) compact: bool,
    /// Nothing is appended any more.
    pub(super) archived: bool,
    pub(super) size: u64,
    /// Counted up when the entry is complete.
    pub(super) entries: u64,
    pub(super) first_array: u64,
    /// Of its first entry; 0 without one.
    pub(super) first_seqnum: u64,
    pub(super) last_seqnum: u64,
    pub(super) first_realtime: u64,
}

const SIGNATURE: &[u8] = b"LPKSHHRH";
/// Before the fields that later releases added.
const HEADER: usize = 208;
const SMALLEST_ENTRY: u64 = 64;
const KEYED_HASH: u32 = 1 << 2;
const COMPACT: u32 = 1 << 4;
const COMPRESSED: u32 = 1 | 1 << 1 | 1 << 3;
const ARCHIVED: u8 = 2;

pub(super) fn header(bytes: &impl Bytes) -> Result<Header, Unreadable> {
    let mut buffer = [0; HEADER];
    exactly(bytes, 0, &mut buffer)?;
    if !buffer.starts_with(SIGNATURE) {
        return Err(damaged(0, "no journal's signature"));
    }
    let incompatible = u32_at(&buffer, 12);
    // Hash tables are not used here, so it does not matter how they are keyed.
    let unknown = incompatible & !(COMPRESSED | KEYED_HASH | COMPACT);
    if unknown != 0 {
        return Err(Unreadable::Newer(unknown));
    }
    let size = u64_at(&buffer, 88);
    if size < HEADER as u64 || size > 1 << 16 || !size.is_multiple_of(8) {
        return Err(damaged(88, "no header's size"));
    }
    let entries = u64_at(&buffer, 152);
    if entries > bytes.length()? / SMALLEST_ENTRY {
        return Err(damaged(152, "more entries than it has room for"));
    }
    Ok(Header {
        file: id_at(&buffer, 24),
        series: id_at(&buffer, 72),
        compact: incompatible & COMPACT != 0,
        archived: buffer[16] == ARCHIVED,
        size,
        entries,
        first_array: u64_at(&buffer, 176),
        first_seqnum: u64_at(&buffer, 168),
        last_seqnum: u64_at(&buffer, 160),
        first_realtime: u64_at(&buffer, 184),
    })
}

pub(super) const DATA: u8 = 1;
pub(super) const ENTRY: u8 = 3;
pub(super) const ENTRY_ARRAY: u8 = 6;

/// Of an object, before what its type has.
pub(super) const OBJECT: usize = 16;

pub(super) struct Object {
    pub(super) flags: u8,
    /// With its header.
    pub(super) size: u64,
}

/// `begin`: its first bytes, as many as its type needs at least.
pub(super) fn object(
    bytes: &impl Bytes,
    header: &Header,
    kind: u8,
    offset: u64,
    begin: &mut [u8],
) -> Result<Object, Unreadable> {
    let object = object_up_to(bytes, header, kind, offset, begin.len(), begin)?;
    Ok(object.0)
}

/// The same, where the object may be shorter than `begin`; also how much of `begin` was read.
pub(super) fn object_up_to(
    bytes: &impl Bytes,
    header: &Header,
    kind: u8,
    offset: u64,
    least: usize,
    begin: &mut [u8],
) -> Result<(Object, usize), Unreadable> {
    if offset < header.size || !offset.is_multiple_of(8) {
        return Err(damaged(offset, "no object can be here"));
    }
    let length = fill(bytes, offset, begin)?;
    if length < least.max(OBJECT) {
        return Err(damaged(offset, "the file ends here"));
    }
    if begin[0] != kind {
        return Err(damaged(offset, "another type of object"));
    }
    let size = u64_at(begin, 8);
    if size < least as u64 || offset.checked_add(size).is_none() {
        return Err(damaged(offset, "no object's size"));
    }
    let flags = begin[1];
    let length = usize::try_from(size).map_or(length, |size| size.min(length));
    Ok((Object { flags, size }, length))
}

/// As much as there is.
pub(super) fn fill(bytes: &impl Bytes, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        let at = offset.saturating_add(length as u64);
        match bytes.read_at(at, &mut buffer[length..]) {
            Ok(0) => break,
            Ok(more) => length += more,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            Err(error) => return Err(error),
        }
    }
    Ok(length)
}

pub(super) fn exactly(
    bytes: &impl Bytes,
    offset: u64,
    buffer: &mut [u8],
) -> Result<(), Unreadable> {
    if fill(bytes, offset, buffer)? < buffer.len() {
        return Err(damaged(offset, "the file ends here"));
    }
    Ok(())
}

pub(super) fn damaged(at: u64, what: &'static str) -> Unreadable {
    Unreadable::Damaged { at, what }
}

/// 0 where there is none.
pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .map_or(0, |bytes| u64::from_le_bytes(*bytes))
}

pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .map_or(0, |bytes| u32::from_le_bytes(*bytes))
}

pub(super) fn id_at(bytes: &[u8], at: usize) -> Id {
    bytes
        .get(at..)
        .and_then(|rest| rest.first_chunk())
        .copied()
        .unwrap_or_default()
}
