//! The Nodes and their exporters, and a look at their requests once a second.

use std::collections::BTreeMap;
use std::sync::{Arc, PoisonError};
use std::time::Duration;

use anyhow::Context;
use axum::http::Request;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Node;
use kube::api::{ListParams, PostParams};
use kube::config::{KubeConfigOptions, Kubeconfig};
use kube::{Api, Client, Config};
use nodemend_detector::fleet::Agent;
use nodemend_tests::control_plane::ControlPlane;
use nodemend_tests::faults::boot_clock;
use nodemend_tests::link::Link;
use serde_json::json;
use tokio::sync::Mutex;

use super::report::{Measured, Phase, Transitions};

/// One in so many has a read-only file system, so that False conditions are kept as well.
const SICK: u32 = 50;
const OURS: [&str; 3] = ["KernelReady", "StorageReady", "NetworkingReady"];

pub(super) struct Fleet {
    admin: Client,
    config: Config,
    heartbeat: Duration,
    agents: Vec<Arc<Mutex<Slot>>>,
}

/// A node's place for the agent of the time.
struct Slot {
    node: String,
    sick: bool,
    agent: Option<Agent>,
    /// Of the agents before: answered, and not.
    requests: (u64, u64),
}

impl Fleet {
    pub(super) async fn new(
        control_plane: &ControlPlane,
        link: &Link,
        agents: u32,
        heartbeat: Duration,
    ) -> anyhow::Result<Self> {
        let rules = nodemend_tests::repo().join("deploy/rbac/detector.yaml");
        control_plane.apply(&rules).await?;
        let direct = control_plane
            .kubeconfig_for_service_account("nodemend-system", "nodemend-detector")
            .await?;
        let path = control_plane.kubeconfig_through(link, &direct)?;
        let file = Kubeconfig::read_from(&path).context("read a kubeconfig")?;
        let mut config = Config::from_custom_kubeconfig(file, &KubeConfigOptions::default())
            .await
            .context("use a kubeconfig")?;
        config.default_retry = false;
        let admin = control_plane.admin();
        let nodes: Api<Node> = Api::all(admin.clone());
        let slots = (0..agents).map(|number| Slot {
            node: format!("bench-{number:05}"),
            sick: number % SICK == 0,
            agent: None,
            requests: (0, 0),
        });
        let slots: Vec<_> = slots.collect();
        let created = futures::stream::iter(&slots)
            .map(|slot| create(&nodes, &slot.node))
            .buffer_unordered(32)
            .collect::<Vec<_>>()
            .await;
        created.into_iter().collect::<anyhow::Result<()>>()?;
        Ok(Self {
            admin,
            config,
            heartbeat,
            agents: slots
                .into_iter()
                .map(|slot| Arc::new(Mutex::new(slot)))
                .collect(),
        })
    }

    /// All at once, as a DaemonSet does on a new cluster.
    pub(super) fn start(&mut self) -> anyhow::Result<()> {
        for slot in &self.agents {
            let mut slot = slot.try_lock().context("start an agent")?;
            slot.start(&self.config, self.heartbeat)?;
        }
        Ok(())
    }

    /// Each once within `rollout`, away for `gap`.
    pub(super) async fn restart(&self, rollout: Duration, gap: Duration) -> anyhow::Result<()> {
        let count = u32::try_from(self.agents.len()).context("count the agents")?;
        let mut restarts = Vec::new();
        for (slot, number) in self.agents.iter().zip(0u32..) {
            let (slot, config, heartbeat) = (Arc::clone(slot), self.config.clone(), self.heartbeat);
            let after = rollout * number / count;
            restarts.push(tokio::spawn(async move {
                tokio::time::sleep(after).await;
                slot.lock().await.stop().await?;
                tokio::time::sleep(gap).await;
                slot.lock().await.start(&config, heartbeat)
            }));
        }
        for restart in restarts {
            restart.await.context("wait for a restart")??;
        }
        Ok(())
    }

    pub(super) fn wrote_since(&self, since: Duration) -> bool {
        self.agents.iter().all(|slot| {
            slot.try_lock().is_ok_and(|slot| {
                let wrote = slot.agent.as_ref().and_then(Agent::wrote);
                wrote.is_some_and(|wrote| wrote >= since)
            })
        })
    }

