//! Side effects on the API server. Each is guarded by a resourceVersion or a UID, so that one that
//! was decided on an old view is refused and decided again.

use anyhow::Context;
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{DeleteParams, ListParams, Patch, PatchParams, PostParams, Preconditions};
use kube::{Api, Client};
use serde_json::{Value, json};

use crate::api::TAINT;
use crate::api::policy::{RepairPolicy, RepairPolicyStatus};
use crate::api::repair::{NodeRepair, NodeRepairStatus};
use crate::cluster::NodeView;
use crate::drain::{self, Eviction, PodView};
use crate::explain::explain;

const MANAGER: &str = "nodemend-repairer";

/// What a guarded write came to.
pub enum Written<T> {
    Done(T),
    /// The object has changed since it was seen: decide again.
    Stale,
}

fn guarded<T>(answer: kube::Result<T>) -> anyhow::Result<Written<T>> {
    match answer {
        Ok(object) => Ok(Written::Done(object)),
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(Written::Stale),
        Err(error) => Err(explain(error)),
    }
}

/// Creates a repair; its name makes a second creation of the same one harmless.
pub async fn create(client: &Client, repair: &NodeRepair) -> anyhow::Result<()> {
    let api: Api<NodeRepair> = Api::all(client.clone());
    match api.create(&PostParams::default(), repair).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        Err(error) => Err(explain(error)).context("create the NodeRepair"),
    }
}

/// Stores a status over exactly the object that it was derived from.
pub async fn record(
    client: &Client,
    name: &str,
    seen: &NodeRepair,
    status: NodeRepairStatus,
) -> anyhow::Result<Written<NodeRepair>> {
    let api: Api<NodeRepair> = Api::all(client.clone());
    let object = NodeRepair {
        status: Some(status),
        ..seen.clone()
    };
    guarded(
        api.replace_status(name, &PostParams::default(), &object)
            .await,
    )
    .with_context(|| format!("store the status of NodeRepair {name}"))
}

/// Deletes a finished repair, exactly as it was seen.
pub async fn forget(client: &Client, name: &str, seen: &NodeRepair) -> anyhow::Result<()> {
    let api: Api<NodeRepair> = Api::all(client.clone());
    let params = DeleteParams::default().preconditions(Preconditions {
        resource_version: seen.metadata.resource_version.clone(),
        uid: seen.metadata.uid.clone(),
    });
    let gone = guarded(api.delete(name, &params).await);
    gone.with_context(|| format!("delete the old NodeRepair {name}"))?;
    Ok(())
}

pub async fn record_policy(
    client: &Client,
    name: &str,
    status: &RepairPolicyStatus,
) -> anyhow::Result<()> {
    let api: Api<RepairPolicy> = Api::all(client.clone());
    let mut status = serde_json::to_value(status).context("write the status")?;
    // A merge leaves what it does not name.
    for list in ["conditions", "groups", "breakers", "shadow"] {
        if let Some(object) = status.as_object_mut() {
            object.entry(list).or_insert(Value::Null);
        }
    }
    let patch = Patch::Merge(json!({"status": status}));
    guarded(
        api.patch_status(name, &PatchParams::default(), &patch)
            .await,
    )
    .with_context(|| format!("store the status of RepairPolicy {name}"))?;
    Ok(())
}

/// Unschedulable and our taint in one write, over exactly the node that was decided about.
pub async fn cordon(
    client: &Client,
    node: &NodeView,
    now: Timestamp,
) -> anyhow::Result<Written<Node>> {
    let mut taints: Vec<_> = node
        .taints
        .iter()
        .filter(|taint| taint.key != TAINT)
        .cloned()
        .collect();
    taints.push(Taint {
        key: TAINT.to_owned(),
        value: None,
        effect: "NoSchedule".to_owned(),
        time_added: Some(Time(now)),
    });
    patch(
        client,
        node,
        json!({"unschedulable": true, "taints": taints}),
    )
    .await
    .context("cordon the node")
}

/// Undoes our cordon: the taint, and the unschedulable that we set ourselves.
pub async fn uncordon(
    client: &Client,
    node: &NodeView,
    found_cordoned: bool,
) -> anyhow::Result<Written<Node>> {
    let taints: Vec<_> = node
        .taints
        .iter()
        .filter(|taint| taint.key != TAINT)
        .cloned()
        .collect();
    patch(
        client,
        node,
        json!({"unschedulable": found_cordoned, "taints": taints}),
    )
    .await
    .context("un-cordon the node")
}

async fn patch(client: &Client, node: &NodeView, spec: Value) -> anyhow::Result<Written<Node>> {
    let api: Api<Node> = Api::all(client.clone());
    let patch = json!({"metadata": {"uid": node.uid, "resourceVersion": node.resource_version}, "spec": spec});
    let params = PatchParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PatchParams::default()
    };
    guarded(api.patch(&node.name, &params, &Patch::Merge(patch)).await)
}

pub async fn pods_on(client: &Client, node: &str) -> anyhow::Result<Vec<PodView>> {
    let api: Api<Pod> = Api::all(client.clone());
    let params = ListParams::default().fields(&format!("spec.nodeName={node}"));
    let pods = api
        .list(&params)
        .await
        .map_err(explain)
        .with_context(|| format!("list the pods of node {node}"))?;
    Ok(pods.items.iter().filter_map(PodView::read).collect())
}

/// Asks the API server to let a pod go. Its own body: kube's `evict` sends delete options under a
/// name that the API server ignores, and with them the UID precondition.
pub async fn evict(client: &Client, pod: &PodView) -> anyhow::Result<Eviction> {
    let body = json!({
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod.name, "namespace": pod.namespace},
        "deleteOptions": {"preconditions": {"uid": pod.uid}},
    });
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace);
    let answer: kube::Result<Value> = api
        .create_subresource("eviction", &pod.name, &PostParams::default(), &body)
        .await;
    match answer {
        Ok(_) => Ok(Eviction::Done),
        Err(kube::Error::Api(status)) => Ok(drain::refused(&status)),
        Err(error) => Err(explain(error)).with_context(|| format!("evict {}", pod.label())),
    }
}
