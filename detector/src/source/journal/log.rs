//! PURE. One journal file, read from entry to entry.

use super::entry::{self, Fields, Line, Stamp};
use super::format::{self, Bytes, Header, Id, Unreadable, damaged};
use super::index::Index;
use super::place::{Mark, Place};

pub(super) struct Log<B> {
    bytes: B,
    header: Header,
    index: Index,
    fields: Fields,
    /// The number of the next entry; None: not known yet.
    next: Option<u64>,
}

/// What was read.
#[derive(Debug)]
pub(super) enum Seen {
    /// When journald got it, as `CLOCK_MONOTONIC` in microseconds, and where to go on after it.
    Line {
        line: Line,
        monotonic: u64,
        mark: Mark,
    },
    /// Entries that cannot be read.
    Lost { count: u64, why: Unreadable },
}

/// Whose entries count, and until when there can be any.
#[derive(Debug, Clone, Copy)]
pub(super) struct Now {
    pub(super) boot: Id,
    /// `CLOCK_MONOTONIC` in microseconds.
    pub(super) monotonic: u64,
}

/// Of one file, before the others have their turn.
const CHUNK: u64 = 256;

impl<B: Bytes> Log<B> {
    pub(super) fn new(bytes: B) -> Result<Self, Unreadable> {
        Ok(Self {
            header: format::header(&bytes)?,
            bytes,
            index: Index::default(),
            fields: Fields::default(),
            next: None,
        })
    }

    pub(super) fn bytes(&self) -> &B {
        &self.bytes
    }

    pub(super) fn header(&self) -> &Header {
        &self.header
    }

    /// Looks at its header again; one that cannot be read is told of by [`Log::read`].
    pub(super) fn refresh(&mut self) {
        if let Ok(header) = format::header(&self.bytes)
            && header.entries >= self.header.entries
        {
            self.header = header;
        }
    }

    /// Begins with the first entry of this boot, at most `most` before the end; returns how many there
    /// are to read.
    pub(super) fn go_back(&mut self, boot: Id, most: u64) -> u64 {
        let entries = self.header.entries;
        let next = match self.next {
            Some(next) => next,
            None => {
                let first = self.first(|_, stamp| stamp.boot == boot);
                first.max(entries.saturating_sub(most))
            }
        };
        self.next = Some(next);
        entries.saturating_sub(next)
    }

    /// Up to [`CHUNK`] entries; true when there are more. `place` is moved on.
    pub(super) fn read(
        &mut self,
        now: Now,
        place: &mut Option<Place>,
        wanted: impl Fn(&str) -> bool,
        see: &mut impl FnMut(Seen),
    ) -> Result<bool, Unreadable> {
        let before = self.header.entries;
        self.header = format::header(&self.bytes)?;
        let entries = self.header.entries;
        if entries < before {
            return Err(damaged(152, "fewer entries than before"));
        }
        let mut next = match self.next {
            Some(next) => next,
            None => self.first(|header, stamp| {
                let read = place.as_ref().is_some_and(|place| place.has(header, stamp));
                stamp.boot == now.boot && !read
            }),
        };
        let end = entries.min(next.saturating_add(CHUNK));
        while next < end {
            let offsets = match self.index.entries(&self.bytes, &self.header, next, end) {
                Ok(offsets) => offsets,
                Err(why) => {
                    let count = entries - next;
                    see(Seen::Lost { count, why });
                    next = entries;
                    break;
                }
            };
            let count = offsets.len() as u64;
            // The last one may be on its way.
            let arrives = |(number, offset): (u64, &u64)| *offset == 0 && number + 1 == entries;
            if (next..).zip(&offsets).any(arrives) && !self.header.archived {
                self.see(&offsets[..offsets.len() - 1], now, place, &wanted, see);
                self.next = Some(next + count - 1);
                return Ok(false);
            }
            self.see(&offsets, now, place, &wanted, see);
            next += count;
        }
        self.next = Some(next);
        Ok(next < entries)
    }

    fn see(
        &mut self,
        offsets: &[u64],
        now: Now,
        place: &mut Option<Place>,
        wanted: &impl Fn(&str) -> bool,
        see: &mut impl FnMut(Seen),
    ) {
        for &offset in offsets {
            match self.entry(offset, now, place, wanted) {
                Ok(None) => {}
                Ok(Some(seen)) => see(seen),
                Err(why) => see(Seen::Lost { count: 1, why }),
            }
        }
    }

    fn entry(
        &mut self,
        offset: u64,
        now: Now,
        place: &mut Option<Place>,
        wanted: &impl Fn(&str) -> bool,
    ) -> Result<Option<Seen>, Unreadable> {
        let Self {
            bytes,
            header,
            fields,
            ..
        } = self;
        let stamp = entry::stamp(bytes, header, offset)?;
        if stamp.boot != now.boot {
            return Ok(None);
        }
        // What comes after it would be taken for old.
        if stamp.seqnum > header.last_seqnum || stamp.monotonic > now.monotonic {
            return Err(damaged(offset, "an entry from the future"));
        }
        match place {
            Some(place) if place.has(header, &stamp) => return Ok(None),
            Some(place) => place.go_on(header, &stamp),
            None => *place = Some(Place::after(header, &stamp)),
        }
        let line = fields.line(bytes, header, offset, &stamp, wanted)?;
        let mark = place.as_ref().map(|place| place.mark);
        Ok(line.zip(mark).map(|(line, mark)| Seen::Line {
            line,
            monotonic: stamp.monotonic,
            mark,
        }))
    }

    /// The number of the first entry that `fits`, where all after it do; the first of all where
    /// something on the way cannot be read.
    fn first(&mut self, fits: impl Fn(&Header, &Stamp) -> bool) -> u64 {
        let (mut low, mut high) = (0, self.header.entries);
        while low < high {
            let middle = low + (high - low) / 2;
            let offsets = self
                .index
                .entries(&self.bytes, &self.header, middle, middle + 1);
            let stamp = offsets.and_then(|offsets| {
                let offset = offsets.first().copied().unwrap_or(0);
                entry::stamp(&self.bytes, &self.header, offset)
            });
            match stamp {
                Ok(stamp) if fits(&self.header, &stamp) => high = middle,
                Ok(_) => low = middle + 1,
                Err(_) => return 0,
            }
        }
        low
    }
}
