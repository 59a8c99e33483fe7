//! What AWS says besides: its zonal shifts, its own checks, EKS's own repair, and its permissions.

use anyhow::ensure;
use nodemend_tests::cloud::{Call, NodeGroup, Shift};
use serde_json::{Value, json};

use super::scene::{Scene, allowed};

const GROUP: &str = "workers";

fn blue(repair_config: Value) -> NodeGroup {
    NodeGroup {
        cluster: "prod".to_owned(),
        name: "blue".to_owned(),
        group: GROUP.to_owned(),
        status: "ACTIVE".to_owned(),
        issues: Vec::new(),
        repair_config: Some(repair_config),
    }
}

/// The nodes are those of the managed node group `blue` of the EKS cluster `prod`.
fn manage(scene: &Scene, repair_config: Value) {
    scene.cloud.set_node_group(blue(repair_config));
    for instance in scene.cloud.instances() {
        let tag = |key: &str, value: &str| (key.to_owned(), value.to_owned());
        scene.cloud.instance(&instance.id, |instance| {
            instance.tags = vec![
                tag("eks:cluster-name", "prod"),
                tag("eks:nodegroup-name", "blue"),
            ];
        });
    }
}

fn mutating(scene: &Scene) -> Vec<String> {
    scene
        .cloud
        .mutating_calls()
        .iter()
        .map(Call::name)
        .collect()
}

/// EKS repairs the node group itself: nodemend stands down until that is switched off.
pub(crate) async fn stands_down_for_eks() -> anyhow::Result<()> {
    let scene = Scene::start(3).await?;
    manage(&scene, json!({"enabled": true}));
    let sizes = scene.cloud.sizes(GROUP);
    let _repairer = scene.repairer("a")?;
    let _sick = scene.sicken("node-0").await?;
    let why = scene.wait_hold("node-0", "OtherRepairer").await?;
    ensure!(
        why.contains("EKS repairs the nodes of the managed node group blue itself"),
        "{why}"
    );
    ensure!(mutating(&scene).is_empty(), "{:?}", mutating(&scene));

    manage(&scene, json!({"enabled": false}));
    scene.wait_outcome("node-0", "Succeeded").await?;
    ensure!(mutating(&scene) == ["autoscaling:TerminateInstanceInAutoScalingGroup"]);
    ensure!(
        scene.cloud.sizes(GROUP) == sizes,
        "{:?}",
        scene.cloud.sizes(GROUP)
    );
    Ok(())
}

/// A shift away from the node's zone holds its repair until it ends.
pub(crate) async fn zonal_shift() -> anyhow::Result<()> {
    let scene = Scene::start(3).await?;
    manage(&scene, json!({"enabled": false}));
    scene
        .set_policy(&json!({"mode": "Enforce", "zonalShift": "PauseZone"}))
        .await?;
    let shift = Shift {
        zone_id: "usw2-az1".to_owned(),
        applied: true,
        expires: "2100-01-01T00:00:00Z".parse()?,
        auto: false,
    };
    scene.cloud.set_shifts(Some(vec![shift]));
    let _repairer = scene.repairer("a")?;
    // One in the zone, one elsewhere.
    let _sick = scene.sicken("node-0").await?;
    let why = scene.wait_hold("node-0", "ZonalShift").await?;
    ensure!(why.contains("usw2-az1"), "{why}");
    ensure!(mutating(&scene).is_empty(), "{:?}", mutating(&scene));

    scene.cloud.set_shifts(Some(Vec::new()));
    scene.wait_outcome("node-0", "Succeeded").await?;
    Ok(())
}

