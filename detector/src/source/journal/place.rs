//! PURE. How far the journal has been read: what the next agent needs to go on from there, and what
//! tells an entry that was read already from a new one.
//!
//! Sequence numbers do not suffice: when journald moves its files from /run to /var it writes all
//! entries again, with new numbers. Their times stay, and go forward within a boot.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::entry::Stamp;
use super::format::{Header, Id};

/// An entry, as far as the next agent has to know it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Mark {
    series: Id,
    seqnum: u64,
    monotonic: u64,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Place {
    /// The last entry that was read.
    pub(super) mark: Mark,
    /// Its file; not known of the agent before this one.
    file: Option<Id>,
    /// Of the entries of just that microsecond.
    hashes: Vec<u64>,
}

/// Before the series in the saved name of its sequence number.
const SEQNUM: &str = "journal ";
const TIME: &str = "journalTime";
/// One service's lines that came at once; journald reads a few hundred bytes of them at a time.
const MOST_HASHES: usize = 4096;

impl Place {
    /// Where the agent before this one stopped.
    pub(super) fn left(mark: Mark) -> Self {
        Self {
            mark,
            file: None,
            hashes: Vec::new(),
        }
    }

    /// After the first entry of all.
    pub(super) fn after(header: &Header, stamp: &Stamp) -> Self {
        Self {
            mark: Mark {
                series: header.series,
                seqnum: stamp.seqnum,
                monotonic: stamp.monotonic,
            },
            file: Some(header.file),
            hashes: vec![stamp.hash],
        }
    }

    pub(super) fn go_on(&mut self, header: &Header, stamp: &Stamp) {
        let mut hashes = std::mem::take(&mut self.hashes);
        if stamp.monotonic != self.mark.monotonic || hashes.len() >= MOST_HASHES {
            hashes.clear();
        }
        hashes.push(stamp.hash);
        *self = Self {
            hashes,
            ..Self::after(header, stamp)
        };
    }

    /// Whether an entry has been read in another file, or by the agent before this one.
    pub(super) fn has(&self, header: &Header, stamp: &Stamp) -> bool {
        if self.file == Some(header.file) {
            return false;
        }
        if header.series == self.mark.series {
            if stamp.seqnum <= self.mark.seqnum {
                return true;
            }
            if stamp.seqnum == self.mark.seqnum + 1 {
                return false;
            }
        }
        if stamp.monotonic != self.mark.monotonic {
            return stamp.monotonic < self.mark.monotonic;
        }
        match self.file {
            Some(_) => self.hashes.contains(&stamp.hash),
            None => header.series != self.mark.series,
        }
    }
}

impl Mark {
    /// Of the files that are there, each with its series and first sequence number: how many entries
    /// are gone, at most. Those of users' journals are numbered along.
    pub(super) fn lost(&self, firsts: impl Iterator<Item = (Id, u64)>) -> u64 {
        let own = firsts.filter(|(series, first)| *series == self.series && *first > 0);
        let next = self.seqnum.saturating_add(1);
        let oldest = own.map(|(_, first)| first).min();
        oldest.map_or(0, |oldest| oldest.saturating_sub(next))
    }

    /// As named positions of the state file.
    pub(super) fn save(&self) -> BTreeMap<String, u64> {
        let mut name = SEQNUM.to_owned();
        for byte in self.series {
            // Writing to a String does not fail.
            let _ = write!(name, "{byte:02x}");
        }
        BTreeMap::from([(name, self.seqnum), (TIME.to_owned(), self.monotonic)])
    }

    /// From all of the saved positions.
    pub(super) fn saved(positions: &BTreeMap<String, u64>) -> Option<Self> {
        let series = |(name, &seqnum): (&String, &u64)| {
            let hex = name.strip_prefix(SEQNUM)?;
            Some((id(hex)?, seqnum))
        };
        let (series, seqnum) = positions.iter().find_map(series)?;
        Some(Self {
            series,
            seqnum,
            monotonic: *positions.get(TIME)?,
        })
    }
}

