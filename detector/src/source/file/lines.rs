//! PURE. Cuts a stream of bytes into lines of bounded length.

#[derive(Debug, Default)]
pub(super) struct Lines {
    /// Where the next byte stands in the file.
    offset: u64,
    /// The beginning of a line whose end has not come yet.
    begun: Vec<u8>,
    /// The rest of a line that was too long.
    skipping: bool,
    /// Lines of which only the beginning was handed over, since the last [`Lines::take_cut`].
    cut: u64,
}

/// Longer lines are looked at up to here.
pub(super) const LIMIT: usize = 8192;

impl Lines {
    /// `line` gets each line, and where to go on reading after it.
    pub(super) fn push(&mut self, bytes: &[u8], line: &mut dyn FnMut(&[u8], u64)) {
        for part in bytes.split_inclusive(|&b| b == b'\n') {
            let (text, ended) = match part.strip_suffix(b"\n") {
                Some(text) => (text, true),
                None => (part, false),
            };
            let begin = self.offset - length(&self.begun);
            self.offset += length(part);
            if !self.skipping {
                let room = LIMIT - self.begun.len();
                let fits = text.len() <= room;
                self.begun
                    .extend_from_slice(text.get(..room).unwrap_or(text));
                if !fits {
                    self.cut += 1;
                    self.skipping = true;
                }
                if !fits || ended {
                    // Of a line that is cut the whole: its rest is no line.
                    let next = if ended { self.offset } else { begin };
                    line(self.begun.strip_suffix(b"\r").unwrap_or(&self.begun), next);
                    self.begun.clear();
                }
            }
            if ended {
                self.skipping = false;
            }
        }
    }

    pub(super) fn offset(&self) -> u64 {
        self.offset
    }

    /// Where to go on: the line that has begun is read again.
    pub(super) fn whole(&self) -> u64 {
        self.offset - length(&self.begun)
    }

    /// What has begun will not be continued.
    pub(super) fn start_at(&mut self, offset: u64) {
        self.offset = offset;
        self.begun.clear();
        self.skipping = false;
    }

    pub(super) fn take_cut(&mut self) -> u64 {
        std::mem::take(&mut self.cut)
    }
}

fn length(bytes: &[u8]) -> u64 {
    u64::try_from(bytes.len()).unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn lines_of(chunks: &[&[u8]]) -> (Vec<Vec<u8>>, u64) {
        let (mut lines, mut seen) = (Lines::default(), Vec::new());
        for chunk in chunks {
            lines.push(chunk, &mut |line, _| seen.push(line.to_vec()));
        }
        (seen, lines.take_cut())
    }

    #[test]
    fn a_line_can_come_in_pieces() {
        let (lines, _) = lines_of(&[b"a", b"b\nc", b"\r\n\nunfinished"]);
        assert_eq!(lines, [b"ab".to_vec(), b"c".to_vec(), Vec::new()]);
    }

    #[test]
    fn a_long_line_is_seen_once_cut_and_counted() {
        let long = vec![b'x'; 3 * LIMIT];
        let (lines, cut) = lines_of(&[&long, &long, b"\nnext\n"]);
        assert_eq!(lines, [vec![b'x'; LIMIT], b"next".to_vec()]);
        assert_eq!(cut, 1);
    }

    #[test]
    fn a_line_of_just_the_limit_is_whole() {
        let mut text = vec![b'x'; LIMIT];
        text.push(b'\n');
        let (lines, cut) = lines_of(&[&text]);
        assert_eq!((lines[0].len(), cut), (LIMIT, 0));
    }

    #[test]
    fn after_each_line_one_can_go_on_from_where_it_ended() {
        let (mut lines, mut ends) = (Lines::default(), Vec::new());
        for chunk in [&b"ab"[..], b"c\nd\r\n\ne"] {
            lines.push(chunk, &mut |_, end| ends.push(end));
        }
        assert_eq!((ends, lines.offset(), lines.whole()), (vec![4, 7, 8], 9, 8));
    }

    proptest! {
        #[test]
        fn how_the_bytes_are_cut_into_reads_changes_nothing(
            text in prop::collection::vec(prop_oneof![Just(b'\n'), any::<u8>()], 0..400),
            at in prop::collection::vec(0usize..400, 0..6),
        ) {
            let mut at: Vec<_> = at.into_iter().filter(|&i| i < text.len()).collect();
            at.sort_unstable();
            let mut chunks = Vec::new();
            let mut from = 0;
            for to in at {
                chunks.push(&text[from..to]);
                from = to;
            }
            chunks.push(&text[from..]);
            prop_assert_eq!(lines_of(&chunks), lines_of(&[&text]));
        }
    }
}
