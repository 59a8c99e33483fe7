//! A log file, in reads of any size.

use super::lines::{LIMIT, Lines};

/// The first byte says how much comes in one read.
pub(crate) fn lines(bytes: &[u8]) {
    let Some((&size, text)) = bytes.split_first() else {
        return;
    };
    let read = |chunk: usize| {
        let (mut lines, mut seen) = (Lines::default(), Vec::new());
        for chunk in text.chunks(chunk) {
            lines.push(chunk, &mut |line, next| {
                assert!(line.len() <= LIMIT && !line.contains(&b'\n'));
                assert!(next <= text.len() as u64);
                seen.push(line.to_vec());
            });
        }
        assert!(lines.whole() <= lines.offset());
        assert_eq!(lines.offset(), text.len() as u64);
        (seen, lines.take_cut())
    };
    assert_eq!(read(usize::from(size) + 1), read(text.len().max(1)));
}
