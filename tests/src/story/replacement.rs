//! What every repair of the story comes to: cordon, drain, a new instance for the old one, and a
//! NodeRepair that has succeeded. Each step must be seen to happen.

use std::time::Duration;

use anyhow::{Context, bail, ensure};
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod};
use kube::{Api, Client};
use serde_json::Value;
use tokio::time::Instant;

use super::latency::Latency;
use super::policy::Repair;
use super::screen::{Screen, printable, seconds, short};
use super::stage::{SOON, Stage, condition, runs_on};
use crate::cloud::{Call, InstanceState};
use crate::daemon::Daemon;
use crate::wait::until;

const TAINT: &str = "nodemend.dev/unhealthy";

/// The steps so far, with their time since the fault.
pub(super) struct Told {
    title: &'static str,
    fault: Instant,
    steps: Vec<(String, Duration)>,
}

impl Told {
    pub(super) fn since_now(title: &'static str) -> Self {
        Self {
            title,
            fault: Instant::now(),
            steps: Vec::new(),
        }
    }

    pub(super) fn step(&mut self, what: &str) {
        self.steps.push((what.to_owned(), self.fault.elapsed()));
    }

    pub(super) fn table(&self) -> Vec<String> {
        let rows = self
            .steps
            .iter()
            .map(|(what, at)| format!("{what:<54}{:>12}", seconds(*at)));
        let title = format!("{:<54}{:>12}", self.title, "since fault");
        [String::new(), title].into_iter().chain(rows).collect()
    }
}

/// A node that gets sick.
pub(super) struct Patient {
    node: &'static str,
    instance: String,
    /// The instances of its group before the repair, and the terminate calls.
    group: Vec<String>,
    terminated: usize,
}

impl Patient {
    pub(super) async fn admit(stage: &Stage, node: &'static str) -> anyhow::Result<Self> {
        let nodes: Api<Node> = Api::all(stage.client.clone());
        let spec = nodes.get(node).await.context("get the node")?.spec;
        let provider = spec.and_then(|spec| spec.provider_id).unwrap_or_default();
        let instance = provider.rsplit('/').next().unwrap_or_default().to_owned();
        let group: Vec<_> = stage.cloud.instances().into_iter().map(|i| i.id).collect();
        ensure!(
            group.contains(&instance),
            "{node} is the instance `{instance}`, which is not in the group"
        );
        let pods = stage.pods().await?;
        ensure!(
            pods.iter().any(|pod| runs_on(pod) == Some(node)),
            "no pod runs on {node}"
        );
        Ok(Self {
            node,
            instance,
            group,
            terminated: terminations(stage).len(),
        })
    }

    /// A condition becomes False; returns how long that took, and the condition.
    pub(super) async fn falls_sick(
        &self,
        client: &Client,
        detector: &mut Daemon,
        kind: &str,
        (what, at): (&str, Duration),
        screen: &Screen,
    ) -> anyhow::Result<(Latency, NodeCondition)> {
        let is_it = |line: &Value| {
            line["kind"] == "condition" && line["condition"] == kind && line["status"] == "False"
        };
        let line = detector
            .wait_for_log(SOON, is_it)
            .await
            .with_context(|| format!("{kind} was not set"))?;
        let latency =
            Latency::of_log_line(what, at, &line).context("read the times of a log line")?;
        let nodes: Api<Node> = Api::all(client.clone());
        let node = nodes.get(self.node).await.context("get the node")?;
        let condition =
            condition(&node, kind).with_context(|| format!("the node has no {kind}"))?;
        ensure!(
            condition.status == "False",
            "{kind} is {}",
            condition.status
        );
        let took = short(latency.exported.saturating_sub(at));
        let message = printable(condition.message.as_deref().unwrap_or_default());
        screen.done(&format!("{kind}=False after {took}: {message}"));
        Ok((latency, condition.clone()))
    }

    pub(super) async fn becomes_cordoned(
        &self,
        stage: &Stage,
        told: &mut Told,
        screen: &Screen,
    ) -> anyhow::Result<()> {
        let cordoned = async |stage: &Stage, _: Option<&Repair>| self.is_cordoned(stage).await;
        self.wait(stage, screen, "cordoned", cordoned).await?;
        told.step("cordoned");
        Ok(())
    }

