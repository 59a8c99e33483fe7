//! What a person can get wrong: each is told with its remedy, and what can heal is tried again.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use nodemend_tests::faults::LoopDisk;
use serde_json::Value;

use super::agent::Agent;
use crate::suite::Cluster;

const CANNOT_RUN_HERE: i32 = 3;
const WRONG_USAGE: i32 = 2;

pub(super) async fn missing_node(cluster: Arc<Cluster>) -> anyhow::Result<()> {
    // Before the agent starts: what others have had under its name is then history.
    let disk = LoopDisk::new()?;
    let mut agent = Agent::start(&cluster.detector_kubeconfig, "late-node", &[])?;
    agent
        .wait_complaint(&["no Node `late-node`", "--node-name (NODE_NAME)"])
        .await?;
    disk.read_error()?;
    let node = cluster.create_node("late-node").await?;
    cluster
        .wait_condition("late-node", "StorageReady", "True")
        .await?;
    cluster
        .wait_event(
            &node,
            "an Event of what happened before the Node was there",
            |event| {
                event
                    .note
                    .as_deref()
                    .is_some_and(|note| note.contains(disk.name()))
            },
        )
        .await?;
    Ok(())
}

pub(super) async fn without_rbac(cluster: Arc<Cluster>) -> anyhow::Result<()> {
    cluster.create_node("forbidden-node").await?;
    let kubeconfig = cluster
        .control_plane
        .kubeconfig_for_service_account("default", "default")
        .await?;
    let mut agent = Agent::start(&kubeconfig, "forbidden-node", &[])?;
    agent
        .wait_complaint(&["RBAC forbids it: apply deploy/rbac/detector.yaml"])
        .await?;
    agent
        .wait_complaint(&["RBAC forbids it"])
        .await
        .context("it tries again")
        .map(drop)
}

pub(super) async fn unknown_token(cluster: Arc<Cluster>) -> anyhow::Result<()> {
    cluster.create_node("token-node").await?;
    let text = fs::read_to_string(&cluster.detector_kubeconfig).context("read a kubeconfig")?;
    let mut config: Value = serde_json::from_str(&text).context("parse a kubeconfig")?;
    config["users"][0]["user"]["token"] = Value::from("wrong");
    let folder = tempfile::tempdir().context("make a folder")?;
    let path = folder.path().join("kubeconfig");
    fs::write(&path, config.to_string()).context("write a kubeconfig")?;
    let mut agent = Agent::start(&path, "token-node", &[])?;
    agent
        .wait_complaint(&["does not know this token"])
        .await
        .map(drop)
}

pub(super) async fn unusable_kubeconfig(_cluster: Arc<Cluster>) -> anyhow::Result<()> {
    let folder = tempfile::tempdir().context("make a folder")?;
    let missing = folder.path().join("missing");
    let broken = folder.path().join("broken");
    fs::write(&broken, "clusters: [").context("write a kubeconfig")?;
    for path in [missing, broken] {
        let mut agent = Agent::start(&path, "no-node", &[])?;
        agent.wait_complaint(&[&path.display().to_string()]).await?;
        let status = agent.daemon.wait_exit(Duration::from_secs(5))?;
        ensure!(
            status.code() == Some(CANNOT_RUN_HERE),
            "{}: it ended with {status}",
            path.display()
        );
    }
    Ok(())
}

pub(super) async fn wrong_arguments() -> anyhow::Result<()> {
    let cases: [(&[&str], &str); 4] = [
        (&["run"], "--node-name"),
        (
            &["run", "--node-name", "a", "--heartbeat", "five"],
            "write a duration like",
        ),
        (
            &["run", "--node-name", "a", "--disable-hook", "none"],
            "--disable-hook",
        ),
        (&["frobnicate"], "frobnicate"),
    ];
    for (args, says) in cases {
        let mut daemon = nodemend_tests::daemon::Daemon::start("nodemend-detector", args, &[])?;
        let status = daemon.wait_exit(Duration::from_secs(5))?;
        ensure!(
            status.code() == Some(WRONG_USAGE),
            "{args:?}: it ended with {status}"
        );
        let output = daemon.output().await;
        ensure!(output.contains(says), "{args:?}: {output}");
    }
    Ok(())
}
