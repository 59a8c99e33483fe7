//! Objects of another release: of the first one under today's CRDs, and of a later one, with its CRDs,
//! before today's repairer.

use std::fs;

use anyhow::{Context, ensure};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{DynamicObject, Patch, PatchParams, PostParams};
use nodemend_tests::control_plane::ControlPlane;
use nodemend_tests::repo;
use nodemend_tests::wait::until;
use serde_json::{Value, json};

use super::scene::{Scene, custom};
use crate::suite::SOON;

const STATUS: &str = "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties";
const SPEC: &str = "/spec/versions/0/schema/openAPIV3Schema/properties/spec/properties";

/// `repairer/src/api/first_release` is read and written again by the repairer's unit tests.
pub(crate) async fn first_release() -> anyhow::Result<()> {
    let control_plane = ControlPlane::start().await?;
    control_plane.apply(&repo().join("deploy/crds")).await?;
    for (kind, plural) in [
        ("NodeRepair", "noderepairs"),
        ("RepairPolicy", "repairpolicies"),
    ] {
        let file = format!(
            "repairer/src/api/first_release/{}.json",
            kind.to_lowercase()
        );
        let text =
            fs::read_to_string(repo().join(&file)).with_context(|| format!("read {file}"))?;
        let first: Value = serde_json::from_str(&text).with_context(|| format!("parse {file}"))?;
        let api = custom(control_plane.admin(), kind, plural);
        let object: DynamicObject =
            serde_json::from_value(first.clone()).context("read an object")?;
        let created = api.create(&PostParams::default(), &object).await?;
        let name = created.metadata.name.clone().unwrap_or_default();
        if first["status"].is_object() {
            let data = json!({"spec": first["spec"], "status": first["status"]});
            let object = DynamicObject { data, ..created };
            api.replace_status(&name, &PostParams::default(), &object)
                .await?;
        }
        let stored = api.get(&name).await?.data;
        for part in ["spec", "status"] {
            ensure!(
                stored[part] == first[part],
                "{kind} {part} is {} and was {}",
                stored[part],
                first[part]
            );
        }
    }
    Ok(())
}

pub(crate) async fn rolled_back() -> anyhow::Result<()> {
    let scene = Scene::start(4).await?;
    let crds: Api<CustomResourceDefinition> = Api::all(scene.control_plane.admin());
    let add = |path: String, value: Value| json!({"op": "add", "path": path, "value": value});
    let tomorrow = json!({"type": "string"});
    let changes = [
        (
            "noderepairs.nodemend.dev",
            json!([
                add(format!("{STATUS}/tomorrow"), tomorrow.clone()),
                add(format!("{STATUS}/phase/enum/-"), json!("Tomorrow")),
            ]),
        ),
        (
            "repairpolicies.nodemend.dev",
            json!([add(format!("{SPEC}/tomorrow"), tomorrow)]),
        ),
    ];
    for (name, patch) in changes {
        let patch = serde_json::from_value(patch).context("write a patch")?;
        let patch = Patch::<CustomResourceDefinition>::Json(patch);
        crds.patch(name, &PatchParams::default(), &patch)
            .await
            .with_context(|| format!("make {name} newer"))?;
    }
    // What a CRD has got takes a moment to be served.
    until(SOON, "a policy with a new field", async || {
        scene
            .set_policy(&json!({"mode": "Enforce", "tomorrow": "x"}))
            .await?;
        let policies = custom(
            scene.control_plane.admin(),
            "RepairPolicy",
            "repairpolicies",
        );
        let stored = policies.get("workers").await?.data;
        Ok((stored["spec"]["tomorrow"] == "x").then_some(()))
    })
    .await?;
    let _repairer = scene.repairer("a")?;
    let _sick = scene.sicken("node-0").await?;
    scene.wait_outcome("node-0", "Succeeded").await?;

    let repairs = custom(scene.control_plane.admin(), "NodeRepair", "noderepairs");
    let later = json!({
        "apiVersion": "nodemend.dev/v1alpha1", "kind": "NodeRepair", "metadata": {"name": "later"},
        "spec": {"nodeRef": {"name": "node-2", "uid": "u"}, "action": "Replace"},
    });
    let later = serde_json::from_value(later).context("write a record")?;
    repairs.create(&PostParams::default(), &later).await?;
    let status = Patch::Merge(json!({"status": {"phase": "Tomorrow", "tomorrow": "x"}}));
    repairs
        .patch_status("later", &PatchParams::default(), &status)
        .await?;
    let calls = scene.terminate_calls();
    let _sick = scene.sicken("node-1").await?;
    let why = scene.wait_hold("node-1", "Unreadable").await?;
    ensure!(
        why.contains("NodeRepair later") && why.contains("Tomorrow"),
        "{why}"
    );
    ensure!(scene.terminate_calls() == calls, "a node was terminated");
    Ok(())
}
