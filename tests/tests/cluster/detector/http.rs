//! `/metrics`, `/healthz` and `/findings` of a detector.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use nodemend_tests::faults::{LoopDisk, PodCgroup};
use nodemend_tests::link::Link;
pub(crate) use nodemend_tests::page::get;
use nodemend_tests::wait::until;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::agent::Agent;
use crate::suite::{Cluster, SOON};

const ANY_PORT: [&str; 2] = ["--http-address", "127.0.0.1:0"];

async fn address(agent: &mut Agent) -> anyhow::Result<String> {
    let line = agent
        .wait_for_log(|line| {
            line["message"]
                .as_str()
                .is_some_and(|message| message.starts_with("serving /metrics"))
        })
        .await?;
    let address = line["address"].as_str().context("read the address")?;
    Ok(address.to_owned())
}

async fn json(address: &str, path: &str) -> anyhow::Result<(String, Value)> {
    let (status, body) = get(address, path).await?;
    let value = serde_json::from_str(&body).with_context(|| format!("parse {body}"))?;
    Ok((status, value))
}

pub(super) async fn pages(cluster: Arc<Cluster>) -> anyhow::Result<()> {
    cluster.create_node("http-node").await?;
    let mut agent = Agent::start(&cluster.detector_kubeconfig, "http-node", &ANY_PORT)?;
    let address = address(&mut agent).await?;
    agent.wait_ready().await?;
    let uid = "5f0c9c5e-0000-4000-8000-00000000beef";
    PodCgroup::systemd(uid)?.oom_kill("glutton")?;
    let finding = until(SOON, "the finding is shown", async || {
        let (_, page) = json(&address, "/findings").await?;
        let findings = page["findings"].as_array().context("read the findings")?;
        Ok(findings
            .iter()
            .find(|finding| finding["podUid"] == uid)
            .cloned())
    })
    .await?;
    ensure!(
        finding["reason"] == "OOMKilling"
            && finding["severity"] == "Warning"
            && finding["count"] == 1,
        "{finding}"
    );
    let (status, health) = json(&address, "/healthz").await?;
    ensure!(
        status.contains("200") && health["healthy"] == true,
        "{status} {health}"
    );
    let metrics = until(SOON, "the Event is counted", async || {
        let (_, text) = get(&address, "/metrics").await?;
        Ok(text
            .contains("exports_total{object=\"event\"}")
            .then_some(text))
    })
    .await?;
    for says in [
        "nodemend_detector_findings_open{reason=\"OOMKilling\",severity=\"Warning\"} ",
        "nodemend_detector_condition_healthy{type=\"KernelReady\"} 1\n",
        "nodemend_detector_source_up{source=\"bpf\"} 1\n",
        "nodemend_detector_signals_total{source=\"bpf\"} ",
        "nodemend_detector_fault_to_export_seconds_bucket{object=\"event\",le=\"+Inf\"} ",
        "process_resident_memory_bytes ",
    ] {
        ensure!(metrics.contains(says), "no `{says}` in\n{metrics}");
    }
    let (status, _) = get(&address, "/").await?;
    ensure!(status.contains("404"), "{status}");
    Ok(())
}

pub(super) async fn outage(cluster: Arc<Cluster>) -> anyhow::Result<()> {
    cluster.create_node("http-outage-node").await?;
    let mut link = Link::new(&cluster.control_plane)?;
    let kubeconfig = cluster
        .control_plane
        .kubeconfig_through(&link, &cluster.detector_kubeconfig)?;
    link.up()?;
    // Before the agent starts: what others have had under its name is then history.
    let disk = LoopDisk::new()?;
    let mut agent = Agent::start(&kubeconfig, "http-outage-node", &ANY_PORT)?;
    let address = address(&mut agent).await?;
    agent.wait_ready().await?;
    link.down().await?;
    disk.read_error()?;
    // A heartbeat may be refused as well.
    agent
        .wait_for_log(|line| line["verb"] == "create Event" && line["error"].is_string())
        .await?;
    let (status, health) = json(&address, "/healthz").await?;
    let told = health["apiServer"].as_str().unwrap_or_default();
    ensure!(
        status.contains("200") && (told.contains("create Event") || told.contains("patch status")),
        "{status} {health}"
    );
    let (_, metrics) = get(&address, "/metrics").await?;
    ensure!(
        metrics.contains("export_failures_total{verb=\"create Event\",code=\"0\"} "),
        "{metrics}"
    );
    Ok(())
}

/// Many connections that say nothing hold up nobody for long.
pub(super) async fn slow_clients(cluster: Arc<Cluster>) -> anyhow::Result<()> {
    cluster.create_node("slow-node").await?;
    let mut agent = Agent::start(&cluster.detector_kubeconfig, "slow-node", &ANY_PORT)?;
    let address = address(&mut agent).await?;
    let mut silent = Vec::new();
    for _ in 0..40 {
        let mut stream = TcpStream::connect(&address).await.context("connect")?;
        stream
            .write_all(b"GET /metrics HTTP/1.1\r\n")
            .await
            .context("write")?;
        silent.push(stream);
    }
    // Three rounds of those that are let in at a time, each cut after 2 s.
    let (status, _) = get(&address, "/healthz").await?;
    ensure!(status.contains("200"), "{status}");
    let mut first = silent.swap_remove(0);
    let mut rest = Vec::new();
    timeout(Duration::from_secs(1), first.read_to_end(&mut rest))
        .await
        .context("a silent connection is still open")?
        .map(drop)
        .or_else(|error| match error.kind() {
            std::io::ErrorKind::ConnectionReset => Ok(()),
            _ => Err(error.into()),
        })
}
