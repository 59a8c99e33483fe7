//! The oldest Kubernetes that the chart takes, by its real API server: the chart installs, admission
//! knows the Node of a token, and both daemons work.

use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use nodemend_tests::control_plane::{self, ControlPlane};
use nodemend_tests::daemon::{Daemon, binary};
use nodemend_tests::terminal::Terminal;
use nodemend_tests::wait::until;
use serde_json::json;

use crate::accepted;
use crate::chart::CHART;

const NAMESPACE: &str = "nodemend-system";
const NODES: [&str; 2] = ["node-0", "node-1"];
const SOON: Duration = Duration::from_secs(30);
const GRACE: Duration = Duration::from_secs(10);

pub(crate) fn unavailable() -> Option<&'static str> {
    (!control_plane::has_floor()).then_some(
        "no kube-apiserver-floor: `cargo xtask test deploy` builds it and sets NODEMEND_FLOOR_BIN",
    )
}

pub(crate) async fn works() -> anyhow::Result<()> {
    let control_plane = ControlPlane::start_floor().await?;
    let admin = control_plane.admin();
    let version = admin.apiserver_version().await?;
    let version = format!("{}.{}", version.major, version.minor);
    let chart = std::fs::read_to_string(nodemend_tests::repo().join(CHART).join("Chart.yaml"))?;
    ensure!(
        chart.contains(&format!("kubeVersion: \">={version}.0-0\"")),
        "{version} is not the floor of the chart"
    );
    let terminal = Terminal::of(&control_plane)?;
    let namespace = format!("kubectl create namespace {NAMESPACE}");
    terminal.run(&namespace).await?;
    control_plane
        .apply(&nodemend_tests::repo().join("deploy/crds"))
        .await?;
    accepted::in_each_shape(&terminal).await?;
    let install = format!("helm install nodemend {CHART} --namespace {NAMESPACE} --skip-crds");
    terminal.run(&install).await?;
    for name in NODES {
        let node = serde_json::from_value(json!({"metadata": {"name": name}}))?;
        let nodes: Api<Node> = Api::all(admin.clone());
        nodes.create(&PostParams::default(), &node).await?;
    }

    let kubeconfig = control_plane
        .kubeconfig_on_node(NAMESPACE, "nodemend-detector", NODES[0])
        .await?;
    let client = control_plane::client(&kubeconfig).await?;
    until(SOON, "the admission policy is in force", async || {
        let said = write(&client, NODES[1])
            .await
            .err()
            .map(|error| error.to_string());
        let says = "the detector of node node-0 may not write to node node-1";
        Ok(said.is_some_and(|said| said.contains(says)).then_some(()))
    })
    .await?;
    let token = kubeconfig.display().to_string();
    let args = ["run", "--node-name", NODES[0], "--kubeconfig", &token];
    let mut detector = Daemon::start("nodemend-detector", &args, &[])?;
    let nodes: Api<Node> = Api::all(admin);
    let reported = until(SOON, "a condition of the detector", async || {
        let status = nodes.get(NODES[0]).await?.status;
        let conditions = status.and_then(|status| status.conditions);
        let mut conditions = conditions.into_iter().flatten();
        Ok(conditions
            .find(|condition| condition.type_ == "KernelReady")
            .map(drop))
    });
    detector.while_running(reported).await?;
    detector.terminate(GRACE)?;

    for (daemon, says) in [
        ("nodemend-detector", "Kubernetes"),
        ("nodemend-repairer", "ok       Kubernetes:"),
    ] {
        let kubeconfig = control_plane
            .kubeconfig_for_service_account(NAMESPACE, daemon)
            .await?;
        let line = format!(
            "{} check --kubeconfig {} || true",
            binary(daemon)?.display(),
            kubeconfig.display()
        );
        // New kinds take a moment to be served.
        let row = until(SOON, "its word about the version", async || {
            let said = terminal.run(&line).await?;
            Ok(said
                .lines()
                .find(|line| line.starts_with(says))
                .map(str::to_owned))
        })
        .await
        .context(daemon)?;
        ensure!(row.ends_with(&version), "{row}");
    }
    Ok(())
}

async fn write(client: &Client, node: &str) -> kube::Result<Node> {
    let condition = json!({"type": "KernelReady", "status": "True"});
    let patch = Patch::Strategic(json!({"status": {"conditions": [condition]}}));
    let nodes: Api<Node> = Api::all(client.clone());
    nodes
        .patch_status(node, &PatchParams::default(), &patch)
        .await
}
