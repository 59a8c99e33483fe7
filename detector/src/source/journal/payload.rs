//! PURE. Fields that journald has compressed: only their beginning is unpacked, whatever they say
//! about their length.

use std::fmt;
use std::io::Read as _;

use ruzstd::decoding::StreamingDecoder;

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Compression {
    Xz,
    Lz4,
    Zstd,
    Unknown,
}

/// Enough for the first block of any of them.
pub(super) const MOST_INPUT: usize = 160 << 10;
/// journald's own need at most 2 MiB.
const WINDOW: u64 = 4 << 20;

impl Compression {
    /// By the flags of an object; None: as it is.
    pub(super) fn of(flags: u8) -> Option<Self> {
        match flags {
            0 => None,
            1 => Some(Self::Xz),
            2 => Some(Self::Lz4),
            4 => Some(Self::Zstd),
            _other => Some(Self::Unknown),
        }
    }
}

impl fmt::Display for Compression {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Xz => "xz",
            Self::Lz4 => "LZ4",
            Self::Zstd => "zstd",
            Self::Unknown => "an unknown compression",
        })
    }
}

/// At most `limit` bytes; fewer only where there are no more. None: it cannot be unpacked.
pub(super) fn beginning(compressed: &[u8], how: Compression, limit: usize) -> Option<Vec<u8>> {
    match how {
        Compression::Zstd => zstd(compressed, limit),
        // After the length of the whole.
        Compression::Lz4 => lz4(compressed.get(8..)?, limit),
        // Before systemd 215, and where it was built without the others.
        Compression::Xz | Compression::Unknown => None,
    }
}

fn zstd(compressed: &[u8], limit: usize) -> Option<Vec<u8>> {
    let decoder = StreamingDecoder::new_with_max_window_size(compressed, WINDOW).ok()?;
    let mut field = Vec::new();
    let limit = u64::try_from(limit).ok()?;
    decoder.take(limit).read_to_end(&mut field).ok()?;
    Some(field)
}

/// One block of LZ4: literals, then a copy of what came before, again and again.
fn lz4(mut block: &[u8], limit: usize) -> Option<Vec<u8>> {
    let mut field = Vec::new();
    loop {
        let token = usize::from(take(&mut block, 1)?[0]);
        let literals = length(token >> 4, &mut block)?;
        let wanted = literals.min(limit - field.len());
        field.extend_from_slice(block.get(..wanted)?);
        if field.len() == limit {
            return Some(field);
        }
        take(&mut block, literals)?;
        // The last one has no copy.
        if block.is_empty() {
            return Some(field);
        }
        let back = usize::from(u16::from_le_bytes(*take(&mut block, 2)?.first_chunk()?));
        let copy = length(token & 15, &mut block)?.checked_add(4)?;
        let from = field.len().checked_sub(back).filter(|_| back > 0)?;
        // It may reach into what it writes.
        for from in from..from + copy.min(limit - field.len()) {
            field.push(*field.get(from)?);
        }
        if field.len() == limit {
            return Some(field);
        }
    }
}

fn length(first: usize, block: &mut &[u8]) -> Option<usize> {
    let mut length = first;
    if first == 15 {
        loop {
            let more = usize::from(take(block, 1)?[0]);
            length = length.checked_add(more)?;
            if more < 255 {
                break;
            }
        }
    }
    Some(length)
}

fn take<'a>(block: &mut &'a [u8], count: usize) -> Option<&'a [u8]> {
    let (taken, rest) = block.split_at_checked(count)?;
    *block = rest;
    Some(taken)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn a_block_of_lz4_is_unpacked_as_far_as_asked() {
        // 3 literals, 12 more by a copy of them, 5 literals.
        let block = [
            0x38, b'a', b'b', b'c', 3, 0, 0x50, b'v', b'w', b'x', b'y', b'z',
        ];
        let all = lz4(&block, 100).unwrap();
        assert_eq!(all, b"abcabcabcabcabcvwxyz");
        for limit in 0..=all.len() {
            assert_eq!(lz4(&block, limit).unwrap(), all[..limit]);
        }
    }

    #[test]
    fn long_literals_and_copies_have_their_lengths_in_more_bytes() {
        let mut block = vec![0xff, 255, 1];
        block.extend([b'l'; 15 + 256]);
        block.extend([1, 0, 0, 0x10, b'e']);
        let all = lz4(&block, 10_000).unwrap();
        let expected = "l".repeat(15 + 256 + 19) + "e";
        assert_eq!(String::from_utf8(all).unwrap(), expected);
    }

    /// `lz4.block.compress(text, store_size=False)` of Python's lz4, which is the reference library.
    const REFERENCE: &str = "f1034d4553534147453d6c6f6e6720776f72643006001131060011340600113906002131\
        360700213235070012330e0012341c00123629001238360011332200123214002134370e00213732070002060012\
        33280012360e001339520002370013378000021c001235150013396e0002530012393f0013341c00021500123538\
        00113867001236530012327c00123815001235290012325a001338ba00024c001233310012310e0012386f001236\
        070012343f001233380012310e00021b001239830012383e001237530013370e00021c0004070003150002230003\
        3100033f00024c00035900036700037500a0363620776f7264383620";

    #[test]
    fn a_block_of_the_reference_library_is_unpacked() {
        let digits: Vec<u32> = REFERENCE.chars().filter_map(|c| c.to_digit(16)).collect();
        let block: Vec<u8> = digits
            .chunks(2)
            .map(|pair| u8::try_from(pair[0] * 16 + pair[1]).unwrap())
            .collect();
        let words = (0..60).map(|i| format!("word{} ", i * i % 97));
        let text = format!("MESSAGE=long {}", words.collect::<String>());
        let mut field = u64::try_from(text.len()).unwrap().to_le_bytes().to_vec();
        field.extend(block);
        let all = beginning(&field, Compression::Lz4, 10_000).unwrap();
        assert_eq!(String::from_utf8(all).unwrap(), text);
        let cut = beginning(&field, Compression::Lz4, 100).unwrap();
        assert_eq!(cut, text.as_bytes()[..100]);
    }

    #[test]
    fn a_copy_of_what_is_not_there_is_refused() {
        for back in [0, 4] {
            assert_eq!(lz4(&[0x30, b'a', b'b', b'c', back, 0, 0], 100), None);
        }
    }

    #[test]
    fn a_frame_that_asks_for_much_memory_is_refused() {
        // A window of 64 MiB, then an empty last block.
        let frame = [0x28, 0xb5, 0x2f, 0xfd, 0, 16 << 3, 1, 0, 0];
        assert_eq!(beginning(&frame, Compression::Zstd, 10), None);
        let frame = [0x28, 0xb5, 0x2f, 0xfd, 0, 10 << 3, 1, 0, 0];
        assert_eq!(beginning(&frame, Compression::Zstd, 10), Some(Vec::new()));
    }

    proptest! {
        #[test]
        fn any_bytes_are_unpacked_within_bounds(
            mut bytes in prop::collection::vec(any::<u8>(), 0..300), limit in 0usize..600,
            magic in any::<bool>(),
        ) {
            if magic {
                bytes.splice(0..0, [0x28, 0xb5, 0x2f, 0xfd]);
            }
            for how in [Compression::Lz4, Compression::Zstd] {
                let unpacked = beginning(&bytes, how, limit);
                prop_assert!(unpacked.unwrap_or_default().len() <= limit);
            }
        }
    }
}
