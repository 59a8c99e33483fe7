//! Events: about which Node, which pod, which process; and what the service account may do.

use std::sync::Arc;

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use nodemend_tests::faults::PodCgroup;
use serde_json::json;

use super::agent::Agent;
use crate::suite::Cluster;

pub(super) async fn names_node_and_pod(cluster: Arc<Cluster>) -> anyhow::Result<()> {
    let node = cluster.create_node("event-node").await?;
    let pod = create_pod(&cluster, "hungry", "event-node").await?;
    let uid = pod.metadata.uid.clone().context("read the pod's UID")?;
    let mut agent = Agent::start(&cluster.detector_kubeconfig, "event-node", &[])?;
    agent.make_pod_logs(&pod)?;
    agent.wait_ready().await?;

    let killed = PodCgroup::systemd(&uid)?.oom_kill("hog")?;
    let process = format!("process hog (pid {})", killed.pid);
    let event = cluster
        .wait_event(&node, "an Event of the OOM kill", |event| {
            event
                .note
                .as_deref()
                .is_some_and(|note| note.contains(&process))
        })
        .await?;
    let note = event.note.context("read the note")?;
    let related = event.related.context("the Event is related to no pod")?;
    ensure!(
        event.reason.as_deref() == Some("OOMKilling"),
        "the reason is {:?}",
        event.reason
    );
    ensure!(
        event.type_.as_deref() == Some("Warning"),
        "the type is {:?}",
        event.type_
    );
    ensure!(
        note.contains(&format!("pod default/hungry (UID {uid})")),
        "{note}"
    );
    ensure!(
        (related.kind.as_deref(), related.uid.as_deref()) == (Some("Pod"), Some(uid.as_str())),
        "{related:?}"
    );
    ensure!(
        related.name.as_deref() == Some("hungry")
            && related.namespace.as_deref() == Some("default"),
        "{related:?}"
    );
    Ok(())
}

pub(super) async fn unknown_pod(cluster: Arc<Cluster>) -> anyhow::Result<()> {
    let node = cluster.create_node("unknown-pod-node").await?;
    let mut agent = Agent::start(&cluster.detector_kubeconfig, "unknown-pod-node", &[])?;
    agent.wait_ready().await?;
    let uid = "5f0c9c5e-0000-4000-8000-0123456789ab";
    let killed = PodCgroup::systemd(uid)?.oom_kill("stray")?;
    let process = format!("process stray (pid {})", killed.pid);
    let event = cluster
        .wait_event(&node, "an Event of the OOM kill", |event| {
            event
                .note
                .as_deref()
                .is_some_and(|note| note.contains(&process))
        })
        .await?;
    let note = event.note.context("read the note")?;
    ensure!(
        note.contains(&format!("the pod with UID {uid} (not found on this node)")),
        "{note}"
    );
    ensure!(
        event.related.is_none(),
        "an Event of an unknown pod is related to {:?}",
        event.related
    );
    Ok(())
}

pub(super) async fn may_do_nothing_else(cluster: Arc<Cluster>) -> anyhow::Result<()> {
    cluster.create_node("guarded-node").await?;
    let client = cluster
        .control_plane
        .client_for_service_account("nodemend-system", "nodemend-detector")
        .await?;
    let nodes: Api<Node> = Api::all(client.clone());
    let pods: Api<Pod> = Api::all(client);
    let cordon = Patch::Merge(json!({"spec": {"unschedulable": true}}));
    let refused = [
        ("list nodes", nodes.list(&ListParams::default()).await.err()),
        (
            "cordon",
            nodes
                .patch("guarded-node", &PatchParams::default(), &cordon)
                .await
                .err(),
        ),
        (
            "delete a node",
            nodes
                .delete("guarded-node", &DeleteParams::default())
                .await
                .err(),
        ),
        ("list pods", pods.list(&ListParams::default()).await.err()),
    ];
    for (what, error) in refused {
        let code = match &error {
            Some(kube::Error::Api(status)) => status.code,
            _ => 0,
        };
        ensure!(code == 403, "it may {what}: {error:?}");
    }
    Ok(())
}

async fn create_pod(cluster: &Cluster, name: &str, node: &str) -> anyhow::Result<Pod> {
    let pods: Api<Pod> = Api::namespaced(cluster.control_plane.admin(), "default");
    let pod = json!({
        "metadata": {"name": name},
        "spec": {"nodeName": node, "containers": [{"name": "main", "image": "example.test/main:1"}]},
    });
    let pod = serde_json::from_value(pod).context("write a Pod")?;
    pods.create(&PostParams::default(), &pod)
        .await
        .with_context(|| format!("create pod {name}"))
}
