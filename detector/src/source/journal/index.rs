//! PURE. Where the n-th entry of a journal file is: a chain of arrays, each twice as long as the one
//! before.

use super::format::{Bytes, ENTRY_ARRAY, Header, Unreadable, damaged, object, u32_at, u64_at};

#[derive(Debug, Default)]
pub(super) struct Index {
    arrays: Vec<Array>,
}

#[derive(Debug, Clone, Copy)]
struct Array {
    offset: u64,
    /// The number of its first entry.
    begin: u64,
    items: u64,
}

/// More than 2^64 entries fill.
const MOST_ARRAYS: usize = 128;
const ARRAY: usize = 24;
/// Offsets that are read at once.
const BATCH: u64 = 512;

impl Index {
    /// Where the entries from number `from` on are, before number `to`: some of them, at least one.
    pub(super) fn entries(
        &mut self,
        bytes: &impl Bytes,
        header: &Header,
        from: u64,
        to: u64,
    ) -> Result<Vec<u64>, Unreadable> {
        let array = self.array_of(bytes, header, from)?;
        let width = if header.compact { 4 } else { 8 };
        let skipped = from - array.begin;
        let count = (array.items - skipped)
            .min(to.saturating_sub(from))
            .min(BATCH);
        let offset = array.offset + ARRAY as u64 + skipped * width;
        let length = usize::try_from(count * width).unwrap_or(0);
        let mut buffer = vec![0; length];
        super::format::exactly(bytes, offset, &mut buffer)?;
        let offsets = buffer.chunks_exact(if header.compact { 4 } else { 8 });
        Ok(offsets
            .map(|item| {
                if header.compact {
                    u64::from(u32_at(item, 0))
                } else {
                    u64_at(item, 0)
                }
            })
            .collect())
    }

    fn array_of(
        &mut self,
        bytes: &impl Bytes,
        header: &Header,
        number: u64,
    ) -> Result<Array, Unreadable> {
        let has = |array: &&Array| number - array.begin < array.items;
        let begun = self.arrays.partition_point(|array| array.begin <= number);
        if let Some(array) = self.arrays[..begun].last().filter(has) {
            return Ok(*array);
        }
        loop {
            let (next, begin) = match self.arrays.last() {
                None => (header.first_array, 0),
                Some(last) => (
                    self.next(bytes, header, last)?,
                    last.begin.saturating_add(last.items),
                ),
            };
            // Each is appended when it is needed, so there is no way back.
            let behind = self.arrays.last().is_none_or(|last| last.offset < next);
            if !behind || self.arrays.len() == MOST_ARRAYS {
                return Err(damaged(next, "the list of entries does not go on here"));
            }
            let mut start = [0; ARRAY];
            let object = object(bytes, header, ENTRY_ARRAY, next, &mut start)?;
            let array = Array {
                offset: next,
                begin,
                items: (object.size - ARRAY as u64) / if header.compact { 4 } else { 8 },
            };
            if array.items == 0 {
                return Err(damaged(next, "a list of entries without room for one"));
            }
            self.arrays.push(array);
            if number - begin < array.items {
                return Ok(array);
            }
        }
    }

    /// Read anew each time: the last one had none yet.
    fn next(&self, bytes: &impl Bytes, header: &Header, array: &Array) -> Result<u64, Unreadable> {
        let mut start = [0; ARRAY];
        object(bytes, header, ENTRY_ARRAY, array.offset, &mut start)?;
        Ok(u64_at(&start, 16))
    }
}
