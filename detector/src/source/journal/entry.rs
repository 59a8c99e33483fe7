//! PURE. One entry of a journal file: when it was written, and those of its fields that log rules ask
//! for.

use std::collections::BTreeMap;
use std::fmt;

use super::format::{
    Bytes, DATA, ENTRY, Header, Id, Unreadable, damaged, exactly, id_at, object, object_up_to,
    u32_at, u64_at,
};
use super::payload::{self, Compression};

/// What stands before an entry's fields.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Stamp {
    pub(super) seqnum: u64,
    /// `CLOCK_MONOTONIC` in microseconds, when journald got it.
    pub(super) monotonic: u64,
    pub(super) boot: Id,
    /// Of all fields.
    pub(super) hash: u64,
    pub(super) size: u64,
}

/// An entry of a unit that somebody asks for.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Usually one: the unit that wrote it, or of which systemd wrote.
    pub(super) units: Vec<String>,
    /// At most [`MESSAGE_LIMIT`] of it.
    pub(super) message: Vec<u8>,
    /// Only a part was looked at, or nothing.
    pub(super) lost: Option<Loss>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Loss {
    /// Longer than [`MESSAGE_LIMIT`].
    Cut,
    /// Compressed in a way that cannot be read here.
    Compressed(Compression),
}

impl fmt::Display for Loss {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Cut => write!(
                f,
                "of a message only the first {MESSAGE_LIMIT} bytes are looked at"
            ),
            Self::Compressed(how) => write!(
                f,
                "a message is compressed with {how}: SYSTEMD_JOURNAL_COMPRESS=ZSTD or Compress=no make it readable"
            ),
        }
    }
}

/// What is known of the fields of one file: an object never changes.
#[derive(Debug, Default)]
pub(super) struct Fields(BTreeMap<u64, Field>);

#[derive(Debug, Clone, PartialEq, Eq)]
enum Field {
    Other,
    Message,
    /// Which unit wrote it: journald's own word.
    Unit(String),
    /// Of which unit it tells: anybody can say so; believed of process 1.
    About(String),
    FromInit,
    Compressed(Compression),
}

/// As of the log sources: what is longer is looked at up to here.
pub(super) const MESSAGE_LIMIT: usize = 8192;
/// `ENTRY_FIELD_COUNT_MAX` of systemd.
const MOST_FIELDS: usize = 1024;
const MOST_KNOWN: usize = 8192;
const LONGEST_UNIT: usize = 256;
const STAMP: usize = 64;
/// The names of fields that matter, with room for a unit.
const BEGIN: usize = "_SYSTEMD_UNIT=".len() + LONGEST_UNIT;

pub(super) fn stamp(bytes: &impl Bytes, header: &Header, offset: u64) -> Result<Stamp, Unreadable> {
    let mut start = [0; STAMP];
    let object = object(bytes, header, ENTRY, offset, &mut start)?;
    Ok(Stamp {
        seqnum: u64_at(&start, 16),
        monotonic: u64_at(&start, 32),
        boot: id_at(&start, 40),
        hash: u64_at(&start, 56),
        size: object.size,
    })
}

