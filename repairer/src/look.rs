//! Looks at what drains need: pods, budgets, DaemonSets and volumes, asked for only while there is
//! one, and only of its nodes. No watch: pods are many, and drains are few.

use std::collections::BTreeSet;

use anyhow::Context;
use k8s_openapi::api::apps::v1::DaemonSet;
use k8s_openapi::api::core::v1::{Event, Node, PersistentVolume};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::storage::v1::VolumeAttachment;
use kube::api::ListParams;
use kube::{Api, Client, ResourceExt};
use tracing::warn;

use crate::act;
use crate::api::repair::{Evidence, NodeRepair, Phase};
use crate::cluster::Cluster;
use crate::drain::{Attachment, Budget};
use crate::evidence;
use crate::explain::explain;

/// Adds the pods of nodes whose drain is under way or just done, and what is around them.
pub async fn drains(client: &Client, cluster: &mut Cluster) {
    let nodes: BTreeSet<_> = cluster
        .repairs
        .values()
        .filter(|repair| is_drained(repair))
        .filter_map(|repair| Some(cluster.node_of(repair)?.name.clone()))
        .collect();
    if nodes.is_empty() {
        cluster.tries.keep(&BTreeSet::new());
        return;
    }
    for node in &nodes {
        match act::pods_on(client, node).await {
            Ok(pods) => drop(cluster.pods.insert(node.clone(), pods)),
            Err(error) => warn!(node, error = format!("{error:#}"), "its drain waits"),
        }
    }
    let pods = cluster.pods.values().flatten();
    let uids: BTreeSet<_> = pods.map(|pod| pod.uid.as_str()).collect();
    cluster.tries.keep(&uids);
    let (budgets, daemon_sets, attachments) = futures::join!(
        budgets(client),
        daemon_sets(client),
        attachments(client, &nodes)
    );
    cluster.budgets = known("budgets", budgets);
    cluster.daemon_sets = known("DaemonSets", daemon_sets);
    cluster.attachments = known("VolumeAttachments", attachments);
}

fn is_drained(repair: &NodeRepair) -> bool {
    match repair.status.as_ref().map(|status| status.phase) {
        Some(Phase::Draining | Phase::Rebooting | Phase::Replacing | Phase::Verifying) => true,
        Some(
            Phase::Watching
            | Phase::Cordoning
            | Phase::Waiting
            | Phase::Uncordoning
            | Phase::Finished,
        )
        | None => false,
    }
}

fn known<T>(what: &str, asked: anyhow::Result<T>) -> Option<T> {
    match asked {
        Ok(found) => Some(found),
        Err(error) => {
            let error = format!("{error:#}");
            warn!(what, error, "not known, so drains say less or wait longer");
            None
        }
    }
}

async fn budgets(client: &Client) -> anyhow::Result<Vec<Budget>> {
    let api: Api<PodDisruptionBudget> = Api::all(client.clone());
    let list = api.list(&ListParams::default()).await.map_err(explain);
    let list = list.context("list PodDisruptionBudgets")?;
    Ok(list.items.iter().filter_map(Budget::read).collect())
}

async fn daemon_sets(client: &Client) -> anyhow::Result<BTreeSet<String>> {
    let api: Api<DaemonSet> = Api::all(client.clone());
    let list = api.list_metadata(&ListParams::default()).await;
    let list = list.map_err(explain).context("list DaemonSets")?;
    let name = |object: &kube::core::PartialObjectMeta<DaemonSet>| {
        Some(format!("{}/{}", object.namespace()?, object.name_any()))
    };
    Ok(list.items.iter().filter_map(name).collect())
}

async fn attachments(client: &Client, nodes: &BTreeSet<String>) -> anyhow::Result<Vec<Attachment>> {
    let api: Api<VolumeAttachment> = Api::all(client.clone());
    let volumes: Api<PersistentVolume> = Api::all(client.clone());
    let list = api.list(&ListParams::default()).await.map_err(explain);
    let list = list.context("list VolumeAttachments")?;
    let mut found = Vec::new();
    for object in list.items {
        let attached = object.status.is_some_and(|status| status.attached);
        if !attached || !nodes.contains(&object.spec.node_name) {
            continue;
        }
        let name = object.spec.source.persistent_volume_name;
        let volume = match &name {
            Some(name) => volumes
                .get_opt(name)
                .await
                .map_err(explain)
                .with_context(|| format!("get PersistentVolume {name}"))?,
            None => None,
        };
        let spec = volume.and_then(|volume| volume.spec);
        let claim = spec.as_ref().and_then(|spec| spec.claim_ref.as_ref());
        let claim =
            claim.and_then(|c| Some(format!("{}/{}", c.namespace.as_ref()?, c.name.as_ref()?)));
        let modes = spec.and_then(|spec| spec.access_modes).unwrap_or_default();
        found.push(Attachment {
            node: object.spec.node_name,
            volume: name.unwrap_or_else(|| object.metadata.name.unwrap_or_default()),
            claim,
            shared: modes.iter().any(|mode| mode.ends_with("Many")),
        });
    }
    Ok(found)
}

/// What is worth keeping of a node that is about to be destroyed. Failing to read it stops nothing.
pub async fn evidence(client: &Client, node: &str, uid: &str) -> Evidence {
    match read_evidence(client, node, uid).await {
        Ok(evidence) => evidence,
        Err(error) => {
            let error = format!("{error:#}");
            warn!(node, error, "nothing is kept of the node");
            Evidence {
                events: vec![
                    format!("could not be read: {error}")
                        .chars()
                        .take(300)
                        .collect(),
                ],
                ..Evidence::default()
            }
        }
    }
}

async fn read_evidence(client: &Client, node: &str, uid: &str) -> anyhow::Result<Evidence> {
    let nodes: Api<Node> = Api::all(client.clone());
    let object = nodes.get(node).await.map_err(explain);
    let object = object.with_context(|| format!("get node {node}"))?;
    // Of the node itself or by its name: kubelets put the name where the UID belongs.
    let events: Api<Event> = Api::namespaced(client.clone(), "default");
    let fields = format!("involvedObject.kind=Node,involvedObject.name={node}");
    let params = ListParams::default().fields(&fields).limit(200);
    let list = events.list(&params).await.map_err(explain);
    let mut list = list
        .with_context(|| format!("list the Events of node {node}"))?
        .items;
    list.retain(|event| {
        let of = event.involved_object.uid.as_deref();
        of.is_none_or(|of| of == uid || of == node)
    });
    Ok(evidence::of(&object, &list))
}
