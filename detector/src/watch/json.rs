//! PURE. `watch -o json`: one object a line.

use std::time::Duration;

use serde_json::{Map, Value, json};

use crate::core::Condition;
use crate::finding::Transition;
use crate::reason::ConditionType;
use crate::source::bpf::HookStatus;

/// From here on everything is new.
pub(super) fn ready(hooks: &[HookStatus]) -> Value {
    let hooks: Map<_, _> = hooks
        .iter()
        .map(|status| (status.hook.name().to_owned(), json!(status.using)))
        .collect();
    json!({"ready": true, "hooks": hooks})
}

pub(super) fn transition(transition: &Transition) -> Value {
    let finding = &transition.finding;
    let nanoseconds = |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
    let mut value = json!({
        "at": transition.found.wall.to_string(),
        "transition": transition.change.name(),
        "reason": finding.reason.name(),
        "condition": finding.reason.row().condition.name(),
        "severity": finding.severity.to_string(),
        "message": finding.text(),
        "historic": finding.historic,
        "entity": finding.entity,
        "count": finding.count,
        "subject": finding.subject,
        "faultNs": nanoseconds(transition.fault),
        "foundNs": nanoseconds(transition.found.boot),
    });
    if let Some(workload) = &finding.subject.workload {
        value["subject"]["cgroup"] = json!(workload.cgroup);
        value["subject"]["podUid"] = json!(workload.pod_uid);
        value["subject"]["containerId"] = json!(workload.container_id);
    }
    value
}

pub(super) fn condition(condition: &Condition) -> Value {
    json!({
        "condition": condition.kind.name(),
        "status": if condition.healthy { "True" } else { "False" },
        "reason": condition.reason,
        "message": condition.message,
        "transitionTime": condition.transition.to_string(),
    })
}

pub(super) fn absent(kind: ConditionType) -> Value {
    json!({"condition": kind.name(), "status": "absent"})
}
