//! What Karpenter does with its NodeClaims, on the real API server: one that is deleted has its node
//! tainted, its instance terminated and its finalizer taken off, and another one is made in its place.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::Context;
use k8s_openapi::api::core::v1::Node;
use kube::api::{
    ApiResource, DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams,
};
use kube::{Api, Client, ResourceExt};
use serde_json::json;
use tokio::task::JoinHandle;

use crate::cloud::{Cloud, InstanceState};
use crate::control_plane::ControlPlane;
use crate::fleet::Fleet;

const FINALIZER: &str = "karpenter.sh/termination";
const POOL: &str = "default";

#[derive(Clone)]
struct Parts {
    client: Client,
    cloud: Cloud,
    fleet: Fleet,
}

/// Stops when dropped.
pub struct Karpenter {
    parts: Parts,
    task: JoinHandle<()>,
}

impl Karpenter {
    pub async fn start(
        control_plane: &ControlPlane,
        cloud: Cloud,
        fleet: Fleet,
    ) -> anyhow::Result<Self> {
        let crds = crate::repo().join("tests/karpenter");
        control_plane.apply(&crds).await?;
        let parts = Parts {
            client: control_plane.admin(),
            cloud,
            fleet,
        };
        let running = parts.clone();
        let task = tokio::spawn(async move {
            loop {
                if let Err(error) = running.reconcile().await {
                    tracing::warn!(error = format!("{error:#}"), "karpenter");
                }
                tokio::time::sleep(Duration::from_millis(200)).await;
            }
        });
        Ok(Self { parts, task })
    }

    /// A claim of the NodePool `default`, with its instance and its node.
    pub async fn launch(&self, node: &str, zone: &str) -> anyhow::Result<()> {
        self.parts.launch(node, zone).await
    }

    pub fn claims(&self) -> Api<DynamicObject> {
        self.parts.claims()
    }
}

impl Drop for Karpenter {
    fn drop(&mut self) {
        self.task.abort();
    }
}

impl Parts {
    fn claims(&self) -> Api<DynamicObject> {
        let resource = ApiResource {
            group: "karpenter.sh".to_owned(),
            version: "v1".to_owned(),
            api_version: "karpenter.sh/v1".to_owned(),
            kind: "NodeClaim".to_owned(),
            plural: "nodeclaims".to_owned(),
        };
        Api::all_with(self.client.clone(), &resource)
    }

    async fn launch(&self, node: &str, zone: &str) -> anyhow::Result<()> {
        let instance = self.cloud.create_instance(zone);
        let claim: DynamicObject = serde_json::from_value(json!({
            "apiVersion": "karpenter.sh/v1",
            "kind": "NodeClaim",
            "metadata": {
                "generateName": format!("{POOL}-"),
                "labels": {
                    "karpenter.sh/nodepool": POOL,
                    "topology.kubernetes.io/zone": zone,
                },
                "finalizers": [FINALIZER],
            },
            "spec": {"requirements": []},
        }))
        .context("write a NodeClaim")?;
        let claim = self.claims().create(&PostParams::default(), &claim).await;
        let name = claim.context("create a NodeClaim")?.name_any();
        let status = json!({"status": {
            "nodeName": node,
            "providerID": format!("aws:///{zone}/{instance}"),
        }});
        self.claims()
            .patch_status(&name, &PatchParams::default(), &Patch::Merge(status))
            .await
            .context("write the status of a NodeClaim")?;
        let labels = [("karpenter.sh/nodepool".to_owned(), POOL.to_owned())];
        let labels = BTreeMap::from(labels);
        self.fleet
            .create_labelled_node(node, &instance, zone, &labels)
            .await
    }

    async fn reconcile(&self) -> anyhow::Result<()> {
        let claims = self.claims().list(&ListParams::default()).await;
        for claim in claims.context("list nodeclaims")? {
            if claim.metadata.deletion_timestamp.is_some() {
                self.finalize(&claim).await?;
            }
        }
        Ok(())
    }

    async fn finalize(&self, claim: &DynamicObject) -> anyhow::Result<()> {
        let nodes: Api<Node> = Api::all(self.client.clone());
        let node = claim.data["status"]["nodeName"]
            .as_str()
            .unwrap_or_default();
        let provider_id = claim.data["status"]["providerID"].as_str();
        let (zone, instance) = provider_id
            .and_then(|id| id.strip_prefix("aws:///")?.split_once('/'))
            .context("read the providerID of a NodeClaim")?;
        let seen = self.cloud.instances();
        let state = seen.iter().find(|seen| seen.id == instance);
        match state.map(|seen| seen.state) {
            Some(InstanceState::Pending | InstanceState::Running | InstanceState::Stopped) => {
                let taint = json!({"key": "karpenter.sh/disrupted", "effect": "NoSchedule"});
                let patch = Patch::Strategic(json!({"spec": {"taints": [taint]}}));
                nodes.patch(node, &PatchParams::default(), &patch).await?;
                self.cloud.terminate_instance(instance);
            }
            Some(InstanceState::ShuttingDown) => {}
            Some(InstanceState::Terminated) | None => {
                match nodes.delete(node, &DeleteParams::default()).await {
                    Ok(_) => {}
                    Err(kube::Error::Api(status)) if status.code == 404 => {}
                    Err(error) => return Err(error).context("delete a node"),
                }
                let patch = Patch::Merge(json!({"metadata": {"finalizers": null}}));
                self.claims()
                    .patch(&claim.name_any(), &PatchParams::default(), &patch)
                    .await
                    .context("take the finalizer off")?;
                self.launch(&format!("node-of-{}", claim.name_any()), zone)
                    .await?;
            }
        }
        Ok(())
    }
}
