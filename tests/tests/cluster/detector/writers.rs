//! Two writers of conditions on one Node: the kubelet, in each of the ways that it or another agent
//! may write, and our detector.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use futures::StreamExt;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams, WatchEvent, WatchParams};
use nodemend_tests::faults::Ext4;
use serde_json::json;

use super::agent::Agent;
use crate::suite::{Cluster, condition};

const NODE: &str = "two-writers";
const OURS: [&str; 3] = ["KernelReady", "StorageReady", "NetworkingReady"];
const KUBELETS: [&str; 4] = ["MemoryPressure", "DiskPressure", "PIDPressure", "Ready"];
const WRITES: u64 = 360;

pub(super) async fn never_undo_each_other(cluster: Arc<Cluster>) -> anyhow::Result<()> {
    let nodes = cluster.nodes();
    let created = cluster.create_node(NODE).await?;
    let disk = Ext4::mounted()?;
    let critical = disk.path().display().to_string();
    let version = created
        .metadata
        .resource_version
        .context("read a version")?;
    let history = tokio::spawn(history(nodes.clone(), version));
    let mut agent = Agent::start(
        &cluster.detector_kubeconfig,
        NODE,
        &[
            "--critical-mount",
            &critical,
            "--heartbeat",
            "1s",
            "--fatal-heartbeat",
            "1s",
        ],
    )?;
    agent.wait_ready().await?;

    let mut refused = 0;
    for number in 1..=WRITES {
        if number == WRITES / 3 {
            disk.turn_read_only()?;
        }
        refused += write_as_kubelet(&nodes, number).await?;
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    cluster
        .wait_condition(NODE, "StorageReady", "False")
        .await?;
    agent.stop()?;
    // Tells the history where to end.
    let last = Patch::Merge(json!({"metadata": {"labels": {"last": "true"}}}));
    nodes
        .patch(NODE, &PatchParams::default(), &last)
        .await
        .context("label the node")?;
    let versions = history.await??;
    check(&versions)?;
    ensure!(
        refused == WRITES / 4,
        "{refused} writes from a stale copy were refused, not each one"
    );
    let beats = distinct(&versions, "KernelReady");
    ensure!(beats >= 5, "the detector wrote only {beats} times");
    Ok(())
}

/// Four ways to write, in turn. Returns how many were refused as stale.
async fn write_as_kubelet(nodes: &Api<Node>, number: u64) -> anyhow::Result<u64> {
    let mut node = nodes.get(NODE).await.context("get the node")?;
    match number % 4 {
        // kubelet: a merge patch of its own types, with the order of all that it saw.
        0 | 1 => {
            let mut order: Vec<_> = KUBELETS.map(|kind| json!({"type": kind})).to_vec();
            if number % 4 == 1 {
                order.extend(OURS.map(|kind| json!({"type": kind})));
            }
            let patch = json!({"status": {"$setElementOrder/conditions": order, "conditions": conditions(number)}});
            nodes
                .patch_status(NODE, &PatchParams::default(), &Patch::Strategic(patch))
                .await
                .context("patch as kubelet does")?;
            Ok(0)
        }
        // An agent that updates the whole status, as fresh as it can.
        2 => {
            while !replace(nodes, &mut node, number).await? {
                node = nodes.get(NODE).await.context("get the node")?;
            }
            Ok(0)
        }
        // The same from a copy that is out of date: it must not get through.
        _ => {
            let touch = json!({"metadata": {"annotations": {"touched": number.to_string()}}});
            nodes
                .patch(NODE, &PatchParams::default(), &Patch::Merge(touch))
                .await
                .context("touch the node")?;
            let replaced = replace(nodes, &mut node, number).await?;
            Ok(u64::from(!replaced))
        }
    }
}

async fn replace(nodes: &Api<Node>, node: &mut Node, number: u64) -> anyhow::Result<bool> {
    let theirs: Vec<NodeCondition> =
        serde_json::from_value(json!(conditions(number))).context("write conditions")?;
    let all = node
        .status
        .get_or_insert_default()
        .conditions
        .get_or_insert_default();
    all.retain(|condition| !KUBELETS.contains(&condition.type_.as_str()));
    all.extend(theirs);
    match nodes
        .replace_status(NODE, &PostParams::default(), node)
        .await
    {
        Ok(_) => Ok(true),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(false),
        Err(error) => Err(error).context("update the node's status"),
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the node controller takes a kubelet that does not say when for one that is gone"
)]
fn conditions(number: u64) -> Vec<serde_json::Value> {
    let now = Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string();
    let kind = |kind: &&str| {
        json!({
            "type": kind,
            "status": if *kind == "Ready" { "True" } else { "False" },
            "reason": "Kubelet",
            "message": format!("write {number}"),
            "lastHeartbeatTime": now,
            "lastTransitionTime": "2026-01-01T00:00:00Z",
        })
    };
    KUBELETS.iter().map(kind).collect()
}

/// Every version of the node's object, up to the one with the label `last`.
async fn history(nodes: Api<Node>, version: String) -> anyhow::Result<Vec<Node>> {
    let watch = WatchParams::default().fields(&format!("metadata.name={NODE}"));
    let mut events = std::pin::pin!(
        nodes
            .watch(&watch, &version)
            .await
            .context("watch the node")?
    );
    let mut versions = Vec::new();
    while let Some(event) = events.next().await {
        if let WatchEvent::Modified(node) = event.context("watch the node")? {
            let last = node
                .metadata
                .labels
                .as_ref()
                .is_some_and(|labels| labels.contains_key("last"));
            versions.push(node);
            if last {
                return Ok(versions);
            }
        }
    }
    anyhow::bail!("the watch ended after {} versions", versions.len())
}

/// Nothing that one of them wrote was ever undone by the other.
fn check(versions: &[Node]) -> anyhow::Result<()> {
    for pair in versions.windows(2) {
        let [before, after] = pair else { continue };
        for kind in KUBELETS.iter().chain(&OURS) {
            let Some(old) = condition(before, kind) else {
                continue;
            };
            let new = condition(after, kind).with_context(|| format!("{kind} was removed"))?;
            if KUBELETS.contains(kind) {
                ensure!(
                    number(new) >= number(old),
                    "{kind} went back from `{}` to `{}`",
                    old.message(),
                    new.message()
                );
                continue;
            }
            ensure!(
                new.last_heartbeat_time >= old.last_heartbeat_time,
                "{kind} went back in time"
            );
            if new.status == old.status {
                ensure!(
                    new.last_transition_time == old.last_transition_time,
                    "{kind} has a new transition time"
                );
            } else {
                ensure!(
                    (*kind, new.status.as_str()) == ("StorageReady", "False"),
                    "{kind} became {}",
                    new.status
                );
            }
        }
    }
    Ok(())
}

trait Message {
    fn message(&self) -> &str;
}

impl Message for NodeCondition {
    fn message(&self) -> &str {
        self.message.as_deref().unwrap_or_default()
    }
}

/// The number of the write, of kubelet's conditions.
fn number(condition: &NodeCondition) -> Option<u64> {
    condition.message().strip_prefix("write ")?.parse().ok()
}

fn distinct(versions: &[Node], kind: &str) -> usize {
    let mut times: Vec<_> = versions
        .iter()
        .filter_map(|node| condition(node, kind)?.last_heartbeat_time.clone())
        .collect();
    times.dedup();
    times.len()
}
