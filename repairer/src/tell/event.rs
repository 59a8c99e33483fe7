//! PURE. Events: the same one for the same change of the same object, so that a repeat is counted on
//! the one that is there.

use std::collections::HashMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::ObjectReference;
use k8s_openapi::api::events::v1::{Event, EventSeries};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{MicroTime, ObjectMeta};
use kube::{Resource, ResourceExt};
use serde_json::{Value, json};

use super::change::Change;

/// Events about cluster-scoped objects live here.
pub const NAMESPACE: &str = "default";
const CONTROLLER: &str = "nodemend.dev/repairer";
/// The API's limits, in bytes.
const NOTE_LIMIT: usize = 1024;
const INSTANCE_LIMIT: usize = 128;
/// The API's limit of names, less a dot and 16 digits.
const NAME_LIMIT: usize = 253 - 17;
/// Of each reason: so many at once, then one each time.
const BURST: u32 = 50;
const REFILL: Duration = Duration::from_secs(2);

/// What an Event is about.
pub fn reference<K>(object: &K) -> ObjectReference
where
    K: Resource,
    K::DynamicType: Default,
{
    ObjectReference {
        api_version: Some(K::api_version(&K::DynamicType::default()).into_owned()),
        kind: Some(K::kind(&K::DynamicType::default()).into_owned()),
        name: Some(object.name_any()),
        uid: object.uid(),
        ..ObjectReference::default()
    }
}

pub fn event(
    change: &Change,
    regarding: ObjectReference,
    related: Option<ObjectReference>,
    instance: &str,
    now: Timestamp,
) -> Event {
    let name = regarding.name.clone().unwrap_or_default();
    let name = bounded(&name, NAME_LIMIT).trim_end_matches(['.', '-']);
    let kind = if change.warning { "Warning" } else { "Normal" };
    Event {
        metadata: ObjectMeta {
            name: Some(format!(
                "{name}.{:016x}",
                identity(change, &regarding, related.as_ref())
            )),
            namespace: Some(NAMESPACE.to_owned()),
            ..ObjectMeta::default()
        },
        action: Some("Repair".to_owned()),
        event_time: Some(MicroTime(now)),
        note: Some(bounded(&printable(&change.note), NOTE_LIMIT).to_owned()),
        reason: Some(change.reason.to_owned()),
        regarding: Some(regarding),
        related,
        reporting_controller: Some(CONTROLLER.to_owned()),
        reporting_instance: Some(bounded(instance, INSTANCE_LIMIT).to_owned()),
        type_: Some(kind.to_owned()),
        ..Event::default()
    }
}

/// One more of an Event that is there: the API allows no other change.
pub fn repeated(there: &Event, now: Timestamp) -> Value {
    let count = |series: &EventSeries| series.count.saturating_add(1);
    let count = there.series.as_ref().map_or(2, count);
    json!({"series": {"count": count, "lastObservedTime": MicroTime(now)}})
}

/// FNV-1a: the same in every release, and no secret depends on it.
fn identity(
    change: &Change,
    regarding: &ObjectReference,
    related: Option<&ObjectReference>,
) -> u64 {
    let of = |object: &ObjectReference| object.uid.clone().unwrap_or_default();
    let fields = [
        of(regarding),
        related.map(of).unwrap_or_default(),
        change.reason.to_owned(),
        change.detail.clone(),
    ];
    // With a byte between them that is in none of them.
    let bytes = fields.iter().flat_map(|field| field.bytes().chain([0xff]));
    bytes.fold(0xcbf2_9ce4_8422_2325, |hash, byte| {
        (hash ^ u64::from(byte)).wrapping_mul(0x0000_0100_0000_01b3)
    })
}

/// Budgets and reasons that others chose are told in it.
fn printable(text: &str) -> String {
    let escaped = |c: char| {
        let hidden = matches!(c, '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}' | '\u{2060}'..='\u{206f}' | '\u{feff}');
        if c.is_control() || hidden {
            c.escape_unicode().to_string()
        } else {
            c.to_string()
        }
    };
    text.chars().map(escaped).collect()
}

fn bounded(text: &str, limit: usize) -> &str {
    &text[..text.floor_char_boundary(limit)]
}

/// One budget for each reason: a storm of one never silences another.
#[derive(Default)]
pub struct Budgets(HashMap<&'static str, (u32, Timestamp)>);

impl Budgets {
    pub fn take(&mut self, reason: &'static str, now: Timestamp) -> bool {
        let (left, since) = self.0.entry(reason).or_insert((BURST, now));
        let refilled = now.duration_since(*since).unsigned_abs().as_secs() / REFILL.as_secs();
        if refilled > 0 {
            let refilled = u32::try_from(refilled).unwrap_or(u32::MAX);
            *left = left.saturating_add(refilled).min(BURST);
            *since = now;
        }
        let some = *left > 0;
        *left = left.saturating_sub(1);
        some
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::fixture::{self, at};

    fn told(detail: &str) -> Event {
        let policy = fixture::policy("workers");
        let change = Change {
            reason: "RepairHeld",
            warning: true,
            note: format!("a\nb{}", "ä".repeat(1000)),
            detail: detail.to_owned(),
        };
        event(&change, reference(&policy), None, "pod-1", at(0))
    }

    #[test]
    fn a_repeat_has_the_name_of_the_first_and_another_change_another_one() {
        assert_eq!(told("a").metadata.name, told("a").metadata.name);
        assert_ne!(told("a").metadata.name, told("b").metadata.name);
        let patch = repeated(&told("a"), at(5));
        assert_eq!(patch["series"]["count"], 2);
        let mut there = told("a");
        there.series = serde_json::from_value(patch["series"].clone()).unwrap();
        assert_eq!(repeated(&there, at(6))["series"]["count"], 3);
    }

    #[test]
    fn what_others_chose_is_bounded_and_on_one_line() {
        let note = told("a").note.unwrap();
        assert!(note.starts_with("a\\u{a}b"), "{note}");
        assert!(note.len() <= NOTE_LIMIT);
    }

    #[test]
    fn a_storm_of_one_reason_is_cut_and_silences_no_other() {
        let mut budgets = Budgets::default();
        let out = (0..1000).filter(|_| budgets.take("RepairHeld", at(0)));
        assert_eq!(out.count(), BURST as usize);
        assert!(budgets.take("RepairFailed", at(0)));
        assert!(!budgets.take("RepairHeld", at(1)));
        assert!(budgets.take("RepairHeld", at(2)));
        assert!(!budgets.take("RepairHeld", at(2)));
    }
}
