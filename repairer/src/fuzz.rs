//! Every parser of what people, nodes and other programs have written, with what must hold whatever it
//! is: each target panics where it does not. `cargo xtask fuzz` says how they are run.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use kube::ResourceExt;
use kube::core::DynamicObject;
use serde::Serialize;
use serde::de::DeserializeOwned;
use serde_json::Value;

use crate::api::duration::Wait;
use crate::api::policy::{MaintenanceWindow, RepairPolicy};
use crate::api::repair::NodeRepair;
use crate::api::validate;
use crate::aws;
use crate::check;
use crate::claim::{ClaimView, Claims};
use crate::cluster::{Asked, Cluster, InstanceId, NodeView};
use crate::decide::{self, Retention};
use crate::episode::Episodes;
use crate::evidence;
use crate::simulate;
use crate::window::Window;

#[cfg(test)]
mod tests;

pub type Target = fn(&[u8]);

/// By the name of the folder with their seeds, `tests/fuzz/seeds/<name>`.
pub const TARGETS: &[(&str, Target)] = &[
    ("aws-answer", aws_answer),
    ("duration", duration),
    ("objects", objects),
    ("policy-file", policy_file),
    ("provider-id", provider_id),
    ("scenario", scenario),
    ("window", window),
];

fn now() -> Timestamp {
    Timestamp::from_second(1_770_000_000).unwrap_or_default()
}

/// But for what a time has below the microsecond, which nobody writes.
fn assert_same_when_read_back<T: Serialize + DeserializeOwned>(object: &T) {
    let write =
        |object| serde_json::to_value(object).unwrap_or_else(|error| panic!("write: {error}"));
    let written = write(object);
    let read = serde_json::from_value(written.clone());
    let read: T = read.unwrap_or_else(|error| panic!("read: {error}"));
    assert_eq!(write(&read), written);
}

fn aws_answer(bytes: &[u8]) {
    aws::fuzz::answers(bytes, now());
}

fn provider_id(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    match InstanceId::parse(&text) {
        Ok(id) => {
            let id = id.as_str();
            assert!(id.is_ascii() && id.starts_with("i-") && id.len() <= 19);
            assert!(text.starts_with("aws:///") && text.ends_with(id));
        }
        Err(error) => assert!(error.to_string().chars().count() <= 200),
    }
}

fn duration(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    if let Ok(wait) = text.parse::<Wait>() {
        assert!(wait.0 <= Duration::from_secs(365 * 24 * 3600));
        assert_eq!(wait.to_string().parse(), Ok(wait));
    }
}

/// A schedule, a duration and a time zone, by line.
fn window(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let mut lines = text.lines();
    let mut line = || lines.next().unwrap_or_default().to_owned();
    let (schedule, duration, time_zone) = (line(), line(), line());
    let Ok(duration) = duration.parse() else {
        return;
    };
    let window = MaintenanceWindow {
        schedule,
        duration,
        time_zone,
    };
    let Ok(window) = Window::read(&window) else {
        return;
    };
    if let Some(until) = window.open_until(now()) {
        assert!(until > now() && until.duration_since(now()).unsigned_abs() <= duration.0);
    }
    if let Some(next) = window.next(now()) {
        assert!(next > now());
        assert!(window.open_until(next).is_some(), "it opens at {next}");
    }
}

fn policy_file(bytes: &[u8]) {
    let text = String::from_utf8_lossy(bytes);
    let checked = check::file(&text);
    assert!(!checked.rows.is_empty());
    checked.text();
}

/// Of small ones, also what comes of them.
fn scenario(bytes: &[u8]) {
    const SMALL: usize = 8;
    let text = String::from_utf8_lossy(bytes);
    let Ok(file) = simulate::file::File::read(&text) else {
        return;
    };
    let short = file.lasts.0 <= Duration::from_secs(2 * 3600);
    let pods: u64 = file
        .pods
        .iter()
        .map(|pod| u64::from(pod.count.unwrap_or(1)))
        .sum();
    if short && file.node_names().len() <= SMALL && file.timeline.len() <= SMALL && pods <= 16 {
        // What is wrong with it is told, whatever it is.
        let _report = simulate::run(&file);
    }
}

/// What an API server gives, an object by line: each is read as the kind that it says, and all of them
/// together are a cluster to decide about.
fn objects(bytes: &[u8]) {
    let mut cluster = Cluster::default();
    let mut claims = Vec::new();
    for line in bytes.split(|&byte| byte == b'\n') {
        let Ok(object) = serde_json::from_slice::<Value>(line) else {
            continue;
        };
        match object["kind"].as_str().unwrap_or_default() {
            "Node" => cluster.nodes.extend(node(object)),
            "NodeClaim" => {
                let object = serde_json::from_value::<DynamicObject>(object);
                claims.extend(object.ok().as_ref().and_then(ClaimView::read));
            }
            "RepairPolicy" => {
                let (spec, found) = validate::read(&object["spec"]);
                assert!(spec.is_some() || validate::first_error(&found).is_some());
                if let Ok(policy) = serde_json::from_value::<RepairPolicy>(object) {
                    assert_same_when_read_back(&policy);
                    cluster.policies.push(policy);
                }
            }
            "NodeRepair" => {
                if let Ok(repair) = serde_json::from_value::<NodeRepair>(object) {
                    assert_same_when_read_back(&repair);
                    // As the store does it.
                    if repair.impossible_time().is_none() {
                        cluster.repairs.insert(repair.name_any(), repair);
                    }
                }
            }
            _ => {}
        }
    }
    cluster.claims = Asked::Yes(Ok(Claims::from_iter(claims)));
    let mut episodes = Episodes::default();
    for second in [0, 60, 7200] {
        let now = now() + Duration::from_secs(second);
        episodes.observe(&cluster, now);
        decide::decide(&cluster, &episodes, Retention::default(), now);
    }
    for node in cluster.nodes.values() {
        decide::explain(&cluster, &episodes, node, now());
    }
}

fn node(object: Value) -> Option<(String, NodeView)> {
    let object: Node = serde_json::from_value(object).ok()?;
    let kept = evidence::of(&object, &[]);
    for text in kept.conditions.iter().chain(&kept.machine) {
        assert!(!text.contains(char::is_control), "{text:?}");
    }
    let view = NodeView::read(&object)?;
    Some((view.name.clone(), view))
}
