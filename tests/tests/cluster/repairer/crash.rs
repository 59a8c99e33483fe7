//! The repairer is killed before and after each call that changes something. The calls are those
//! that a whole repair makes, so none can be forgotten.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::coordination::v1::Lease;
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use nodemend_tests::crash_point::{CrashPoints, When};
use nodemend_tests::daemon::Daemon;
use serde_json::{Value, json};

use super::scene::{REPAIRED, Scene};

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Side {
    Kubernetes,
    Aws,
}

impl Side {
    fn points(self, scene: &Scene) -> &CrashPoints {
        match self {
            Self::Kubernetes => scene.proxy.points(),
            Self::Aws => scene.cloud.points(),
        }
    }
}

pub(crate) async fn matrix() -> anyhow::Result<()> {
    let scene = Scene::start(3).await?;
    // Many repairs, so each as short as it can be.
    scene
        .set_policy(&json!({
            "mode": "Enforce",
            "cordon": {"after": "0s", "recoverySoak": "2s"},
            "verify": {"replaceDeadline": "60s", "soak": "0s"},
            "rules": [
                {"nodeMonitoringCondition": "StorageReady", "minRepairWaitTime": "1s", "repairActions": ["Replace"]},
            ],
        }))
        .await?;
    let mut repairer = scene.repairer("a")?;
    round(&scene, &mut repairer, None)
        .await
        .context("without a crash")?;
    let calls: BTreeSet<_> = [Side::Kubernetes, Side::Aws]
        .into_iter()
        .flat_map(|side| {
            side.points(&scene)
                .names()
                .into_iter()
                .map(move |name| (side, name))
        })
        .collect();
    for expected in [
        (Side::Kubernetes, "POST leases"),
        (Side::Kubernetes, "PUT leases"),
        (Side::Kubernetes, "POST noderepairs"),
        (Side::Kubernetes, "PATCH nodes"),
        (Side::Kubernetes, "POST pods/eviction"),
        (Side::Kubernetes, "PUT noderepairs/status phase=Replacing"),
        (Side::Aws, "TerminateInstanceInAutoScalingGroup"),
    ] {
        ensure!(
            calls.contains(&(expected.0, expected.1.to_owned())),
            "{expected:?} is not among {calls:?}"
        );
    }
    let first = calls.iter().map(|(side, name)| (*side, name.as_str(), 1));
    // The second store of this phase is the attempt, just before the call.
    let attempt = [(
        Side::Kubernetes,
        "PUT noderepairs/status phase=Replacing",
        2,
    )];
    for (side, name, nth) in first.chain(attempt) {
        for when in [When::Before, When::After] {
            let point = Some((side, name, nth, when));
            round(&scene, &mut repairer, point)
                .await
                .with_context(|| format!("killed {when:?} {name} {nth}"))?;
        }
    }
    Ok(())
}

type Point<'a> = (Side, &'a str, usize, When);

/// One whole repair of one node, with the repairer killed at a point of it and started again.
async fn round(
    scene: &Scene,
    repairer: &mut Daemon,
    point: Option<Point<'_>>,
) -> anyhow::Result<()> {
    let before = (scene.terminations(), scene.accepted_calls());
    let node = begin(scene, repairer, point).await?;
    let sick = scene.sicken(&node).await?;
    let finished = |repair: &Value| repair["status"]["phase"] == "Finished";
    let repair = survive(scene, repairer, &node, point, finished).await?;
    drop(sick);
    ensure!(
        repair["status"]["outcome"] == "Succeeded",
        "{}",
        repair["status"]
    );
    ensure!(
        scene.repairs_of(&node).await?.len() == 1,
        "{node} was repaired more than once"
    );
    ensure!(
        scene.terminations() == before.0 + 1,
        "{} instances were terminated",
        scene.terminations() - before.0
    );
    let accepted = scene.accepted_calls() - before.1;
    let attempts = repair["status"]["attempts"]
        .as_array()
        .map(Vec::len)
        .unwrap_or_default();
    // One whose answer was cut off is not counted as accepted by AWS's record.
    ensure!(
        accepted <= 1 && attempts >= 1,
        "{accepted} calls were accepted, {attempts} attempts are on record"
    );
    Ok(())
}

