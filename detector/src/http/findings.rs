//! PURE. What is open, what the conditions say and how the GPUs are, as JSON.

use serde_json::{Value, json};

use crate::core::Condition;
use crate::finding::Finding;
use crate::judgement::Action;
use crate::metrics::{Health, Known};

pub(super) fn json(known: &Known) -> String {
    let findings: Vec<_> = known.findings.iter().map(finding).collect();
    let conditions: Vec<_> = known.conditions.iter().map(condition).collect();
    format!(
        "{}\n",
        json!({"findings": findings, "conditions": conditions, "gpus": gpus(known)})
    )
}

fn finding(finding: &Finding) -> Value {
    let workload = finding.subject.workload.as_ref();
    json!({
        "reason": finding.reason.name(),
        "condition": finding.reason.row().condition.name(),
        "severity": finding.severity,
        "entity": finding.entity,
        "message": finding.text(),
        "advice": finding.reason.action().map(Action::name),
        "count": finding.count,
        "since": finding.opened.wall,
        "podUid": workload.and_then(|workload| workload.pod_uid.as_deref()),
        "containerId": workload.and_then(|workload| workload.container_id.as_deref()),
        "cgroup": workload.map(|workload| workload.cgroup.as_str()),
        "subject": finding.subject,
    })
}

/// For schedulers: which device is unwell, and what helps.
fn gpus(known: &Known) -> Vec<Value> {
    let gpus = known.gpus.iter();
    gpus.map(|(address, state)| {
        let details = &state.details;
        let health = Health::of(address, known.findings.iter());
        json!({
            "address": address,
            "index": details.index,
            "uuid": state.uuid,
            "serial": details.serial,
            "healthy": health.healthy,
            "advice": health.advice.map(Action::name),
            "reasons": health.reasons,
            "lost": state.lost,
            "holders": state.holders,
            "processes": details.processes,
            "partitions": details.partitions,
            "pcie": details.pcie,
            "spareRows": details.spare_rows,
        })
    })
    .collect()
}

fn condition(condition: &Condition) -> Value {
    json!({
        "type": condition.kind.name(),
        "status": if condition.healthy { "True" } else { "False" },
        "reason": condition.reason,
        "message": condition.message,
        "lastTransitionTime": condition.transition,
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;
    use std::time::Duration;

    use super::*;
    use crate::finding::{Now, Subject};
    use crate::reason::{Reason, Severity};
    use crate::signal::Workload;

    #[test]
    fn a_finding_names_its_pod_and_since_when() {
        let now = Now {
            boot: Duration::from_secs(9),
            wall: "2026-01-02T03:04:05Z".parse().unwrap(),
        };
        let workload = Workload {
            cgroup: "c".to_owned(),
            pod_uid: Some("u".to_owned()),
            container_id: None,
        };
        let open = Finding {
            reason: Reason::OomKilling,
            entity: "e".to_owned(),
            severity: Severity::Warning,
            message: "a \"quoted\"\u{1b} name".to_owned(),
            subject: Subject {
                workload: Some(workload),
                ..Subject::default()
            },
            count: 3,
            flaps: 0,
            historic: false,
            opened: now,
            last_seen: now.boot,
        };
        let known = Known {
            findings: vec![open],
            conditions: Vec::new(),
            gpus: BTreeMap::new(),
        };
        let shown: Value = serde_json::from_str(&json(&known)).unwrap();
        let finding = &shown["findings"][0];
        assert_eq!(
            (&finding["podUid"], &finding["count"], &finding["since"]),
            (&json!("u"), &json!(3), &json!("2026-01-02T03:04:05Z"))
        );
        assert!(!json(&known).contains('\u{1b}'));
    }
}
