//! PURE. The kernel log as text: `/dev/kmsg`'s records, `dmesg`, `dmesg --raw`, `dmesg --decode`,
//! a serial console, or the bare text.

use std::time::Duration;

use super::saved::SavedLine;
use crate::rules::Origin;
use crate::source::kmsg::record;

/// Of syslog(3), as `dmesg --decode` writes them.
const LEVELS: [&str; 8] = [
    "emerg", "alert", "crit", "err", "warn", "notice", "info", "debug",
];

/// None for an empty line, and for the lines of ` KEY=value` below a record.
pub(super) fn read(line: &str, number: u64) -> Option<SavedLine> {
    let line = line.strip_suffix('\r').unwrap_or(line);
    if line.trim().is_empty() {
        return None;
    }
    let saved = |facility, level, at, text: &str| SavedLine {
        origin: Origin::KernelLog,
        also: None,
        facility,
        level,
        at,
        text: text.to_owned(),
        number,
    };
    if let Some(record) = record::parse(line.as_bytes()) {
        let level = record.level;
        return Some(saved(record.facility, level, Some(record.at), record.text));
    }
    if is_key_value(line) {
        return None;
    }
    let (facility, level, rest) = prefix(line);
    let (at, text) = time(rest);
    Some(saved(facility, level, at, text))
}

/// ` SUBSYSTEM=pci`, below its record.
fn is_key_value(line: &str) -> bool {
    let Some((key, _)) = line.strip_prefix(' ').and_then(|rest| rest.split_once('=')) else {
        return false;
    };
    let fits = |b: u8| b.is_ascii_uppercase() || b.is_ascii_digit() || b == b'_';
    !key.is_empty() && key.bytes().all(fits)
}

/// `<3>` or `kern  :err   : `; without either the level is not known.
fn prefix(line: &str) -> (u32, Option<u32>, &str) {
    let number = |text: &str| -> Option<u32> {
        text.bytes()
            .all(|b| b.is_ascii_digit())
            .then(|| text.parse().ok())?
    };
    if let Some((priority, rest)) = line.strip_prefix('<').and_then(|rest| rest.split_once('>'))
        && let Some(priority) = number(priority)
    {
        return (priority >> 3, Some(priority & 7), rest);
    }
    if let Some((facility, rest)) = line.split_once(':')
        && let Some((level, rest)) = rest.split_once(':')
        && let Some(level) = LEVELS.iter().position(|name| *name == level.trim())
    {
        // Facilities other than the kernel's: who wrote it does not matter, only that it was not.
        let facility = u32::from(facility.trim() != "kern");
        return (facility, u32::try_from(level).ok(), rest.trim_start());
    }
    (0, None, line)
}

/// `[   12.345678] text`; after it, where the kernel says who printed, `[    T1] `. A time of day
/// (`dmesg --ctime`) has no place on our clock.
fn time(line: &str) -> (Option<Duration>, &str) {
    let Some((time, text)) = line.strip_prefix('[').and_then(|rest| rest.split_once(']')) else {
        return (None, line);
    };
    let text = text.strip_prefix(' ').unwrap_or(text);
    let stamp = time.trim();
    let is_stamp = stamp.contains('.') && stamp.bytes().all(|b| b.is_ascii_digit() || b == b'.');
    if is_stamp && let Some(at) = seconds(stamp) {
        return (Some(at), without_caller(text));
    }
    let is_date = stamp.len() >= 20 && stamp.contains(':') && stamp.contains(' ');
    if is_date {
        return (None, text);
    }
    (None, line)
}

/// `[    T1] ` or `[   C3] ` (CONFIG_PRINTK_CALLER).
fn without_caller(text: &str) -> &str {
    let Some((caller, rest)) = text
        .strip_prefix('[')
        .and_then(|rest| rest.split_once("] "))
    else {
        return text;
    };
    let caller = caller.trim_start();
    let number = caller
        .strip_prefix('T')
        .or_else(|| caller.strip_prefix('C'))
        .unwrap_or_default();
    if !number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()) {
        rest
    } else {
        text
    }
}

/// Negative, infinite and absurd times are none.
pub(super) fn seconds(text: &str) -> Option<Duration> {
    let seconds: f64 = text.parse().ok()?;
    Duration::try_from_secs_f64(seconds)
        .ok()
        .filter(|at| at.as_secs() < 1 << 32)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = "EXT4-fs (sda1): Remounting filesystem read-only";

    #[test]
    fn every_form_gives_the_same_text() {
        let at = Some(Duration::from_micros(12_345_678));
        for (form, level, at) in [
            ("2,17,12345678,-;", Some(2), at),
            ("2,17,12345678,-,caller=T1;", Some(2), at),
            ("[   12.345678] ", None, at),
            ("<2>[   12.345678] ", Some(2), at),
            ("[   12.345678] [    T1] ", None, at),
            ("kern  :crit  : [   12.345678] ", Some(2), at),
            ("[Wed Nov 25 01:02:03 2026] ", None, None),
            ("", None, None),
        ] {
            let read = read(&format!("{form}{TEXT}"), 7).unwrap();
            assert_eq!(
                (read.facility, read.level, read.at, read.text.as_str()),
                (0, level, at, TEXT),
                "{form}"
            );
        }
    }

    #[test]
    fn a_line_of_another_facility_is_not_the_kernels() {
        for form in ["30,17,12345678,-;", "<30>[ 1.5] ", "daemon:info  : [ 1.5] "] {
            assert_ne!(read(&format!("{form}{TEXT}"), 1).unwrap().facility, 0);
        }
    }

    #[test]
    fn what_is_below_a_record_is_no_line() {
        assert_eq!(read(" SUBSYSTEM=block", 1), None);
        assert_eq!(read("", 1), None);
    }

    #[test]
    fn a_bracket_that_is_no_time_belongs_to_the_text() {
        let line = "[Hardware Error]: event severity: corrected";
        assert_eq!(read(line, 1).unwrap().text, line);
    }

    proptest! {
        #[test]
        fn any_text_is_a_line_or_none(text in ".{0,200}") {
            let _ = read(&text, 1);
        }
    }
}
