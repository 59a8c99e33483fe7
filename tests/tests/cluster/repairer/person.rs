//! What a person says is obeyed, and what others have set is left alone.

use std::time::Duration;

use anyhow::ensure;
use kube::api::{DeleteParams, Patch, PatchParams};
use nodemend_tests::wait::until;
use serde_json::{Value, json};

use super::scene::Scene;

const SCALE_DOWN: &str = "cluster-autoscaler.kubernetes.io/scale-down-disabled";
const DISRUPT: &str = "karpenter.sh/do-not-disrupt";

fn waiting(repair: &Value) -> bool {
    repair["status"]["phase"] == "Waiting"
}

async fn node(scene: &Scene) -> anyhow::Result<Value> {
    Ok(serde_json::to_value(scene.nodes().get("node-0").await?)?)
}

async fn long_wait(scene: &Scene) -> anyhow::Result<()> {
    scene
        .set_policy(&json!({"mode": "Enforce", "rules": [
            {"nodeMonitoringCondition": "StorageReady", "minRepairWaitTime": "10m", "repairActions": ["Replace"]},
        ]}))
        .await
}

pub(crate) async fn deletes_the_record() -> anyhow::Result<()> {
    let scene = Scene::start(3).await?;
    long_wait(&scene).await?;
    let _repairer = scene.repairer("a")?;
    let _sick = scene.sicken("node-0").await?;
    let repair = scene.wait_repair("node-0", "Waiting", waiting).await?;
    let name = repair["metadata"]["name"].as_str().unwrap_or_default();
    scene
        .repairs()
        .delete(name, &DeleteParams::default())
        .await?;
    until(
        Duration::from_secs(10),
        "the node is given back",
        async || {
            let node = node(&scene).await?;
            let back = node["spec"]["unschedulable"] != true
                && !node["spec"]["taints"].to_string().contains("nodemend.dev")
                && node["metadata"]["annotations"][DISRUPT].is_null();
            Ok(back.then_some(()))
        },
    )
    .await?;
    tokio::time::sleep(Duration::from_secs(6)).await;
    ensure!(
        scene.repairs_of("node-0").await?.is_empty(),
        "it was begun again"
    );
    ensure!(scene.terminate_calls() == 0);
    Ok(())
}

pub(crate) async fn marks() -> anyhow::Result<()> {
    let scene = Scene::start(3).await?;
    long_wait(&scene).await?;
    let theirs = json!({"metadata": {"annotations": {SCALE_DOWN: "theirs"}}});
    scene
        .nodes()
        .patch("node-0", &PatchParams::default(), &Patch::Merge(theirs))
        .await?;
    let _repairer = scene.repairer("a")?;
    let sick = scene.sicken("node-0").await?;
    scene.wait_repair("node-0", "Waiting", waiting).await?;
    let annotations = node(&scene).await?["metadata"]["annotations"].clone();
    ensure!(
        annotations[SCALE_DOWN] == "theirs" && annotations[DISRUPT] == "true",
        "{annotations}"
    );
    scene.heal("node-0", sick).await?;
    scene.wait_outcome("node-0", "Recovered").await?;
    let annotations = node(&scene).await?["metadata"]["annotations"].clone();
    ensure!(
        annotations[SCALE_DOWN] == "theirs" && annotations[DISRUPT].is_null(),
        "{annotations}"
    );
    Ok(())
}

pub(crate) async fn preserves() -> anyhow::Result<()> {
    let scene = Scene::start(3).await?;
    let label = |value: Value| json!({"metadata": {"labels": {"nodemend.dev/preserve": value}}});
    let nodes = scene.nodes();
    let keep = Patch::Merge(label(json!("true")));
    nodes
        .patch("node-0", &PatchParams::default(), &keep)
        .await?;
    let _repairer = scene.repairer("a")?;
    let _sick = scene.sicken("node-0").await?;
    let message = scene.wait_hold("node-0", "Preserve").await?;
    ensure!(message.contains("kept for a person"), "{message}");
    let there = scene.pods_on("node-0").await?;
    ensure!(
        there.is_empty() && scene.terminate_calls() == 0,
        "{there:?}"
    );
    let enough = Patch::Merge(label(Value::Null));
    nodes
        .patch("node-0", &PatchParams::default(), &enough)
        .await?;
    scene.wait_outcome("node-0", "Succeeded").await?;
    Ok(())
}
