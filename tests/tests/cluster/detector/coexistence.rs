//! Another agent that writes the same condition types as EKS's node monitoring agent does: GET, then
//! a merge patch of the whole list, which undoes what others wrote in between.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, NodeCondition};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use nodemend_tests::wait::until;
use serde_json::json;
use tokio::task::JoinHandle;

use super::agent::Agent;
use crate::suite::{Cluster, SOON, condition};

const MANAGER: &str = "eks-node-monitoring-agent";
/// It has no NetworkingReady here.
const THEIRS: [&str; 2] = ["KernelReady", "StorageReady"];
const THEIR_WORDS: &str = "Monitoring for the system is active";
const NPD: &str = "KernelDeadlock";
const OWN: [&str; 3] = [
    "NodemendKernelReady",
    "NodemendStorageReady",
    "NodemendNetworkingReady",
];

/// Writes until it is dropped.
struct Other(JoinHandle<()>);

impl Other {
    fn start(nodes: Api<Node>, node: &'static str) -> Self {
        Self(tokio::spawn(async move {
            loop {
                // It goes on for as long as the test does; what it did not write is seen there.
                drop(write_as_eks(&nodes, node).await);
                tokio::time::sleep(Duration::from_millis(700)).await;
            }
        }))
    }
}

impl Drop for Other {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn write_as_eks(nodes: &Api<Node>, name: &str) -> anyhow::Result<()> {
    let node = nodes.get(name).await.context("get the node")?;
    let mut all = node
        .status
        .and_then(|status| status.conditions)
        .unwrap_or_default();
    for kind in THEIRS {
        let condition: NodeCondition = serde_json::from_value(json!({
            "type": kind, "status": "True", "reason": "KernelIsReady", "message": THEIR_WORDS,
            "lastHeartbeatTime": now(), "lastTransitionTime": "2026-01-01T00:00:00Z",
        }))
        .context("write a condition")?;
        all.retain(|other| other.type_ != kind);
        all.push(condition);
    }
    let patch = Patch::Merge(json!({"status": {"conditions": all}}));
    nodes
        .patch_status(name, &manager(MANAGER), &patch)
        .await
        .context("patch as EKS's agent does")
        .map(drop)
}

/// A node with a condition of node-problem-detector on it. The API server tracks who writes what of
/// it as it does for kubelet's: not if it had been created without any field but its name.
async fn node(cluster: &Cluster, name: &str) -> anyhow::Result<Node> {
    let node = json!({"metadata": {"name": name, "labels": {"kubernetes.io/os": "linux"}}});
    let node = serde_json::from_value(node).context("write a Node")?;
    let node = cluster
        .nodes()
        .create(&PostParams::default(), &node)
        .await
        .with_context(|| format!("create node {name}"))?;
    with_npd(cluster, node).await
}

async fn with_npd(cluster: &Cluster, node: Node) -> anyhow::Result<Node> {
    let name = node.metadata.name.as_deref().context("name a node")?;
    let patch = json!({"status": {"conditions": [{
        "type": NPD, "status": "False", "reason": "KernelHasNoDeadlock", "message": "npd",
        "lastHeartbeatTime": "2026-01-01T00:00:00Z", "lastTransitionTime": "2026-01-01T00:00:00Z",
    }]}});
    cluster
        .nodes()
        .patch_status(
            name,
            &manager("node-problem-detector"),
            &Patch::Strategic(patch),
        )
        .await
        .context("patch as node-problem-detector does")?;
    Ok(node)
}

pub(super) async fn shadow(cluster: Arc<Cluster>) -> anyhow::Result<()> {
    let name = "shadow-node";
    let object = node(&cluster, name).await?;
    let mut agent = Agent::start(&cluster.detector_kubeconfig, name, &["--heartbeat", "1s"])?;
    agent.wait_ready().await?;
    let _other = Other::start(cluster.nodes(), name);
    cluster.wait_condition(name, OWN[0], "True").await?;
    let event = cluster
        .wait_event(&object, "an Event about the other writer", |event| {
            event.reason.as_deref() == Some("ForeignConditionWriter")
        })
        .await?;
    let note = event.note.unwrap_or_default();
    ensure!(note.contains(MANAGER) && note.contains(THEIRS[0]), "{note}");
    is_left_alone(&cluster, name, &OWN).await?;
    // A restart does not forget it.
    agent.daemon.restart()?;
    agent.wait_ready().await?;
    is_left_alone(&cluster, name, &OWN).await
}

/// Where nobody tracks who writes what, the words alone tell.
pub(super) async fn untracked(cluster: Arc<Cluster>) -> anyhow::Result<()> {
    let name = "untracked-node";
    let node = cluster.create_node(name).await?;
    let object = with_npd(&cluster, node).await?;
    let mut agent = Agent::start(&cluster.detector_kubeconfig, name, &["--heartbeat", "1s"])?;
    agent.wait_ready().await?;
    let _other = Other::start(cluster.nodes(), name);
    cluster
        .wait_event(&object, "an Event about the other writer", |event| {
            event.reason.as_deref() == Some("ForeignConditionWriter")
        })
        .await?;
    tokio::time::sleep(Duration::from_secs(1)).await;
    is_left_alone(&cluster, name, &OWN).await
}

pub(super) async fn refuse(cluster: Arc<Cluster>) -> anyhow::Result<()> {
    let name = "refuse-node";
    let object = node(&cluster, name).await?;
    let more = ["--heartbeat", "1s", "--coexistence", "refuse"];
    let mut agent = Agent::start(&cluster.detector_kubeconfig, name, &more)?;
    agent.wait_ready().await?;
    let _other = Other::start(cluster.nodes(), name);
    cluster
        .wait_event(&object, "an Event about the other writer", |event| {
            event.reason.as_deref() == Some("ForeignConditionWriter")
        })
        .await?;
    is_left_alone(&cluster, name, &[]).await
}

pub(super) async fn there_before(cluster: Arc<Cluster>) -> anyhow::Result<()> {
    let name = "second-node";
    node(&cluster, name).await?;
    write_as_eks(&cluster.nodes(), name).await?;
    let mut agent = Agent::start(&cluster.detector_kubeconfig, name, &["--heartbeat", "1s"])?;
    agent.wait_ready().await?;
    is_left_alone(&cluster, name, &OWN).await
}

pub(super) async fn edits(cluster: Arc<Cluster>) -> anyhow::Result<()> {
    let name = "edited-node";
    node(&cluster, name).await?;
    let mut agent = Agent::start(&cluster.detector_kubeconfig, name, &["--heartbeat", "1s"])?;
    agent.wait_ready().await?;
    let before = cluster.wait_condition(name, "KernelReady", "True").await?;
    let edit = json!({"status": {"conditions": [
        {"type": "KernelReady", "status": "False", "message": "edited"},
    ]}});
    for _ in 0..3 {
        let edit = Patch::Strategic(edit.clone());
        cluster
            .nodes()
            .patch_status(name, &manager("kubectl-edit"), &edit)
            .await
            .context("edit a condition")?;
        until(SOON, "the condition is put right", async || {
            let now = cluster.condition(name, "KernelReady").await?;
            Ok(now.filter(|now| {
                (&now.status, &now.message, &now.last_transition_time)
                    == (
                        &before.status,
                        &before.message,
                        &before.last_transition_time,
                    )
            }))
        })
        .await?;
    }
    tokio::time::sleep(Duration::from_secs(3)).await;
    let own = cluster.condition(name, OWN[0]).await?;
    ensure!(own.is_none(), "edits made it give way");
    Ok(())
}

/// For some heartbeats: the shared types are the other's, those of node-problem-detector are as they
/// were, and ours are `own`.
async fn is_left_alone(cluster: &Cluster, name: &str, own: &[&str]) -> anyhow::Result<()> {
    for _ in 0..30 {
        tokio::time::sleep(Duration::from_millis(150)).await;
        let node = cluster.nodes().get(name).await.context("get the node")?;
        for kind in THEIRS {
            let found = condition(&node, kind).with_context(|| format!("{kind} is gone"))?;
            ensure!(found.message.as_deref() == Some(THEIR_WORDS), "{found:?}");
        }
        let npd = condition(&node, NPD).context("node-problem-detector's condition is gone")?;
        ensure!(npd.message.as_deref() == Some("npd"), "{npd:?}");
    }
    let conditions = cluster.nodes().get(name).await?.status;
    let conditions = conditions
        .and_then(|status| status.conditions)
        .unwrap_or_default();
    let mut kinds: Vec<_> = conditions
        .iter()
        .map(|condition| condition.type_.as_str())
        .collect();
    kinds.sort_unstable();
    let mut expected: Vec<_> = THEIRS.iter().chain(&[NPD]).chain(own).copied().collect();
    expected.sort_unstable();
    ensure!(kinds == expected, "the Node has {kinds:?}");
    Ok(())
}

fn manager(name: &str) -> PatchParams {
    PatchParams {
        field_manager: Some(name.to_owned()),
        ..PatchParams::default()
    }
}

#[expect(
    clippy::disallowed_methods,
    reason = "the other agent writes when it is, as the detector does"
)]
fn now() -> String {
    Timestamp::now().strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