/// The status checks of EC2 are a condition like any other.
pub(crate) async fn impaired() -> anyhow::Result<()> {
    let scene = Scene::start(3).await?;
    let rule = json!({
        "nodeMonitoringCondition": "EC2StatusImpaired",
        "status": ["True"],
        "minRepairWaitTime": "2s",
        "repairActions": ["Replace"],
    });
    scene
        .set_policy(&json!({"mode": "Enforce", "rules": [rule]}))
        .await?;
    let first = scene.cloud.instances()[0].id.clone();
    let since = "2026-01-01T00:00:00Z".parse()?;
    scene
        .cloud
        .instance(&first, |instance| instance.impaired = Some(since));
    let _repairer = scene.repairer("a")?;
    let repair = scene.wait_outcome("node-0", "Succeeded").await?;
    let reason = &repair["status"]["reasons"][0];
    ensure!(
        reason["condition"] == "EC2StatusImpaired" && reason["reason"] == "InstanceUnreachable",
        "{reason}"
    );
    ensure!(scene.cloud.is_going(&first));
    Ok(())
}

/// What cannot come back is not destroyed; when the cause is gone the repair goes on by itself.
pub(crate) async fn no_way_to_replace() -> anyhow::Result<()> {
    let scene = Scene::start(3).await?;
    let user = "User suspended at 2026-11-28T03:00:00Z".to_owned();
    scene.cloud.group(GROUP, |group| {
        group.suspended.insert("Launch".to_owned(), user);
    });
    let _repairer = scene.repairer("a")?;
    let _sick = scene.sicken("node-0").await?;
    let why = scene.wait_hold("node-0", "Capacity").await?;
    ensure!(why.contains("Launch of workers is suspended"), "{why}");
    ensure!(mutating(&scene).is_empty(), "{:?}", mutating(&scene));

    scene.cloud.group(GROUP, |group| group.suspended.clear());
    scene.wait_outcome("node-0", "Succeeded").await?;
    Ok(())
}

/// A group that launches before it terminates is told that the instance is unhealthy.
pub(crate) async fn by_instance_health() -> anyhow::Result<()> {
    let scene = Scene::start(3).await?;
    let sizes = scene.cloud.sizes(GROUP);
    scene
        .cloud
        .group(GROUP, |group| group.maintenance = Some((100, 150)));
    scene
        .set_policy(&json!({"mode": "Enforce", "replace": {"by": "InstanceHealth"}}))
        .await?;
    let _repairer = scene.repairer("a")?;
    let _sick = scene.sicken("node-0").await?;
    let repair = scene.wait_outcome("node-0", "Succeeded").await?;
    ensure!(
        mutating(&scene) == ["autoscaling:SetInstanceHealth"],
        "{:?}",
        mutating(&scene)
    );
    ensure!(scene.cloud.sizes(GROUP) == sizes);
    ensure!(
        repair["status"]["replacement"]["nodeName"].is_string(),
        "{repair}"
    );
    Ok(())
}

/// Without the right to write, one node is tried, and no other of its group.
pub(crate) async fn denied() -> anyhow::Result<()> {
    let scene = Scene::start(4).await?;
    scene.cloud.allow_only(allowed("read-only")?);
    scene
        .set_policy(&json!({
            "mode": "Enforce",
            "cordon": {"when": "AtRepair", "recoverySoak": "2s"},
            "unhealthyThreshold": {"percentage": 90, "minNodes": 3},
        }))
        .await?;
    let _repairer = scene.repairer("a")?;
    let _first = scene.sicken("node-0").await?;
    let repair = scene.wait_outcome("node-0", "Failed").await?;
    let attempts = &repair["status"]["attempts"];
    ensure!(
        attempts.as_array().is_some_and(|all| all.len() == 1) && attempts[0]["result"] == "Denied",
        "{attempts}"
    );
    let message = attempts[0]["message"].as_str().unwrap_or_default();
    ensure!(
        message.contains("autoscaling:TerminateInstanceInAutoScalingGroup"),
        "{message}"
    );
    let node = scene.nodes().get("node-0").await?;
    let unschedulable = node.spec.and_then(|spec| spec.unschedulable);
    ensure!(unschedulable != Some(true), "its cordon was not given back");

    let _second = scene.sicken("node-1").await?;
    let why = scene.wait_hold("node-1", "Capacity").await?;
    ensure!(why.contains("AWS has denied a call for workers"), "{why}");
    ensure!(mutating(&scene).len() == 1, "{:?}", mutating(&scene));
    Ok(())
}
