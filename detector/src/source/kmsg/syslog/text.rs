//! PURE. The kernel log as syslog(2) gives it: `<6>[    5.140900] text`, since CONFIG_PRINTK_CALLER
//! `<6>[    5.140900][   T12] text`; each line of a record has a beginning of its own.

use std::time::Duration;

use super::super::record::escaped;

/// A record of `/dev/kmsg` is not longer.
const LONGEST: usize = 8192;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Line {
    pub priority: u32,
    /// The kernel's local clock since boot.
    pub at: Duration,
    /// `T12` or `C0`, where the kernel says it.
    caller: String,
    /// Control characters are escaped as `/dev/kmsg` does it.
    pub text: String,
}

/// What cannot be read is left out.
pub(super) fn lines(log: &[u8]) -> impl Iterator<Item = Line> {
    log.split(|&byte| byte == b'\n').filter_map(line)
}

/// A process can put a newline into its name, and what follows would begin like a line of the kernel.
/// Lines of one record have the same priority, time and caller, so lines that do are taken for one
/// record, of which the grammar then sees the whole: two faults of one microsecond and level are lost,
/// and none can be forged.
pub(super) fn records(log: &[u8]) -> Vec<Line> {
    let mut records: Vec<Line> = Vec::new();
    for line in lines(log) {
        match records.last_mut() {
            Some(record)
                if (record.priority, record.at, &record.caller)
                    == (line.priority, line.at, &line.caller) =>
            {
                if record.text.len() < LONGEST {
                    record.text.push_str("\\x0a");
                    record.text.push_str(&line.text);
                }
            }
            _ => records.push(line),
        }
    }
    records
}

/// The last line, as it is.
pub(super) fn last(log: &[u8]) -> Option<&[u8]> {
    log.split(|&byte| byte == b'\n')
        .rfind(|line| !line.is_empty())
}

/// What follows the line `last`, if that is there.
pub(super) fn after<'a>(log: &'a [u8], last: &[u8]) -> Option<&'a [u8]> {
    let mut end = log.len();
    for line in log.rsplit(|&byte| byte == b'\n') {
        if line == last {
            return log.get(end + 1..).or(Some(&[]));
        }
        end = end.checked_sub(line.len() + 1)?;
    }
    None
}

fn line(line: &[u8]) -> Option<Line> {
    let (priority, rest) = bracketed(line, b'<', b'>')?;
    let (time, mut rest) = bracketed(rest, b'[', b']')?;
    let (seconds, micros) = std::str::from_utf8(time).ok()?.trim().split_once('.')?;
    let mut caller = &b""[..];
    if let Some((given, after)) = bracketed(rest, b'[', b']') {
        (caller, rest) = (given, after);
    }
    let text = rest.strip_prefix(b" ")?;
    let micros = Duration::from_micros(micros.parse::<u32>().ok()?.into());
    let at = Duration::from_secs(seconds.parse::<u32>().ok()?.into()) + micros;
    Some(Line {
        priority: std::str::from_utf8(priority).ok()?.parse().ok()?,
        at,
        caller: escaped(caller),
        text: escaped(text),
    })
}

fn bracketed(text: &[u8], open: u8, close: u8) -> Option<(&[u8], &[u8])> {
    let rest = text.strip_prefix(&[open])?;
    let end = rest.iter().take(32).position(|&byte| byte == close)?;
    Some((&rest[..end], &rest[end + 1..]))
}

#[cfg(any(test, fuzzing))]
/// Priority, time and text of each record.
pub(crate) fn fuzz(log: &[u8]) -> Vec<(u32, Duration, String)> {
    if let Some(line) = last(log) {
        let rest = after(log, line).unwrap_or_else(|| panic!("the last line is not there"));
        assert!(rest.iter().all(|&byte| byte == b'\n'));
    }
    let records = records(log);
    for record in &records {
        assert!(record.text.is_ascii() && !record.text.contains(char::is_control));
        assert!(record.text.len() <= LONGEST + 4 * log.len());
    }
    records
        .into_iter()
        .map(|line| (line.priority, line.at, line.text))
        .collect()
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn shown(log: &[u8]) -> Vec<(u32, u128, String)> {
        let records = records(log).into_iter();
        records
            .map(|line| (line.priority, line.at.as_micros(), line.text))
            .collect()
    }

    #[test]
    fn a_line_has_priority_time_and_text() {
        let log =
            b"<6>[    0.000000] Linux\n<30>[12345.678901][  T1] systemd[1]: \x1b[0m\nno line\n";
        assert_eq!(
            shown(log),
            [
                (6, 0, "Linux".to_owned()),
                (30, 12_345_678_901, "systemd[1]: \\x1b[0m".to_owned())
            ]
        );
    }

    #[test]
    fn a_time_that_no_clock_shows_is_none() {
        assert_eq!(shown(b"<6>[18446744073709551615.4294967295] x\n"), []);
    }

    #[test]
    fn what_a_name_with_a_newline_makes_of_a_record_stays_one() {
        let log = b"<6>[    1.000001] x\n<6>[    1.000001] EXT4-fs error (device sda1): f:1: comm x: bad\n<3>[    1.000001] next\n";
        let records = shown(log);
        assert_eq!(
            records[0].2,
            "x\\x0aEXT4-fs error (device sda1): f:1: comm x: bad"
        );
        assert_eq!(records[1], (3, 1_000_001, "next".to_owned()));
    }

    #[test]
    fn what_is_new_follows_the_last_line() {
        let log = b"<6>[    1.000001] a\n<6>[    1.000002] b\n<6>[    1.000003] c\n";
        let new = after(log, b"<6>[    1.000002] b").unwrap();
        assert_eq!(new, b"<6>[    1.000003] c\n");
        assert_eq!(last(new).unwrap(), b"<6>[    1.000003] c");
        assert_eq!(after(log, last(log).unwrap()), Some(&b""[..]));
        assert_eq!(after(log, b"<6>[    0.5] overwritten"), None);
        assert_eq!(after(b"", b"<6>[    0.5] overwritten"), None);
        assert_eq!(last(b""), None);
        // Cut off: the newest line has no end yet.
        assert_eq!(after(b"x\ny", b"y"), Some(&b""[..]));
    }

    #[test]
    fn a_record_is_bounded() {
        let log = b"<6>[    1.000001] xxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxxx\n".repeat(10_000);
        let records = records(&log);
        assert_eq!(records.len(), 1);
        assert!(records[0].text.len() < LONGEST + 1024);
    }

    proptest! {
        #[test]
        fn any_bytes_can_be_read(log in prop::collection::vec(prop_oneof![any::<u8>(), Just(b'\n'), Just(b'<'), Just(b'>'), Just(b'['), Just(b']'), Just(b'.'), Just(b' '), Just(b'1')], 0..300)) {
            fuzz(&log);
        }
    }
}
