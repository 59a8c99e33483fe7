//! PURE. The kernel log as text: `/dev/kmsg`'s records, `dmesg`, `dmesg --raw`, `dmesg --decode`,
//! a serial console, a syslog file, `journalctl -o short`, or the bare text.

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
    if let Some(rest) = without_date_of_syslog(rest)
        && let Some((program, text)) = tag(rest)
        && program != "kernel"
    {
        let unit = program.to_owned();
        return Some(SavedLine {
            origin: Origin::Journal { unit },
            ..saved(facility, level, None, text)
        });
    }
    let (at, rest) = time(rest);
    let (logged_at, text) = without_tag_of_kernel(rest);
    Some(saved(facility, level, logged_at.or(at), text))
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
/// (`dmesg --ctime`, `dmesg --time-format iso`, syslog) has no place on our clock.
fn time(line: &str) -> (Option<Duration>, &str) {
    let dated = without_iso_date(line).or_else(|| without_date_of_syslog(line));
    if let Some(text) = dated {
        return (None, text);
    }
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

/// `2026-11-25T01:02:03,285060+00:00 `, of `dmesg --time-format iso`: the fraction has a comma.
fn without_iso_date(line: &str) -> Option<&str> {
    let (stamp, text) = line.split_once(' ')?;
    (is_iso(stamp) && stamp.contains(',')).then_some(text)
}

/// `Nov 25 01:02:03 ` or, in files of rsyslog and of `journalctl -o short-iso`,
/// `2026-11-25T01:02:03.285060+00:00 `: what follows is a host and who wrote.
fn without_date_of_syslog(line: &str) -> Option<&str> {
    const MONTHS: [&str; 12] = [
        "Jan", "Feb", "Mar", "Apr", "May", "Jun", "Jul", "Aug", "Sep", "Oct", "Nov", "Dec",
    ];
    let (first, rest) = line.split_once(' ')?;
    if is_iso(first) {
        return (!first.contains(',')).then_some(rest);
    }
    let (day, rest) = rest.trim_start_matches(' ').split_once(' ')?;
    let (time, rest) = rest.split_once(' ')?;
    let fits =
        MONTHS.contains(&first) && (is_shaped(day, "0") || is_shaped(day, "00")) && is_time(time);
    fits.then_some(rest)
}

fn is_iso(text: &str) -> bool {
    let Some((date, time)) = text.split_once('T') else {
        return false;
    };
    is_shaped(date, "0000-00-00")
        && time.is_char_boundary(8)
        && is_time(&time[..8])
        && time[8..]
            .bytes()
            .all(|b| b.is_ascii_digit() || b"+-:.,Z".contains(&b))
}

fn is_time(text: &str) -> bool {
    is_shaped(text, "00:00:00")
}

/// Whether it is the pattern, with a digit for each `0`.
fn is_shaped(text: &str, pattern: &str) -> bool {
    let fits = |(b, wanted): (u8, u8)| b == wanted || wanted == b'0' && b.is_ascii_digit();
    text.len() == pattern.len() && text.bytes().zip(pattern.bytes()).all(fits)
}

/// `HOST PROGRAM[123]: text` or `HOST PROGRAM: text`: the program, and the text.
fn tag(line: &str) -> Option<(&str, &str)> {
    let (_, rest) = line.split_once(' ').filter(|(host, _)| is_name(host))?;
    let (program, text) = rest.split_once(": ")?;
    let name = match program.split_once('[') {
        Some((name, pid)) => {
            let pid = pid.strip_suffix(']')?;
            pid.bytes().all(|b| b.is_ascii_digit()).then_some(name)?
        }
        None => program,
    };
    is_name(name).then_some((name, text))
}

/// Of a host or a program.
fn is_name(text: &str) -> bool {
    !text.is_empty()
        && text
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"-_./@".contains(&b))
}

