//! PURE. The last words of a kernel that died, as pstore keeps them over a boot
//! (Documentation/ABI/testing/pstore): `Panic#1 Part1`, then lines of its log.

use crate::text;

/// In the order of what says most.
const TELLING: [&str; 4] = [
    "Kernel panic - not syncing",
    "kernel BUG at",
    "BUG: ",
    "Oops: ",
];

/// `dump` is one file. Part 1 holds the newest lines.
pub(super) fn last_words(dump: &[u8]) -> Option<String> {
    let dump = String::from_utf8_lossy(dump);
    let lines: Vec<_> = dump
        .lines()
        .filter(|line| !line.trim().is_empty() && !is_header(line))
        .collect();
    let telling = TELLING
        .iter()
        .find_map(|words| lines.iter().rev().find(|line| line.contains(words)));
    let line = telling.or(lines.last())?;
    Some(text::printable(without_prefix(line).as_bytes(), 200))
}

/// `Panic#1 Part1`, `Oops#2 Part3`.
fn is_header(line: &str) -> bool {
    line.split_once('#')
        .and_then(|(_, rest)| rest.split_once(" Part"))
        .is_some_and(|(count, part)| is_number(count) && is_number(part))
}

fn is_number(text: &str) -> bool {
    !text.is_empty() && text.bytes().all(|b| b.is_ascii_digit())
}

/// `<0>[   12.345678] text`
fn without_prefix(line: &str) -> &str {
    let line = match line.strip_prefix('<').and_then(|rest| rest.split_once('>')) {
        Some((level, rest)) if is_number(level) => rest,
        Some(_) | None => line,
    };
    match line
        .strip_prefix('[')
        .and_then(|rest| rest.split_once("] "))
    {
        Some((_, rest)) => rest,
        None => line,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_panic_is_what_it_said_last() {
        let dump = b"Panic#1 Part1\n<6>[   12.1] usb 1-1: new device\n\
            <0>[   12.345678] Kernel panic - not syncing: Fatal exception in interrupt\n\
            <0>[   12.4] ---[ end Kernel panic - not syncing: Fatal exception in interrupt ]---\n\
            <0>[   12.5] Rebooting in 10 seconds..\n";
        assert_eq!(
            last_words(dump).unwrap(),
            "---[ end Kernel panic - not syncing: Fatal exception in interrupt ]---"
        );
    }

    #[test]
    fn without_a_panic_it_is_the_last_line() {
        let dump = b"Oops#2 Part1\n<4>[ 1.0] a\n<4>[ 2.0] b\x1b[31m\n\n";
        assert_eq!(last_words(dump).unwrap(), "b\\u{1b}[31m");
    }

    #[test]
    fn an_empty_dump_says_nothing() {
        assert_eq!(last_words(b""), None);
        assert_eq!(last_words(b"Panic#1 Part1\n"), None);
        assert!(last_words(&[0xff; 100_000]).unwrap().len() <= 200);
    }
}