pub(crate) async fn way_back() -> anyhow::Result<()> {
    let scene = Scene::start(3).await?;
    scene.set_policy(&json!({"mode": "Enforce", "rules": [
        {"nodeMonitoringCondition": "StorageReady", "minRepairWaitTime": "10m", "repairActions": ["Replace"]},
    ]})).await?;
    let mut repairer = scene.repairer("a")?;
    for (name, nth) in [
        ("PATCH nodes", 2),
        ("PUT noderepairs/status phase=Uncordoning", 1),
    ] {
        for when in [When::Before, When::After] {
            let point = Some((Side::Kubernetes, name, nth, when));
            let node = begin(&scene, &mut repairer, point).await?;
            let sick = scene.sicken(&node).await?;
            scene
                .wait_repair(&node, "Waiting", |repair| {
                    repair["status"]["phase"] == "Waiting"
                })
                .await?;
            scene.heal(&node, sick).await?;
            let recovered = |repair: &Value| repair["status"]["outcome"] == "Recovered";
            survive(&scene, &mut repairer, &node, point, recovered)
                .await
                .with_context(|| format!("{when:?} {name}"))?;
            let spec = scene.nodes().get(&node).await?.spec.unwrap_or_default();
            let untouched =
                spec.unschedulable != Some(true) && spec.taints.as_ref().is_none_or(Vec::is_empty);
            ensure!(untouched, "{node}: {spec:?}");
            // The same node again in the next round, with an episode of its own.
            for repair in scene.repairs_of(&node).await? {
                let name = repair["metadata"]["name"].as_str().unwrap_or_default();
                scene
                    .repairs()
                    .delete(name, &DeleteParams::default())
                    .await?;
            }
        }
    }
    ensure!(scene.terminate_calls() == 0);
    Ok(())
}

/// Nobody can tell a reboot that was asked for from one that was not but by the boot id.
pub(crate) async fn reboot() -> anyhow::Result<()> {
    let scene = Scene::start(3).await?;
    scene
        .set_policy(&json!({
            "mode": "Enforce",
            "cordon": {"after": "0s", "recoverySoak": "2s"},
            "verify": {"rebootDeadline": "15s", "replaceDeadline": "60s", "soak": "0s"},
            "rules": [
                {"nodeMonitoringCondition": "StorageReady", "minRepairWaitTime": "1s", "repairActions": ["Reboot", "Replace"]},
            ],
        }))
        .await?;
    let _boots = scene.machines_boot(true);
    let mut repairer = scene.repairer("a")?;
    let stored = "PUT noderepairs/status phase=Rebooting";
    for (side, name, nth, when) in [
        (Side::Kubernetes, stored, 2, When::Before),
        (Side::Kubernetes, stored, 2, When::After),
        (Side::Aws, "RebootInstances", 1, When::Before),
        (Side::Aws, "RebootInstances", 1, When::After),
    ] {
        let point = Some((side, name, nth, when));
        let (reboots, terminations) = (scene.reboots(), scene.terminations());
        let node = begin(&scene, &mut repairer, point).await?;
        let _sick = scene.sicken_until_reboot(&node).await?;
        let finished = |repair: &Value| repair["status"]["phase"] == "Finished";
        let repair = survive(&scene, &mut repairer, &node, point, finished)
            .await
            .with_context(|| format!("{when:?} {name} {nth}"))?;
        let status = &repair["status"];
        ensure!(status["outcome"] == "Succeeded", "{status}");
        let reboots = scene.reboots() - reboots;
        let terminations = scene.terminations() - terminations;
        // A call of which only the record is known to have been made is waited out, and the node replaced.
        ensure!(
            reboots <= 1 && reboots as usize + terminations == 1,
            "{reboots} {terminations} {status}"
        );
        let ended = status["attempts"].as_array().cloned().unwrap_or_default();
        ensure!(ended.iter().all(|a| a["result"].is_string()), "{status}");
        for repair in scene.repairs_of(&node).await? {
            let name = repair["metadata"]["name"].as_str().unwrap_or_default();
            scene
                .repairs()
                .delete(name, &DeleteParams::default())
                .await?;
        }
    }
    Ok(())
}

/// A fresh repairer that has to create its lease; a node that is well; and the point armed.
async fn begin(
    scene: &Scene,
    repairer: &mut Daemon,
    point: Option<Point<'_>>,
) -> anyhow::Result<String> {
    repairer.kill();
    let leases: Api<Lease> = Api::namespaced(scene.control_plane.admin(), "nodemend-system");
    if leases.get_opt("nodemend-repairer").await?.is_some() {
        leases
            .delete("nodemend-repairer", &DeleteParams::default())
            .await
            .context("delete the lease")?;
    }
    scene.fleet.wait_ready(3).await?;
    let nodes = scene.nodes().list(&ListParams::default()).await?.items;
    let well = nodes
        .iter()
        .filter_map(|node| node.metadata.name.clone())
        .min()
        .context("no node is left")?;
    repairer.restart()?;
    if let Some((side, name, nth, when)) = point {
        side.points(scene).arm(name, nth, when, repairer.killer());
    }
    Ok(well)
}

/// Waits for the armed kill, starts the repairer again, and waits for the end.
async fn survive(
    scene: &Scene,
    repairer: &mut Daemon,
    node: &str,
    point: Option<Point<'_>>,
    end: impl Fn(&Value) -> bool,
) -> anyhow::Result<Value> {
    if point.is_some() {
        repairer
            .wait_exit(REPAIRED)
            .context("the point was not reached")?;
        tokio::time::sleep(Duration::from_millis(200)).await;
        repairer.restart()?;
    }
    scene.wait_repair(node, "the end", end).await
}
