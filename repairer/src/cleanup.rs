//! `cleanup`: no mark of ours outlives the repairer, nor do its records and its lease. Run by the chart
//! after an uninstall.

use std::time::Duration;

use anyhow::{Context, bail};
use k8s_openapi::api::coordination::v1::Lease;
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{DeleteParams, ListParams};
use kube::{Api, Client};
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use crate::act::{self, Written};
use crate::api::repair::NodeRepair;
use crate::cluster::NodeView;
use crate::explain::explain;
use crate::lease::NAME;

/// As the chart labels its Deployment's pods.
const REPAIRERS: &str = "app.kubernetes.io/name=nodemend,app.kubernetes.io/component=repairer";
/// One on a node that is lost stays for ever; without its lease's renewal it does nothing more.
const WAIT_FOR_REPAIRERS: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_secs(1);
/// kube has no read timeout of its own.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
/// Kubelets write to their Nodes too, and each write makes what was seen stale.
const TRIES: u32 = 5;

/// Un-cordons every node with our taint, once no repairer is left to cordon it again.
pub async fn cleanup(client: &Client, namespace: &str) -> anyhow::Result<()> {
    wait_for_repairers(&Api::namespaced(client.clone(), namespace)).await?;
    uncordon_all(client).await?;
    // They say which nodes were found cordoned, so they go last.
    remove_repairs(&Api::all(client.clone())).await?;
    remove_lease(&Api::namespaced(client.clone(), namespace)).await
}

/// Nobody would take it: the repairers that it was between are gone, or have lost it.
async fn remove_lease(leases: &Api<Lease>) -> anyhow::Result<()> {
    match timeout(
        REQUEST_TIMEOUT,
        leases.delete(NAME, &DeleteParams::default()),
    )
    .await
    {
        Ok(Ok(_)) => info!(lease = NAME, "the repairers' lease removed"),
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => {}
        Ok(Err(error)) => return Err(explain(error)).context("delete the repairers' Lease"),
        Err(_elapsed) => bail!(no_answer()),
    }
    Ok(())
}

async fn remove_repairs(repairs: &Api<NodeRepair>) -> anyhow::Result<()> {
    let (at_once, all) = (DeleteParams::default(), ListParams::default());
    let removed = repairs.delete_collection(&at_once, &all);
    match timeout(REQUEST_TIMEOUT, removed).await {
        Ok(Ok(_)) => info!("NodeRepairs removed"),
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => {}
        Ok(Err(error)) => return Err(explain(error)).context("delete the NodeRepairs"),
        Err(_elapsed) => bail!(no_answer()),
    }
    Ok(())
}

async fn uncordon_all(client: &Client) -> anyhow::Result<()> {
    let repairs = repairs(client).await?;
    let nodes: Api<Node> = Api::all(client.clone());
    for _ in 0..TRIES {
        let listed = answer(nodes.list(&ListParams::default()))
            .await
            .context("list Nodes")?;
        let cordoned: Vec<_> = listed
            .items
            .iter()
            .filter_map(NodeView::read)
            .filter(|node| node.has_marks() || node.dismissed.is_some())
            .collect();
        if cordoned.is_empty() {
            return Ok(());
        }
        for node in cordoned {
            // Who has made it schedulable since has taken it back.
            let stays_cordoned = node.unschedulable && was_found_cordoned(&repairs, &node);
            match act::clean(client, &node, stays_cordoned)
                .await
                .with_context(|| format!("clean up Node {}", node.name))?
            {
                Written::Done(_) => info!(node = node.name, stays_cordoned, "our cordon removed"),
                Written::Stale => {}
            }
        }
    }
    bail!("nodes were changed or cordoned again {TRIES} times: does another repairer run?")
}

async fn wait_for_repairers(pods: &Api<Pod>) -> anyhow::Result<()> {
    let deadline = Instant::now() + WAIT_FOR_REPAIRERS;
    let repairers = ListParams::default().labels(REPAIRERS);
    loop {
        let left = answer(pods.list_metadata(&repairers))
            .await
            .context("list the repairers' Pods")?
            .items;
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            warn!(
                pods = left.len(),
                "repairers are still there (on lost nodes?)"
            );
            return Ok(());
        }
        sleep(POLL).await;
    }
}

/// None where the CRD has gone: then nobody knows who cordoned first.
async fn repairs(client: &Client) -> anyhow::Result<Vec<NodeRepair>> {
    let api: Api<NodeRepair> = Api::all(client.clone());
    match timeout(REQUEST_TIMEOUT, api.list(&ListParams::default())).await {
        Ok(Ok(list)) => Ok(list.items),
        Ok(Err(kube::Error::Api(status))) if status.code == 404 => Ok(Vec::new()),
        Ok(Err(error)) => Err(explain(error)).context("list NodeRepairs"),
        Err(_elapsed) => bail!(no_answer()),
    }
}

/// By the newest repair of this very node.
fn was_found_cordoned(repairs: &[NodeRepair], node: &NodeView) -> bool {
    repairs
        .iter()
        .filter(|repair| repair.spec.node_ref.uid == node.uid)
        .max_by_key(|repair| {
            repair
                .metadata
                .creation_timestamp
                .as_ref()
                .map(|time| time.0)
        })
        .and_then(|repair| repair.status.as_ref())
        .is_some_and(|status| status.found_cordoned)
}

async fn answer<T>(request: impl Future<Output = kube::Result<T>>) -> anyhow::Result<T> {
    match timeout(REQUEST_TIMEOUT, request).await {
        Ok(answer) => answer.map_err(explain),
        Err(_elapsed) => bail!(no_answer()),
    }
}

fn no_answer() -> String {
    format!(
        "no answer from the API server within {} s",
        REQUEST_TIMEOUT.as_secs()
    )
}
