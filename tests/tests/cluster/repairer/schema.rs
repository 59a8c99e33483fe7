//! What the API server says of policies, before the repairer sees them.

use anyhow::{Context, ensure};
use kube::api::{Patch, PatchParams};
use nodemend_tests::control_plane::ControlPlane;
use nodemend_tests::repo;
use serde_json::{Value, json};

use super::scene::custom;

pub(crate) async fn refused() -> anyhow::Result<()> {
    let control_plane = ControlPlane::start().await?;
    control_plane.apply(&repo().join("deploy/crds")).await?;
    let policies = custom(control_plane.admin(), "RepairPolicy", "repairpolicies");
    let storage = json!({"nodeMonitoringCondition": "StorageReady", "minRepairWaitTime": "30m", "repairActions": ["Replace"]});
    let with = |key: &str, value: Value| {
        let mut spec = json!({"selector": {}, "rules": [storage.clone()]});
        spec[key] = value;
        spec
    };
    let rule = |key: &str, value: Value| {
        let mut rule = storage.clone();
        rule[key] = value;
        with("rules", json!([rule]))
    };
    let cases = [
        (with("unhealthyTreshold", json!({})), "unhealthyTreshold"),
        (with("mode", json!("On")), "spec.mode"),
        (with("rules", json!([])), "spec.rules"),
        (
            with("cordon", json!({"after": "soon"})),
            "spec.cordon.after",
        ),
        (with("parallel", json!({"count": 0})), "spec.parallel.count"),
        (
            with("unhealthyThreshold", json!({"percentage": 20, "count": 3})),
            "set percentage or count, not both",
        ),
        (
            with("unhealthyThreshold", json!({"percentage": 101})),
            "spec.unhealthyThreshold.percentage",
        ),
        (
            rule("minRepairWaitTime", json!("5 minutes")),
            "spec.rules[0].minRepairWaitTime",
        ),
        (
            rule("repairActions", json!(["Explode"])),
            "spec.rules[0].repairActions[0]",
        ),
        (
            rule("repairActions", json!(["NoAction", "Replace"])),
            "NoAction cannot be combined with another action",
        ),
        (
            with("parallel", json!({"count": 1, "percentageOfUnhealthy": 50})),
            "set count or percentageOfUnhealthy, not both",
        ),
        (
            with("groupBy", json!({"type": "Label"})),
            "groupBy.type Label needs groupBy.label, and only that does",
        ),
        (
            with(
                "maintenanceWindows",
                json!([{"schedule": "nightly", "duration": "1h"}]),
            ),
            "spec.maintenanceWindows[0].schedule",
        ),
        (
            rule("nodeMonitoringCondition", json!("DiskPressure")),
            "is True good or bad?",
        ),
    ];
    for (spec, named) in cases {
        let object = json!({
            "apiVersion": "nodemend.dev/v1alpha1", "kind": "RepairPolicy", "metadata": {"name": "wrong"}, "spec": spec,
        });
        let answer = policies
            .patch("wrong", &PatchParams::apply("test"), &Patch::Apply(&object))
            .await;
        let error = answer
            .err()
            .with_context(|| format!("was accepted: {spec}"))?
            .to_string();
        ensure!(error.contains(named), "does not name {named}: {error}");
    }
    Ok(())
}

pub(crate) async fn shipped() -> anyhow::Result<()> {
    let control_plane = ControlPlane::start().await?;
    control_plane.apply(&repo().join("deploy/crds")).await?;
    control_plane
        .apply(&repo().join("deploy/policy.yaml"))
        .await?;
    let policy = custom(control_plane.admin(), "RepairPolicy", "repairpolicies")
        .get("default")
        .await?;
    ensure!(
        policy.data["spec"]["mode"] == "Disabled",
        "{}",
        policy.data["spec"]
    );
    ensure!(
        policy.data["spec"]["unhealthyThreshold"]["percentage"] == 20,
        "{}",
        policy.data["spec"]
    );
    Ok(())
}
