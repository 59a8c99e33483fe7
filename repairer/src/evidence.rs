//! PURE. What is kept of a node before anything is destroyed: cheap, and bounded.

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Event, Node};

use crate::api::repair::Evidence;

const MOST_CONDITIONS: usize = 20;
const MOST_EVENTS: usize = 10;
/// Of one condition or event.
const LENGTH: usize = 300;

/// The messages of nodemend's own conditions name every open finding.
pub fn of(node: &Node, events: &[Event]) -> Evidence {
    let status = node.status.clone().unwrap_or_default();
    let info = status.node_info.as_ref();
    let machine = info.into_iter().flat_map(|info| {
        [
            &info.os_image,
            &info.kernel_version,
            &info.kubelet_version,
            &info.container_runtime_version,
        ]
    });
    let conditions = status.conditions.iter().flatten().map(|condition| {
        format!(
            "{}={} {}: {}",
            condition.type_,
            condition.status,
            condition.reason.as_deref().unwrap_or_default(),
            condition.message.as_deref().unwrap_or_default()
        )
    });
    let mut newest: Vec<_> = events.iter().map(|event| (time(event), event)).collect();
    newest.sort_by_key(|(at, _)| std::cmp::Reverse(*at));
    let told = newest.into_iter().map(|(at, event)| {
        format!(
            "{} {}: {}",
            at.strftime("%Y-%m-%dT%H:%M:%SZ"),
            event.reason.as_deref().unwrap_or_default(),
            event.message.as_deref().unwrap_or_default()
        )
    });
    Evidence {
        boot_id: short(info.map(|info| info.boot_id.as_str()).unwrap_or_default()),
        machine: machine.map(|text| short(text)).collect(),
        conditions: conditions
            .take(MOST_CONDITIONS)
            .map(|text| short(&text))
            .collect(),
        events: told.take(MOST_EVENTS).map(|text| short(&text)).collect(),
    }
}

/// Kinds of Events differ in where they have it.
fn time(event: &Event) -> Timestamp {
    let series = event.series.as_ref();
    let series = series.and_then(|series| Some(series.last_observed_time.as_ref()?.0));
    let last = event.last_timestamp.as_ref().map(|at| at.0);
    let at = event.event_time.as_ref().map(|at| at.0);
    let created = event.metadata.creation_timestamp.as_ref().map(|at| at.0);
    let known = [series, last, at, created].into_iter().flatten().max();
    known.unwrap_or(Timestamp::UNIX_EPOCH)
}

/// From logs and pods, so of any length and with anything in it.
fn short(text: &str) -> String {
    let printable = text.chars().map(|c| if c.is_control() { ' ' } else { c });
    printable.take(LENGTH).collect()
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn is_bounded_whatever_the_node_says() {
        let long = "x\n".repeat(10_000);
        let condition = json!({"type": "KernelReady", "status": "False", "reason": "SoftLockup", "message": long});
        let node = json!({"status": {"conditions": vec![condition; 100], "nodeInfo": null}});
        let node: Node = serde_json::from_value(node).unwrap();
        let event = |second: u32| {
            json!({
                "metadata": {}, "involvedObject": {}, "reason": "SoftLockup", "message": long,
                "lastTimestamp": format!("2026-01-01T00:00:{second:02}Z"),
            })
        };
        let events: Vec<Event> = (0..50)
            .map(|second| serde_json::from_value(event(second)).unwrap())
            .collect();
        let evidence = of(&node, &events);
        assert_eq!((evidence.conditions.len(), evidence.events.len()), (20, 10));
        assert!(evidence.events[0].starts_with("2026-01-01T00:00:49Z SoftLockup: x "));
        assert!(serde_json::to_string(&evidence).unwrap().len() < 16 << 10);
    }
}
