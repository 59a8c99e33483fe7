//! What holds a repair, seen by `kubectl`.

use std::time::Duration;

use anyhow::ensure;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::{ClusterRole, PolicyRule};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use nodemend_tests::wait::until;
use serde_json::json;

use super::scene::{REPAIRED, Scene};

pub(crate) async fn disabled() -> anyhow::Result<()> {
    let scene = Scene::start(3).await?;
    scene.set_policy(&json!({"mode": "Disabled"})).await?;
    let _repairer = scene.repairer("a")?;
    let _sick = scene.sicken("node-0").await?;
    let message = scene.wait_hold("node-0", "Disabled").await?;
    ensure!(
        message.contains("spec.mode: Enforce"),
        "the hold does not say how to enable it: {message}"
    );
    tokio::time::sleep(Duration::from_secs(5)).await;
    let node = scene.nodes().get("node-0").await?.spec.unwrap_or_default();
    ensure!(
        node.unschedulable != Some(true) && node.taints.unwrap_or_default().is_empty(),
        "the node was touched"
    );
    ensure!(
        scene.cloud.mutating_calls().is_empty(),
        "AWS was asked to change something"
    );

    scene.set_policy(&json!({"mode": "Enforce"})).await?;
    scene.wait_outcome("node-0", "Succeeded").await?;
    Ok(())
}

pub(crate) async fn closes() -> anyhow::Result<()> {
    let scene = Scene::start(4).await?;
    set_budget(&scene, 4).await?;
    let _repairer = scene.repairer("a")?;
    let _sick = scene.sicken("node-0").await?;
    let blocked = scene
        .wait_repair("node-0", "blocked by the budget", |repair| {
            repair["status"]["phase"] == "Draining"
                && repair["status"]["drain"]["blocked"][0]["why"].is_string()
        })
        .await?;
    let why = blocked["status"]["drain"]["blocked"][0]["why"].to_string();
    ensure!(why.contains("disruption budget web"), "{why}");

    // Two of four are half of the group.
    let second = scene.sicken("node-1").await?;
    let message = scene.wait_hold("node-0", "UnhealthyThreshold").await?;
    ensure!(
        message.starts_with("2 of 4 nodes of workers are unhealthy"),
        "{message}"
    );
    set_budget(&scene, 1).await?;
    tokio::time::sleep(Duration::from_secs(8)).await;
    ensure!(
        scene.terminate_calls() == 0,
        "the gate was closed, and AWS was asked to terminate"
    );

    scene.heal("node-1", second).await?;
    scene.wait_outcome("node-0", "Succeeded").await?;
    ensure!(scene.accepted_calls() == 1);
    Ok(())
}

async fn set_budget(scene: &Scene, min_available: u16) -> anyhow::Result<()> {
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(scene.control_plane.admin(), "default");
    let patch = Patch::Merge(json!({"spec": {"minAvailable": min_available}}));
    let generation = budgets
        .patch("web", &PatchParams::default(), &patch)
        .await?
        .metadata
        .generation;
    until(REPAIRED, "the budget is observed", async || {
        let status = budgets.get("web").await?.status.unwrap_or_default();
        Ok((status.observed_generation == generation).then_some(()))
    })
    .await
}

pub(crate) async fn malformed_provider_id() -> anyhow::Result<()> {
    let scene = Scene::start(2).await?;
    let node = json!({
        "metadata": {"name": "stranger"},
        "spec": {"providerID": "aws:///us-west-2a/i-NOTHEX"},
    });
    scene
        .nodes()
        .create(&PostParams::default(), &serde_json::from_value(node)?)
        .await?;
    let _repairer = scene.repairer("a")?;
    let _sick = scene.sicken("stranger").await?;
    let message = scene.wait_hold("stranger", "NotOurs").await?;
    ensure!(
        message.contains("spec.providerID `aws:///us-west-2a/i-NOTHEX`"),
        "{message}"
    );
    Ok(())
}

/// Without the right to evict one drain is held, and no other node is begun; with it the drain goes on.
pub(crate) async fn may_not_evict() -> anyhow::Result<()> {
    let scene = Scene::start(4).await?;
    scene
        .set_policy(&json!({
            "mode": "Enforce",
            "unhealthyThreshold": {"percentage": 90, "minNodes": 3},
            "parallel": {"count": 2},
        }))
        .await?;
    let roles: Api<ClusterRole> = Api::all(scene.control_plane.admin());
    let shipped = roles.get("nodemend-repairer").await?.rules;
    let may_evict = |rule: &PolicyRule| {
        let resources = rule.resources.iter().flatten();
        resources.into_iter().any(|name| name == "pods/eviction")
    };
    let mut without = shipped.clone().unwrap_or_default();
    without.retain(|rule| !may_evict(rule));
    let allow = async |rules: serde_json::Value| {
        let patch = Patch::Merge(json!({"rules": rules}));
        roles
            .patch("nodemend-repairer", &PatchParams::default(), &patch)
            .await
    };
    allow(json!(without)).await?;
    let _repairer = scene.repairer("a")?;
    let _first = scene.sicken("node-0").await?;
    let why = scene.wait_hold("node-0", "Denied").await?;
    ensure!(why.contains("the repairer may not evict pods"), "{why}");
    let _second = scene.sicken("node-1").await?;
    let why = scene.wait_hold("node-1", "Denied").await?;
    ensure!(why.contains("lacks a permission"), "{why}");
    let node = scene.nodes().get("node-1").await?.spec.unwrap_or_default();
    ensure!(node.unschedulable != Some(true), "node-1 was cordoned");

    allow(json!(shipped)).await?;
    scene.wait_outcome("node-0", "Succeeded").await?;
    Ok(())
}
