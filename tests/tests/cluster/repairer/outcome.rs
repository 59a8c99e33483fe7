//! How a repair ends.

use std::time::Duration;

use anyhow::ensure;
use k8s_openapi::api::core::v1::Pod;
use kube::Api;
use kube::api::{ListParams, Patch, PatchParams};
use nodemend_tests::cloud::{Fault, Kind};
use serde_json::{Value, json};

use super::scene::{REPAIRED, Scene};

const TERMINATE: &str = "TerminateInstanceInAutoScalingGroup";

pub(crate) async fn replaced() -> anyhow::Result<()> {
    let scene = Scene::start(3).await?;
    let mut repairer = scene.repairer("a")?;
    let _sick = scene.sicken("node-0").await?;
    let repair = scene.wait_outcome("node-0", "Succeeded").await?;

    let calls: Vec<_> = scene.cloud.mutating_calls();
    ensure!(calls.len() == 1, "{} mutating calls", calls.len());
    let call = &calls[0];
    ensure!(call.action == TERMINATE && call.authorized, "{call:?}");
    ensure!(
        call.params["ShouldDecrementDesiredCapacity"] == "false",
        "{call:?}"
    );
    ensure!(
        call.attempt.as_deref() == Some("attempt=1; max=1"),
        "the SDK must not send it again: {call:?}"
    );
    ensure!(call.user_agent.contains("nodemend"), "{}", call.user_agent);

    let status = &repair["status"];
    let attempt = &status["attempts"][0];
    ensure!(
        status["attempts"]
            .as_array()
            .is_some_and(|all| all.len() == 1)
            && attempt["result"] == "Accepted",
        "{status}"
    );
    ensure!(attempt["requestId"].is_string(), "no request id: {attempt}");
    ensure!(
        status["group"] == "workers" && status["replacement"]["nodeName"].is_string(),
        "{status}"
    );
    for kind in ["Cordoned", "Drained", "ActionTaken", "Verified", "Finished"] {
        let conditions = status["conditions"].as_array().cloned().unwrap_or_default();
        ensure!(
            conditions
                .iter()
                .any(|c| c["type"] == kind && c["status"] == "True"),
            "{kind} is missing: {status}"
        );
    }

    let pods: Api<Pod> = Api::namespaced(scene.control_plane.admin(), "default");
    for pod in pods.list(&ListParams::default()).await?.items {
        let node = pod.spec.and_then(|spec| spec.node_name);
        ensure!(
            node.is_some_and(|name| name != "node-0"),
            "a pod is still on node-0, or on none"
        );
    }
    let status = repairer.terminate(Duration::from_secs(5))?;
    ensure!(status.success(), "SIGTERM ended it with {status}");
    Ok(())
}

pub(crate) async fn recovered() -> anyhow::Result<()> {
    let scene = Scene::start(3).await?;
    scene.set_policy(&json!({"mode": "Enforce", "rules": [
        {"nodeMonitoringCondition": "StorageReady", "minRepairWaitTime": "10m", "repairActions": ["Replace"]},
    ]})).await?;
    // One was cordoned by somebody else, before.
    let cordoned = json!({"spec": {"unschedulable": true}});
    scene
        .nodes()
        .patch("node-1", &PatchParams::default(), &Patch::Merge(cordoned))
        .await?;
    let _repairer = scene.repairer("a")?;
    for name in ["node-0", "node-1"] {
        let sick = scene.sicken(name).await?;
        let waiting = |repair: &Value| repair["status"]["phase"] == "Waiting";
        scene.wait_repair(name, "Waiting", waiting).await?;
        let node = scene.nodes().get(name).await?.spec.unwrap_or_default();
        let taints = node.taints.unwrap_or_default();
        ensure!(node.unschedulable == Some(true), "{name} is not cordoned");
        ensure!(
            taints
                .iter()
                .any(|taint| taint.key == "nodemend.dev/unhealthy"),
            "{name} has no taint of ours"
        );
        scene.heal(name, sick).await?;
        scene.wait_outcome(name, "Recovered").await?;
    }
    let unschedulable = async |name: &str| -> anyhow::Result<bool> {
        let spec = scene.nodes().get(name).await?.spec.unwrap_or_default();
        let ours = spec
            .taints
            .unwrap_or_default()
            .iter()
            .any(|taint| taint.key == "nodemend.dev/unhealthy");
        ensure!(!ours, "{name} still has our taint");
        Ok(spec.unschedulable == Some(true))
    };
    ensure!(!unschedulable("node-0").await?, "our cordon was not undone");
    ensure!(
        unschedulable("node-1").await?,
        "somebody else's cordon was undone"
    );
    ensure!(scene.terminate_calls() == 0);
    Ok(())
}

