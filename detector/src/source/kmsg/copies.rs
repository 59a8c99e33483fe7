//! PURE. Copies of lines that were made when the kernel stored them: what the log was overrun of
//! before it was read is told from its copy, and a copy knows better when its line was stored
//! ([`super::line_clock`]).

use std::collections::VecDeque;
use std::time::Duration;

use super::record::escaped;

/// More than a ring of copies holds.
const MOST: usize = 1024;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    /// Since boot.
    pub at: Duration,
    /// Escaped as `/dev/kmsg` does it.
    pub text: String,
}

#[derive(Default)]
pub(super) struct Copies {
    lines: VecDeque<Line>,
    overrun: bool,
}

impl Copies {
    pub(super) fn add(&mut self, at: Duration, text: &[u8]) {
        if self.lines.len() == MOST {
            self.lines.pop_front();
        }
        let text = escaped(text);
        self.lines.push_back(Line { at, text });
    }

    /// The log has been read up to this line; a copy may be the beginning of its line. When it was
    /// stored, where there is one.
    pub(super) fn read(&mut self, text: &str) -> Option<Duration> {
        let same = |line: &Line| text.starts_with(&line.text);
        let index = self.lines.iter().position(same)?;
        self.lines.remove(index).map(|line| line.at)
    }

    /// Lines of the log were overwritten before they were read.
    pub(super) fn overrun(&mut self) {
        self.overrun = true;
    }

    /// The whole log has been read: what is left was overwritten, if anything was.
    pub(super) fn caught_up(&mut self) -> VecDeque<Line> {
        let left = std::mem::take(&mut self.lines);
        if std::mem::take(&mut self.overrun) {
            left
        } else {
            VecDeque::new()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn texts(lines: VecDeque<Line>) -> Vec<String> {
        lines.into_iter().map(|line| line.text).collect()
    }

    fn copies(lines: &[&str]) -> Copies {
        let mut copies = Copies::default();
        for line in lines {
            copies.add(Duration::ZERO, line.as_bytes());
        }
        copies
    }

    #[test]
    fn only_what_was_overwritten_unread_is_told_from_its_copy() {
        let mut copies = copies(&["BUG: a", "BUG: b", "BUG: b", "cgroup: fork rejected in "]);
        assert!(copies.read("BUG: b").is_some());
        copies.overrun();
        copies.read("cgroup: fork rejected in /kubepods");
        assert_eq!(texts(copies.caught_up()), ["BUG: a", "BUG: b"]);
        copies.add(Duration::ZERO, b"BUG: c");
        assert_eq!(texts(copies.caught_up()), [""; 0]);
    }

    #[test]
    fn each_line_was_stored_when_its_own_copy_was_made() {
        let mut copies = Copies::default();
        for second in [3, 4] {
            copies.add(Duration::from_secs(second), b"BUG: a");
        }
        assert_eq!(copies.read("BUG: b"), None);
        assert_eq!(copies.read("BUG: a at 0"), Some(Duration::from_secs(3)));
        assert_eq!(copies.read("BUG: a at 0"), Some(Duration::from_secs(4)));
        assert_eq!(copies.read("BUG: a at 0"), None);
    }

    #[test]
    fn without_an_overrun_nothing_is_told_twice() {
        assert_eq!(texts(copies(&["BUG: a"]).caught_up()), [""; 0]);
    }

    #[test]
    fn bytes_are_escaped_as_the_log_does_it() {
        let mut copies = Copies::default();
        copies.add(Duration::ZERO, b"BUG: a\nb\\\xff");
        copies.overrun();
        assert_eq!(texts(copies.caught_up()), ["BUG: a\\x0ab\\x5c\\xff"]);
    }

    #[test]
    fn a_flood_of_copies_is_bounded() {
        let lines: Vec<_> = (0..10_000).map(|n| format!("BUG: {n}")).collect();
        let lines: Vec<_> = lines.iter().map(String::as_str).collect();
        let mut copies = copies(&lines);
        copies.overrun();
        let left = copies.caught_up();
        assert_eq!(
            (left.len(), left.back().unwrap().text.as_str()),
            (MOST, "BUG: 9999")
        );
    }
}
