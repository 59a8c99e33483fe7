//! PURE. `reasons` and `xids`: what the file changes in the reason table.

use std::collections::BTreeMap;
use std::time::Duration;

use super::error::{Errors, hint};
use super::item::{Entry, Item, Object};
use crate::args::Interval;
use crate::core::{Override, Settings, Threshold};
use crate::reason::{Reason, Severity};
use crate::rules::LogRules;

pub(super) const SEVERITIES: [(&str, Severity); 3] = [
    ("Info", Severity::Info),
    ("Warning", Severity::Warning),
    ("Fatal", Severity::Fatal),
];

const KEYS: &[&str] = &["enabled", "severity", "threshold", "clearAfter"];
/// Each family has 999 members.
const MOST_REASONS: usize = 2200;
const XIDS: std::ops::RangeInclusive<u32> = 1..=999;
const SXIDS: std::ops::RangeInclusive<u32> = 1..=99_999;
const MOST_FAULTS: u32 = 10_000;
const LONGEST_WINDOW: Interval = Interval(Duration::from_secs(24 * 3600));
const LONGEST_CLEAR: Interval = Interval(Duration::from_secs(30 * 24 * 3600));
const NUMBER: &str = "<n>";

/// `xids` comes first: it decides which members the families have.
pub(super) fn read(
    item: &Item<'_>,
    xids: &BTreeMap<u32, String>,
    rules: &LogRules,
    settings: &mut Settings,
    errors: &mut Errors,
) {
    for entry in item.entries(MOST_REASONS, errors) {
        match find(entry.key) {
            Some(Named::Row(reason)) => {
                let over = over(&entry.item, settings, Some(reason), errors);
                settings.overrides.insert(entry.key.to_owned(), over);
            }
            Some(Named::Member(reason, number)) => {
                member(&entry, reason, number, xids, settings, errors);
            }
            None if rules.reasons().any(|name| name == entry.key) => {
                entry.error(errors, "comes from logRules: set it there");
            }
            None => {
                let names = names(entry.key);
                let near = hint(entry.key, names.iter().map(String::as_str));
                entry.error(errors, format!("unknown reason{near}"));
            }
        }
    }
}

fn member(
    entry: &Entry<'_>,
    reason: Reason,
    number: u32,
    xids: &BTreeMap<u32, String>,
    settings: &mut Settings,
    errors: &mut Errors,
) {
    let is_sxid = matches!(
        reason,
        Reason::NvidiaSxidError(_) | Reason::NvidiaSxidWarning(_)
    );
    let is = settings.of_xid(number);
    if let Some(path) = xids.get(&number).filter(|_| !is_sxid) {
        entry.error(errors, format!("also set by {path}"));
        return;
    }
    // Which of its two an SXid is, its line says.
    if !is_sxid && is != reason {
        let wanted = match reason {
            Reason::NvidiaXidError(_) => Severity::Fatal,
            _ => Severity::Warning,
        };
        entry.error(
            errors,
            format!("has no effect: XID {number} is reported as {is}; `xids: {{{number}: {{severity: {wanted}}}}}` changes that"),
        );
        return;
    }
    let over = over(&entry.item, settings, Some(reason), errors);
    settings.overrides.insert(entry.key.to_owned(), over);
}

/// Returns which XIDs are set, and by which path.
pub(super) fn xids(
    item: &Item<'_>,
    settings: &mut Settings,
    errors: &mut Errors,
) -> BTreeMap<u32, String> {
    let mut set = BTreeMap::new();
    for entry in item.entries(MOST_REASONS, errors) {
        let Some(number) = number(entry.key, &XIDS) else {
            let (least, most) = (XIDS.start(), XIDS.end());
            entry.error(errors, format!("an XID is a number from {least} to {most}"));
            continue;
        };
        set.insert(number, entry.item.path.clone());
        let mut over = over(&entry.item, settings, None, errors);
        if over.severity.is_some() {
            settings.decided_xids.insert(number);
        }
        match over.severity {
            Some(Severity::Fatal) => {
                settings.fatal_xids.insert(number);
                over.severity = None;
            }
            Some(Severity::Warning) => {
                settings.fatal_xids.remove(&number);
                over.severity = None;
            }
            Some(Severity::Info) => {
                settings.fatal_xids.remove(&number);
            }
            None => {}
        }
        let name = settings.of_xid(number).name().into_owned();
        if over != Override::default() {
            settings.overrides.insert(name, over);
        }
    }
    set
}

