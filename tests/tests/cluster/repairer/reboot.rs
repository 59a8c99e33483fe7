//! Reboots through the real SDK: one call, proven by the boot id of the Node.

use anyhow::ensure;
use serde_json::json;

use super::scene::Scene;

const LADDER: [&str; 2] = ["Reboot", "Replace"];

async fn set_policy(scene: &Scene) -> anyhow::Result<()> {
    scene
        .set_policy(&json!({
            "mode": "Enforce",
            "verify": {"rebootDeadline": "12s", "replaceDeadline": "60s", "soak": "1s"},
            "rules": [{"nodeMonitoringCondition": "StorageReady", "minRepairWaitTime": "2s", "repairActions": LADDER}],
        }))
        .await
}

pub(crate) async fn proven() -> anyhow::Result<()> {
    let scene = Scene::start(3).await?;
    set_policy(&scene).await?;
    let _boots = scene.machines_boot(true);
    let _repairer = scene.repairer("a")?;
    let _sick = scene.sicken_until_reboot("node-0").await?;
    let repair = scene.wait_outcome("node-0", "Succeeded").await?;
    let status = &repair["status"];
    ensure!(
        scene.reboots() == 1 && scene.terminate_calls() == 0,
        "{status}"
    );
    let call = scene.cloud.mutating_calls().remove(0);
    ensure!(
        call.attempt.as_deref() == Some("attempt=1; max=1"),
        "{call:?}"
    );
    let attempt = &status["attempts"][0];
    ensure!(
        attempt["action"] == "Reboot" && attempt["bootID"].is_string(),
        "{attempt}"
    );
    let evidence = &status["evidence"];
    ensure!(
        evidence["conditions"]
            .to_string()
            .contains("FilesystemReadOnly"),
        "{evidence}"
    );
    let spec = scene.nodes().get("node-0").await?.spec.unwrap_or_default();
    let taints = spec.taints.unwrap_or_default();
    ensure!(
        spec.unschedulable != Some(true) && taints.is_empty(),
        "{taints:?}"
    );
    Ok(())
}

pub(crate) async fn escalates() -> anyhow::Result<()> {
    let scene = Scene::start(3).await?;
    set_policy(&scene).await?;
    let _boots = scene.machines_boot(false);
    let _repairer = scene.repairer("a")?;
    let _sick = scene.sicken("node-0").await?;
    let repair = scene.wait_outcome("node-0", "Succeeded").await?;
    ensure!(
        scene.reboots() == 1 && scene.terminations() == 1,
        "{}",
        repair["status"]
    );
    Ok(())
}