    pub(super) async fn phase(&self, name: &'static str) -> anyhow::Result<Phase> {
        let seconds = Arc::new(std::sync::Mutex::new(Vec::new()));
        let (agents, samples) = (self.agents.clone(), Arc::clone(&seconds));
        let sampler = tokio::spawn(async move {
            let mut tick = tokio::time::interval(Duration::from_secs(1));
            loop {
                tick.tick().await;
                let (answered, _) = total(&agents).await;
                samples
                    .lock()
                    .unwrap_or_else(PoisonError::into_inner)
                    .push(answered);
            }
        });
        Ok(Phase {
            name,
            started: boot_clock(),
            requests: total(&self.agents).await,
            counted: self.status_patches().await?,
            seconds,
            sampler,
        })
    }

    pub(super) async fn end(&self, phase: Phase) -> anyhow::Result<Measured> {
        phase.sampler.abort();
        let took = boot_clock().saturating_sub(phase.started);
        let (answered, unanswered) = total(&self.agents).await;
        let mut totals = phase.totals();
        totals.push(answered);
        let peak = totals
            .windows(2)
            .map(|pair| pair[1].saturating_sub(pair[0]))
            .max();
        Ok(Measured {
            name: phase.name,
            took,
            answered: answered - phase.requests.0,
            unanswered: unanswered - phase.requests.1,
            peak: peak.unwrap_or_default(),
            counted: self.status_patches().await? - phase.counted,
        })
    }

    /// What the API server itself has counted.
    async fn status_patches(&self) -> anyhow::Result<u64> {
        let request = Request::get("/metrics").body(Vec::new());
        let request = request.context("make a request")?;
        let text = self.admin.request_text(request).await;
        let text = text.context("read the API server's metrics")?;
        let of_status = |line: &&str| {
            let labels = [
                "resource=\"nodes\"",
                "subresource=\"status\"",
                "verb=\"PATCH\"",
            ];
            line.starts_with("apiserver_request_total{")
                && labels.iter().all(|label| line.contains(label))
        };
        let counts = text.lines().filter(of_status);
        let counts = counts.filter_map(|line| line.rsplit_once(' ')?.1.parse::<f64>().ok());
        // Counters of requests are whole numbers.
        counts
            .map(|count| format!("{count:.0}").parse::<u64>())
            .sum::<Result<u64, _>>()
            .context("read a counter")
    }

    /// Of all conditions of all nodes.
    pub(super) async fn transitions(&self) -> anyhow::Result<Transitions> {
        let nodes: Api<Node> = Api::all(self.admin.clone());
        let nodes = nodes
            .list(&ListParams::default())
            .await
            .context("list the nodes")?;
        let mut transitions = BTreeMap::new();
        for node in nodes {
            let name = node.metadata.name.unwrap_or_default();
            let conditions = node.status.and_then(|status| status.conditions);
            for condition in conditions
                .into_iter()
                .flatten()
                .filter(|c| OURS.contains(&c.type_.as_str()))
            {
                let time = condition
                    .last_transition_time
                    .map(|time| time.0.to_string());
                transitions.insert((name.clone(), condition.type_), (condition.status, time));
            }
        }
        Ok(transitions)
    }
}

impl Slot {
    fn start(&mut self, config: &Config, heartbeat: Duration) -> anyhow::Result<()> {
        self.agent = Some(Agent::start(
            config.clone(),
            &self.node,
            heartbeat,
            self.sick,
        )?);
        Ok(())
    }

    async fn stop(&mut self) -> anyhow::Result<()> {
        if let Some(agent) = self.agent.take() {
            let (answered, unanswered) = agent.requests();
            self.requests.0 += answered;
            self.requests.1 += unanswered;
            agent.stop().await.context("stop an agent")?;
        }
        Ok(())
    }

    fn requests(&self) -> (u64, u64) {
        let now = self.agent.as_ref().map(Agent::requests).unwrap_or_default();
        (self.requests.0 + now.0, self.requests.1 + now.1)
    }
}

async fn total(agents: &[Arc<Mutex<Slot>>]) -> (u64, u64) {
    let mut total = (0, 0);
    for slot in agents {
        let (answered, unanswered) = slot.lock().await.requests();
        total.0 += answered;
        total.1 += unanswered;
    }
    total
}

async fn create(nodes: &Api<Node>, name: &str) -> anyhow::Result<()> {
    // Kubelet's own have labels: without any, the API server does not track who writes what.
    let node = json!({"metadata": {"name": name, "labels": {"kubernetes.io/hostname": name}}});
    let node = serde_json::from_value(node).context("write a Node")?;
    nodes
        .create(&PostParams::default(), &node)
        .await
        .with_context(|| format!("create node {name}"))
        .map(drop)
}