/// `reason`: to say what has no effect on it.
fn over(
    item: &Item<'_>,
    settings: &Settings,
    reason: Option<Reason>,
    errors: &mut Errors,
) -> Override {
    let object = item.object(KEYS, errors);
    let enabled = object.get("enabled").and_then(|item| item.boolean(errors));
    let over = Override {
        enabled,
        ..common(&object, errors)
    };
    let others = over.severity.is_some() || over.threshold.is_some() || over.clear_after.is_some();
    if enabled == Some(false) && others {
        object.error(
            errors,
            "the other keys have no effect while enabled is false",
        );
    }
    if let (Some(reason), Some(severity)) = (reason, object.get("severity")) {
        let own = !reason.row().eks && !settings.own_fatal_reasons;
        if own && over.severity == Some(Severity::Fatal) {
            severity.error(errors, "has no effect: ownFatalReasons is false");
        }
    }
    over
}

/// What a reason of the table and one of a log rule have in common.
pub(super) fn common(object: &Object<'_>, errors: &mut Errors) -> Override {
    Override {
        enabled: None,
        severity: object
            .get("severity")
            .and_then(|item| item.choice("severity", &SEVERITIES, errors)),
        threshold: object
            .get("threshold")
            .and_then(|item| threshold(item, errors)),
        clear_after: object
            .get("clearAfter")
            .and_then(|item| item.duration(LONGEST_CLEAR, errors)),
    }
}

fn threshold(item: &Item<'_>, errors: &mut Errors) -> Option<Threshold> {
    let object = item.object(&["count", "window"], errors);
    let count = object.required("count", errors).cloned();
    let window = object.required("window", errors).cloned();
    let count = count?.count(1..=MOST_FAULTS, errors);
    let window = window?.duration(LONGEST_WINDOW, errors);
    Some(Threshold {
        count: count?,
        window: window?,
    })
}

enum Named {
    Row(Reason),
    /// Of a family, with its number.
    Member(Reason, u32),
}

fn find(name: &str) -> Option<Named> {
    Reason::ALL.into_iter().find_map(|reason| {
        let row = reason.row().name;
        if row == name {
            return Some(Named::Row(reason));
        }
        let (before, after) = row.split_once(NUMBER)?;
        let digits = name.strip_prefix(before)?.strip_suffix(after)?;
        let xid = || number(digits, &XIDS);
        let sxid = || number(digits, &SXIDS);
        let (member, number) = match reason {
            Reason::NvidiaXidError(_) => (Reason::NvidiaXidError(xid()?), xid()?),
            Reason::NvidiaXidWarning(_) => (Reason::NvidiaXidWarning(xid()?), xid()?),
            Reason::NvidiaSxidError(_) => (Reason::NvidiaSxidError(sxid()?), sxid()?),
            Reason::NvidiaSxidWarning(_) => (Reason::NvidiaSxidWarning(sxid()?), sxid()?),
            _ => return None,
        };
        Some(Named::Member(member, number))
    })
}

/// Whether the table has it, so that a log rule cannot.
pub(super) fn is_taken(name: &str) -> bool {
    find(name).is_some()
}

/// Canonical: one way to write each.
fn number(text: &str, range: &std::ops::RangeInclusive<u32>) -> Option<u32> {
    let digits = text.bytes().all(|b| b.is_ascii_digit()) && !text.starts_with('0');
    digits
        .then(|| text.parse().ok())
        .flatten()
        .filter(|number| range.contains(number))
}

/// Every name, the families' with the number that stands in `word`.
fn names(word: &str) -> Vec<String> {
    let digits: String = word.chars().filter(char::is_ascii_digit).collect();
    let digits = digits.trim_start_matches('0');
    let rows = Reason::ALL.into_iter().map(|reason| reason.row().name);
    rows.map(|name| match number(digits, &SXIDS) {
        Some(_) => name.replace(NUMBER, digits),
        None => name.to_owned(),
    })
    .collect()
}