/// 32 hexadecimal digits, as in machine-id(5); with dashes between them in the kernel's boot id.
pub(super) fn id(text: &str) -> Option<Id> {
    let digits = text.trim().replace('-', "");
    let fits = digits.len() == 32 && digits.bytes().all(|byte| byte.is_ascii_hexdigit());
    fits.then(|| u128::from_str_radix(&digits, 16).ok())?
        .map(u128::to_be_bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    const ONE: Id = [1; 16];
    const TWO: Id = [2; 16];

    fn header(file: Id, series: Id) -> Header {
        Header {
            file,
            series,
            compact: false,
            archived: false,
            size: 256,
            entries: 0,
            first_array: 0,
            first_seqnum: 0,
            last_seqnum: 0,
            first_realtime: 0,
        }
    }

    fn stamp(seqnum: u64, monotonic: u64, hash: u64) -> Stamp {
        Stamp {
            seqnum,
            monotonic,
            hash,
            ..Stamp::default()
        }
    }

    #[test]
    fn a_file_is_read_from_entry_to_entry_even_when_time_goes_back() {
        let file = header(ONE, ONE);
        let place = Place::after(&file, &stamp(7, 100, 1));
        assert!(!place.has(&file, &stamp(8, 100, 1)), "the same text again");
        assert!(!place.has(&file, &stamp(9, 50, 1)));
        assert!(!place.has(&file, &stamp(3, 101, 1)), "damaged");
    }

    #[test]
    fn what_was_written_again_in_another_file_is_known_by_its_time_and_text() {
        let (run, var) = (header(ONE, ONE), header(TWO, TWO));
        let mut place = Place::after(&run, &stamp(7, 100, 1));
        place.go_on(&run, &stamp(8, 100, 2));
        for series in [ONE, TWO] {
            let var = Header {
                series,
                ..var.clone()
            };
            assert!(place.has(&var, &stamp(20, 99, 9)));
            assert!(place.has(&var, &stamp(21, 100, 1)));
            assert!(place.has(&var, &stamp(22, 100, 2)));
            assert!(!place.has(&var, &stamp(23, 100, 3)));
            assert!(!place.has(&var, &stamp(24, 101, 1)));
        }
    }

    #[test]
    fn the_next_file_of_a_series_goes_on_in_the_same_microsecond() {
        let place = Place::after(&header(ONE, ONE), &stamp(7, 100, 1));
        assert!(!place.has(&header(TWO, ONE), &stamp(8, 100, 1)));
    }

    #[test]
    fn the_next_agent_goes_on_after_what_was_saved() {
        let file = header(ONE, TWO);
        let place = Place::after(&file, &stamp(7, 100, 1));
        let mut positions = place.mark.save();
        positions.insert("kernelLog".to_owned(), 9);
        let place = Place::left(Mark::saved(&positions).unwrap());
        assert!(place.has(&file, &stamp(7, 100, 1)));
        assert!(!place.has(&file, &stamp(9, 100, 1)));
        let other = header(TWO, ONE);
        assert!(place.has(&other, &stamp(1, 100, 1)));
        assert!(!place.has(&other, &stamp(1, 101, 1)));
        positions.remove(TIME);
        assert_eq!(Mark::saved(&positions), None);
    }

    #[test]
    fn what_was_deleted_unread_is_counted() {
        let mark = Place::after(&header(ONE, ONE), &stamp(7, 100, 1)).mark;
        let lost = |firsts: &[(Id, u64)]| mark.lost(firsts.iter().copied());
        assert_eq!(lost(&[(ONE, 1), (ONE, 30)]), 0, "of users' journals");
        assert_eq!(lost(&[(ONE, 8)]), 0);
        assert_eq!(lost(&[(ONE, 30), (ONE, 20), (TWO, 1)]), 12);
        assert_eq!(lost(&[(TWO, 30)]), 0, "moved to another place");
        assert_eq!(lost(&[(ONE, 0)]), 0, "empty");
    }

    #[test]
    fn ids_have_32_digits() {
        assert_eq!(id("00112233445566778899aabbccddeeff\n").unwrap()[1], 0x11);
        assert!(id("00112233-4455-6677-8899-aabbccddeeff").is_some());
        for wrong in ["", "0011", "+0112233445566778899aabbccddeeff"] {
            assert_eq!(id(wrong), None, "{wrong}");
        }
    }
}
