//! A detector on this host that reports under one Node's name.

use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::core::v1::Pod;
use nodemend_tests::daemon::Daemon;
use serde_json::Value;
use tempfile::TempDir;

use crate::suite::SOON;

pub(super) struct Agent {
    pub(super) daemon: Daemon,
    pod_logs: TempDir,
}

impl Agent {
    pub(super) fn start(kubeconfig: &Path, node: &str, more: &[&str]) -> anyhow::Result<Self> {
        let pod_logs = tempfile::Builder::new()
            .prefix("nodemend-pods-")
            .tempdir()
            .context("make a folder")?;
        let (kubeconfig, logs) = (
            kubeconfig.display().to_string(),
            pod_logs.path().display().to_string(),
        );
        let mut args = vec![
            "run",
            "--node-name",
            node,
            "--kubeconfig",
            &kubeconfig,
            "--log-format",
            "json",
        ];
        args.extend(["--pod-logs-dir", &logs]);
        args.extend(more);
        Ok(Self {
            daemon: Daemon::start("nodemend-detector", &args, &[])?,
            pod_logs,
        })
    }

    /// The folder that kubelet makes for a pod's logs.
    pub(super) fn make_pod_logs(&self, pod: &Pod) -> anyhow::Result<()> {
        let of = |value: &Option<String>| value.clone().context("read a pod's metadata");
        let (namespace, name) = (of(&pod.metadata.namespace)?, of(&pod.metadata.name)?);
        let folder = self
            .pod_logs
            .path()
            .join(format!("{namespace}_{name}_{}", of(&pod.metadata.uid)?));
        std::fs::create_dir(&folder).with_context(|| format!("create {}", folder.display()))
    }

    /// Waits until its conditions stand on the Node: from then on everything is seen.
    pub(super) async fn wait_ready(&mut self) -> anyhow::Result<()> {
        self.wait_for_log(|line| line["kind"] == "condition")
            .await
            .map(drop)
    }

    pub(super) async fn wait_for_log(
        &mut self,
        matches: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<Value> {
        self.daemon.wait_for_log(SOON, matches).await
    }

    /// Waits for a complaint about the API server that says all of these.
    pub(super) async fn wait_complaint(&mut self, says: &[&str]) -> anyhow::Result<Value> {
        self.wait_for_log(|line| {
            line["level"] != "INFO"
                && line["error"]
                    .as_str()
                    .is_some_and(|text| says.iter().all(|say| text.contains(say)))
        })
        .await
        .with_context(|| format!("wait for a complaint that says {says:?}"))
    }

    pub(super) fn stop(&mut self) -> anyhow::Result<std::process::ExitStatus> {
        self.daemon.terminate(Duration::from_secs(5))
    }
}
