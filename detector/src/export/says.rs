//! PURE. What kubelet and the node controller say of a Node that is not well.

use k8s_openapi::api::core::v1::{Node, NodeCondition};

use crate::core::NodeSays;
use crate::text;

pub(super) fn of(node: &Node) -> NodeSays {
    let status = node.status.as_ref();
    let conditions = status.and_then(|status| status.conditions.as_ref());
    let one = |kind: &str, good: &str| {
        let mut all = conditions.into_iter().flatten();
        let condition = all.find(|condition| condition.type_ == kind)?;
        (condition.status != good).then_some(condition)
    };
    let ready = one("Ready", "True");
    NodeSays {
        silent: ready.is_some_and(|ready| ready.status == "Unknown"),
        ready: ready.map(shown),
        disk_pressure: one("DiskPressure", "False").map(shown),
        memory_pressure: one("MemoryPressure", "False").map(shown),
    }
}

fn shown(condition: &NodeCondition) -> String {
    let reason = condition.reason.as_deref().unwrap_or_default();
    let since = condition.last_transition_time.as_ref();
    let since = since.map(|time| format!(" since {}", time.0.strftime("%Y-%m-%dT%H:%M:%SZ")));
    let text = format!(
        "{}={} ({reason}){}",
        condition.type_,
        condition.status,
        since.unwrap_or_default()
    );
    text::part(text, 128)
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn says(conditions: &Value) -> NodeSays {
        let node = json!({"metadata": {"name": "n"}, "status": {"conditions": conditions}});
        of(&serde_json::from_value(node).unwrap())
    }

    #[test]
    fn a_node_that_is_well_says_nothing() {
        let well = json!([
            {"type": "Ready", "status": "True", "reason": "KubeletReady"},
            {"type": "DiskPressure", "status": "False"},
            {"type": "MemoryPressure", "status": "False"},
        ]);
        assert_eq!(says(&well), NodeSays::default());
        assert_eq!(says(&json!([])), NodeSays::default());
    }

    #[test]
    fn silence_is_told_from_a_kubelet_that_says_that_it_is_not_ready() {
        let unknown = says(&json!([
            {"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown",
             "lastTransitionTime": "2026-01-02T03:04:05Z"},
            {"type": "DiskPressure", "status": "True", "reason": "x;\n"},
        ]));
        assert!(unknown.silent);
        let ready = "Ready=Unknown (NodeStatusUnknown) since 2026-01-02T03:04:05Z";
        assert_eq!(unknown.ready.as_deref(), Some(ready));
        let disk = "DiskPressure=True (x,\\u{a})";
        assert_eq!(unknown.disk_pressure.as_deref(), Some(disk));
        let no = says(&json!([{"type": "Ready", "status": "False", "reason": "KubeletNotReady"}]));
        assert!(!no.silent && no.ready.is_some());
    }
}
