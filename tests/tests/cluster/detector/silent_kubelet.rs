//! A kubelet that has fallen silent: its own node says why, and what the API server has of it.

use std::net::UdpSocket;
use std::sync::Arc;

use anyhow::{Context, ensure};
use kube::api::{Patch, PatchParams};
use nodemend_tests::faults::{KubeletHost, StoppedKubelet};
use serde_json::json;

use super::agent::Agent;
use crate::suite::Cluster;

const NODE: &str = "silent-node";

pub(super) async fn told(cluster: Arc<Cluster>) -> anyhow::Result<()> {
    let node = cluster.create_node(NODE).await?;
    // As the node controller does when kubelet's Lease has run out.
    let unknown = json!({"status": {"conditions": [
        {"type": "Ready", "status": "Unknown", "reason": "NodeStatusUnknown"},
        {"type": "MemoryPressure", "status": "True", "reason": "KubeletHasInsufficientMemory"},
    ]}});
    cluster
        .nodes()
        .patch_status(NODE, &PatchParams::default(), &Patch::Strategic(unknown))
        .await
        .context("write the status of a Node")?;
    // Bound, so that nobody else answers there, and not listening: connections are refused.
    let nobody = UdpSocket::bind("127.0.0.1:0").context("find a port")?;
    let address = nobody.local_addr().context("read a port")?.to_string();
    let kubelet = StoppedKubelet::start()?;
    let host = KubeletHost::of(kubelet.pid())?;
    let proc = host.proc();
    let args = [
        "--counter-interval",
        "1s",
        "--kubelet-healthz",
        &address,
        "--host-proc",
        &proc,
    ];
    let mut agent = Agent::start(&cluster.detector_kubeconfig, NODE, &args)?;
    agent.wait_ready().await?;
    let of_kubelet = |words: &'static str| {
        move |event: &k8s_openapi::api::events::v1::Event| {
            let note = event.note.as_deref().unwrap_or_default();
            event.reason.as_deref() == Some("KubeletUnresponsive") && note.contains(words)
        }
    };
    cluster
        .wait_event(
            &node,
            "an Event of a silent kubelet, by its Node",
            of_kubelet("hears nothing of kubelet, and hears this agent"),
        )
        .await?;
    let event = cluster
        .wait_event(
            &node,
            "an Event of a silent kubelet, by its process",
            of_kubelet("its process is stopped"),
        )
        .await?;
    let note = event.note.unwrap_or_default();
    ensure!(
        note.contains("Ready=Unknown (NodeStatusUnknown)")
            && note.contains("MemoryPressure=True (KubeletHasInsufficientMemory)"),
        "{note}"
    );
    Ok(())
}