impl Fields {
    /// None: of no unit that is `wanted`, or without a message.
    pub(super) fn line(
        &mut self,
        bytes: &impl Bytes,
        header: &Header,
        offset: u64,
        stamp: &Stamp,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<Option<Line>, Unreadable> {
        let mut units = Vec::new();
        let (mut about, mut init, mut message) = (None, false, None);
        let mut unread = None;
        for data in items(bytes, header, offset, stamp)? {
            match self.field(bytes, header, data)? {
                Field::Other => {}
                Field::Message => message = message.or(Some(data)),
                Field::Unit(unit) => units.push(unit),
                Field::About(unit) => about = about.or(Some(unit)),
                Field::FromInit => init = true,
                Field::Compressed(how) => unread = Some(how),
            }
        }
        units.extend(about.filter(|_| init));
        units.retain(|unit| wanted(unit));
        units.dedup();
        if units.is_empty() {
            return Ok(None);
        }
        let whole = MESSAGE.len() + MESSAGE_LIMIT;
        let (message, lost) = match message {
            None if unread.is_none() => return Ok(None),
            None => (Vec::new(), unread.map(Loss::Compressed)),
            Some(data) => match beginning(bytes, header, data, whole + 1)? {
                Ok(mut field) => {
                    let lost = (field.len() > whole).then_some(Loss::Cut);
                    field.truncate(whole);
                    field.drain(..MESSAGE.len().min(field.len()));
                    (field, lost)
                }
                Err(how) => (Vec::new(), Some(Loss::Compressed(how))),
            },
        };
        Ok(Some(Line {
            units,
            message,
            lost,
        }))
    }

    fn field(
        &mut self,
        bytes: &impl Bytes,
        header: &Header,
        data: u64,
    ) -> Result<Field, Unreadable> {
        if let Some(known) = self.0.get(&data) {
            return Ok(known.clone());
        }
        let field = match beginning(bytes, header, data, BEGIN)? {
            Ok(begin) => name(&begin),
            Err(how) => Field::Compressed(how),
        };
        // Each entry has its own message; most of the others come again and again.
        if field != Field::Message {
            if self.0.len() >= MOST_KNOWN {
                self.0.clear();
            }
            self.0.insert(data, field.clone());
        }
        Ok(field)
    }
}

const MESSAGE: &[u8] = b"MESSAGE=";

fn name(field: &[u8]) -> Field {
    let unit = |name: &[u8]| {
        let unit = std::str::from_utf8(field.strip_prefix(name)?).ok()?;
        Some(unit.to_owned())
    };
    if field.starts_with(MESSAGE) {
        return Field::Message;
    }
    if field == b"_PID=1" {
        return Field::FromInit;
    }
    unit(b"_SYSTEMD_UNIT=")
        .map(Field::Unit)
        .or_else(|| unit(b"UNIT=").map(Field::About))
        .unwrap_or(Field::Other)
}

/// Where its fields are.
fn items(
    bytes: &impl Bytes,
    header: &Header,
    offset: u64,
    stamp: &Stamp,
) -> Result<Vec<u64>, Unreadable> {
    let width = if header.compact { 4 } else { 16 };
    let length = usize::try_from(stamp.size)
        .unwrap_or(usize::MAX)
        .saturating_sub(STAMP);
    if length / width > MOST_FIELDS {
        return Err(damaged(offset, "more fields than an entry has"));
    }
    let mut buffer = vec![0; length / width * width];
    exactly(bytes, offset.saturating_add(STAMP as u64), &mut buffer)?;
    let items = buffer.chunks_exact(width).map(|item| {
        if header.compact {
            u64::from(u32_at(item, 0))
        } else {
            u64_at(item, 0)
        }
    });
    Ok(items.collect())
}

/// The first `limit` bytes of a field, with its name.
fn beginning(
    bytes: &impl Bytes,
    header: &Header,
    data: u64,
    limit: usize,
) -> Result<Result<Vec<u8>, Compression>, Unreadable> {
    let payload = if header.compact { 72 } else { 64 };
    let mut begin = vec![0; payload + limit];
    let (object, length) = object_up_to(bytes, header, DATA, data, payload, &mut begin)?;
    let compression = Compression::of(object.flags);
    let Some(compression) = compression else {
        begin.truncate(length);
        begin.drain(..payload);
        return Ok(Ok(begin));
    };
    let length = object.size - payload as u64;
    let length = usize::try_from(length).map_or(payload::MOST_INPUT, |length| {
        length.min(payload::MOST_INPUT)
    });
    let mut compressed = vec![0; length];
    exactly(bytes, data.saturating_add(payload as u64), &mut compressed)?;
    Ok(payload::beginning(&compressed, compression, limit).ok_or(compression))
}
