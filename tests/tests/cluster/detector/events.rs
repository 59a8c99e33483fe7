//! Events: about which Node, which pod, which process; and what the service account may do.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::{self as core, Namespace, Node, Pod, ServiceAccount};
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams};
use nodemend_tests::faults::{LoopDisk, PodCgroup};
use nodemend_tests::wait::until;
use serde_json::json;

use super::agent::Agent;
use crate::suite::{Cluster, SOON};

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

/// As `kubectl describe pod` looks for them: by UID, in the pod's namespace.
pub(super) async fn on_the_pod(cluster: Arc<Cluster>) -> anyhow::Result<()> {
    let node = cluster.create_node("described-node").await?;
    let namespace = "described";
    let client = cluster.control_plane.admin();
    let object = serde_json::from_value(json!({"metadata": {"name": namespace}}))
        .context("write a Namespace")?;
    Api::<Namespace>::all(client.clone())
        .create(&PostParams::default(), &object)
        .await
        .context("create a namespace")?;
    let accounts: Api<ServiceAccount> = Api::namespaced(client.clone(), namespace);
    until(SOON, "the namespace has its service account", async || {
        Ok(accounts.get_opt("default").await?)
    })
    .await?;
    let pod = create_pod_in(&cluster, namespace, "hungry", "described-node").await?;
    let uid = pod.metadata.uid.clone().context("read the pod's UID")?;
    let mut agent = Agent::start(&cluster.detector_kubeconfig, "described-node", &[])?;
    agent.make_pod_logs(&pod)?;
    agent.wait_ready().await?;
    let killed = PodCgroup::systemd(&uid)?.oom_kill("hog")?;

    let events: Api<core::Event> = Api::namespaced(client, namespace);
    let selector = format!("involvedObject.name=hungry,involvedObject.uid={uid}");
    let event = until(SOON, "an Event about the pod", async || {
        let list = events
            .list(&ListParams::default().fields(&selector))
            .await?;
        Ok(list.items.into_iter().next())
    })
    .await?;
    let message = event.message.unwrap_or_default();
    ensure!(
        event.reason.as_deref() == Some("OOMKilling")
            && message.contains(&format!("process hog (pid {})", killed.pid)),
        "{:?} {message}",
        event.reason
    );
    let related = event.related.context("it is related to nothing")?;
    ensure!(related.uid == node.metadata.uid, "{related:?}");
    Ok(())
}

pub(super) async fn repeats(cluster: Arc<Cluster>) -> anyhow::Result<()> {
    let node = cluster.create_node("series-node").await?;
    // Before the agent starts: what others have had under its name is then history.
    let disk = LoopDisk::new()?;
    let mut agent = Agent::start(&cluster.detector_kubeconfig, "series-node", &[])?;
    agent.wait_ready().await?;
    let of_disk = |event: &Event| {
        let note = event.note.as_deref().unwrap_or_default();
        let ours = note.contains(disk.name()) && !note.contains("before the agent's start");
        ours && event.reason.as_deref() == Some("BlockDeviceIOError")
    };
    disk.read_error()?;
    let first = cluster
        .wait_event(&node, "an Event of the first error", of_disk)
        .await?;
    ensure!(first.series.is_none(), "one error is no series");
    // A repeat is announced a minute later at the earliest.
    tokio::time::sleep(Duration::from_secs(61)).await;
    disk.read_error()?;
    let counted = cluster
        .wait_event(&node, "the repeat is counted", |event| {
            of_disk(event) && event.series.is_some()
        })
        .await?;
    let series = counted.series.context("read the series")?;
    ensure!(
        counted.metadata.name == first.metadata.name && series.count >= 2,
        "{:?} {series:?}",
        counted.metadata.name
    );

    // The Event has expired: the next repeat gets one of its own.
    let name = first.metadata.name.context("read the name")?;
    let events: Api<Event> = Api::namespaced(cluster.control_plane.admin(), "default");
    events
        .delete(&name, &DeleteParams::default())
        .await
        .context("delete the Event")?;
    tokio::time::sleep(Duration::from_secs(61)).await;
    for _ in 0..series.count + 1 {
        disk.read_error()?;
    }
    let another = cluster
        .wait_event(&node, "an Event in place of the one that expired", of_disk)
        .await?;
    ensure!(
        another.metadata.name.as_deref() != Some(name.as_str()),
        "{name}"
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
    let events: Api<Event> = Api::all(client.clone());
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
        (
            "list events",
            events.list(&ListParams::default()).await.err(),
        ),
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
    create_pod_in(cluster, "default", name, node).await
}

async fn create_pod_in(
    cluster: &Cluster,
    namespace: &str,
    name: &str,
    node: &str,
) -> anyhow::Result<Pod> {
    let pods: Api<Pod> = Api::namespaced(cluster.control_plane.admin(), namespace);
    let pod = json!({
        "metadata": {"name": name},
        "spec": {"nodeName": node, "containers": [{"name": "main", "image": "example.test/main:1"}]},
    });
    let pod = serde_json::from_value(pod).context("write a Pod")?;
    pods.create(&PostParams::default(), &pod)
        .await
        .with_context(|| format!("create pod {name}"))
}
