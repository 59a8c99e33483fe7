//! PURE. One record of `/dev/kmsg`: `priority,sequence,microseconds,flags[,key=value];text`, then
//! lines of ` KEY=value` (Documentation/ABI/testing/dev-kmsg).

use std::fmt::Write as _;
use std::time::Duration;

#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Record<'a> {
    /// 0: the kernel itself. Whoever writes to the device gets another one.
    pub facility: u32,
    /// 0 emergency ... 7 debug; absent where a saved log does not tell.
    pub level: Option<u32>,
    pub sequence: u64,
    /// As the line says it: see [`super::line_clock`].
    pub at: Duration,
    /// One line; the kernel has escaped control characters as `\xNN`.
    pub text: &'a str,
}

pub(crate) fn parse(record: &[u8]) -> Option<Record<'_>> {
    let record = std::str::from_utf8(record).ok()?;
    let (prefix, rest) = record.split_once(';')?;
    let mut fields = prefix.split(',');
    let priority: u32 = fields.next()?.parse().ok()?;
    let sequence = fields.next()?.parse().ok()?;
    let at = Duration::from_micros(fields.next()?.parse().ok()?);
    let text = rest.split('\n').next()?;
    Some(Record {
        facility: priority >> 3,
        level: Some(priority & 7),
        sequence,
        at,
        text,
    })
}

/// As `msg_add_ext_text` of kernel/printk/printk.c does it.
pub(super) fn escaped(text: &[u8]) -> String {
    let mut out = String::with_capacity(text.len());
    for &byte in text {
        if (b' '..127).contains(&byte) && byte != b'\\' {
            out.push(char::from(byte));
        } else {
            // Writing to a String cannot fail.
            let _written = write!(out, "\\x{byte:02x}");
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn splits_priority_into_facility_and_level() {
        let record = parse(b"30,711,5140900,-;systemd[1]: hello\n SUBSYSTEM=x\n").unwrap();
        assert_eq!(
            (record.facility, record.level, record.sequence),
            (3, Some(6), 711)
        );
        assert_eq!(record.at, Duration::from_micros(5_140_900));
        assert_eq!(record.text, "systemd[1]: hello");
    }

    #[test]
    fn a_cut_record_is_none() {
        assert_eq!(parse(b"30,711,5140900,-"), None);
        assert_eq!(parse(b"x,1,2,-;text"), None);
        assert_eq!(parse(b""), None);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_record_or_none(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            let _ = parse(&bytes);
        }
    }
}
