//! Nodes of Karpenter's: drained by us, replaced by it. The instance is never ours to touch.

use anyhow::{Context, ensure};
use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, ResourceExt};
use nodemend_tests::cloud::Call;
use nodemend_tests::crash_point::When;
use serde_json::{Value, json};

use super::scene::{REPAIRED, Scene};

const LADDER: [&str; 2] = ["Reboot", "Replace"];
const DELETE: &str = "DELETE nodeclaims";

async fn policy(scene: &Scene) -> anyhow::Result<()> {
    scene
        .set_policy(&json!({
            "mode": "Enforce",
            "rules": [{"nodeMonitoringCondition": "StorageReady", "minRepairWaitTime": "2s", "repairActions": LADDER}],
        }))
        .await
}

fn deletions(scene: &Scene) -> usize {
    let names = scene.proxy.points().names();
    names.iter().filter(|name| *name == DELETE).count()
}

async fn claim_names(scene: &Scene) -> anyhow::Result<Vec<String>> {
    let claims = scene.karpenter()?.claims();
    let list = claims.list(&ListParams::default()).await?;
    Ok(list.items.iter().map(ResourceExt::name_any).collect())
}

fn timeline(repair: &Value) -> String {
    repair["status"]["timeline"].to_string()
}

/// Drained with its budget, then its claim is deleted; nothing is asked of AWS but to describe.
pub(crate) async fn replaced() -> anyhow::Result<()> {
    let scene = Scene::start_with_karpenter(3).await?;
    policy(&scene).await?;
    let before = claim_names(&scene).await?;
    let _repairer = scene.repairer("a")?;
    let _sick = scene.sicken("node-0").await?;
    let repair = scene.wait_outcome("node-0", "Succeeded").await?;
    let status = &repair["status"];
    let claim = status["nodeClaim"]["name"].as_str().unwrap_or_default();
    let after = claim_names(&scene).await?;
    ensure!(before.iter().any(|name| name == claim), "{claim}");
    ensure!(!after.iter().any(|name| name == claim), "{after:?}");
    ensure!(after.len() == 3, "{after:?}");
    ensure!(
        status["group"] == "nodepool/default" && status["action"] == "Replace",
        "{status}"
    );
    let told = timeline(&repair);
    for says in [
        "Reboot is skipped",
        "drained",
        "Karpenter ends the instance",
    ] {
        let everywhere = format!("{told} {}", status["conditions"]);
        ensure!(everywhere.contains(says), "{says} is not in {everywhere}");
    }
    let instance = status["instanceId"].as_str().unwrap_or_default();
    ensure!(scene.cloud.is_going(instance), "{instance} still runs");
    let touched = scene.cloud.mutating_calls();
    ensure!(touched.is_empty(), "{touched:?}");
    ensure!(deletions(&scene) == 1, "{}", deletions(&scene));
    Ok(())
}

/// A crash just after the deletion: the process after it looks, and deletes nothing.
pub(crate) async fn crashes() -> anyhow::Result<()> {
    let scene = Scene::start_with_karpenter(3).await?;
    policy(&scene).await?;
    let mut repairer = scene.repairer("a")?;
    let before = claim_names(&scene).await?;
    let points = scene.proxy.points();
    points.arm(DELETE, 1, When::After, repairer.killer());
    let _sick = scene.sicken("node-0").await?;
    repairer
        .wait_exit(REPAIRED)
        .context("no NodeClaim was deleted")?;
    repairer.restart()?;
    let repair = scene.wait_outcome("node-0", "Succeeded").await?;
    let after = claim_names(&scene).await?;
    let kept = before.iter().filter(|name| after.contains(name));
    ensure!(kept.count() == 2, "{before:?} {after:?}");
    let attempts = &repair["status"]["attempts"];
    let one = attempts.as_array().is_some_and(|all| all.len() == 1);
    ensure!(
        one && attempts[0]["message"] == "seen by the NodeClaim",
        "{attempts}"
    );
    ensure!(deletions(&scene) == 1, "{}", deletions(&scene));
    Ok(())
}

/// Karpenter's own repair, which drains nothing, is told by `check`, and so is another that holds a lock.
pub(crate) async fn checked() -> anyhow::Result<()> {
    let scene = Scene::start_with_karpenter(2).await?;
    let said = scene.check().await?;
    ensure!(said.contains("nobody else was found"), "{said}");
    ensure!(said.contains("AWS: describes 2 instances"), "{said}");
    let calls = scene.cloud.calls();
    let of_zone = |call: &Call| {
        let credential = call.credential.as_deref().unwrap_or_default();
        credential.split('/').nth(2) == Some("us-west-2")
    };
    ensure!(calls.iter().all(of_zone), "{calls:?}");
    let pod = |image: &str| {
        let gates = json!([{"name": "FEATURE_GATES", "value": "NodeRepair=true"}]);
        let container = json!({"name": "main", "image": image, "env": gates});
        json!({
            "selector": {"matchLabels": {"app": "it"}},
            "template": {"metadata": {"labels": {"app": "it"}}, "spec": {"containers": [container]}},
        })
    };
    let mut deployment = pod("public.ecr.aws/karpenter/controller:1.9.0");
    deployment["replicas"] = json!(0);
    let client = scene.control_plane.admin();
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), "kube-system");
    let object = json!({"metadata": {"name": "karpenter"}, "spec": deployment});
    scene.create(&deployments, object).await?;
    let mut kured = pod("ghcr.io/kubereboot/kured:1.17");
    kured["template"]["spec"]["nodeSelector"] = json!({"no": "node"});
    let lock = json!({"kured.dev/kured-node-lock": "{\"nodeID\":\"node-1\"}"});
    let daemon_sets: Api<DaemonSet> = Api::namespaced(client, "kube-system");
    let object = json!({"metadata": {"name": "kured", "annotations": lock}, "spec": kured});
    scene.create(&daemon_sets, object).await?;
    let said = scene.check().await?;
    for wanted in [
        "Deployment kube-system/karpenter: Karpenter's own node repair is on",
        "DaemonSet kube-system/kured: kured holds its lock for node-1",
        "rights: the account may do all",
    ] {
        ensure!(said.contains(wanted), "{wanted} is not in {said}");
    }
    Ok(())
}

/// What Karpenter has begun to remove is left to it; and where its claims may not be read, so are its nodes.
pub(crate) async fn left_to_karpenter() -> anyhow::Result<()> {
    let scene = Scene::start_with_karpenter(3).await?;
    policy(&scene).await?;
    let taint = json!({"key": "karpenter.sh/disrupted", "effect": "NoSchedule"});
    let patch = Patch::Strategic(json!({"spec": {"taints": [taint]}}));
    let nodes = scene.nodes();
    nodes
        .patch("node-0", &PatchParams::default(), &patch)
        .await?;
    let mut repairer = scene.repairer("a")?;
    let _sick = scene.sicken("node-0").await?;
    let why = scene.wait_hold("node-0", "OtherRepairer").await?;
    ensure!(why.contains("Karpenter removes it"), "{why}");

    repairer.kill();
    scene.take_right("nodeclaims").await?;
    repairer.restart()?;
    let why = scene.wait_hold("node-0", "NotOurs").await?;
    ensure!(why.contains("its NodeClaim is not known"), "{why}");
    ensure!(deletions(&scene) == 0);
    Ok(())
}
