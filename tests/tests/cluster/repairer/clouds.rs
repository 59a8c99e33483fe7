//! What AWS says besides: its zonal shifts, its own checks, EKS's own repair, and its permissions.

use anyhow::{Context, ensure};
use kube::api::{Patch, PatchParams};
use nodemend_tests::cloud::{Call, NodeGroup, Shift};
use serde_json::{Value, json};

use super::scene::{GROUP, Scene, allowed};

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
    Ok(())
}

/// What EKS was told of the node group is what nodemend does from then on; but for its waits of minutes.
pub(crate) async fn imported() -> anyhow::Result<()> {
    let scene = Scene::start(4).await?;
    manage(
        &scene,
        json!({
            "enabled": true,
            "maxUnhealthyNodeThresholdPercentage": 60,
            "nodeRepairConfigOverrides": [{
                "nodeMonitoringCondition": "StorageReady",
                "nodeUnhealthyReason": "FilesystemReadOnly",
                "minRepairWaitTimeMins": 10,
                "repairAction": "Reboot",
            }],
        }),
    );
    let mut imported = scene.import("prod", "blue").await?;
    let of_storage = |rule: &&mut Value| {
        rule["nodeMonitoringCondition"] == "StorageReady"
            && rule["nodeUnhealthyReason"] == "FilesystemReadOnly"
    };
    let rules = imported["rules"].as_array_mut().into_iter().flatten();
    let mut rule = rules.into_iter().filter(of_storage);
    let rule = rule.next().context("the override is not imported")?;
    ensure!(rule["minRepairWaitTime"] == "10m", "{rule}");
    rule["minRepairWaitTime"] = json!("2s");
    ensure!(
        imported["unhealthyThreshold"]["percentage"] == 60
            && imported["unhealthyThreshold"]["comparison"] == "Above",
        "{imported}"
    );
    imported["mode"] = json!("Enforce");
    imported["cordon"] = json!({"after": "1s", "recoverySoak": "2s"});
    imported["verify"] = json!({"rebootDeadline": "60s", "soak": "1s"});
    // Its own selector is by the label of the node group, which the nodes have.
    for node in ["node-0", "node-1", "node-2", "node-3"] {
        let label = json!({"metadata": {"labels": {"eks.amazonaws.com/nodegroup": "blue"}}});
        let patch = Patch::Merge(label);
        let nodes = scene.nodes();
        nodes.patch(node, &PatchParams::default(), &patch).await?;
    }
    scene.set_policy(&imported).await?;
    manage(&scene, json!({"enabled": false}));
    let _boots = scene.machines_boot(true);
    let _repairer = scene.repairer("a")?;
    let _sick = scene.sicken_until_reboot("node-0").await?;
    scene.wait_outcome("node-0", "Succeeded").await?;
    ensure!(
        mutating(&scene) == ["ec2:RebootInstances"],
        "{:?}",
        mutating(&scene)
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

/// It serves in its group, says Auto Scaling, and no Node has ever been seen of it.
pub(crate) async fn never_joined() -> anyhow::Result<()> {
    let scene = Scene::start(3).await?;
    let rule = json!({
        "nodeMonitoringCondition": "InstanceWithoutNode",
        "status": ["True"],
        "minRepairWaitTime": "2s",
        "repairActions": ["Replace"],
    });
    scene
        .set_policy(&json!({"mode": "Enforce", "rules": [rule], "startupTimeout": "1m"}))
        .await?;
    let dead = scene.add_dead_member("us-west-2b");
    let _repairer = scene.repairer("a")?;
    let repair = scene.wait_outcome(&dead, "Succeeded").await?;
    let status = &repair["status"];
    ensure!(status["instanceId"] == dead.as_str(), "{status}");
    ensure!(scene.cloud.is_going(&dead), "{dead} still serves");
    ensure!(
        mutating(&scene) == ["autoscaling:TerminateInstanceInAutoScalingGroup"],
        "{:?}",
        mutating(&scene)
    );
    for node in ["node-0", "node-1", "node-2"] {
        let repairs = scene.repairs_of(node).await?;
        ensure!(repairs.is_empty(), "{repairs:?}");
    }
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
