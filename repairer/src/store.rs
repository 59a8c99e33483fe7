//! Watches: what the API server says, kept here and kept up to date.

use std::collections::BTreeMap;
use std::fmt::Debug;
use std::hash::Hash;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use futures::StreamExt;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::FieldsV1;
use kube::api::ListParams;
use kube::core::DeserializeGuard;
use kube::runtime::reflector::{self, Store};
use kube::runtime::{WatchStreamExt, watcher};
use kube::{Api, Client, Resource, ResourceExt};
use serde::de::DeserializeOwned;
use serde_json::json;
use tokio::sync::Notify;
use tracing::{error, warn};

use self::claims::ClaimStore;
use self::reach::Reach;

use crate::api::policy::RepairPolicy;
use crate::api::repair::NodeRepair;
use crate::clock;
use crate::cluster::{Cluster, NodeView};
use crate::explain::{self, explain};

/// The region is mostly known without asking the Nodes.
const REGION_WAIT: Duration = Duration::from_secs(5);

mod claims;
mod reach;

/// Nodes of one answer, as kube's watches have them.
const PAGE: u32 = 500;

/// An object that cannot be read must not hide the others, nor be forgotten.
type Guarded<K> = DeserializeGuard<K>;

pub struct Stores {
    nodes: Store<Node>,
    repairs: Store<Guarded<NodeRepair>>,
    policies: Store<Guarded<RepairPolicy>>,
    claims: ClaimStore,
    reach: Reach,
    pub changed: Arc<Notify>,
}

impl Stores {
    pub fn watch(client: &Client) -> Self {
        let changed = Arc::new(Notify::new());
        let reach = Reach::default();
        let (seen, all) = ((&reach, &changed), || client.clone());
        Self {
            nodes: watch(Api::all(all()), "nodes", trim, seen),
            repairs: watch(Api::all(all()), "noderepairs", forget, seen),
            policies: watch(Api::all(all()), "repairpolicies", forget, seen),
            claims: ClaimStore::watch(all(), Arc::clone(&changed)),
            reach,
            changed,
        }
    }

    /// Waits for the first whole list of each.
    pub async fn ready(&self) -> anyhow::Result<()> {
        self.nodes.wait_until_ready().await.context("watch nodes")?;
        self.repairs
            .wait_until_ready()
            .await
            .context("watch noderepairs")?;
        self.policies
            .wait_until_ready()
            .await
            .context("watch repairpolicies")?;
        self.claims.ready().await
    }

    /// What is known now; AWS and pods are for others to add.
    pub fn cluster(&self) -> Cluster {
        Cluster {
            unreachable_since: self.reach.lost_since(clock::now()),
            claims: self.claims.known(),
            ..cluster(
                &self.nodes.state(),
                &self.repairs.state(),
                &self.policies.state(),
            )
        }
    }
}

/// The same, asked anew: a decision that destroys is not made on what a watch may have missed.
pub async fn list(client: &Client) -> anyhow::Result<Cluster> {
    async fn all<K>(client: &Client, what: &str) -> anyhow::Result<Vec<Arc<K>>>
    where
        K: Resource<Scope = kube::core::ClusterResourceScope> + Clone + DeserializeOwned + Debug,
        K::DynamicType: Default,
    {
        let list = Api::<K>::all(client.clone())
            .list(&ListParams::default())
            .await;
        Ok(list
            .map_err(explain)
            .with_context(|| format!("list {what}"))?
            .items
            .into_iter()
            .map(Arc::new)
            .collect())
    }
    let repairs = all(client, "noderepairs").await?;
    let mut cluster = cluster(&[], &repairs, &all(client, "repairpolicies").await?);
    cluster.nodes = nodes(client).await?;
    cluster.claims = claims::list(client).await?;
    Ok(cluster)
}

/// Page by page: whole Nodes are large, and of thousands only what is read of each is kept.
async fn nodes(client: &Client) -> anyhow::Result<BTreeMap<String, NodeView>> {
    let api: Api<Node> = Api::all(client.clone());
    let mut nodes = BTreeMap::new();
    let mut params = ListParams::default().limit(PAGE);
    loop {
        let page = api.list(&params).await;
        let page = page.map_err(explain).context("list nodes")?;
        let read = page.items.iter().filter_map(NodeView::read);
        nodes.extend(read.map(|node| (node.name.clone(), node)));
        match page.metadata.continue_ {
            Some(token) if !token.is_empty() => params = params.continue_token(&token),
            Some(_) | None => return Ok(nodes),
        }
    }
}

/// Of the first Nodes that tell it. An API server that does not answer yet tells nothing.
pub async fn region(client: &Client) -> Option<String> {
    let nodes: Api<Node> = Api::all(client.clone());
    let first = ListParams::default().limit(5);
    let list = tokio::time::timeout(REGION_WAIT, nodes.list(&first)).await;
    let nodes = list.ok()?.ok()?.items;
    let mut views = nodes.iter().filter_map(NodeView::read);
    views.find_map(|node| node.region())
}

