//! Whether what is said of a node is believed.

use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::{Patch, PatchParams};
use nodemend_tests::api_proxy::Trouble;
use nodemend_tests::wait::until;
use serde_json::{Value, json};
use tokio::time::Instant;

use super::scene::{REPAIRED, Scene, watches_nodes};

/// The control plane says that a node is silent, and somebody keeps renewing its Lease.
pub(crate) async fn lease() -> anyhow::Result<()> {
    let scene = Scene::start(5).await?;
    scene
        // Its nodes are minutes old: they do not count as still joining.
        .set_policy(&json!({"mode": "Enforce", "startupTimeout": "1s", "rules": [
            {"nodeMonitoringCondition": "Ready", "status": ["False", "Unknown"], "minRepairWaitTime": "2s", "repairActions": ["Replace"]},
        ]}))
        .await?;
    let _repairer = scene.repairer("a")?;
    scene.fleet.lose_node("node-0").await?;
    let unknown = async || {
        let node = scene.nodes().get("node-0").await?;
        let conditions = node.status.unwrap_or_default().conditions;
        let ready = conditions.unwrap_or_default().into_iter();
        let ready = ready.filter(|c| c.type_ == "Ready" && c.status == "Unknown");
        Ok((ready.count() == 1).then_some(()))
    };
    until(REPAIRED, "node-0 is silent", unknown).await?;
    // The node controller has its own clock for each Lease, so a renewal would make the node Ready:
    // what changes is not the time, and kubelets' clocks are not trusted.
    let leases: Api<Lease> = Api::namespaced(scene.control_plane.admin(), "kube-node-lease");
    let lasts = leases.get("node-0").await?.spec.unwrap_or_default();
    ensure!(lasts.lease_duration_seconds == Some(8), "{lasts:?}");
    let alive = Instant::now();
    while alive.elapsed() < Duration::from_secs(14) {
        let transitions = i32::try_from(alive.elapsed().as_millis()).unwrap();
        let patch = Patch::Merge(json!({"spec": {"leaseTransitions": transitions}}));
        leases
            .patch("node-0", &PatchParams::default(), &patch)
            .await?;
        tokio::time::sleep(Duration::from_secs(1)).await;
    }
    let message = scene.wait_hold("node-0", "SignalStale").await?;
    ensure!(message.contains("its Lease was renewed"), "{message}");
    ensure!(scene.terminate_calls() == 0, "{message}");

    // Now it is as old as it promises to become at most. Its pods do not end: nobody is there to end them.
    let begun = |repair: &Value| repair["status"]["phase"] == "Draining";
    scene.wait_repair("node-0", "begun", begun).await?;
    Ok(())
}

/// The watch of the policies is cut off; nodes are still seen, and records can be written.
pub(crate) async fn unreachable() -> anyhow::Result<()> {
    let scene = Scene::start(4).await?;
    scene
        .set_policy(&json!({"mode": "Enforce", "rules": [
            {"nodeMonitoringCondition": "StorageReady", "minRepairWaitTime": "8s", "repairActions": ["Replace"]},
        ]}))
        .await?;
    let mut repairer = scene.repairer("a")?;
    watches_nodes(&mut repairer).await?;
    scene
        .proxy
        .trouble_watches(Some(("repairpolicies", Trouble::Cut)));
    let failed = |line: &Value| line["message"] == "the watch failed";
    repairer
        .wait_for_log(Duration::from_secs(20), failed)
        .await?;
    let _sick = scene.sicken("node-0").await?;
    let message = scene.wait_hold("node-0", "Partition").await?;
    ensure!(
        message.contains("the API server does not answer"),
        "{message}"
    );
    let since = async |scene: &Scene| -> anyhow::Result<jiff::Timestamp> {
        let repair = scene.repairs_of("node-0").await?.pop().unwrap_or_default();
        let since = repair["status"]["reasons"][0]["since"].as_str();
        since.context("no reason")?.parse().context("read a time")
    };
    let began = since(&scene).await?;
    // Longer than its wait.
    tokio::time::sleep(Duration::from_secs(12)).await;
    scene.wait_hold("node-0", "Partition").await?;
    let spec = scene.nodes().get("node-0").await?.spec.unwrap_or_default();
    ensure!(spec.unschedulable != Some(true), "it was touched");
    ensure!(scene.terminate_calls() == 0);

    scene.proxy.trouble_watches(None);
    scene.wait_hold("node-0", "WaitTime").await?;
    let again = since(&scene).await?;
    ensure!(
        again.duration_since(began).as_secs() >= 12,
        "the wait of {began} goes on, from {again}"
    );
    scene.wait_outcome("node-0", "Succeeded").await?;
    Ok(())
}
