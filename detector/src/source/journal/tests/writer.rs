//! Writes journal files as journald does, entry by entry: for tests, which need no journald then.

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;

/// A file that is open for writing. Without hash tables, which readers of its kind do without.
pub struct Writer {
    file: File,
    compact: bool,
    end: u64,
    entries: u64,
    /// The numbers of the series; the next file goes on with them.
    pub seqnum: u64,
    /// Where the arrays are, and how many entries each has room for.
    arrays: Vec<(u64, u64)>,
    known: BTreeMap<Vec<u8>, u64>,
}

/// What an entry has besides its fields.
#[derive(Clone, Copy)]
pub struct When {
    /// `CLOCK_MONOTONIC` and the wall clock, in microseconds.
    pub monotonic: u64,
    pub realtime: u64,
    pub boot: [u8; 16],
}

const HEADER: u64 = 272;
pub const PLAIN: u32 = 0;
pub const COMPACT: u32 = 16;

impl Writer {
    /// `file`: an id that no other file has; `flags`: incompatible ones, as in the format.
    pub fn create(
        path: &Path,
        file: [u8; 16],
        series: [u8; 16],
        flags: u32,
        seqnum: u64,
    ) -> io::Result<Self> {
        let mut options = OpenOptions::new();
        let options = options.read(true).write(true).create_new(true);
        let writer = Self {
            file: options.open(path)?,
            compact: flags & COMPACT != 0,
            end: HEADER,
            entries: 0,
            seqnum,
            arrays: Vec::new(),
            known: BTreeMap::new(),
        };
        let mut header = vec![0; usize::try_from(HEADER).unwrap_or(0)];
        header[..8].copy_from_slice(b"LPKSHHRH");
        header[12..16].copy_from_slice(&flags.to_le_bytes());
        header[16] = 1;
        header[24..40].copy_from_slice(&file);
        header[72..88].copy_from_slice(&series);
        header[88..96].copy_from_slice(&HEADER.to_le_bytes());
        writer.file.write_all_at(&header, 0)?;
        Ok(writer)
    }

    /// Fields as `NAME=VALUE`.
    pub fn append(&mut self, when: When, fields: &[&[u8]]) -> io::Result<()> {
        let mut items = Vec::new();
        for field in fields {
            let known = self.known.get(*field).copied();
            items.push(match known {
                Some(offset) => offset,
                None => self.data(0, field)?,
            });
        }
        self.entry(when, items)
    }

    /// With one field whose payload is compressed: `flag` as in the format, `payload` as it is stored.
    pub fn append_compressed(
        &mut self,
        when: When,
        fields: &[&[u8]],
        flag: u8,
        payload: &[u8],
    ) -> io::Result<()> {
        let mut items = Vec::new();
        for field in fields {
            items.push(self.data(0, field)?);
        }
        items.push(self.data(flag, payload)?);
        self.entry(when, items)
    }

    /// As journald leaves a file that it has rotated.
    pub fn archive(self) -> io::Result<()> {
        self.file.write_all_at(&[2], 16)
    }

    fn data(&mut self, flag: u8, payload: &[u8]) -> io::Result<u64> {
        let before = if self.compact { 56 } else { 48 };
        let mut body = vec![0; before];
        body.extend_from_slice(payload);
        let offset = self.object(1, flag, &body)?;
        if flag == 0 {
            self.known.insert(payload.to_vec(), offset);
        }
        Ok(offset)
    }

    fn entry(&mut self, when: When, mut items: Vec<u64>) -> io::Result<()> {
        items.sort_unstable();
        self.seqnum += 1;
        self.u64(160, self.seqnum)?;
        if self.entries == 0 {
            self.u64(168, self.seqnum)?;
            self.u64(184, when.realtime)?;
        }
        let hash = items.iter().fold(when.monotonic, |hash, item| {
            (hash ^ item).wrapping_mul(0x0100_0000_01b3)
        });
        let mut body = Vec::new();
        for number in [self.seqnum, when.realtime, when.monotonic] {
            body.extend(number.to_le_bytes());
        }
        body.extend(when.boot);
        body.extend(hash.to_le_bytes());
        for item in items {
            body.extend(self.item(item));
            if !self.compact {
                body.extend([0; 8]);
            }
        }
        let offset = self.object(3, 0, &body)?;
        self.link(offset)?;
        self.entries += 1;
        self.u64(152, self.entries)?;
        self.u64(192, when.realtime)?;
        self.u64(200, when.monotonic)
    }

    fn link(&mut self, entry: u64) -> io::Result<()> {
        let width = if self.compact { 4 } else { 8 };
        let room: u64 = self.arrays.iter().map(|(_, items)| items).sum();
        if self.entries == room {
            let items = (room * 2).max(4);
            let body = vec![0; usize::try_from(8 + items * width).unwrap_or(0)];
            let array = self.object(6, 0, &body)?;
            match self.arrays.last() {
                Some((last, _)) => self.u64(last + 16, array)?,
                None => self.u64(176, array)?,
            }
            self.arrays.push((array, items));
        }
        let Some((array, items)) = self.arrays.last() else {
            return Err(io::ErrorKind::InvalidData.into());
        };
        let room: u64 = self.arrays.iter().map(|(_, items)| items).sum();
        let number = self.entries - (room - items);
        let offset = array + 24 + number * width;
        self.file.write_all_at(&self.item(entry), offset)
    }

    /// An offset, as this file has them.
    fn item(&self, offset: u64) -> Vec<u8> {
        let width = if self.compact { 4 } else { 8 };
        offset.to_le_bytes()[..width].to_vec()
    }

    fn object(&mut self, kind: u8, flags: u8, body: &[u8]) -> io::Result<u64> {
        let size = 16 + body.len() as u64;
        let mut object = vec![kind, flags, 0, 0, 0, 0, 0, 0];
        object.extend(size.to_le_bytes());
        object.extend(body);
        let offset = self.end;
        self.file.write_all_at(&object, offset)?;
        self.end = (offset + size).next_multiple_of(8);
        // The file grows in whole objects.
        self.file.set_len(self.end)?;
        Ok(offset)
    }

    fn u64(&self, offset: u64, value: u64) -> io::Result<()> {
        self.file.write_all_at(&value.to_le_bytes(), offset)
    }
}
