//! PURE. Somebody else who writes conditions of our types on this Node: EKS's node monitoring agent
//! has the same ones.
//!
//! A heartbeat of ours leaves the message out, and the answer holds the whole Node: a message in it
//! that is not the one that we wrote last is somebody else's, and `managedFields`, where they have
//! not been stripped, say whose.

use std::time::Duration;

use clap::ValueEnum;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition};
use serde::Deserialize;

use super::wire;
use crate::core::{Condition, Existing};
use crate::reason::ConditionType;

/// Our name in `managedFields`.
pub(super) const MANAGER: &str = "nodemend-detector";

/// What to do about it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Deserialize, ValueEnum)]
#[serde(rename_all = "lowercase")]
pub(crate) enum Coexistence {
    /// Write types of our own (`NodemendKernelReady` ...), and leave the shared ones to the other
    Shadow,
    /// Write no conditions at all; Events and metrics go on
    Refuse,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Foreign {
    pub(super) kinds: Vec<ConditionType>,
    pub(super) manager: Option<String>,
}

impl Foreign {
    /// Nobody who will go on writing.
    pub(super) fn is_a_person(&self) -> bool {
        let manager = self.manager.as_deref();
        manager.is_some_and(|manager| manager.starts_with("kubectl"))
    }
}

/// Which of the conditions that we wrote carry words that are not ours.
pub(super) fn words_of_others(node: &Node, written: &[Condition]) -> Option<Foreign> {
    let kinds: Vec<_> = written
        .iter()
        .filter(|ours| {
            let message = standing(node, ours.kind).and_then(|standing| standing.message.as_ref());
            message.is_some_and(|message| *message != ours.message)
        })
        .map(|ours| ours.kind)
        .collect();
    foreign(node, kinds)
}

/// Who writes our types on a Node where we have not written yet, and was heard of within `alive`.
/// What an agent left behind that is gone is nobody's.
pub(super) fn writer_before_us(node: &Node, now: Timestamp, alive: Duration) -> Option<Foreign> {
    let kinds = ConditionType::ALL
        .into_iter()
        .filter(|&kind| {
            standing(node, kind).is_some_and(|condition| {
                belongs_to_others(node, condition)
                    && condition
                        .last_heartbeat_time
                        .as_ref()
                        .is_some_and(|beat| now.duration_since(beat.0).unsigned_abs() <= alive)
            })
        })
        .collect();
    foreign(node, kinds)
}

/// Of the shared types, those that only we have written; in doubt, a type is not ours.
pub(crate) fn ours_alone(node: &Node) -> Vec<ConditionType> {
    ConditionType::ALL
        .into_iter()
        .filter(|&kind| {
            standing(node, kind).is_some_and(|condition| !belongs_to_others(node, condition))
        })
        .collect()
}

fn foreign(node: &Node, kinds: Vec<ConditionType>) -> Option<Foreign> {
    let manager = kinds
        .iter()
        .find_map(|kind| owner(node, kind.name()))
        .filter(|&manager| manager != MANAGER)
        .map(str::to_owned);
    (!kinds.is_empty()).then_some(Foreign { kinds, manager })
}

fn belongs_to_others(node: &Node, condition: &NodeCondition) -> bool {
    let message = condition.message.as_deref().unwrap_or_default();
    owner(node, &condition.type_) != Some(MANAGER)
        && !message.is_empty()
        && !wire::is_own_message(message)
}

fn standing(node: &Node, kind: ConditionType) -> Option<&NodeCondition> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    conditions
        .iter()
        .find(|condition| condition.type_ == kind.name())
}

/// Who wrote the message of this condition last. Unknown also on a Node that was created without any
/// field but its name: the API server never begins to track it.
fn owner<'a>(node: &'a Node, kind: &str) -> Option<&'a str> {
    let key = format!("k:{{\"type\":\"{kind}\"}}");
    let entries = node.metadata.managed_fields.as_ref()?;
    entries.iter().find_map(|entry| {
        let fields = &entry.fields_v1.as_ref()?.0;
        fields
            .get("f:status")?
            .get("f:conditions")?
            .get(&key)?
            .get("f:message")?;
        entry.manager.as_deref()
    })
}

/// A person who edits a condition once is put right; who does it again before long is a writer.
#[derive(Debug, Default)]
pub(super) struct Suspicion {
    last: Option<Duration>,
}

impl Suspicion {
    pub(super) fn confirmed(&mut self, now: Duration, window: Duration) -> bool {
        let before = self.last.replace(now);
        before.is_some_and(|before| now.saturating_sub(before) <= window)
    }
}

