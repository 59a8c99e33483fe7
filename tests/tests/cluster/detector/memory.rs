//! What an agent finds when it starts: nothing to write to, something that is damaged, and the trace
//! of a boot that nobody asked for.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use nodemend_tests::faults::Ext4;
use nodemend_tests::wait;
use serde_json::json;

use super::agent::Agent;
use crate::suite::Cluster;

pub(super) async fn nowhere(cluster: Arc<Cluster>) -> anyhow::Result<()> {
    let node = "stateless-node";
    cluster.create_node(node).await?;
    let disk = Ext4::mounted()?;
    let critical = disk.path().display().to_string();
    let nowhere = "/proc/nodemend";
    let args = [
        "--state-dir",
        nowhere,
        "--boots-dir",
        nowhere,
        "--critical-mount",
        &critical,
    ];
    let mut agent = Agent::start(&cluster.detector_kubeconfig, node, &args)?;
    agent.wait_complaint(&["create /proc/nodemend"]).await?;
    disk.turn_read_only()?;
    cluster
        .wait_condition(node, "StorageReady", "False")
        .await?;
    Ok(())
}

pub(super) async fn damaged(cluster: Arc<Cluster>) -> anyhow::Result<()> {
    let node = cluster.create_node("damaged-node").await?;
    let folder = tempfile::tempdir().context("make a folder")?;
    let state = folder.path().join("detector-state.json");
    fs::write(&state, br#"{"format":1,"bootId":"#).context("write a state")?;
    let state_dir = folder.path().display().to_string();
    let args = ["--state-dir", &state_dir];
    let mut agent = Agent::start(&cluster.detector_kubeconfig, "damaged-node", &args)?;
    agent.wait_ready().await?;
    cluster
        .wait_event(&node, "an Event of the damaged state", |event| {
            let note = event.note.as_deref().unwrap_or_default();
            event.reason.as_deref() == Some("StateDamaged") && note.contains("set aside")
        })
        .await?;
    ensure!(
        folder.path().join("detector-state.json.damaged").exists(),
        "it was not set aside"
    );
    Ok(())
}

pub(super) async fn unexpected_boot(cluster: Arc<Cluster>) -> anyhow::Result<()> {
    let node = cluster.create_node("rebooted-node").await?;
    let folder = tempfile::tempdir().context("make a folder")?;
    let before = json!({"boots": [{
        "id": "the boot before", "started": "2026-01-02T03:04:05Z", "stopped": false, "unexpected": false,
    }]});
    fs::write(folder.path().join("boots.json"), before.to_string()).context("write boots")?;
    let boots_dir = folder.path().display().to_string();
    let args = ["--boots-dir", &boots_dir];
    let mut agent = Agent::start(&cluster.detector_kubeconfig, "rebooted-node", &args)?;
    cluster
        .wait_event(
            &node,
            "an Event of the boot that nobody asked for",
            |event| event.reason.as_deref() == Some("UnexpectedReboot"),
        )
        .await?;
    // This boot ends in order, so the next one will be expected.
    agent.stop()?;
    // The agent does not wait long for the process that notes it.
    let noted = async || {
        let boots = fs::read_to_string(folder.path().join("boots.json")).context("read boots")?;
        let boots: serde_json::Value = serde_json::from_str(&boots).context("parse boots")?;
        let told = boots["boots"][1]["stopped"] == true;
        ensure!(boots["boots"][1]["unexpected"] == true, "{boots}");
        Ok::<_, anyhow::Error>(told.then_some(()))
    };
    wait::until(Duration::from_secs(10), "the stop is noted", noted).await
}