pub(crate) async fn uncordoned() -> anyhow::Result<()> {
    let scene = Scene::start(3).await?;
    scene.set_policy(&json!({"mode": "Enforce", "rules": [
        {"nodeMonitoringCondition": "StorageReady", "minRepairWaitTime": "6s", "repairActions": ["Replace"]},
    ]})).await?;
    let _repairer = scene.repairer("a")?;
    let _sick = scene.sicken("node-0").await?;
    scene
        .wait_repair("node-0", "Waiting", |repair| {
            repair["status"]["phase"] == "Waiting"
        })
        .await?;
    let uncordon = json!({"spec": {"unschedulable": false, "taints": null}});
    scene
        .nodes()
        .patch("node-0", &PatchParams::default(), &Patch::Merge(uncordon))
        .await?;
    scene.wait_outcome("node-0", "Cancelled").await?;
    tokio::time::sleep(Duration::from_secs(10)).await;
    ensure!(
        scene.repairs_of("node-0").await?.len() == 1,
        "it was begun again"
    );
    ensure!(scene.terminate_calls() == 0);
    Ok(())
}

pub(crate) async fn refused() -> anyhow::Result<()> {
    let scene = Scene::start(3).await?;
    let refused = Kind::Refuse {
        code: "ValidationError".to_owned(),
        message: "not in the group <b>".to_owned(),
    };
    scene.cloud.add_fault(Fault {
        action: Some(TERMINATE.to_owned()),
        times: 3,
        kind: refused,
    });
    let _repairer = scene.repairer("a")?;
    let _sick = scene.sicken("node-0").await?;
    let repair = scene.wait_outcome("node-0", "Failed").await?;
    ensure!(
        scene.terminate_calls() == 3,
        "{} calls",
        scene.terminate_calls()
    );
    let attempts = repair["status"]["attempts"]
        .as_array()
        .cloned()
        .unwrap_or_default();
    ensure!(
        attempts.len() == 3
            && attempts
                .iter()
                .all(|attempt| attempt["result"] == "Refused"),
        "{attempts:?}"
    );
    ensure!(
        attempts[0]["message"] == "ValidationError: not in the group <b>",
        "{attempts:?}"
    );
    ensure!(scene.terminations() == 0);
    Ok(())
}

pub(crate) async fn lost_answer() -> anyhow::Result<()> {
    let scene = Scene::start(3).await?;
    scene.cloud.add_fault(Fault {
        action: Some(TERMINATE.to_owned()),
        times: 1,
        kind: Kind::LostReply,
    });
    let _repairer = scene.repairer("a")?;
    let _sick = scene.sicken("node-0").await?;
    scene.wait_outcome("node-0", "Succeeded").await?;
    ensure!(
        scene.terminate_calls() == 1,
        "it was asked {} times",
        scene.terminate_calls()
    );
    ensure!(scene.terminations() == 1);
    Ok(())
}

/// AWS takes the call and does nothing for longer than anybody waits.
pub(crate) async fn no_answer() -> anyhow::Result<()> {
    let scene = Scene::start(3).await?;
    scene.cloud.add_fault(Fault {
        action: Some(TERMINATE.to_owned()),
        times: 1,
        kind: Kind::Hang(REPAIRED),
    });
    let mut repairer = scene.repairer("a")?;
    let _sick = scene.sicken("node-0").await?;
    let said = |line: &Value| {
        line["message"]
            .as_str()
            .is_some_and(|text| text.contains("may or may not have been done"))
    };
    repairer.wait_for_log(REPAIRED, said).await?;
    ensure!(scene.terminate_calls() == 1, "it was not looked at first");
    let repair = scene.wait_outcome("node-0", "Succeeded").await?;
    let attempts = &repair["status"]["attempts"];
    ensure!(
        attempts[0]["result"] == "NotApplied" && attempts[1]["result"] == "Accepted",
        "{attempts}"
    );
    ensure!(scene.terminations() == 1);
    Ok(())
}

pub(crate) async fn aws_away() -> anyhow::Result<()> {
    let scene = Scene::start(3).await?;
    scene.cloud.add_fault(Fault {
        action: None,
        times: u32::MAX,
        kind: Kind::Status(503),
    });
    let mut repairer = scene.repairer("a")?;
    let _sick = scene.sicken("node-0").await?;
    let message = scene.wait_hold("node-0", "NotOurs").await?;
    ensure!(message.contains("AWS has not said"), "{message}");
    let said = |line: &Value| {
        line["message"]
            .as_str()
            .is_some_and(|text| text.contains("AWS did not describe"))
    };
    repairer.wait_for_log(Duration::from_secs(30), said).await?;
    let node = scene.nodes().get("node-0").await?.spec.unwrap_or_default();
    ensure!(
        node.unschedulable != Some(true),
        "it was cordoned on a guess"
    );
    Ok(())
}