fn cluster(
    nodes: &[Arc<Node>],
    repairs: &[Arc<Guarded<NodeRepair>>],
    policies: &[Arc<Guarded<RepairPolicy>>],
) -> Cluster {
    let mut cluster = Cluster::default();
    for node in nodes.iter().filter_map(|node| NodeView::read(node)) {
        cluster.nodes.insert(node.name.clone(), node);
    }
    let unreadable = &mut cluster.unreadable;
    for object in repairs {
        let Some(repair) = read("NodeRepair", object, unreadable) else {
            continue;
        };
        let name = repair.name_any();
        match repair.impossible_time() {
            None => drop(cluster.repairs.insert(name, repair)),
            Some(at) => unreadable.push(format!(
                "NodeRepair {name} cannot be meant: there is a time of {at} in its status; mend or delete it"
            )),
        }
    }
    cluster.policies = policies
        .iter()
        .filter_map(|object| read("RepairPolicy", object, unreadable))
        .collect();
    cluster.policies.sort_by_key(ResourceExt::name_any);
    cluster
}

fn read<K: Clone>(kind: &str, object: &Guarded<K>, unreadable: &mut Vec<String>) -> Option<K> {
    match &object.0 {
        Ok(object) => Some(object.clone()),
        Err(error) => {
            let name = error.metadata.name.as_deref().unwrap_or_default();
            unreadable.push(format!(
                "{kind} {name} cannot be read: {}; mend or delete it",
                error.error
            ));
            None
        }
    }
}

fn watch<K>(
    api: Api<K>,
    what: &'static str,
    shorten: fn(&mut K),
    (reach, changed): (&Reach, &Arc<Notify>),
) -> Store<K>
where
    K: Resource + Clone + Debug + DeserializeOwned + Send + Sync + 'static,
    K::DynamicType: Default + Eq + Hash + Clone + Send + Sync,
{
    let (store, writer) = reflector::store();
    let (reach, changed) = (reach.clone(), Arc::clone(changed));
    let stream = watcher(api, watcher::Config::default())
        .modify(shorten)
        .reflect(writer)
        .backoff(reach::backoff());
    tokio::spawn(async move {
        let mut stream = std::pin::pin!(stream);
        while let Some(event) = stream.next().await {
            changed.notify_one();
            match event {
                Ok(_) => reach.answered(what),
                Err(error) => {
                    log(what, &error);
                    if !is_expired(&error) {
                        reach.failed(what, clock::now());
                    }
                }
            }
        }
        error!(what, "the watch ended");
    });
    store
}

/// An object that is written back must not say who manages it.
fn forget<K: Resource>(object: &mut K) {
    object.managed_fields_mut().clear();
}

/// Who wrote which condition is all that is needed of the managed fields, which are long.
fn trim(node: &mut Node) {
    if let Some(status) = &mut node.status {
        // Most of a Node's bytes, and of no use here.
        (
            status.images,
            status.volumes_attached,
            status.volumes_in_use,
        ) = (None, None, None);
    }
    let fields = node.managed_fields_mut();
    for entry in fields.iter_mut() {
        let conditions = entry
            .fields_v1
            .as_ref()
            .and_then(|fields| fields.0.pointer("/f:status/f:conditions")?.as_object());
        let types = conditions.map(|conditions| {
            let types = conditions.keys().map(|key| (key.clone(), json!({})));
            types.collect::<serde_json::Map<_, _>>()
        });
        entry.fields_v1 = types.map(|types| FieldsV1(json!({"f:status": {"f:conditions": types}})));
    }
    fields.retain(|entry| entry.fields_v1.is_some());
}

fn code(failure: &watcher::Error) -> u16 {
    match failure {
        watcher::Error::InitialListFailed(kube::Error::Api(status))
        | watcher::Error::WatchStartFailed(kube::Error::Api(status)) => status.code,
        watcher::Error::WatchError(status) => status.code,
        _ => 0,
    }
}

/// The API server forgets old versions: it answers, and everything is listed anew.
fn is_expired(failure: &watcher::Error) -> bool {
    code(failure) == 410
}

fn log(what: &str, failure: &watcher::Error) {
    let remedy = explain::remedy(code(failure)).unwrap_or("it is tried again");
    warn!(what, error = %failure, remedy, "the watch failed");
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_repair_of_another_age_is_no_repair_and_is_told() {
        let repair = |since: &str| -> Arc<Guarded<NodeRepair>> {
            let object = json!({
                "apiVersion": "nodemend.dev/v1alpha1",
                "kind": "NodeRepair",
                "metadata": {"name": "r"},
                "spec": {"nodeRef": {"name": "n", "uid": "u"}, "action": "Replace"},
                "status": {"phase": "Draining", "drain": {"since": since, "remaining": 0}},
            });
            Arc::new(serde_json::from_value(object).unwrap())
        };
        let good = cluster(&[], &[repair("2026-01-02T03:04:05.000000Z")], &[]);
        assert_eq!((good.repairs.len(), good.unreadable.len()), (1, 0));
        let bad = cluster(&[], &[repair("9999-12-30T21:59:59.000000Z")], &[]);
        assert!(bad.repairs.is_empty());
        assert!(
            bad.unreadable[0].contains("NodeRepair r"),
            "{:?}",
            bad.unreadable
        );
        assert!(
            bad.unreadable[0].contains("9999-12-30"),
            "{:?}",
            bad.unreadable
        );
    }
}
