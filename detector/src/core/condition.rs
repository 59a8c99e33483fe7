//! PURE. Folds findings into NodeConditions.

use std::borrow::Cow;
use std::cmp::Reverse;
use std::collections::BTreeMap;

use jiff::Timestamp;

use super::settings::Settings;
use crate::finding::{Finding, Now, Subject};
use crate::reason::{ConditionType, Reason, Severity};
use crate::signal;
use crate::text;

/// A condition as it should stand on the Node.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Condition {
    pub kind: ConditionType,
    /// True = healthy, as EKS has it.
    pub healthy: bool,
    pub reason: Cow<'static, str>,
    pub message: String,
    /// When `healthy` last changed.
    pub transition: Timestamp,
}

/// One of our own conditions as it was found on the Node at start.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Existing {
    pub kind: ConditionType,
    pub healthy: bool,
    pub transition: Timestamp,
    /// Names the devices that the agent before this one found read-only.
    pub message: String,
}

/// What a condition was: all that the next one depends on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Before {
    pub(super) healthy: bool,
    pub(super) transition: Timestamp,
}

/// API conventions allow 32 KiB; people read one screen.
const MESSAGE_LIMIT: usize = 1024;

/// The wanted conditions of the `monitored` types. The transition time changes with the status
/// only: `before` is what was wanted last, or what was found on the Node.
pub(super) fn fold<'a>(
    monitored: &[ConditionType],
    findings: impl Iterator<Item = &'a Finding>,
    before: &BTreeMap<ConditionType, Before>,
    now: Timestamp,
) -> Vec<Condition> {
    let mut fatal: BTreeMap<ConditionType, Vec<&Finding>> = BTreeMap::new();
    for finding in findings.filter(|finding| finding.severity == Severity::Fatal) {
        fatal
            .entry(finding.reason.row().condition)
            .or_default()
            .push(finding);
    }
    monitored
        .iter()
        .map(|&kind| {
            let mut open = fatal.remove(&kind).unwrap_or_default();
            // What wants the most done speaks for all, since who repairs reads one reason; then the
            // oldest: stable, not the last writer.
            open.sort_by_key(|finding| {
                let wants = Reverse(finding.reason.action());
                (wants, finding.opened.boot, finding.reason, &finding.entity)
            });
            let healthy = open.is_empty();
            let transition = match before.get(&kind) {
                Some(before) if before.healthy == healthy => before.transition,
                // A fault keeps its time when it could not be told at once: before the first
                // answer of the API server.
                Some(_) | None => {
                    let oldest = open.iter().min_by_key(|finding| finding.opened.boot);
                    oldest.map_or(now, |oldest| oldest.opened.wall)
                }
            };
            Condition {
                kind,
                healthy,
                reason: open
                    .first()
                    .map_or(Cow::Borrowed(kind.healthy_reason()), |finding| {
                        finding.reason.name()
                    }),
                message: message(&open),
                transition,
            }
        })
        .collect()
}

/// The devices that a condition of ours calls read-only, as [`message`] and the core write it.
pub(super) fn read_only_devices(condition: &Existing) -> impl Iterator<Item = String> {
    let row = Reason::FilesystemReadOnly.row();
    let parts = condition
        .message
        .split("; ")
        .filter(move |_| condition.kind == row.condition && !condition.healthy);
    parts.filter_map(|part| {
        let (device, _) = part
            .strip_prefix(row.name)?
            .strip_prefix(": ")?
            .split_once(", mounted at ")?;
        signal::device_name(device)
    })
}

/// The finding that a condition of an earlier boot speaks of, as far as its text tells.
pub(super) fn finding_of(condition: &Existing, settings: &Settings, now: Now) -> Option<Finding> {
    let (reason, rest) = condition.message.split_once(": ")?;
    let reason = settings.reason(reason)?;
    Some(Finding {
        reason,
        entity: "(earlier boot)".to_owned(),
        severity: Severity::Fatal,
        message: format!(
            "the node has been booted since: {}",
            text::bounded(rest, 512)
        ),
        subject: Subject::default(),
        count: 1,
        flaps: 0,
        historic: false,
        opened: Now {
            boot: now.boot,
            wall: condition.transition,
        },
        last_seen: now.boot,
    })
}

fn message(open: &[&Finding]) -> String {
    if open.is_empty() {
        return "nodemend watches this; no fatal finding is open".to_owned();
    }
    let parts: Vec<_> = open
        .iter()
        .map(|finding| {
            let since = finding.opened.wall.strftime("%Y-%m-%dT%H:%M:%SZ");
            // A name that a stranger chose begins no part of its own, which the next agent would read.
            let text = finding.text().replace("; ", ", ");
            format!("{}: {text} (since {since})", finding.reason)
        })
        .collect();
    text::bounded(&parts.join("; "), MESSAGE_LIMIT)
}
