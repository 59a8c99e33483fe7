//! `cleanup`: what the detectors wrote on the Nodes goes when they have gone. Run by the chart after
//! an uninstall.

use std::time::Duration;

use anyhow::{Context, bail};
use k8s_openapi::api::core::v1::{Node, Pod};
use kube::api::{ListParams, Patch, PatchParams};
use kube::{Api, Client};
use tokio::time::{Instant, sleep, timeout};
use tracing::{info, warn};

use crate::export::{ours_alone, wire};

/// As the chart labels its DaemonSet's pods.
const DETECTORS: &str = "app.kubernetes.io/name=nodemend,app.kubernetes.io/component=detector";
/// Pods of a node that is lost stay for ever: its agent writes nothing any more either.
const WAIT_FOR_DETECTORS: Duration = Duration::from_secs(60);
const POLL: Duration = Duration::from_secs(1);
/// kube has no read timeout of its own.
const REQUEST_TIMEOUT: Duration = Duration::from_secs(30);
const PAGE: u32 = 500;

/// Removes our own conditions from every Node, once no detector is left to write them again.
pub(crate) async fn cleanup(client: Client, namespace: &str) -> anyhow::Result<()> {
    wait_for_detectors(&Api::namespaced(client.clone(), namespace)).await?;
    let nodes: Api<Node> = Api::all(client);
    let mut page = ListParams::default().limit(PAGE);
    loop {
        let list = answer(nodes.list(&page)).await.context("list Nodes")?;
        for node in &list.items {
            clean(&nodes, node).await?;
        }
        match list.metadata.continue_ {
            Some(token) if !token.is_empty() => page.continue_token = Some(token),
            Some(_) | None => return Ok(()),
        }
    }
}

async fn wait_for_detectors(pods: &Api<Pod>) -> anyhow::Result<()> {
    let deadline = Instant::now() + WAIT_FOR_DETECTORS;
    let detectors = ListParams::default().labels(DETECTORS);
    loop {
        let left = answer(pods.list_metadata(&detectors))
            .await
            .context("list the detectors' Pods")?
            .items;
        if left.is_empty() {
            return Ok(());
        }
        if Instant::now() >= deadline {
            warn!(
                pods = left.len(),
                "detectors are still there (on lost nodes?): conditions that they write again stay"
            );
            return Ok(());
        }
        sleep(POLL).await;
    }
}

async fn clean(nodes: &Api<Node>, node: &Node) -> anyhow::Result<()> {
    let ours = removable(node);
    let name = node.metadata.name.as_deref().context("name a Node")?;
    if ours.is_empty() {
        return Ok(());
    }
    let patch = Patch::Strategic(wire::removal(&ours));
    let parameters = PatchParams::default();
    match answer(nodes.patch_status(name, &parameters, &patch)).await {
        Ok(_) => info!(node = name, conditions = ours.len(), "removed"),
        // It went by itself.
        Err(error) if is_not_found(&error) => {}
        Err(error) => {
            return Err(error).with_context(|| format!("remove the conditions of Node {name}"));
        }
    }
    Ok(())
}

/// Not what another agent writes under the shared names.
fn removable(node: &Node) -> Vec<String> {
    let shared = ours_alone(node)
        .into_iter()
        .map(|kind| kind.name().to_owned());
    shared.chain(wire::own_types(node)).collect()
}

async fn answer<T>(request: impl Future<Output = kube::Result<T>>) -> anyhow::Result<T> {
    match timeout(REQUEST_TIMEOUT, request).await {
        Ok(answer) => Ok(answer?),
        Err(_elapsed) => bail!(
            "no answer from the API server within {} s",
            REQUEST_TIMEOUT.as_secs()
        ),
    }
}

fn is_not_found(error: &anyhow::Error) -> bool {
    matches!(
        error.downcast_ref(),
        Some(kube::Error::Api(status)) if status.code == 404
    )
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn what_another_agent_writes_under_the_shared_names_stays() {
        let condition =
            |kind: &str, message: &str| json!({"type": kind, "status": "True", "message": message});
        let node = json!({"metadata": {"name": "n"}, "status": {"conditions": [
            condition("Ready", "kubelet is posting ready status"),
            condition("KernelReady", "Monitoring for the Kernel system is active"),
            condition("StorageReady", "nodemend watches this; no fatal finding is open"),
            condition("NodemendKernelReady", "nodemend watches this; no fatal finding is open"),
        ]}});
        let node: Node = serde_json::from_value(node).unwrap();
        assert_eq!(removable(&node), ["StorageReady", "NodemendKernelReady"]);
    }
}
