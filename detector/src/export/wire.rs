//! PURE. Conditions as the API has them.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use serde_json::{Value, json};

use crate::core::{Condition, Existing};
use crate::reason::ConditionType;

/// Our own conditions as they stand on a Node.
pub(crate) fn own_conditions(node: &Node) -> Vec<Existing> {
    let conditions = node
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_ref());
    conditions
        .into_iter()
        .flatten()
        .filter_map(|condition| {
            let kind = ConditionType::ALL
                .into_iter()
                .find(|kind| kind.name() == condition.type_)?;
            let healthy = match condition.status.as_str() {
                "True" => true,
                "False" => false,
                // Not ours: we never write it.
                _ => return None,
            };
            let transition = condition.last_transition_time.as_ref()?.0;
            Some(Existing {
                kind,
                healthy,
                transition,
                message: condition.message.clone().unwrap_or_default(),
            })
        })
        .collect()
}

/// A strategic-merge patch of only these types (merge key `type`): everybody else's stay untouched.
/// What was written `before` and is watched no more is removed.
pub(super) fn patch(conditions: &[Condition], before: &[Condition], now: Timestamp) -> Value {
    let gone = before
        .iter()
        .map(|condition| condition.kind)
        .filter(|kind| conditions.iter().all(|condition| condition.kind != *kind))
        .map(|kind| json!({"$patch": "delete", "type": kind.name()}));
    let wanted = conditions.iter().map(|condition| wire(condition, now));
    json!({"status": {"conditions": wanted.chain(gone).collect::<Vec<_>>()}})
}

/// A strategic-merge patch that takes these types away, and only these.
pub(crate) fn removal(conditions: &[Existing]) -> Value {
    let directives = conditions
        .iter()
        .map(|condition| json!({"$patch": "delete", "type": condition.kind.name()}));
    json!({"status": {"conditions": directives.collect::<Vec<_>>()}})
}

fn wire(condition: &Condition, now: Timestamp) -> Value {
    let seconds = |time: Timestamp| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    json!({
        "type": condition.kind.name(),
        "status": status(condition.healthy),
        "reason": condition.reason,
        "message": condition.message,
        "lastHeartbeatTime": seconds(now),
        "lastTransitionTime": seconds(condition.transition),
    })
}

pub(super) fn status(healthy: bool) -> &'static str {
    if healthy { "True" } else { "False" }
}

/// The conditions whose status is new.
pub(super) fn changed<'a>(last: Option<&[Condition]>, new: &'a [Condition]) -> Vec<&'a Condition> {
    let before = |kind| {
        last.into_iter()
            .flatten()
            .find(|condition| condition.kind == kind)
            .map(|c| c.healthy)
    };
    new.iter()
        .filter(|condition| before(condition.kind) != Some(condition.healthy))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn node(conditions: &Value) -> Node {
        serde_json::from_value(
            json!({"metadata": {"name": "n"}, "status": {"conditions": conditions}}),
        )
        .unwrap()
    }

    fn read_only() -> Condition {
        Condition {
            kind: ConditionType::StorageReady,
            healthy: false,
            reason: "FilesystemReadOnly".into(),
            message: "m".to_owned(),
            transition: "2026-01-02T03:04:05Z".parse().unwrap(),
        }
    }

    #[test]
    fn a_condition_that_is_watched_no_more_is_removed() {
        let now = "2026-02-02T00:00:00Z".parse().unwrap();
        assert_eq!(
            patch(&[], &[read_only()], now),
            json!({"status": {"conditions": [{"$patch": "delete", "type": "StorageReady"}]}})
        );
    }

    #[test]
    fn what_is_patched_is_read_back_the_same() {
        let patch = patch(&[read_only()], &[], "2026-02-02T00:00:00Z".parse().unwrap());
        assert_eq!(
            own_conditions(&node(&patch["status"]["conditions"])),
            [Existing {
                kind: ConditionType::StorageReady,
                healthy: false,
                transition: "2026-01-02T03:04:05Z".parse().unwrap(),
                message: "m".to_owned()
            }]
        );
    }

    #[test]
    fn a_removal_names_our_own_types_only() {
        let conditions = json!([
            {"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-02T03:04:05Z"},
            {"type": "KernelReady", "status": "False", "lastTransitionTime": "2026-01-02T03:04:05Z"},
        ]);
        assert_eq!(
            removal(&own_conditions(&node(&conditions))),
            json!({"status": {"conditions": [{"$patch": "delete", "type": "KernelReady"}]}})
        );
    }

    #[test]
    fn conditions_of_others_are_not_ours() {
        let conditions = json!([
            {"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-02T03:04:05Z"},
            {"type": "KernelReady", "status": "Unknown", "lastTransitionTime": "2026-01-02T03:04:05Z"},
        ]);
        assert_eq!(own_conditions(&node(&conditions)), []);
    }
}
