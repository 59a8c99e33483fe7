//! The nodes: Node objects whose kubelets are played by kwok, the workload that runs on them, and
//! the parts of AWS's cloud controller and of booting machines that tie them to the local cloud.

use std::collections::BTreeMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use kube::{Api, Client};
use serde_json::{Value, json};
use tokio::task::JoinHandle;

use crate::cloud::{Cloud, InstanceState, Seen};
use crate::control_plane::ControlPlane;
use crate::process::Server;
use crate::wait::until;

const TIMEOUT: Duration = Duration::from_secs(40);
/// See the grace period of the controller manager.
const LEASE: Duration = Duration::from_secs(8);

/// Nodes with this label are kwok's. Without it, kwok stops renewing a node's lease, as a dead
/// kubelet does (an annotation selector keeps renewing it).
pub(crate) const MANAGED: (&str, &str) = ("type", "kwok");

#[derive(Clone)]
pub struct Fleet {
    client: Client,
    _kwok: Arc<Server>,
}

impl Fleet {
    pub async fn start(control_plane: &ControlPlane) -> anyhow::Result<Self> {
        Self::start_with_leases(control_plane, LEASE).await
    }

    /// With Leases that last for so long; each is renewed every quarter of it.
    pub async fn start_with_leases(
        control_plane: &ControlPlane,
        lease: Duration,
    ) -> anyhow::Result<Self> {
        let stages = crate::repo().join("tests/control-plane/stages.yaml");
        ensure!(
            stages.is_file(),
            "kwok's stages are missing: {}",
            stages.display()
        );
        let args = [
            format!(
                "--kubeconfig={}",
                control_plane.admin_kubeconfig().display()
            ),
            format!("--config={}", stages.display()),
            format!(
                "--manage-nodes-with-label-selector={}={}",
                MANAGED.0, MANAGED.1
            ),
            format!("--node-lease-duration-seconds={}", lease.as_secs()),
            "--server-address=127.0.0.1:0".to_owned(),
        ];
        let kwok = Server::start("kwok", &args, control_plane.folder())?;
        Ok(Self {
            client: control_plane.admin(),
            _kwok: Arc::new(kwok),
        })
    }

    /// Creates the Node of an instance; kwok makes it Ready.
    pub async fn create_node(&self, name: &str, instance: &str, zone: &str) -> anyhow::Result<()> {
        self.create_labelled_node(name, instance, zone, &BTreeMap::new())
            .await
    }

    pub async fn create_labelled_node(
        &self,
        name: &str,
        instance: &str,
        zone: &str,
        labels: &BTreeMap<String, String>,
    ) -> anyhow::Result<()> {
        let capacity = json!({"cpu": "4", "memory": "16Gi", "pods": "110"});
        let mut node = json!({
            "metadata": {"name": name, "labels": labels},
            "spec": {"providerID": format!("aws:///{zone}/{instance}")},
            "status": {"capacity": capacity, "allocatable": capacity},
        });
        node["metadata"]["labels"][MANAGED.0] = json!(MANAGED.1);
        node["metadata"]["labels"]["topology.kubernetes.io/zone"] = json!(zone);
        node["metadata"]["labels"]["kubernetes.io/hostname"] = json!(name);
        let node: Node = serde_json::from_value(node).context("write a Node")?;
        self.nodes()
            .create(&PostParams::default(), &node)
            .await
            .with_context(|| format!("create node {name}"))?;
        Ok(())
    }

    /// Waits until `count` of its nodes are Ready and pods may be scheduled to them.
    pub async fn wait_ready(&self, count: usize) -> anyhow::Result<()> {
        self.wait_ready_within(count, TIMEOUT).await
    }

    pub async fn wait_ready_within(&self, count: usize, within: Duration) -> anyhow::Result<()> {
        until(within, &format!("{count} nodes Ready"), async || {
            let managed = ListParams::default().labels(&format!("{}={}", MANAGED.0, MANAGED.1));
            let nodes = self.nodes().list(&managed).await?.items;
            Ok((nodes.iter().filter(|node| is_ready(node)).count() == count).then_some(()))
        })
        .await
    }