    /// Drained, and then through its group.
    pub(super) async fn is_terminated(
        &self,
        stage: &Stage,
        told: &mut Told,
        screen: &Screen,
    ) -> anyhow::Result<()> {
        let what = "drained: the pod was evicted, its budget kept";
        self.wait(stage, screen, what, async |stage, _| {
            let pods = stage.pods().await?;
            Ok(!pods.iter().any(|pod| runs_on(pod) == Some(self.node)))
        })
        .await?;
        told.step("drained");
        let what = "TerminateInstanceInAutoScalingGroup, without decrement";
        self.wait(stage, screen, what, async |stage, _| {
            Ok(stage.cloud.is_going(&self.instance))
        })
        .await?;
        let calls = terminations(stage);
        let [call] = &calls[self.terminated..] else {
            bail!("{} terminate calls", calls.len() - self.terminated)
        };
        let parameter = |name: &str| call.params.get(name).map(String::as_str);
        ensure!(
            parameter("InstanceId") == Some(&self.instance),
            "another instance was terminated: {call:?}"
        );
        ensure!(
            parameter("ShouldDecrementDesiredCapacity") == Some("false"),
            "the group was made smaller: {call:?}"
        );
        told.step("instance terminated through its Auto Scaling group");
        Ok(())
    }

    /// To the end; `replicas` pods then run elsewhere.
    pub(super) async fn is_replaced(
        &self,
        stage: &Stage,
        replicas: u16,
        told: &mut Told,
        screen: &Screen,
    ) -> anyhow::Result<()> {
        let new = self.successor(stage, screen).await?;
        told.step("the replacement's Node is Ready");
        let what = "NodeRepair Succeeded";
        self.wait(stage, screen, what, async |_, repair| {
            Ok(repair.is_some_and(|repair| repair.outcome.as_deref() == Some("Succeeded")))
        })
        .await?;
        told.step("verified: NodeRepair Succeeded");
        self.workload_is_elsewhere(stage, replicas).await?;
        screen.done(&format!(
            "{replicas} pods Running, none on {}; {new} took its place",
            self.node
        ));
        ensure!(
            terminations(stage).len() == self.terminated + 1,
            "more than one terminate call: {:?}",
            stage.cloud.mutating_calls()
        );
        Ok(())
    }

    /// Returns the name of the new Node.
    async fn successor(&self, stage: &Stage, screen: &Screen) -> anyhow::Result<String> {
        let mut name = String::new();
        let what = "the group launched a new instance; its Node is Ready";
        self.wait(stage, screen, what, async |stage, _| {
            let instances = stage.cloud.instances();
            let new = instances.iter().find(|instance| {
                instance.state == InstanceState::Running && !self.group.contains(&instance.id)
            });
            let Some(new) = new else { return Ok(false) };
            name = format!("node-{}", new.id);
            let nodes: Api<Node> = Api::all(stage.client.clone());
            let node = nodes.get_opt(&name).await.context("get the new node")?;
            Ok(node.is_some_and(|node| {
                condition(&node, "Ready").is_some_and(|ready| ready.status == "True")
            }))
        })
        .await?;
        Ok(name)
    }

    async fn workload_is_elsewhere(&self, stage: &Stage, replicas: u16) -> anyhow::Result<()> {
        let running = |pod: &&Pod| {
            let status = pod.status.as_ref();
            pod.metadata.deletion_timestamp.is_none()
                && status.and_then(|status| status.phase.as_deref()) == Some("Running")
                && runs_on(pod) != Some(self.node)
        };
        let what = format!("{replicas} pods are Running, none of them on {}", self.node);
        until(SOON, &what, async || {
            let pods = stage.pods().await?;
            let all = usize::from(replicas);
            Ok((pods.iter().filter(running).count() == all && pods.len() == all).then_some(()))
        })
        .await
    }

    pub(super) async fn is_cordoned(&self, stage: &Stage) -> anyhow::Result<bool> {
        let nodes: Api<Node> = Api::all(stage.client.clone());
        let Some(spec) = nodes.get(self.node).await.context("get the node")?.spec else {
            return Ok(false);
        };
        let taints = spec.taints.unwrap_or_default();
        let tainted = taints.iter().any(|taint| taint.key == TAINT);
        Ok(tainted && spec.unschedulable == Some(true))
    }

    /// Waits for a step of the repair; ends at once when the repairer or the repair has ended
    /// otherwise.
    pub(super) async fn wait(
        &self,
        stage: &Stage,
        screen: &Screen,
        what: &str,
        mut happened: impl AsyncFnMut(&Stage, Option<&Repair>) -> anyhow::Result<bool>,
    ) -> anyhow::Result<()> {
        let waiting = async {
            let deadline = Instant::now() + SOON;
            loop {
                let repair = stage.records.repair(self.node).await?;
                if happened(stage, repair.as_ref()).await? {
                    return Ok(());
                }
                let record = repair.as_ref().map(describe).unwrap_or_default();
                let ended = repair.is_some_and(|repair| {
                    repair.outcome.is_some_and(|outcome| outcome != "Succeeded")
                });
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
}

pub(super) fn terminations(stage: &Stage) -> Vec<Call> {
    let calls = stage.cloud.mutating_calls().into_iter();
    calls
        .filter(|call| call.action == "TerminateInstanceInAutoScalingGroup")
        .collect()
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
