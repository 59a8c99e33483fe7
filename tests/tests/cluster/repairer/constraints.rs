//! Every constraint of the CRD, broken one at a time: the API server refuses it, and `check` says the
//! same without an API server.

use std::collections::BTreeSet;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::PostParams;
use nodemend_tests::control_plane::ControlPlane;
use nodemend_tests::daemon::Daemon;
use nodemend_tests::repo;
use serde_json::{Value, json};

use super::scene::custom;

const SOON: Duration = Duration::from_secs(20);

/// A spec, and what is wrong with it.
struct Case {
    spec: Value,
    broken: String,
}

/// One of everything.
fn sound() -> Value {
    json!({
        "selector": {
            "matchLabels": {"a": "b"},
            "matchExpressions": [{"key": "a", "operator": "In", "values": ["b"]}],
        },
        "groupBy": {"type": "Label", "label": "a"},
        "unhealthyThreshold": {"percentage": 20},
        "parallel": {"count": 1},
        "maintenanceWindows": [{"schedule": "0 2 * * *", "duration": "1h", "timeZone": "Europe/Berlin"}],
        "rules": [{
            "nodeMonitoringCondition": "KernelReady",
            "nodeUnhealthyReason": "SoftLockup",
            "status": ["False"],
            "minRepairWaitTime": "30m",
            "repairActions": ["Replace"],
        }],
    })
}

/// For each of the CRD's own rules a spec that breaks it.
fn against_rules() -> Vec<(&'static str, Value)> {
    let with = |key: &str, value: Value| {
        let mut spec = sound();
        spec[key] = value;
        spec
    };
    let rule = |key: &str, value: Value| {
        let mut spec = sound();
        spec["rules"][0][key] = value;
        spec
    };
    let mut no_status = rule("nodeMonitoringCondition", json!("DiskPressure"));
    no_status["rules"][0]
        .as_object_mut()
        .unwrap()
        .remove("status");
    vec![
        (
            "groupBy.type Label needs groupBy.label, and only that does",
            with("groupBy", json!({"type": "Auto", "label": "a"})),
        ),
        (
            "set percentage or count, not both",
            with("unhealthyThreshold", json!({"percentage": 20, "count": 3})),
        ),
        (
            "set count or percentageOfUnhealthy, not both",
            with("parallel", json!({"count": 1, "percentageOfUnhealthy": 50})),
        ),
        (
            "the operators In and NotIn need values, and only they do",
            with(
                "selector",
                json!({"matchExpressions": [{"key": "a", "operator": "Exists", "values": ["b"]}]}),
            ),
        ),
        (
            "a window lasts for longer than 0s, and for 168h at most",
            with(
                "maintenanceWindows",
                json!([{"schedule": "0 2 * * *", "duration": "169h"}]),
            ),
        ),
        (
            "NoAction cannot be combined with another action",
            rule("repairActions", json!(["NoAction", "Replace"])),
        ),
        (
            "status is required for a condition whose type does not end in Ready: is True good or bad?",
            no_status,
        ),
    ]
}

/// The messages of all rules below a schema.
fn rules(schema: &Value, found: &mut BTreeSet<String>) {
    match schema {
        Value::Object(fields) => {
            for rule in fields
                .get("x-kubernetes-validations")
                .into_iter()
                .flat_map(|r| r.as_array())
                .flatten()
            {
                found.extend(rule["message"].as_str().map(str::to_owned));
            }
            fields.values().for_each(|value| rules(value, found));
        }
        Value::Array(items) => items.iter().for_each(|value| rules(value, found)),
        Value::Null | Value::Bool(_) | Value::Number(_) | Value::String(_) => {}
    }
}

/// For each constraint of a schema, at `pointer` of the sound spec, a value that breaks it.
fn against_schema(schema: &Value, pointer: &str, cases: &mut Vec<Case>) {
    let mut case = |what: &str, value: Value| {
        let mut spec = sound();
        let pointer = pointer.to_owned();
        place(&mut spec, &pointer, value);
        cases.push(Case {
            spec,
            broken: format!("{pointer}: {what}"),
        });
    };
    let number = |key: &str| schema[key].as_i64();
    if let Some(least) = number("minimum") {
        case("minimum", json!(least - 1));
    }
    if let Some(most) = number("maximum") {
        case("maximum", json!(most + 1));
    }
    let text = |length: i64| json!("a".repeat(usize::try_from(length).unwrap_or_default()));
    if let Some(least) = number("minLength") {
        case("minLength", text(least - 1));
    }
    if let Some(most) = number("maxLength") {
        case("maxLength", text(most + 1));
    }
    if schema["pattern"].is_string() {
        case("pattern", json!("not ? like this"));
    }
    if schema["enum"].is_array() {
        case("enum", json!("Explode"));
    }
    match schema["type"].as_str() {
        Some("integer" | "boolean" | "array" | "object") => case("type", json!("text")),
        Some("string") => case("type", json!(7)),
        _ => {}
    }
    if let Some(most) = number("maxProperties") {
        let many = (0..=most).map(|index| (format!("l{index}"), json!("x")));
        case("maxProperties", Value::Object(many.collect()));
    }
    let there = sound();
    let there = there.pointer(pointer).cloned();
    if let Some(items) = there.as_ref().and_then(Value::as_array) {
        if number("minItems").is_some_and(|least| least > 0) {
            case("minItems", json!([]));
        }
        if let Some(most) = number("maxItems") {
            let count = usize::try_from(most + 1).unwrap_or_default();
            case("maxItems", Value::Array(vec![items[0].clone(); count]));
        }
        if schema["x-kubernetes-list-type"] == "set" {
            case("set", json!([items[0], items[0]]));
        }
        against_schema(&schema["items"], &format!("{pointer}/0"), cases);
    }
    for name in schema["required"].as_array().into_iter().flatten() {
        let mut spec = sound();
        let name = name.as_str().unwrap_or_default();
        let parent = spec.pointer_mut(pointer).and_then(Value::as_object_mut);
        parent.map(|parent| parent.remove(name));
        cases.push(Case {
            spec,
            broken: format!("{pointer}/{name}: required"),
        });
    }
    for (name, property) in schema["properties"].as_object().into_iter().flatten() {
        against_schema(property, &format!("{pointer}/{name}"), cases);
    }
}

