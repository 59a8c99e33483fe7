//! The fault that a node does not survive, and its repair: each step must be seen to happen.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio::time::Instant;

use super::latency::Latency;
use super::policy::Repair;
use super::screen::{Screen, printable, seconds, short};
use super::stage::{HOST, REPLICAS, SOON, Stage, WORKLOAD, condition, runs_on};
use crate::cloud::{Call, InstanceState};
use crate::wait::until;

const TAINT: &str = "nodemend.dev/unhealthy";

/// The steps so far, with their time since the fault.
pub(super) struct Told {
    fault: Instant,
    steps: Vec<(String, Duration)>,
}

impl Told {
    fn step(&mut self, what: &str) {
        self.steps.push((what.to_owned(), self.fault.elapsed()));
    }

    pub(super) fn table(&self) -> Vec<String> {
        let rows = self
            .steps
            .iter()
            .map(|(what, at)| format!("{what:<54}{:>12}", seconds(*at)));
        std::iter::once(format!("{:<54}{:>12}", "the repair", "since fault"))
            .chain(rows)
            .collect()
    }
}

pub(super) async fn follow(
    stage: &mut Stage,
    disabled_for: Duration,
    latencies: &mut Vec<Latency>,
    screen: &Screen,
) -> anyhow::Result<Told> {
    let mut told = Told {
        fault: Instant::now(),
        steps: Vec::new(),
    };
    latencies.push(read_only(stage, screen).await?);
    told.step("StorageReady is False");
    left_alone(stage, disabled_for, screen).await?;

    screen.line(&format!("  $ {}", stage.records.enable().await?));
    told.step("a person enables the policy");
    wait(stage, screen, "cordoned", async |stage, _| {
        is_cordoned(stage).await
    })
    .await?;
    told.step("cordoned");
    budget_blocks(stage, screen).await?;
    told.step("the PodDisruptionBudget blocks the drain");
    let replicas = REPLICAS + 1;
    scale(stage, replicas).await?;
    screen.line(&format!(
        "  $ kubectl scale deployment {WORKLOAD} --replicas={replicas}"
    ));
    told.step("a person makes room for the budget");
    wait(
        stage,
        screen,
        "drained: the pod was evicted, its budget kept",
        async |stage, _| {
            let pods = stage.pods().await?;
            Ok(!pods.iter().any(|pod| runs_on(pod) == Some(HOST)))
        },
    )
    .await?;
    told.step("drained");
    terminated(stage, screen).await?;
    told.step("instance terminated through its Auto Scaling group");
    let node = new_node(stage, screen).await?;
    told.step("the replacement's Node is Ready");
    wait(stage, screen, "NodeRepair Succeeded", async |_, repair| {
        Ok(repair.is_some_and(|repair| repair.outcome.as_deref() == Some("Succeeded")))
    })
    .await?;
    told.step("verified: NodeRepair Succeeded");
    runs_elsewhere(stage, replicas).await?;
    screen.done(&format!(
        "{replicas} pods Running, none on {HOST}; {node} took its place"
    ));
    ensure!(
        terminations(stage).len() == 1,
        "more than one terminate call: {:?}",
        stage.cloud.mutating_calls()
    );
    Ok(told)
}

async fn read_only(stage: &mut Stage, screen: &Screen) -> anyhow::Result<Latency> {
    let at = stage.disk.turn_read_only()?;
    let is_it = |line: &serde_json::Value| {
        line["kind"] == "condition"
            && line["condition"] == "StorageReady"
            && line["status"] == "False"
    };
    let line = stage
        .detector
        .wait_for_log(SOON, is_it)
        .await
        .context("StorageReady was not set")?;
    let latency = Latency::of_log_line("file system read-only", at, &line)
        .context("read the times of a log line")?;
    let nodes: Api<Node> = Api::all(stage.client.clone());
    let node = nodes.get(HOST).await.context("get the node")?;
    let storage = condition(&node, "StorageReady").context("the node has no StorageReady")?;
    ensure!(
        storage.status == "False",
        "StorageReady is {}",
        storage.status
    );
    let took = short(latency.exported.saturating_sub(at));
    let message = printable(storage.message.as_deref().unwrap_or_default());
    screen.done(&format!("StorageReady=False after {took}: {message}"));
    Ok(latency)
}

