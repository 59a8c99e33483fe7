//! Where the story plays: a local AWS, four nodes of one Auto Scaling group, a workload behind a
//! PodDisruptionBudget, and both daemons under their own service accounts.

use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, NodeCondition, Pod};
use kube::api::ListParams;
use kube::{Api, Client};
use tempfile::TempDir;

use super::policy::Records;
use super::screen::Screen;
use crate::cloud::Cloud;
use crate::control_plane::ControlPlane;
use crate::daemon::Daemon;
use crate::faults::Ext4;
use crate::fleet::{Fleet, World};
use crate::wait::until;

/// The node that this host stands for.
pub(super) const HOST: &str = "nodemend-demo-1";
pub(super) const WORKLOAD: &str = "nodemend-demo";
pub(super) const REPLICAS: u16 = 4;
const ZONES: [&str; 4] = ["us-west-2a", "us-west-2a", "us-west-2b", "us-west-2b"];
const NAMESPACE: &str = "nodemend-system";
pub(super) const MANIFESTS: [&str; 3] = ["deploy/crds", "deploy/rbac", "deploy/admission"];
const CONDITIONS: [&str; 3] = ["KernelReady", "StorageReady", "NetworkingReady"];

/// How long anything may take that normally takes a few seconds.
pub(super) const SOON: Duration = Duration::from_secs(30);

/// Fields are dropped in their order: who looks at a thing goes before it.
pub(super) struct Stage {
    pub(super) detector: Daemon,
    pub(super) repairer: Daemon,
    world: Option<World>,
    pub(super) fleet: Fleet,
    pub(super) cloud: Cloud,
    /// The file system that this host cannot do without.
    pub(super) disk: Ext4,
    /// Names of folders are the names of the pods here.
    pub(super) pod_logs: TempDir,
    pub(super) client: Client,
    pub(super) records: Records,
}

pub(super) async fn set(control_plane: &ControlPlane, screen: &Screen) -> anyhow::Result<Stage> {
    let client = control_plane.admin();
    let cloud = Cloud::start().await?;
    let instances = cloud.create_group("workers", &ZONES);
    screen.done("a local AWS: Auto Scaling group `workers` with 4 instances in 2 zones");
    let fleet = Fleet::start(control_plane).await?;
    screen
        .step(
            &format!("4 Nodes are Ready; {HOST} stands for this host"),
            create_nodes(&fleet, &instances),
        )
        .await?;
    let world = World::run(client.clone(), cloud.clone(), fleet.clone());
    let what = format!(
        "a Deployment of {REPLICAS} pods runs; its PodDisruptionBudget wants all {REPLICAS}"
    );
    screen
        .step(&what, fleet.deployment(WORKLOAD, REPLICAS, REPLICAS))
        .await?;

    screen.chapter("nodemend, under the service accounts and RBAC of deploy/");
    for manifests in MANIFESTS {
        control_plane.apply(&crate::repo().join(manifests)).await?;
    }
    let records = Records::new(&client);
    records.create_policy().await?;
    screen.done("CRDs and RBAC applied; RepairPolicy with short waits, mode: Disabled");

    let disk = Ext4::mounted()?;
    let pod_logs = tempfile::Builder::new()
        .prefix("nodemend-pods-")
        .tempdir()
        .context("make a folder for pod logs")?;
    let detector = start_detector(control_plane, &disk, &pod_logs).await?;
    let watching = detector.while_running(all_healthy(&client));
    screen
        .step(
            "nodemend-detector watches this kernel; its conditions are True",
            watching,
        )
        .await?;
    let repairer = start_repairer(control_plane, &cloud).await?;
    screen
        .step(
            "nodemend-repairer is the leader",
            repairer.while_running(has_leader(&client)),
        )
        .await?;

    Ok(Stage {
        detector,
        repairer,
        world: Some(world),
        fleet,
        cloud,
        disk,
        pod_logs,
        client,
        records,
    })
}