/// Makes what is missing on the way.
fn place(spec: &mut Value, pointer: &str, value: Value) {
    let mut at = spec;
    for key in pointer.split('/').skip(1) {
        at = match key.parse::<usize>() {
            Ok(index) if at.is_array() => &mut at[index],
            Ok(_) | Err(_) => &mut at[key],
        };
    }
    *at = value;
}

/// What `check` says: one `path: message` each.
async fn check(folder: &Path, number: usize, spec: &Value) -> anyhow::Result<Vec<String>> {
    let file = folder.join(format!("{number}.yaml"));
    let object = json!({"kind": "RepairPolicy", "metadata": {"name": "wrong"}, "spec": spec});
    std::fs::write(&file, object.to_string()).context("write a policy")?;
    let file = file.display().to_string();
    let mut checking = Daemon::start(
        "nodemend-repairer",
        &["check", "--policy", &file, "-o", "json"],
        &[],
    )?;
    let status = checking.wait_exit(SOON)?;
    let said = checking.output().await;
    let said: Value = serde_json::from_str(&said).with_context(|| format!("read {said}"))?;
    let rows = said["rows"].as_array().cloned().unwrap_or_default();
    let errors = rows.iter().filter(|row| row["state"] == "error");
    let errors: Vec<_> = errors
        .filter_map(|row| row["message"].as_str().map(str::to_owned))
        .collect();
    ensure!(errors.is_empty() == status.success(), "{status}: {said}");
    Ok(errors)
}

pub(crate) async fn every_one() -> anyhow::Result<()> {
    let control_plane = ControlPlane::start().await?;
    control_plane.apply(&repo().join("deploy/crds")).await?;
    let folder = tempfile::tempdir().context("make a folder")?;
    let crds: Api<CustomResourceDefinition> = Api::all(control_plane.admin());
    let crd = crds.get("repairpolicies.nodemend.dev").await?;
    let crd = serde_json::to_value(&crd.spec.versions[0].schema).context("read the schema")?;
    let schema = &crd["openAPIV3Schema"]["properties"]["spec"];

    let mut cases = Vec::new();
    against_schema(schema, "", &mut cases);
    ensure!(
        cases.len() > 120,
        "only {} constraints were found",
        cases.len()
    );
    let mut known = BTreeSet::new();
    rules(schema, &mut known);
    let against_rules = against_rules();
    let messages = against_rules
        .iter()
        .map(|(message, _)| (*message).to_owned());
    ensure!(
        known == messages.collect(),
        "these rules are there: {known:?}"
    );
    cases.extend(against_rules.into_iter().map(|(message, spec)| Case {
        spec,
        broken: message.to_owned(),
    }));

    let policies = custom(control_plane.admin(), "RepairPolicy", "repairpolicies");
    let dry = PostParams {
        dry_run: true,
        ..PostParams::default()
    };
    let create = async |spec: &Value| {
        let object = json!({
            "apiVersion": "nodemend.dev/v1alpha1", "kind": "RepairPolicy", "metadata": {"name": "wrong"}, "spec": spec,
        });
        let object = serde_json::from_value(object).context("write a policy")?;
        anyhow::Ok(policies.create(&dry, &object).await.map(drop))
    };
    create(&sound())
        .await?
        .context("the sound one is refused")?;
    ensure!(check(folder.path(), 0, &sound()).await?.is_empty());

    let mut wrong = Vec::new();
    for (number, case) in (1..).zip(&cases) {
        let Err(refusal) = create(&case.spec).await? else {
            wrong.push(format!("{}: the API server takes it", case.broken));
            continue;
        };
        let refusal = refusal.to_string();
        let said = check(folder.path(), number, &case.spec).await?;
        // Of a path and a message, both are in the API server's words, with its own between them.
        let same = |said: &String| {
            let parts = said.split("; ").filter_map(|part| part.split_once(": "));
            parts
                .into_iter()
                .any(|(path, message)| refusal.contains(path) && refusal.contains(message))
        };
        if !said.iter().any(same) {
            wrong.push(format!(
                "{}: check says {said:?}, the API server {refusal}",
                case.broken
            ));
        }
    }
    ensure!(
        wrong.is_empty(),
        "{} of {} differ:\n{}",
        wrong.len(),
        cases.len(),
        wrong.join("\n")
    );
    Ok(())
}
