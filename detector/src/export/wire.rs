//! PURE. Conditions as the API has them.

use std::borrow::Cow;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition};
use serde_json::{Value, json};

use crate::core::{Condition, Existing};
use crate::reason::ConditionType;

/// Under which names the conditions are written.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Types {
    /// Those of EKS's agent, which others read.
    Shared,
    /// Nobody else's, where another agent has the shared ones.
    Own,
}

impl Types {
    pub(crate) fn name(self, kind: ConditionType) -> Cow<'static, str> {
        match self {
            Self::Shared => Cow::Borrowed(kind.name()),
            Self::Own => Cow::Owned(format!("Nodemend{}", kind.name())),
        }
    }
}

/// Our own conditions as they stand on a Node.
pub(crate) fn own_conditions(node: &Node, types: Types) -> Vec<Existing> {
    standing(node)
        .filter_map(|condition| {
            let kind = ConditionType::ALL
                .into_iter()
                .find(|&kind| types.name(kind) == condition.type_)?;
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

/// What stands on a Node under the names that only we use.
pub(crate) fn own_types(node: &Node) -> Vec<String> {
    let names = ConditionType::ALL.map(|kind| Types::Own.name(kind));
    standing(node)
        .filter(|condition| names.iter().any(|name| *name == condition.type_))
        .map(|condition| condition.type_.clone())
        .collect()
}

fn standing(node: &Node) -> impl Iterator<Item = &NodeCondition> {
    let status = node.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    conditions.into_iter().flatten()
}

/// Whether this agent, in any release, may have written it.
pub(super) fn is_own_message(message: &str) -> bool {
    message.starts_with("nodemend ") || message.contains(" (since 2")
}

/// A strategic-merge patch of only these types (merge key `type`): everybody else's stay untouched.
/// `gone` are removed. A heartbeat leaves the messages out: the answer then shows whether they are
/// still ours.
pub(super) fn patch(
    conditions: &[Condition],
    types: Types,
    gone: &[String],
    now: Timestamp,
    with_messages: bool,
) -> Value {
    let wanted = conditions.iter().map(|condition| {
        let mut wire = wire(condition, types, now);
        if with_messages {
            wire["message"] = Value::from(condition.message.as_str());
        }
        wire
    });
    json!({"status": {"conditions": wanted.chain(deletions(gone)).collect::<Vec<_>>()}})
}

/// A strategic-merge patch that takes these types away, and only these.
pub(crate) fn removal(types: &[String]) -> Value {
    json!({"status": {"conditions": deletions(types).collect::<Vec<_>>()}})
}

fn deletions(types: &[String]) -> impl Iterator<Item = Value> {
    types
        .iter()
        .map(|name| json!({"$patch": "delete", "type": name}))
}

fn wire(condition: &Condition, types: Types, now: Timestamp) -> Value {
    let seconds = |time: Timestamp| time.strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    json!({
        "type": types.name(condition.kind),
        "status": status(condition.healthy),
        "reason": condition.reason,
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

    const NOW: &str = "2026-02-02T00:00:00Z";

    fn patched(types: Types, with_messages: bool) -> Value {
        patch(
            &[read_only()],
            types,
            &[],
            NOW.parse().unwrap(),
            with_messages,
        )
    }

    #[test]
    fn a_condition_that_is_watched_no_more_is_removed() {
        let gone = ["StorageReady".to_owned()];
        assert_eq!(
            patch(&[], Types::Shared, &gone, NOW.parse().unwrap(), true),
            json!({"status": {"conditions": [{"$patch": "delete", "type": "StorageReady"}]}})
        );
    }

    #[test]
    fn what_is_patched_is_read_back_the_same_under_both_names() {
        for types in [Types::Shared, Types::Own] {
            let patch = patched(types, true);
            assert_eq!(
                own_conditions(&node(&patch["status"]["conditions"]), types),
                [Existing {
                    kind: ConditionType::StorageReady,
                    healthy: false,
                    transition: "2026-01-02T03:04:05Z".parse().unwrap(),
                    message: "m".to_owned()
                }]
            );
        }
    }

    #[test]
    fn a_heartbeat_says_everything_but_the_message() {
        let condition = &patched(Types::Shared, false)["status"]["conditions"][0];
        assert_eq!(
            *condition,
            json!({
                "type": "StorageReady", "status": "False", "reason": "FilesystemReadOnly",
                "lastHeartbeatTime": NOW, "lastTransitionTime": "2026-01-02T03:04:05Z",
            })
        );
    }

    #[test]
    fn only_the_types_with_our_name_are_nobody_elses() {
        let conditions = json!([
            {"type": "Ready", "status": "True"},
            {"type": "KernelReady", "status": "False"},
            {"type": "NodemendKernelReady", "status": "False"},
        ]);
        assert_eq!(own_types(&node(&conditions)), ["NodemendKernelReady"]);
    }

    #[test]
    fn conditions_of_others_are_not_ours() {
        let conditions = json!([
            {"type": "Ready", "status": "False", "lastTransitionTime": "2026-01-02T03:04:05Z"},
            {"type": "KernelReady", "status": "Unknown", "lastTransitionTime": "2026-01-02T03:04:05Z"},
        ]);
        assert_eq!(own_conditions(&node(&conditions), Types::Shared), []);
    }

    #[test]
    fn every_message_of_ours_is_known_as_ours() {
        assert!(is_own_message(
            "nodemend watches this; no fatal finding is open"
        ));
        assert!(is_own_message("A: b (since 2026-02-02T00:00:00Z); C: d"));
        assert!(!is_own_message("Monitoring for the Disk system is active"));
    }
}