/// Our own conditions as they stand on a Node, of the types that are to be written.
pub(super) fn existing(node: &Node, shadow: bool) -> Vec<Existing> {
    let types = if shadow {
        wire::Types::Own
    } else {
        wire::Types::Shared
    };
    wire::own_conditions(node, types)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    const OURS: &str = "nodemend watches this; no fatal finding is open";
    const THEIRS: &str = "Monitoring for the Kernel system is active";
    const NOW: &str = "2026-02-02T00:00:00Z";

    fn node(message: &str, beat: &str, fields: &Value) -> Node {
        serde_json::from_value(json!({
            "metadata": {"name": "n", "managedFields": fields},
            "status": {"conditions": [{
                "type": "KernelReady", "status": "True", "reason": "KernelIsReady",
                "message": message, "lastHeartbeatTime": beat, "lastTransitionTime": beat,
            }]},
        }))
        .unwrap()
    }

    fn written_by(manager: &str) -> Value {
        json!([
            {"manager": "kubelet", "operation": "Update", "subresource": "status", "fieldsType": "FieldsV1",
             "fieldsV1": {"f:status": {"f:conditions": {"k:{\"type\":\"Ready\"}": {"f:message": {}}}}}},
            {"manager": manager, "operation": "Update", "subresource": "status", "fieldsType": "FieldsV1",
             "fieldsV1": {"f:status": {"f:conditions": {"k:{\"type\":\"KernelReady\"}": {"f:message": {}}}}}},
        ])
    }

    fn kernel() -> [Condition; 1] {
        [Condition {
            kind: ConditionType::KernelReady,
            healthy: true,
            reason: "KernelIsReady".into(),
            message: OURS.to_owned(),
            transition: Timestamp::UNIX_EPOCH,
        }]
    }

    fn before_us(message: &str, beat: &str, fields: &Value) -> Option<Foreign> {
        let alive = Duration::from_secs(900);
        writer_before_us(&node(message, beat, fields), NOW.parse().unwrap(), alive)
    }

    #[test]
    fn a_message_that_is_not_the_one_we_wrote_is_of_the_manager_that_owns_it() {
        let answer = node(THEIRS, NOW, &written_by("eks-node-monitoring-agent"));
        assert_eq!(
            words_of_others(&answer, &kernel()),
            Some(Foreign {
                kinds: vec![ConditionType::KernelReady],
                manager: Some("eks-node-monitoring-agent".to_owned())
            })
        );
    }

    #[test]
    fn without_managed_fields_another_writer_is_still_seen_but_has_no_name() {
        let found = words_of_others(&node(THEIRS, NOW, &json!(null)), &kernel()).unwrap();
        assert_eq!((found.kinds.len(), found.manager), (1, None));
    }

    #[test]
    fn our_own_words_are_nobody_elses() {
        assert_eq!(
            words_of_others(&node(OURS, NOW, &written_by(MANAGER)), &kernel()),
            None
        );
    }

    #[test]
    fn a_condition_without_message_is_a_node_that_was_created_again() {
        let mut answer = node(OURS, NOW, &json!(null));
        answer.status.as_mut().unwrap().conditions.as_mut().unwrap()[0].message = None;
        assert_eq!(words_of_others(&answer, &kernel()), None);
    }

    #[test]
    fn an_agent_that_was_there_before_us_is_seen_before_our_first_write() {
        let found = before_us(THEIRS, "2026-02-01T23:55:00Z", &written_by("eks")).unwrap();
        assert_eq!(found.manager.as_deref(), Some("eks"));
    }

    #[test]
    fn without_managed_fields_it_is_seen_by_its_words() {
        let found = before_us(THEIRS, NOW, &json!(null)).unwrap();
        assert_eq!(found.manager, None);
        assert_eq!(before_us(OURS, NOW, &json!(null)), None);
    }

    #[test]
    fn what_an_agent_left_behind_that_is_gone_is_nobodys() {
        assert_eq!(
            before_us(THEIRS, "2026-02-01T12:00:00Z", &written_by("eks")),
            None
        );
    }

    #[test]
    fn what_an_older_release_of_ours_wrote_under_another_manager_is_ours() {
        assert_eq!(before_us(OURS, NOW, &written_by("unknown")), None);
        let fatal = "FilesystemReadOnly: sda1 is read-only (since 2026-02-01T23:00:00Z)";
        assert_eq!(before_us(fatal, NOW, &written_by("unknown")), None);
    }

    #[test]
    fn a_type_that_another_agent_writes_is_not_ours_alone() {
        assert_eq!(ours_alone(&node(THEIRS, NOW, &written_by("eks"))), []);
        assert_eq!(
            ours_alone(&node(OURS, NOW, &written_by(MANAGER))),
            [ConditionType::KernelReady]
        );
    }

    #[test]
    fn a_person_with_kubectl_is_no_agent() {
        let by = |manager: &str| {
            words_of_others(&node(THEIRS, NOW, &written_by(manager)), &kernel()).unwrap()
        };
        assert!(by("kubectl-edit").is_a_person());
        assert!(!by("eks-node-monitoring-agent").is_a_person());
    }

    #[test]
    fn one_edit_is_put_right_and_the_next_one_is_a_writer() {
        let (mut suspicion, window) = (Suspicion::default(), Duration::from_secs(1200));
        assert!(!suspicion.confirmed(Duration::from_secs(100), window));
        assert!(!suspicion.confirmed(Duration::from_secs(2000), window));
        assert!(suspicion.confirmed(Duration::from_secs(2300), window));
    }
}