/// `HOST kernel: ` or, where a column was cut away, `kernel: `; behind it the kernel's own time,
/// where whoever wrote the file left it. `message repeated N times: [ text]` is rsyslog's.
fn without_tag_of_kernel(line: &str) -> (Option<Duration>, &str) {
    let of_host = tag(line).filter(|(program, _)| *program == "kernel");
    let text = of_host.map(|(_, text)| text);
    let Some(text) = text.or_else(|| line.strip_prefix("kernel: ")) else {
        return (None, line);
    };
    let (at, text) = match text.strip_prefix('[') {
        Some(_) => time(text),
        None => (None, text),
    };
    let repeated = || {
        let (times, text) = text
            .strip_prefix("message repeated ")?
            .strip_suffix(']')?
            .split_once(" times: [")?;
        let is_number = !times.is_empty() && times.bytes().all(|b| b.is_ascii_digit());
        is_number.then(|| text.trim_start())
    };
    (at, repeated().unwrap_or(text))
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
            (
                "kern  :crit  : 2026-11-25T01:02:03,285060+00:00 ",
                Some(2),
                None,
            ),
            ("2026-11-25T01:02:03,285060+00:00 ", None, None),
            ("Nov 25 01:02:03 node-1 kernel: ", None, None),
            ("Nov  5 01:02:03 node-1 kernel: [   12.345678] ", None, at),
            ("2026-11-25T01:02:03+0000 node-1 kernel: ", None, None),
            (
                "2026-11-25T01:02:03.285060+00:00 node-1 kernel: [   12.345678] ",
                None,
                at,
            ),
            ("[   12.345678] node-1 kernel: ", None, at),
            ("[Wed Nov 25 01:02:03 2026] node-1 kernel: ", None, None),
            ("node-1 kernel: ", None, None),
            ("kernel: ", None, None),
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
    fn a_line_of_a_program_in_a_syslog_file_is_that_programs() {
        for (line, program, text) in [
            (
                "Nov 25 01:02:03 node-1 systemd-networkd[2385]: eth0: Lost carrier",
                "systemd-networkd",
                "eth0: Lost carrier",
            ),
            ("Nov  5 01:02:03 node-1 kubelet: a: b", "kubelet", "a: b"),
            (
                "2026-11-25T01:02:03.285060+00:00 node-1 kubelet[7]: kernel: a",
                "kubelet",
                "kernel: a",
            ),
        ] {
            let saved = read(line, 1).unwrap();
            let unit = program.to_owned();
            assert_eq!(saved.origin, Origin::Journal { unit }, "{line}");
            assert_eq!(saved.text, text);
        }
    }

    #[test]
    fn a_kernel_line_that_only_resembles_a_programs_is_the_kernels() {
        for line in [
            "nvme nvme0: I/O 22 QID 5 timeout, aborting",
            "2026-11-25T01:02:03,285060+00:00 nvme nvme0: I/O 22 QID 5 timeout, aborting",
            "[   12.5] nvme nvme0: I/O 22 QID 5 timeout, aborting",
            "Nov 25 01:02:03 node-1 kernel: nvme nvme0: I/O 22 QID 5 timeout, aborting",
        ] {
            let saved = read(line, 1).unwrap();
            assert_eq!(saved.origin, Origin::KernelLog, "{line}");
            assert!(saved.text.starts_with("nvme nvme0: "), "{}", saved.text);
        }
    }

    #[test]
    fn a_repeated_line_of_rsyslog_counts_as_one() {
        let line = format!("Nov 25 01:02:03 node-1 kernel: message repeated 9 times: [ {TEXT}]");
        assert_eq!(read(&line, 1).unwrap().text, TEXT);
        let other = "kernel: message repeated often: [ x]";
        assert_eq!(read(other, 1).unwrap().text, "message repeated often: [ x]");
    }

    #[test]
    fn what_is_no_date_belongs_to_the_text() {
        for line in [
            "Nov 251 01:02:03 node-1 kernel: x",
            "Now 25 01:02:03 node-1 kernel: x",
            "Nov 25 01-02-03 node-1 kernel: x",
            "2026-11-25T0é:02:03 node-1 x",
            "a b kernel: x",
            "(a) kernel: x",
        ] {
            assert_eq!(read(line, 1).unwrap().text, line);
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
        fn any_text_is_a_line_or_none(
            begin in "(|Nov 25 |[0-9]{4}-11-25T01:|\\[ 1\\.5\\] |a kernel: )",
            text in ".{0,200}",
        ) {
            let _ = read(&format!("{begin}{text}"), 1);
        }
    }
}
