//! `deploy/admission/detector.yaml`: a detector's token may change the conditions of its own Node,
//! and nothing else of any Node, not even where RBAC would let it.

use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::api::{Patch, PatchParams, PostParams};
use kube::{Api, Client};
use nodemend_tests::control_plane::ControlPlane;
use nodemend_tests::repo;
use nodemend_tests::wait::until;
use serde_json::{Value, json};

use super::agent::Agent;

const OWN: &str = "own-node";
const OTHER: &str = "other-node";
const NAMESPACE: &str = "nodemend-system";
const ACCOUNT: &str = "nodemend-detector";

pub(super) async fn alone() -> anyhow::Result<()> {
    let control_plane = ControlPlane::start().await?;
    for manifest in ["deploy/rbac/detector.yaml", "deploy/admission"] {
        control_plane.apply(&repo().join(manifest)).await?;
    }
    for name in [OWN, OTHER] {
        create(&control_plane.admin(), name).await?;
    }
    let bound = control_plane
        .kubeconfig_on_node(NAMESPACE, ACCOUNT, OWN)
        .await?;
    in_force(&bound).await?;
    let client = client(&bound).await?;

    for ours in [json!("KernelReady"), json!("NodemendStorageReady")] {
        let patch = conditions(&json!([{"type": ours, "status": "True", "reason": "A"}]));
        write(&client, OWN, &patch).await?;
        let gone = conditions(&json!([{"type": ours, "$patch": "delete"}]));
        write(&client, OWN, &gone).await?;
    }
    let healthy = conditions(&json!([{"type": "KernelReady", "status": "True"}]));
    refused(
        &client,
        OTHER,
        &healthy,
        "the detector of node own-node may not write to node other-node",
    )
    .await?;
    let status = |field: &str, value: Value| json!({"status": {field: value}});
    let others = "may not change the conditions of others";
    let metadata = "may not change the labels, annotations or other metadata";
    let rest = "may not change anything in the status of a Node but conditions";
    let cases = [
        (
            conditions(&json!([{"type": "Ready", "status": "False"}])),
            others,
        ),
        (
            conditions(&json!([{"type": "Ready", "$patch": "delete"}])),
            others,
        ),
        (
            conditions(&json!([{"type": "MemoryPressure", "status": "True"}])),
            others,
        ),
        (
            conditions(&json!([{"type": "NotKernelReady", "status": "True"}])),
            others,
        ),
        (json!({"metadata": {"labels": {"a": "b"}}}), metadata),
        (json!({"metadata": {"labels": {"there": null}}}), metadata),
        (json!({"metadata": {"annotations": {"a": "b"}}}), metadata),
        (
            json!({"metadata": {"finalizers": ["example.test/a"]}}),
            metadata,
        ),
        (
            status(
                "addresses",
                json!([{"type": "InternalIP", "address": "10.0.0.9"}]),
            ),
            rest,
        ),
        (status("capacity", json!({"cpu": "64"})), rest),
        (status("allocatable", json!({"cpu": null})), rest),
        (status("nodeInfo", json!({"bootID": "another"})), rest),
        (status("volumesInUse", json!(["a"])), rest),
        // Beside a change that it may make.
        (
            json!({"metadata": {"labels": {"a": "b"}}, "status": healthy["status"]}),
            metadata,
        ),
    ];
    for (patch, says) in cases {
        refused(&client, OWN, &patch, says).await?;
    }

    // A token of no Pod, as a person makes it: it may not write anywhere.
    let loose = control_plane
        .kubeconfig_for_service_account(NAMESPACE, ACCOUNT)
        .await?;
    refused(
        &self::client(&loose).await?,
        OWN,
        &healthy,
        "its token is bound to none",
    )
    .await?;

    // Were RBAC to let it patch Nodes, admission would not.
    grant_nodes(&control_plane.admin()).await?;
    for (patch, says) in [
        (
            json!({"spec": {"unschedulable": true}}),
            "may not change the spec",
        ),
        (
            json!({"spec": {"taints": [{"key": "a", "effect": "NoSchedule"}]}}),
            "may not change the spec",
        ),
        (json!({"metadata": {"labels": {"a": "b"}}}), metadata),
    ] {
        until(
            Duration::from_secs(10),
            "the rule is in force",
            async || {
                let nodes: Api<Node> = Api::all(client.clone());
                let said = nodes
                    .patch(OWN, &PatchParams::default(), &Patch::Strategic(&patch))
                    .await;
                let said = said.err().context("it may")?.to_string();
                Ok(said.contains(says).then_some(()))
            },
        )
        .await?;
    }

    // Others are not its business.
    let admin = control_plane.admin();
    write(
        &admin,
        OTHER,
        &conditions(&json!([{"type": "Ready", "status": "False"}])),
    )
    .await?;

    // And a real one lives with it.
    let mut agent = Agent::start(&bound, OWN, &[])?;
    agent.wait_ready().await?;
    let mut astray = Agent::start(&bound, OTHER, &[])?;
    astray
        .wait_complaint(&["may not write to node other-node"])
        .await
        .map(drop)
}