    /// A Deployment in the namespace `default`, spread over the nodes, behind a
    /// PodDisruptionBudget; waits until it runs and the budget knows it.
    pub async fn deployment(
        &self,
        name: &str,
        replicas: u16,
        min_available: u16,
    ) -> anyhow::Result<()> {
        let deployments: Api<Deployment> = Api::namespaced(self.client.clone(), "default");
        let budgets: Api<PodDisruptionBudget> = Api::namespaced(self.client.clone(), "default");
        let labels = json!({"app": name});
        let deployment = json!({
            "metadata": {"name": name},
            "spec": {
                "replicas": replicas,
                "selector": {"matchLabels": labels},
                "template": {
                    "metadata": {"labels": labels},
                    "spec": {
                        "containers": [{"name": "main", "image": "example.test/main:1"}],
                        "terminationGracePeriodSeconds": 1,
                        "nodeSelector": {MANAGED.0: MANAGED.1},
                        "topologySpreadConstraints": [{
                            "maxSkew": 1,
                            "topologyKey": "kubernetes.io/hostname",
                            "whenUnsatisfiable": "ScheduleAnyway",
                            "labelSelector": {"matchLabels": labels},
                        }],
                    },
                },
            },
        });
        let budget = json!({
            "metadata": {"name": name},
            "spec": {"minAvailable": min_available, "selector": {"matchLabels": labels}},
        });
        let deployment = serde_json::from_value(deployment).context("write a Deployment")?;
        let budget = serde_json::from_value(budget).context("write a PodDisruptionBudget")?;
        deployments
            .create(&PostParams::default(), &deployment)
            .await
            .context("create a Deployment")?;
        budgets
            .create(&PostParams::default(), &budget)
            .await
            .context("create a PodDisruptionBudget")?;
        until(
            TIMEOUT,
            &format!("{replicas} pods of {name} are ready"),
            async || {
                let ready = deployments
                    .get(name)
                    .await?
                    .status
                    .and_then(|status| status.ready_replicas);
                let healthy = budgets
                    .get(name)
                    .await?
                    .status
                    .map(|status| status.current_healthy);
                let all = Some(i32::from(replicas));
                Ok((ready == all && healthy == all).then_some(()))
            },
        )
        .await
    }

    /// The kubelet dies: no more heartbeats, Ready becomes Unknown after the grace period.
    pub async fn lose_node(&self, name: &str) -> anyhow::Result<()> {
        self.label(name, Value::Null)
            .await
            .with_context(|| format!("lose node {name}"))
    }

    pub async fn recover_node(&self, name: &str) -> anyhow::Result<()> {
        self.label(name, json!(MANAGED.1))
            .await
            .with_context(|| format!("recover node {name}"))
    }

    async fn label(&self, name: &str, value: Value) -> Result<(), kube::Error> {
        let patch = json!({"metadata": {"labels": {MANAGED.0: value}}});
        self.nodes()
            .patch(name, &PatchParams::default(), &Patch::Merge(patch))
            .await?;
        Ok(())
    }

    fn nodes(&self) -> Api<Node> {
        Api::all(self.client.clone())
    }
}

fn is_ready(node: &Node) -> bool {
    let conditions = node
        .status
        .as_ref()
        .and_then(|status| status.conditions.as_deref())
        .unwrap_or_default();
    let taints = node
        .spec
        .as_ref()
        .and_then(|spec| spec.taints.as_deref())
        .unwrap_or_default();
    node.metadata.deletion_timestamp.is_none()
        && taints.is_empty()
        && conditions
            .iter()
            .any(|condition| condition.type_ == "Ready" && condition.status == "True")
}

/// What happens in the world when instances of groups come and go: the Node of a terminated instance is
/// deleted, a new instance boots and registers. Stops when dropped.
pub struct World(JoinHandle<()>);

impl World {
    /// Instances that have a Node are left as they are.
    pub fn run(client: Client, cloud: Cloud, fleet: Fleet) -> Self {
        Self(tokio::spawn(async move {
            let nodes: Api<Node> = Api::all(client);
            let mut settled = Vec::new();
            loop {
                let seen = cloud.instances();
                if seen != settled {
                    match settle(&nodes, &fleet, &seen).await {
                        Ok(()) => settled = seen,
                        Err(error) => tracing::warn!(error = format!("{error:#}"), "world"),
                    }
                }
                tokio::time::sleep(Duration::from_millis(100)).await;
            }
        }))
    }
}

impl Drop for World {
    fn drop(&mut self) {
        self.0.abort();
    }
}

async fn settle(nodes: &Api<Node>, fleet: &Fleet, seen: &[Seen]) -> anyhow::Result<()> {
    let list = nodes
        .list(&ListParams::default())
        .await
        .context("list nodes")?;
    let names: BTreeMap<_, _> = list
        .items
        .iter()
        .filter_map(|node| {
            let provider_id = node.spec.as_ref()?.provider_id.as_deref()?;
            Some((
                Path::new(provider_id).file_name()?.to_str()?,
                node.metadata.name.as_deref()?,
            ))
        })
        .collect();
    let members = seen.iter().filter(|seen| !seen.group.is_empty());
    for instance in members.filter(|seen| seen.joins) {
        let node = names.get(instance.id.as_str());
        match (instance.state, node) {
            (InstanceState::Running, None) => {
                fleet
                    .create_node(
                        &format!("node-{}", instance.id),
                        &instance.id,
                        &instance.zone,
                    )
                    .await?;
            }
            (InstanceState::Terminated, Some(name)) => {
                nodes
                    .delete(name, &DeleteParams::default())
                    .await
                    .with_context(|| format!("delete node {name}"))?;
            }
            (InstanceState::Running, Some(_))
            | (InstanceState::Terminated, None)
            | (InstanceState::Pending | InstanceState::Stopped | InstanceState::ShuttingDown, _) => {
            }
        }
    }
    Ok(())
}