/// A disabled policy records what it would have to wait for, and nothing is touched.
async fn left_alone(stage: &Stage, disabled_for: Duration, screen: &Screen) -> anyhow::Result<()> {
    let hold = stage.repairer.while_running(until(
        SOON,
        "a NodeRepair that is held by the gate Disabled",
        async || {
            let hold = stage.records.repair().await?.and_then(|repair| repair.hold);
            Ok(hold.filter(|hold| hold.gate == "Disabled"))
        },
    ));
    let hold = hold.await?;
    let watched = async {
        let end = Instant::now() + disabled_for;
        while Instant::now() < end {
            ensure!(
                !is_cordoned(stage).await?,
                "the node was cordoned under a disabled policy"
            );
            ensure!(
                stage.cloud.mutating_calls().is_empty(),
                "AWS was asked for a change under a disabled policy"
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    };
    let what = format!(
        "nothing is touched: NodeRepair is held by the gate Disabled: {}",
        printable(&hold.message)
    );
    screen.step(&what, watched).await
}

/// The drain asks, the budget refuses, the pod stays.
async fn budget_blocks(stage: &Stage, screen: &Screen) -> anyhow::Result<()> {
    let mut why = String::new();
    wait(
        stage,
        screen,
        "the drain waits: its PodDisruptionBudget blocks",
        async |_, repair| {
            let blocked = repair.and_then(|repair| repair.drain.as_ref()?.blocked.first());
            why = blocked
                .map(|blocked| format!("{}: {}", blocked.pod, blocked.why))
                .unwrap_or_default();
            Ok(blocked.is_some())
        },
    )
    .await?;
    screen.note(&printable(&why));
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(stage.client.clone(), "default");
    let budget = budgets
        .get(WORKLOAD)
        .await
        .context("get the PodDisruptionBudget")?;
    let allowed = budget.status.map(|status| status.disruptions_allowed);
    ensure!(
        allowed == Some(0),
        "the budget allows {allowed:?} disruptions, so it is not what blocks: {why}"
    );
    let still = stage
        .pods()
        .await?
        .iter()
        .any(|pod| runs_on(pod) == Some(HOST));
    ensure!(still, "the pod was evicted against its budget");
    Ok(())
}

async fn scale(stage: &Stage, replicas: u16) -> anyhow::Result<()> {
    let deployments: Api<Deployment> = Api::namespaced(stage.client.clone(), "default");
    let patch = Patch::Merge(json!({"spec": {"replicas": replicas}}));
    deployments
        .patch(WORKLOAD, &PatchParams::default(), &patch)
        .await
        .context("scale the Deployment")?;
    Ok(())
}

async fn terminated(stage: &mut Stage, screen: &Screen) -> anyhow::Result<()> {
    let what = "TerminateInstanceInAutoScalingGroup, without decrement";
    wait(stage, screen, what, async |stage, _| {
        Ok(stage.cloud.is_going(&stage.instance))
    })
    .await?;
    let calls = terminations(stage);
    let [call] = calls.as_slice() else {
        bail!("{} terminate calls", calls.len())
    };
    let parameter = |name: &str| call.params.get(name).map(String::as_str);
    ensure!(
        parameter("InstanceId") == Some(&stage.instance),
        "another instance was terminated: {call:?}"
    );
    ensure!(
        parameter("ShouldDecrementDesiredCapacity") == Some("false"),
        "the group was made smaller: {call:?}"
    );
    // Its host is gone.
    stage.detector.kill();
    Ok(())
}

fn terminations(stage: &Stage) -> Vec<Call> {
    let calls = stage.cloud.mutating_calls().into_iter();
    calls
        .filter(|call| call.action == "TerminateInstanceInAutoScalingGroup")
        .collect()
}

/// Returns its name.
async fn new_node(stage: &Stage, screen: &Screen) -> anyhow::Result<String> {
    let mut name = String::new();
    wait(
        stage,
        screen,
        "the group launched a new instance; its Node is Ready",
        async |stage, _| {
            let instances = stage.cloud.instances();
            let mut running = instances
                .iter()
                .filter(|instance| instance.state == InstanceState::Running);
            let Some(newest) = running.next_back() else {
                return Ok(false);
            };
            name = format!("node-{}", newest.id);
            let nodes: Api<Node> = Api::all(stage.client.clone());
            let node = nodes.get_opt(&name).await.context("get the new node")?;
            Ok(node.is_some_and(|node| {
                condition(&node, "Ready").is_some_and(|ready| ready.status == "True")
            }))
        },
    )
    .await?;
    Ok(name)
}

async fn runs_elsewhere(stage: &Stage, replicas: u16) -> anyhow::Result<()> {
    until(
        SOON,
        &format!("{replicas} pods are Running, none of them on {HOST}"),
        async || {
            let pods = stage.pods().await?;
            let running = |pod: &&k8s_openapi::api::core::v1::Pod| {
                let phase = pod
                    .status
                    .as_ref()
                    .and_then(|status| status.phase.as_deref());
                pod.metadata.deletion_timestamp.is_none()
                    && phase == Some("Running")
                    && runs_on(pod) != Some(HOST)
            };
            Ok(
                (pods.iter().filter(running).count() == usize::from(replicas)
                    && pods.len() == usize::from(replicas))
                .then_some(()),
            )
        },
    )
    .await
}

async fn is_cordoned(stage: &Stage) -> anyhow::Result<bool> {
    let nodes: Api<Node> = Api::all(stage.client.clone());
    let Some(spec) = nodes.get(HOST).await.context("get the node")?.spec else {
        return Ok(false);
    };
    let tainted = spec
        .taints
        .unwrap_or_default()
        .iter()
        .any(|taint| taint.key == TAINT);
    Ok(tainted && spec.unschedulable == Some(true))
}

/// Waits for a step of the repair; ends at once when the repairer or the repair has ended otherwise.
async fn wait(
    stage: &Stage,
    screen: &Screen,
    what: &str,
    mut happened: impl AsyncFnMut(&Stage, Option<&Repair>) -> anyhow::Result<bool>,
) -> anyhow::Result<()> {
    let waiting = async {
        let deadline = Instant::now() + SOON;
        loop {
            let repair = stage.records.repair().await?;
            if happened(stage, repair.as_ref()).await? {
                return Ok(());
            }
            let record = repair.as_ref().map(describe).unwrap_or_default();
            let ended = repair
                .is_some_and(|repair| repair.outcome.is_some_and(|outcome| outcome != "Succeeded"));
            ensure!(!ended, "did not happen: {what}; {record}");
            ensure!(
                Instant::now() < deadline,
                "waited {SOON:?} in vain for: {what}; {record}"
            );
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
    };
    screen
        .step(what, stage.repairer.while_running(waiting))
        .await
}

/// Why a repair is where it is.
fn describe(repair: &Repair) -> String {
    let hold = repair
        .hold
        .as_ref()
        .map(|hold| format!(", held by {}: {}", hold.gate, hold.message));
    let last = repair
        .timeline
        .last()
        .map(|entry| format!("; last: {}", entry.event));
    format!(
        "the NodeRepair is {}{}{}",
        repair.phase,
        hold.unwrap_or_default(),
        last.unwrap_or_default()
    )
}
