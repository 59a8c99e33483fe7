//! From NVML, a scripted one, through a NodeCondition to the repair that the detector advises: the
//! shipped policy, with short waits. No GPU is needed.

use std::fs;

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::NodeCondition;
use nodemend_tests::daemon::Daemon;
use nodemend_tests::gpu_node::{GPU, GpuNode, HEALTHY, OTHER_GPU};
use nodemend_tests::page::get;
use nodemend_tests::repo;
use nodemend_tests::wait::until;
use serde_json::{Value, json};

use super::scene::{REPAIRED, Scene};
use crate::suite::{SOON, condition};

const CONDITION: &str = "AcceleratedHardwareReady";
/// The driver wants a reset; a row of memory has no spare; power that is not connected.
const NEEDS_RESET: &str = "gpu 0000:05:00.0 recovery=1\ngpu 0000:06:00.0\n";
const WORN_OUT: &str = "gpu 0000:05:00.0 failed=1\ngpu 0000:06:00.0\n";
const NO_POWER: &str = "gpu 0000:05:00.0\ngpu 0000:06:00.0\nxid 0000:05:00.0 54\n";

pub(crate) async fn as_advised() -> anyhow::Result<()> {
    let scene = Scene::start(4).await?;
    scene
        .control_plane
        .apply(&repo().join("deploy/rbac/detector.yaml"))
        .await?;
    scene
        .set_policy(&json!({
            "mode": "Enforce",
            "verify": {"rebootDeadline": "30s", "replaceDeadline": "60s", "soak": "1s"},
            "rules": shipped_rules()?,
        }))
        .await?;
    let _boots = scene.machines_boot(true);
    let _repairer = scene.repairer("a")?;

    let person = Patient::admit(&scene, "node-2").await?;
    person.gpus.play(NO_POWER)?;
    person.has(&scene, "NvidiaXID54Error").await?;

    let reset = Patient::admit(&scene, "node-0").await?;
    reset.gpus.play(NEEDS_RESET)?;
    reset.has(&scene, "NvidiaGPURecoveryNeeded").await?;
    until(REPAIRED, "the node is rebooted", async || {
        Ok((scene.reboots() > 0).then_some(()))
    })
    .await?;
    reset.gpus.play(HEALTHY)?;
    let repair = scene.wait_outcome("node-0", "Succeeded").await?;
    ensure!(
        scene.reboots() == 1 && scene.terminate_calls() == 0,
        "{}",
        repair["status"]
    );

    let worn_out = Patient::admit(&scene, "node-1").await?;
    worn_out.gpus.play(WORN_OUT)?;
    worn_out.has(&scene, "NvidiaRowRemapFailure").await?;
    worn_out.tells("Replace").await?;
    until(REPAIRED, "the instance is terminated", async || {
        Ok((scene.terminations() > 0).then_some(()))
    })
    .await?;
    drop(worn_out);
    let repair = scene.wait_outcome("node-1", "Succeeded").await?;
    ensure!(
        scene.reboots() == 1 && scene.terminations() == 1,
        "{}",
        repair["status"]
    );

    // For as long as the others have been repaired.
    person.has(&scene, "NvidiaXID54Error").await?;
    let spec = scene.nodes().get("node-2").await?.spec.unwrap_or_default();
    ensure!(
        spec.unschedulable != Some(true) && scene.repairs_of("node-2").await?.is_empty(),
        "something was done to a node that waits for a person"
    );
    Ok(())
}

/// Those for accelerated hardware.
fn shipped_rules() -> anyhow::Result<Vec<Value>> {
    let text = fs::read_to_string(repo().join("deploy/policy.yaml")).context("read the policy")?;
    let mut policy: Value = serde_saphyr::from_str(&text).context("read the policy")?;
    let rules = policy["spec"]["rules"].as_array_mut();
    let rules = rules.context("read its rules")?.iter_mut();
    let of_gpus = rules.filter(|rule| rule["nodeMonitoringCondition"] == CONDITION);
    Ok(of_gpus
        .map(|rule| {
            rule["minRepairWaitTime"] = json!("2s");
            rule.take()
        })
        .collect())
}

/// A Node whose detector sees two GPUs.
struct Patient {
    node: &'static str,
    gpus: GpuNode,
    detector: Daemon,
    /// Of its own pages.
    address: String,
}

impl Patient {
    async fn admit(scene: &Scene, node: &'static str) -> anyhow::Result<Self> {
        let gpus = GpuNode::new(HEALTHY)?;
        let kubeconfig = scene
            .control_plane
            .kubeconfig_on_node("nodemend-system", "nodemend-detector", node)
            .await?;
        let kubeconfig = kubeconfig.display().to_string();
        let of_gpus = gpus.args();
        let args: Vec<_> = ["run", "--node-name", node, "--kubeconfig", &kubeconfig]
            .into_iter()
            .chain(["--log-format", "json", "--fatal-heartbeat", "1s"])
            .chain(["--http-address", "127.0.0.1:0"])
            .chain(of_gpus.iter().map(String::as_str))
            .collect();
        let mut detector = Daemon::start("nodemend-detector", &args, &gpus.env())?;
        let serving = detector.wait_for_log(SOON, |line| line["address"].is_string());
        let address = serving.await?["address"].as_str().map(str::to_owned);
        detector
            .wait_for_log(SOON, |line| line["message"] == "NVML answers")
            .await?;
        let patient = Self {
            node,
            gpus,
            detector,
            address: address.context("read the address")?,
        };
        patient.has(scene, "NvidiaGPUIsReady").await?;
        Ok(patient)
    }

    /// The condition on the API server, by its reason.
    async fn has(&self, scene: &Scene, reason: &str) -> anyhow::Result<NodeCondition> {
        let what = format!("{CONDITION} of {} is {reason}", self.node);
        let told = until(SOON, &what, async || {
            let node = scene.nodes().get(self.node).await?;
            let condition = condition(&node, CONDITION).cloned();
            Ok(condition.filter(|condition| condition.reason.as_deref() == Some(reason)))
        });
        self.detector.while_running(told).await
    }

    /// For a scheduler: of two GPUs one is unwell, and what helps.
    async fn tells(&self, advice: &str) -> anyhow::Result<()> {
        until(SOON, "the health of each GPU is told", async || {
            let (_, page) = get(&self.address, "/findings").await?;
            let page: Value = serde_json::from_str(&page).context("read /findings")?;
            let (_, metrics) = get(&self.address, "/metrics").await?;
            let gpu = |index: usize| &page["gpus"][index];
            let healthy = |gpu: &str| format!("nodemend_detector_gpu_healthy{{gpu=\"{gpu}\"}} 1\n");
            let told = gpu(0)["healthy"] == false
                && gpu(0)["advice"] == advice
                && gpu(1)["healthy"] == true
                && !metrics.contains(&healthy(GPU))
                && metrics.contains(&healthy(OTHER_GPU));
            Ok(told.then_some(()))
        })
        .await
    }
}
