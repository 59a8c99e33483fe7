//! An upgrade and a rollback of the fleet as the DaemonSet's controller makes them, node by node: each
//! detector really runs, is told to end, and is followed by the next one on its node.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
use futures::future::try_join_all;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::ListParams;
use kube::{Api, Client};
use nodemend_tests::control_plane::ControlPlane;
use nodemend_tests::daemon::Daemon;
use nodemend_tests::faults::Ext4;
use nodemend_tests::fleet::Fleet;
use nodemend_tests::kubelet;
use nodemend_tests::terminal::Terminal;
use nodemend_tests::wait::until;
use tempfile::TempDir;
use tokio::time::sleep;

use crate::chart::CHART;
use crate::scene;

const NAMESPACE: &str = "nodemend-system";
const NODES: [&str; 3] = ["node-0", "node-1", "node-2"];
const OURS: [&str; 3] = ["KernelReady", "NetworkingReady", "StorageReady"];
const SOON: Duration = Duration::from_secs(60);
/// Times of conditions are whole seconds: one that is made anew must differ.
const A_SECOND: Duration = Duration::from_millis(1100);

/// Status, reason and time of the last transition, by node and type.
type Conditions = BTreeMap<(String, String), (String, Option<String>, Option<Timestamp>)>;

pub(crate) async fn moves_no_transition_time() -> anyhow::Result<()> {
    let control_plane = ControlPlane::start().await?;
    let fleet = Fleet::start(&control_plane).await?;
    for (index, name) in NODES.iter().enumerate() {
        let instance = format!("i-{index:017x}");
        fleet
            .create_labelled_node(name, &instance, "us-west-2a", &scene::labels())
            .await?;
    }
    fleet.wait_ready(NODES.len()).await?;
    let terminal = Terminal::of(&control_plane)?;
    let disk = Ext4::mounted()?;
    let install = format!(
        "helm install nodemend {CHART} --namespace {NAMESPACE} --create-namespace --wait \
         --set detector.criticalMounts={{{}}} --set detector.heartbeat=1s \
         --set detector.fatalHeartbeat=1s --set detector.httpAddress=",
        disk.path().display()
    );
    terminal.run(&install).await?;
    let client = control_plane.admin();
    let agents = NODES.map(|node| Agent::start(&control_plane, node));
    let mut agents = try_join_all(agents).await?;
    all_are(&client, "True").await?;
    sleep(A_SECOND).await;
    disk.turn_read_only()?;
    all_are(&client, "False").await?;
    sleep(A_SECOND).await;

    let before = conditions(&client).await?;
    let upgrade = format!(
        "helm upgrade nodemend {CHART} --namespace {NAMESPACE} --reuse-values --wait \
         --set detector.podLabels.release=next"
    );
    let rollback = format!("helm rollback nodemend --namespace {NAMESPACE} --wait");
    for command in [upgrade, rollback] {
        let rolled = async {
            let replaced = agents.iter_mut().map(|agent| agent.replace(&control_plane));
            tokio::try_join!(terminal.run(&command), try_join_all(replaced))?;
            written_anew(&client).await
        };
        tokio::select! {
            rolled = rolled => rolled.context(command)?,
            changed = changes(&client, &before) => return changed.context(command.clone()),
        }
    }
    Ok(())
}

/// The detector of one node, and what outlives it there.
struct Agent {
    node: &'static str,
    pod: Pod,
    daemon: Daemon,
    host: TempDir,
}

impl Agent {
    async fn start(control_plane: &ControlPlane, node: &'static str) -> anyhow::Result<Self> {
        let host = TempDir::with_prefix("nodemend-host-").context("make a folder")?;
        let pod = next_pod(control_plane, node, None).await?;
        let daemon = run(control_plane, &pod, &host).await?;
        Ok(Self {
            node,
            pod,
            daemon,
            host,
        })
    }

    /// When its pod is to go.
    async fn replace(&mut self, control_plane: &ControlPlane) -> anyhow::Result<()> {
        let pods = Api::namespaced(control_plane.admin(), NAMESPACE);
        kubelet::stop_when_deleted(&pods, &self.pod, &mut self.daemon).await?;
        self.pod = next_pod(control_plane, self.node, Some(&self.pod)).await?;
        self.daemon = run(control_plane, &self.pod, &self.host).await?;
        Ok(())
    }
}

