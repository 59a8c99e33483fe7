//! A control plane, and detectors that report to it under the service account of `deploy/`.

use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use kube::api::PostParams;
use nodemend_tests::control_plane::ControlPlane;
use nodemend_tests::daemon::Daemon;
use serde_json::json;

/// How long anything may take that normally takes well under a second.
pub(crate) const SOON: Duration = Duration::from_secs(20);

pub(crate) struct Stage {
    control_plane: ControlPlane,
    kubeconfig: PathBuf,
    nodes: AtomicU32,
}

impl Stage {
    pub(crate) async fn set() -> anyhow::Result<Self> {
        let control_plane = ControlPlane::start().await?;
        control_plane
            .apply(&nodemend_tests::repo().join("deploy/rbac/detector.yaml"))
            .await?;
        let kubeconfig = control_plane
            .kubeconfig_for_service_account("nodemend-system", "nodemend-detector")
            .await?;
        Ok(Self {
            control_plane,
            kubeconfig,
            nodes: AtomicU32::new(0),
        })
    }

    /// A detector for a Node of its own; its conditions stand there when this returns.
    pub(crate) async fn detector(&self, more: &[&str]) -> anyhow::Result<Daemon> {
        let name = format!("bench-{}", self.nodes.fetch_add(1, Ordering::Relaxed));
        let nodes: Api<Node> = Api::all(self.control_plane.admin());
        let node =
            serde_json::from_value(json!({"metadata": {"name": name}})).context("write a Node")?;
        nodes
            .create(&PostParams::default(), &node)
            .await
            .with_context(|| format!("create node {name}"))?;
        let kubeconfig = self.kubeconfig.display().to_string();
        let mut args = vec![
            "run",
            "--node-name",
            &name,
            "--kubeconfig",
            &kubeconfig,
            "--log-format",
            "json",
        ];
        args.extend(more);
        let mut detector = Daemon::start("nodemend-detector", &args, &[])?;
        detector
            .wait_for_log(SOON, |line| {
                line["kind"] == "condition" && line["condition"] == "StorageReady"
            })
            .await
            .context("wait for the detector's conditions")?;
        Ok(detector)
    }
}
