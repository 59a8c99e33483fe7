//! Taking the story's objects out of a cluster that goes on living.

use anyhow::{Context, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::core::v1::{Node, Pod};
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::api::rbac::v1::ClusterRole;
use kube::Api;
use kube::api::{DeleteParams, ListParams};

use super::silence::LABEL;
use super::stage::{MANIFESTS, SOON, WORKLOAD};
use crate::control_plane::ControlPlane;
use crate::fleet::MANAGED;
use crate::wait::until;

/// What would be changed and then removed must not be there already.
pub(super) async fn ensure_free(control_plane: &ControlPlane) -> anyhow::Result<()> {
    let roles: Api<ClusterRole> = Api::all(control_plane.admin());
    for name in ["nodemend-detector", "nodemend-repairer"] {
        let role = roles
            .get_opt(name)
            .await
            .with_context(|| format!("look for ClusterRole {name}"))?;
        ensure!(
            role.is_none(),
            "nodemend is installed in this cluster (ClusterRole {name}): use another one"
        );
    }
    let nodes: Api<Node> = Api::all(control_plane.admin());
    let managed = nodes.list(&ours()).await.context("list nodes")?.items;
    ensure!(
        managed.is_empty(),
        "this cluster has kwok nodes (label {}={}): use another one",
        MANAGED.0,
        MANAGED.1
    );
    Ok(())
}

fn ours() -> ListParams {
    ListParams::default().labels(&format!("{}={}", MANAGED.0, MANAGED.1))
}

pub(super) async fn remove(control_plane: &ControlPlane) -> anyhow::Result<()> {
    let client = control_plane.admin();
    let deployments: Api<Deployment> = Api::namespaced(client.clone(), "default");
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(client.clone(), "default");
    let pods: Api<Pod> = Api::namespaced(client.clone(), "default");
    let nodes: Api<Node> = Api::all(client);
    let by_default = DeleteParams::default();
    gone(
        deployments
            .delete(WORKLOAD, &DeleteParams::foreground())
            .await
            .map(drop),
    )
    .context("delete the Deployment")?;
    until(SOON, "the Deployment and its pods are gone", async || {
        // Nobody plays their kubelets any more: what nobody ends is deleted at once.
        let at_once = DeleteParams::default().grace_period(0);
        let of_the_workload = ListParams::default().labels(&format!("app={WORKLOAD}"));
        pods.delete_collection(&at_once, &of_the_workload).await?;
        let left = pods.list(&of_the_workload).await?.items.len();
        Ok((left == 0 && deployments.get_opt(WORKLOAD).await?.is_none()).then_some(()))
    })
    .await?;
    gone(budgets.delete(WORKLOAD, &by_default).await.map(drop))
        .context("delete the PodDisruptionBudget")?;
    let silent = ListParams::default().labels(&format!("{}={}", LABEL.0, LABEL.1));
    for some in [ours(), silent] {
        nodes
            .delete_collection(&by_default, &some)
            .await
            .map(drop)
            .context("delete the nodes")?;
    }
    for manifests in MANIFESTS {
        control_plane.delete(&crate::repo().join(manifests)).await?;
    }
    Ok(())
}

/// What is not there need not be deleted.
fn gone(result: kube::Result<()>) -> kube::Result<()> {
    match result {
        Err(kube::Error::Api(status)) if status.code == 404 => Ok(()),
        result => result,
    }
}