async fn next_pod(
    control_plane: &ControlPlane,
    node: &str,
    before: Option<&Pod>,
) -> anyhow::Result<Pod> {
    let pods: Api<Pod> = Api::namespaced(control_plane.admin(), NAMESPACE);
    let detectors = ListParams::default()
        .labels("app.kubernetes.io/component=detector")
        .fields(&format!("spec.nodeName={node}"));
    let old = before.and_then(|pod| pod.metadata.uid.clone());
    let pod = until(SOON, &format!("a pod on {node}"), async || {
        let found = pods.list(&detectors).await?.items;
        Ok(found
            .into_iter()
            .find(|pod| pod.metadata.deletion_timestamp.is_none() && pod.metadata.uid != old))
    })
    .await?;
    kubelet::hold(&pods, &pod).await?;
    Ok(pod)
}

async fn run(control_plane: &ControlPlane, pod: &Pod, host: &TempDir) -> anyhow::Result<Daemon> {
    let folder = |variable: &str, name: &str| {
        let path = host.path().join(name).display().to_string();
        (variable.to_owned(), path)
    };
    let volumes = [
        folder("NODEMEND_STATE_DIR", "run"),
        folder("NODEMEND_BOOTS_DIR", "boots"),
    ];
    let spec = pod.spec.as_ref().context("a pod has no spec")?;
    kubelet::start(control_plane, pod, &spec.containers[0], &volumes).await
}

/// Storage of every node.
async fn all_are(client: &Client, status: &str) -> anyhow::Result<()> {
    until(SOON, &format!("StorageReady={status}"), async || {
        let found = conditions(client).await?;
        let are = NODES.iter().all(|node| {
            let key = ((*node).to_owned(), "StorageReady".to_owned());
            found.get(&key).is_some_and(|(found, ..)| found == status)
        });
        Ok(are.then_some(()))
    })
    .await
}

/// An error as soon as one is not as it was.
async fn changes(client: &Client, before: &Conditions) -> anyhow::Result<()> {
    loop {
        let now = conditions(client).await?;
        ensure!(!before.is_empty(), "there are no conditions");
        if now != *before {
            bail!("the conditions were {before:?} and are {now:?}");
        }
        sleep(Duration::from_millis(50)).await;
    }
}

/// By agents that run now.
async fn written_anew(client: &Client) -> anyhow::Result<()> {
    let first = heartbeats(client).await?;
    until(SOON, "a heartbeat of every condition", async || {
        let beats = heartbeats(client).await?;
        let all = beats.len() == NODES.len() * OURS.len();
        let newer = beats.iter().all(|(key, at)| first.get(key) < Some(at));
        Ok((all && newer).then_some(()))
    })
    .await
}

async fn conditions(client: &Client) -> anyhow::Result<Conditions> {
    let all = ours(client).await?.into_iter();
    Ok(all
        .map(|(key, condition)| {
            let at = condition.last_transition_time.map(|at| at.0);
            (key, (condition.status, condition.reason, at))
        })
        .collect())
}

async fn heartbeats(
    client: &Client,
) -> anyhow::Result<BTreeMap<(String, String), Option<Timestamp>>> {
    let all = ours(client).await?.into_iter();
    Ok(all
        .map(|(key, condition)| (key, condition.last_heartbeat_time.map(|at| at.0)))
        .collect())
}

async fn ours(
    client: &Client,
) -> anyhow::Result<Vec<((String, String), k8s_openapi::api::core::v1::NodeCondition)>> {
    let nodes: Api<Node> = Api::all(client.clone());
    let nodes = nodes.list(&ListParams::default()).await?;
    let all = nodes.items.into_iter().flat_map(|node| {
        let name = node.metadata.name.unwrap_or_default();
        let conditions = node.status.and_then(|status| status.conditions);
        let conditions = conditions.unwrap_or_default().into_iter();
        conditions.map(move |condition| ((name.clone(), condition.type_.clone()), condition))
    });
    Ok(all
        .filter(|((_, kind), _)| OURS.contains(&kind.as_str()))
        .collect())
}