async fn create_nodes(fleet: &Fleet, instances: &[String]) -> anyhow::Result<()> {
    for (number, (instance, zone)) in (1..).zip(instances.iter().zip(ZONES)) {
        fleet
            .create_node(&format!("nodemend-demo-{number}"), instance, zone)
            .await?;
    }
    fleet.wait_ready(ZONES.len()).await
}

async fn start_detector(
    control_plane: &ControlPlane,
    disk: &Ext4,
    pod_logs: &TempDir,
) -> anyhow::Result<Daemon> {
    let path = |path: &std::path::Path| path.display().to_string();
    let more = [
        "--critical-mount".to_owned(),
        path(disk.path()),
        "--pod-logs-dir".to_owned(),
        path(pod_logs.path()),
    ];
    detector_of(control_plane, HOST, &more, &[]).await
}

/// A detector that reports to this node.
pub(super) async fn detector_of(
    control_plane: &ControlPlane,
    node: &str,
    more: &[String],
    environment: &[(String, String)],
) -> anyhow::Result<Daemon> {
    let kubeconfig = control_plane
        .kubeconfig_on_node(NAMESPACE, "nodemend-detector", node)
        .await?;
    let kubeconfig = kubeconfig.display().to_string();
    let mut args = vec!["run", "--node-name", node, "--kubeconfig", &kubeconfig];
    args.extend(["--log-format", "json"]);
    // Waits are short here, and a repair wants a condition that was confirmed after its wait.
    args.extend(["--fatal-heartbeat", "1s"]);
    args.extend(more.iter().map(String::as_str));
    Daemon::start("nodemend-detector", &args, environment)
}

async fn start_repairer(control_plane: &ControlPlane, cloud: &Cloud) -> anyhow::Result<Daemon> {
    let kubeconfig = control_plane
        .kubeconfig_for_service_account(NAMESPACE, "nodemend-repairer")
        .await?;
    let kubeconfig = kubeconfig.display().to_string();
    let args = [
        "run",
        "--kubeconfig",
        &kubeconfig,
        "--log-format",
        "json",
        "--lease-namespace",
        NAMESPACE,
    ];
    Daemon::start("nodemend-repairer", &args, &cloud.sdk_environment())
}

async fn all_healthy(client: &Client) -> anyhow::Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    until(SOON, "the detector's conditions are True", async || {
        let node = nodes.get(HOST).await?;
        let healthy = |kind: &&str| {
            condition(&node, kind).is_some_and(|condition| condition.status == "True")
        };
        Ok(CONDITIONS.iter().all(healthy).then_some(()))
    })
    .await
}

async fn has_leader(client: &Client) -> anyhow::Result<()> {
    let leases: Api<Lease> = Api::namespaced(client.clone(), NAMESPACE);
    until(
        SOON,
        &format!("a lease in {NAMESPACE} is held"),
        async || {
            let leases = leases.list(&ListParams::default()).await?.items;
            let held = leases
                .into_iter()
                .filter_map(|lease| lease.spec?.holder_identity)
                .any(|holder| !holder.is_empty());
            Ok(held.then_some(()))
        },
    )
    .await
}

impl Stage {
    /// Instances whose Nodes somebody else creates: in the meantime no instance boots.
    pub(super) fn stop_the_world(&mut self) {
        self.world = None;
    }

    pub(super) fn start_the_world(&mut self) {
        let (client, cloud) = (self.client.clone(), self.cloud.clone());
        self.world = Some(World::run(client, cloud, self.fleet.clone()));
    }

    pub(super) async fn pods(&self) -> anyhow::Result<Vec<Pod>> {
        let pods: Api<Pod> = Api::namespaced(self.client.clone(), "default");
        let of_the_workload = ListParams::default().labels(&format!("app={WORKLOAD}"));
        Ok(pods
            .list(&of_the_workload)
            .await
            .context("list pods")?
            .items)
    }
}

pub(super) fn condition<'a>(node: &'a Node, kind: &str) -> Option<&'a NodeCondition> {
    let conditions = node.status.as_ref()?.conditions.as_ref()?;
    conditions.iter().find(|condition| condition.type_ == kind)
}

pub(super) fn runs_on(pod: &Pod) -> Option<&str> {
    pod.spec.as_ref()?.node_name.as_deref()
}
