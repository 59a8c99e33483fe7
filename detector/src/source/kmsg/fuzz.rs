//! The kernel log, by the device and by syslog(2).

use std::time::Duration;

use super::grammar;
use super::record::{self, Record};
use super::syslog;
use crate::fuzz;
use crate::reason::Severity;
use crate::signal::What;

/// Records, each with the lines of ` KEY=value` below it.
pub(crate) fn device(bytes: &[u8]) {
    let records = bytes.split_inclusive(|&byte| byte == b'\n');
    let told = records.filter_map(|bytes| {
        let record = record::parse(bytes)?;
        assert!(!record.text.contains('\n'));
        let copy = record::escaped(record.text.as_bytes());
        fuzz::assert_plain(&copy, 4 * record.text.len());
        read(&record)
    });
    assert_none_fatal(told);
}

pub(crate) fn syslog(bytes: &[u8]) {
    let told = syslog::fuzz(bytes).into_iter();
    assert_none_fatal(told.filter_map(|(priority, at, text)| {
        read(&Record {
            facility: priority >> 3,
            level: Some(priority & 7),
            sequence: 0,
            at,
            text: &text,
        })
    }));
}

/// By its level and, as of a copy, without one.
fn read(record: &Record<'_>) -> Option<What> {
    let what = grammar::read(record);
    assert!(
        record.facility == 0 || what.is_none(),
        "not the kernel's: {what:?}"
    );
    let copy = grammar::read(&Record {
        facility: 0,
        level: None,
        sequence: 0,
        at: Duration::ZERO,
        text: record.text,
    });
    assert!(
        what.is_none() || copy.is_some(),
        "only with its level: {what:?}"
    );
    what
}

/// A text can be forged; what confirms it cannot.
fn assert_none_fatal(told: impl Iterator<Item = What>) {
    for finding in fuzz::tell(told) {
        assert_ne!(finding.severity, Severity::Fatal, "by a text: {finding:?}");
    }
}
