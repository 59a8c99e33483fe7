//! A restart of the detector neither heals nor latches: the conditions stand as they stood.

use std::sync::Arc;

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::{Node, NodeCondition};
use nodemend_tests::faults::Ext4;

use super::agent::Agent;
use crate::suite::{Cluster, condition};

const OURS: [&str; 3] = ["KernelReady", "StorageReady", "NetworkingReady"];

async fn sick(cluster: &Cluster, name: &str) -> anyhow::Result<(Ext4, Agent)> {
    cluster.create_node(name).await?;
    let disk = Ext4::mounted()?;
    let critical = disk.path().display().to_string();
    let mut agent = Agent::start(
        &cluster.detector_kubeconfig,
        name,
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
    // So that a transition time that is made anew differs.
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    disk.turn_read_only()?;
    cluster
        .wait_condition(name, "StorageReady", "False")
        .await?;
    tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
    Ok((disk, agent))
}

pub(super) async fn no_flap(cluster: Arc<Cluster>) -> anyhow::Result<()> {
    let (_disk, mut agent) = sick(&cluster, "restart-node").await?;
    let before = cluster
        .nodes()
        .get("restart-node")
        .await
        .context("get the node")?;
    for _ in 0..3 {
        // Heartbeats are whole seconds: the next one must differ.
        tokio::time::sleep(std::time::Duration::from_millis(1100)).await;
        agent.daemon.restart()?;
        agent.wait_ready().await?;
        let after = cluster
            .nodes()
            .get("restart-node")
            .await
            .context("get the node")?;
        for kind in OURS {
            let (old, new) = (find(&before, kind)?, find(&after, kind)?);
            ensure!(
                new.last_heartbeat_time > old.last_heartbeat_time,
                "{kind} was not written again"
            );
            ensure!(
                (&new.status, &new.reason, &new.last_transition_time)
                    == (&old.status, &old.reason, &old.last_transition_time),
                "{kind} was {old:?} and is {new:?}"
            );
        }
    }
    Ok(())
}

pub(super) async fn sigterm(cluster: Arc<Cluster>) -> anyhow::Result<()> {
    let (_disk, mut agent) = sick(&cluster, "sigterm-node").await?;
    let status = agent.stop()?;
    ensure!(status.success(), "it ended with {status}");
    let node = cluster
        .nodes()
        .get("sigterm-node")
        .await
        .context("get the node")?;
    for (kind, expected) in OURS.into_iter().zip(["True", "False", "True"]) {
        let found = find(&node, kind)?;
        ensure!(found.status == expected, "{kind} is {}", found.status);
    }
    Ok(())
}

fn find<'a>(node: &'a Node, kind: &str) -> anyhow::Result<&'a NodeCondition> {
    condition(node, kind).with_context(|| format!("the node has no {kind}"))
}
