//! A real node: kubelet and containerd run the pod of the installed chart from our image. A fault of
//! this host becomes a condition of the Node, and the repairer cordons it.

use std::sync::OnceLock;
use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::ListParams;
use kube::{Api, Client};
use nodemend_tests::cloud::Cloud;
use nodemend_tests::control_plane::ControlPlane;
use nodemend_tests::daemon::Daemon;
use nodemend_tests::faults::LoopDisk;
use nodemend_tests::fleet::Fleet;
use nodemend_tests::real_kubelet::{self, RealKubelet};
use nodemend_tests::terminal::Terminal;
use nodemend_tests::wait::until;
use serde_json::json;

use crate::chart::CHART;
use crate::{images, scene};

const NAMESPACE: &str = "nodemend-system";
const NODE: &str = "real-node";
/// The repairer's own pods: they would want a network of their own.
const ELSEWHERE: &str = r#"{"nodeAffinity": {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms":
    [{"matchExpressions": [{"key": "type", "operator": "In", "values": ["kwok"]}]}]}}}"#;
const SOON: Duration = Duration::from_secs(60);

pub(crate) fn unavailable() -> Option<&'static str> {
    static WHY: OnceLock<Option<String>> = OnceLock::new();
    WHY.get_or_init(real_kubelet::unavailable).as_deref()
}

pub(crate) async fn is_watched_and_cordoned() -> anyhow::Result<()> {
    let control_plane = ControlPlane::start().await?;
    let cloud = Cloud::start().await?;
    let instances = cloud.create_group("workers", &["us-west-2a", "us-west-2a"]);
    let provider = format!("aws:///us-west-2a/{}", instances[0]);
    // One that is the last of its group would be kept.
    let fleet = Fleet::start(&control_plane).await?;
    fleet
        .create_labelled_node("neighbour", &instances[1], "us-west-2a", &scene::labels())
        .await?;
    let mut kubelet = {
        let (layout, _building) = images::built("nodemend-detector").await?;
        let image = (layout.as_path(), "localhost/nodemend-detector");
        RealKubelet::start(&control_plane, NODE, &provider, image)?
    };
    let seen = tokio::select! {
        seen = watched(&control_plane, &cloud) => seen,
        ended = kubelet.ended() => ended,
    };
    seen.with_context(|| kubelet.last_words())
}

async fn watched(control_plane: &ControlPlane, cloud: &Cloud) -> anyhow::Result<()> {
    let client = control_plane.admin();
    condition(&client, "Ready", "True").await?;
    let terminal = Terminal::of(control_plane)?;
    let disk = LoopDisk::new()?;
    let device = disk.name();
    terminal
        .run(&format!(
            "helm install nodemend {CHART} --namespace {NAMESPACE} --create-namespace \
             --set image.registry=localhost --set image.pullPolicy=Never --set policy.create=false \
             --set detector.config.devices.include={{{device}}} --set detector.httpAddress= \
             --set detector.config.reasons.BlockDeviceIOError.severity=Fatal \
             --set-json 'repairer.affinity={ELSEWHERE}'"
        ))
        .await?;
    // There is no kube-proxy: the Service's address leads nowhere.
    let server = control_plane.server_url()?.trim_start_matches("https://");
    let (host, port) = server.split_once(':').context("an address")?;
    terminal
        .run(&format!(
            "kubectl set env daemonset/nodemend-detector --namespace {NAMESPACE} \
             KUBERNETES_SERVICE_HOST={host} KUBERNETES_SERVICE_PORT={port}"
        ))
        .await?;
    condition(&client, "StorageReady", "True").await?;
    disk.read_error()?;
    let said = condition(&client, "StorageReady", "False").await?;
    ensure!(said.contains(device), "{said}");

    let policy = json!({
        "apiVersion": "nodemend.dev/v1alpha1", "kind": "RepairPolicy", "metadata": {"name": "all"},
        "spec": {
            "mode": "Enforce", "selector": {"matchLabels": {}}, "cordon": {"after": "1s"},
            "rules": [{"nodeMonitoringCondition": "StorageReady", "minRepairWaitTime": "1h", "repairActions": ["Replace"]}],
        },
    });
    terminal
        .run(&format!(
            "kubectl apply --server-side -f - <<'END'\n{policy}\nEND"
        ))
        .await?;
    let kubeconfig = control_plane
        .kubeconfig_for_service_account(NAMESPACE, "nodemend-repairer")
        .await?;
    let mut environment = cloud.sdk_environment();
    environment.push(("KUBECONFIG".to_owned(), kubeconfig.display().to_string()));
    let repairer = Daemon::start("nodemend-repairer", &["run"], &environment)?;
    let nodes: Api<Node> = Api::all(client.clone());
    let cordoned = until(SOON, "the cordon", async || {
        let spec = nodes.get(NODE).await?.spec.unwrap_or_default();
        Ok((spec.unschedulable == Some(true)).then_some(()))
    });
    repairer.while_running(cordoned).await?;
    gone(&terminal, &client).await
}

/// By the kubelet, which lets them end.
async fn gone(terminal: &Terminal, client: &Client) -> anyhow::Result<()> {
    terminal
        .run(&format!(
            "helm uninstall nodemend --namespace {NAMESPACE} --no-hooks"
        ))
        .await?;
    let pods: Api<Pod> = Api::namespaced(client.clone(), NAMESPACE);
    until(SOON, "the end of the detector's pod", async || {
        let detectors = ListParams::default().labels("app.kubernetes.io/component=detector");
        Ok(pods.list(&detectors).await?.items.is_empty().then_some(()))
    })
    .await
}

/// Its message, once it has this status.
async fn condition(client: &Client, kind: &str, status: &str) -> anyhow::Result<String> {
    let nodes: Api<Node> = Api::all(client.clone());
    until(SOON, &format!("{kind}={status}"), async || {
        let node = nodes.get(NODE).await?;
        let conditions = node.status.and_then(|status| status.conditions);
        let found = conditions
            .into_iter()
            .flatten()
            .find(|condition| condition.type_ == kind && condition.status == status);
        Ok(found.map(|found| found.message.unwrap_or_default()))
    })
    .await
}