async fn create(client: &Client, name: &str) -> anyhow::Result<()> {
    let node: Node = serde_json::from_value(json!({
        "metadata": {"name": name, "labels": {"there": "before"}, "annotations": {"there": "before"}},
    }))
    .context("write a Node")?;
    let nodes: Api<Node> = Api::all(client.clone());
    nodes
        .create(&PostParams::default(), &node)
        .await
        .context("create a Node")?;
    let mut status = conditions(&json!([{"type": "Ready", "status": "True"}]));
    status["status"]["addresses"] = json!([{"type": "InternalIP", "address": "10.0.0.1"}]);
    status["status"]["capacity"] = json!({"cpu": "4", "memory": "16Gi"});
    status["status"]["allocatable"] = json!({"cpu": "4", "memory": "16Gi"});
    status["status"]["images"] = json!([{"names": ["example.test/main:1"], "sizeBytes": 1}]);
    write(client, name, &status).await
}

/// A moment passes between a policy and its effect.
async fn in_force(kubeconfig: &Path) -> anyhow::Result<()> {
    let client = client(kubeconfig).await?;
    let patch = json!({"metadata": {"annotations": {"tried": "true"}}});
    until(
        Duration::from_secs(20),
        "the policy is in force",
        async || Ok(write(&client, OTHER, &patch).await.is_err().then_some(())),
    )
    .await
}

async fn write(client: &Client, node: &str, patch: &Value) -> anyhow::Result<()> {
    let nodes: Api<Node> = Api::all(client.clone());
    nodes
        .patch_status(node, &PatchParams::default(), &Patch::Strategic(patch))
        .await
        .with_context(|| format!("write {patch} to {node}"))?;
    Ok(())
}

async fn refused(client: &Client, node: &str, patch: &Value, says: &str) -> anyhow::Result<()> {
    let Err(error) = write(client, node, patch).await else {
        anyhow::bail!("{patch} went through on {node}");
    };
    let error = format!("{error:#}");
    ensure!(error.contains(says), "{patch} on {node}: {error}");
    Ok(())
}

async fn client(kubeconfig: &Path) -> anyhow::Result<Client> {
    nodemend_tests::control_plane::client(kubeconfig).await
}

fn conditions(list: &Value) -> Value {
    json!({"status": {"conditions": list}})
}

async fn grant_nodes(client: &Client) -> anyhow::Result<()> {
    use k8s_openapi::api::rbac::v1::ClusterRole;
    let roles: Api<ClusterRole> = Api::all(client.clone());
    let rule = json!([{"op": "add", "path": "/rules/-", "value":
        {"apiGroups": [""], "resources": ["nodes"], "verbs": ["patch"]}}]);
    let patch = serde_json::from_value(rule).context("write a patch")?;
    roles
        .patch(
            ACCOUNT,
            &PatchParams::default(),
            &Patch::<ClusterRole>::Json(patch),
        )
        .await
        .context("add a rule")?;
    Ok(())
}
