//! PURE. Entries of `journalctl -o export` (systemd's JOURNAL_EXPORT_FORMATS): fields, then an
//! empty line.

use std::time::Duration;

use super::saved::SavedLine;
use crate::rules::Origin;

/// A field that each entry begins with.
pub(super) fn begins(line: &[u8]) -> bool {
    line.starts_with(b"__CURSOR=") || line.starts_with(b"__REALTIME_TIMESTAMP=")
}

/// The fields that matter.
#[derive(Debug, Default)]
pub(super) struct Entry {
    message: Option<(String, u64)>,
    kernel: bool,
    facility: Option<u32>,
    priority: Option<u32>,
    /// When the journal got it, and when it was sent: since boot.
    received: Option<Duration>,
    sent: Option<Duration>,
    unit: Option<String>,
    /// The unit of which it tells: believed of process 1.
    about: Option<String>,
    init: bool,
}

impl Entry {
    pub(super) fn field(&mut self, name: &[u8], value: &[u8], number: u64) {
        let text = || String::from_utf8_lossy(value).into_owned();
        let micros = || text().parse().ok().map(Duration::from_micros);
        match name {
            b"MESSAGE" => self.message = Some((text(), number)),
            b"_TRANSPORT" => self.kernel = value == b"kernel",
            b"SYSLOG_FACILITY" => self.facility = text().parse().ok(),
            b"PRIORITY" => self.priority = text().parse().ok(),
            b"__MONOTONIC_TIMESTAMP" => self.received = micros(),
            b"_SOURCE_MONOTONIC_TIMESTAMP" => self.sent = micros(),
            b"_SYSTEMD_UNIT" => self.unit = Some(text()),
            b"UNIT" => self.about = Some(text()),
            b"_PID" => self.init = value == b"1",
            _other => {}
        }
    }

    pub(super) fn finish(self) -> Option<SavedLine> {
        let (text, number) = self.message?;
        let origin = if self.kernel {
            Origin::KernelLog
        } else {
            Origin::Journal {
                unit: self.unit.unwrap_or_default(),
            }
        };
        let about = self.about.filter(|_| self.init);
        Some(SavedLine {
            origin,
            also: about.map(|unit| Origin::Journal { unit }),
            facility: self.facility.unwrap_or(0),
            level: self.priority,
            at: self.sent.or(self.received),
            text,
            number,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::super::saved::Saved;
    use super::*;

    #[test]
    fn entries_with_text_and_binary_fields_are_read() {
        let mut input = b"__CURSOR=s=1\n__MONOTONIC_TIMESTAMP=9000000\n_TRANSPORT=kernel\n\
            SYSLOG_FACILITY=0\nPRIORITY=2\nMESSAGE=EXT4-fs (sda1): Remounting filesystem read-only\n\n\
            __CURSOR=s=2\n_SYSTEMD_UNIT=kubelet.service\nMESSAGE\n"
            .to_vec();
        input.extend_from_slice(&5u64.to_le_bytes());
        input.extend_from_slice(b"two\nl\n\n__CURSOR=s=3\nPRIORITY=6\n");
        let lines: Vec<_> = Saved::new(input.as_slice()).map(Result::unwrap).collect();
        assert_eq!(lines.len(), 2, "the last one has no message");
        assert_eq!(
            (lines[0].level, lines[0].at, lines[0].number),
            (Some(2), Some(Duration::from_secs(9)), 6)
        );
        let unit = "kubelet.service".to_owned();
        assert_eq!(lines[1].origin, Origin::Journal { unit });
        assert_eq!((lines[1].text.as_str(), lines[1].number), ("two\nl", 10));
    }

    #[test]
    fn what_systemd_says_about_a_unit_is_that_units_too() {
        let about = |pid: &str| {
            let input = format!(
                "__CURSOR=s=1\n_PID={pid}\n_SYSTEMD_UNIT=init.scope\nUNIT=a.service\nMESSAGE=x\n\n"
            );
            let mut lines = Saved::new(input.as_bytes());
            lines.next().unwrap().unwrap().also
        };
        let unit = "a.service".to_owned();
        assert_eq!(about("1"), Some(Origin::Journal { unit }));
        assert_eq!(about("11"), None, "anybody can send the field");
    }

    #[test]
    fn an_entry_that_is_cut_off_is_an_error() {
        let mut input = b"__CURSOR=s=1\nMESSAGE\n".to_vec();
        input.extend_from_slice(&500u64.to_le_bytes());
        input.extend_from_slice(b"short");
        let read: Result<Vec<_>, _> = Saved::new(input.as_slice()).collect();
        assert!(read.is_err());
    }
}
