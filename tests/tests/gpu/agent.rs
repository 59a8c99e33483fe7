//! `nodemend-detector watch -o json` on such a node: what it says next, and what it said so far.

use std::time::Duration;

use anyhow::Context;
use nodemend_tests::daemon::{self, Daemon};
use serde_json::Value;

use nodemend_tests::gpu_node::GpuNode;

/// More than the longest deadline of a call to NVML and the time between two looks.
const TIMEOUT: Duration = Duration::from_secs(30);

pub(crate) const CONDITION: &str = "AcceleratedHardwareReady";

pub(crate) struct Agent {
    pub(crate) daemon: Daemon,
    runtime: tokio::runtime::Runtime,
}

impl Agent {
    pub(crate) fn watch(node: &GpuNode) -> anyhow::Result<Self> {
        Self::watch_with(node, &node.env())
    }

    pub(crate) fn watch_with(node: &GpuNode, env: &[(String, String)]) -> anyhow::Result<Self> {
        Self::start(node, "nodemend-detector", &["watch", "-o", "json"], env)
    }

    /// The same, with this pipe in the place of /dev/kmsg: in a mount namespace of its own.
    pub(crate) fn watch_log(node: &GpuNode, log: &str) -> anyhow::Result<Self> {
        let script =
            r#"exec unshare --mount sh -c 'mount --bind "$0" /dev/kmsg && exec "$@"' "$@""#;
        let detector = daemon::binary("nodemend-detector")?;
        let detector = detector.to_str().context("read the path of the detector")?;
        let args = ["-c", script, "sh", log, detector, "watch", "-o", "json"];
        Self::start(node, "/bin/sh", &args, &node.env())
    }

    fn start(
        node: &GpuNode,
        program: &str,
        args: &[&str],
        env: &[(String, String)],
    ) -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()
            .context("start tokio")?;
        let of_node = node.args();
        let args: Vec<_> = args
            .iter()
            .copied()
            .chain(of_node.iter().map(String::as_str))
            .collect();
        let mut agent = Self {
            daemon: Daemon::start(program, &args, env)?,
            runtime,
        };
        agent.line("ready", |line| line["ready"] == true)?;
        Ok(agent)
    }

    /// The next line that `matches`.
    pub(crate) fn line(
        &mut self,
        what: &str,
        matches: impl Fn(&Value) -> bool,
    ) -> anyhow::Result<Value> {
        let wait = self.daemon.wait_for_log(TIMEOUT, matches);
        self.runtime
            .block_on(wait)
            .with_context(|| format!("wait for: {what}"))
    }

    /// Waits until NVML's events are heard: what it told before, nobody could hear.
    pub(crate) fn listens(&mut self) -> anyhow::Result<()> {
        self.line("NVML answers", |line| line["message"] == "NVML answers")
            .map(drop)
    }

    pub(crate) fn healthy(&mut self) -> anyhow::Result<()> {
        self.listens()?;
        self.condition("True").map(drop)
    }

    pub(crate) fn condition(&mut self, status: &str) -> anyhow::Result<Value> {
        self.line(&format!("{CONDITION} {status}"), |line| {
            line["condition"] == CONDITION
                && line["status"] == status
                && line["transition"].is_null()
        })
    }

    pub(crate) fn opened(&mut self, reason: &str) -> anyhow::Result<Value> {
        self.transition("opened", reason)
    }

    pub(crate) fn cleared(&mut self, reason: &str) -> anyhow::Result<Value> {
        self.transition("cleared", reason)
    }

    fn transition(&mut self, transition: &str, reason: &str) -> anyhow::Result<Value> {
        self.line(&format!("{reason} {transition}"), |line| {
            line["transition"] == transition && line["reason"] == reason
        })
    }

    /// Everything that was said about GPUs so far.
    pub(crate) fn said(&self) -> Vec<Value> {
        self.daemon
            .log_lines()
            .iter()
            .filter_map(|line| serde_json::from_str::<Value>(line).ok())
            .filter(|line| line["condition"] == CONDITION)
            .collect()
    }
}
