//! What is told of a decision: Events, metrics, and the log.

use std::time::Duration;

use anyhow::{Context, ensure};
use axum::http::Request;
use k8s_openapi::api::events::v1::Event;
use k8s_openapi::api::rbac::v1::RoleBinding;
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use nodemend_tests::daemon::Daemon;
use nodemend_tests::wait::until;
use serde_json::{Value, json};

use super::scene::{REPAIRED, Scene};
use crate::detector::http::get;

const SOON: Duration = Duration::from_secs(20);

/// Kind of what they are about, and their reason.
async fn events(scene: &Scene) -> anyhow::Result<Vec<Event>> {
    let api: Api<Event> = Api::namespaced(scene.control_plane.admin(), "default");
    let events = api.list(&ListParams::default()).await?.items;
    let own =
        |event: &Event| event.reporting_controller.as_deref() == Some("nodemend.dev/repairer");
    Ok(events.into_iter().filter(own).collect())
}

fn about<'a>(events: &'a [Event], kind: &str, reason: &str) -> Vec<&'a Event> {
    let matches = |event: &&Event| {
        let object = event
            .regarding
            .as_ref()
            .and_then(|object| object.kind.as_deref());
        object == Some(kind) && event.reason.as_deref() == Some(reason)
    };
    events.iter().filter(matches).collect()
}

/// A repairer with its pages on a port of its own.
async fn with_pages(scene: &Scene) -> anyhow::Result<(Daemon, String)> {
    let mut repairer = scene.repairer_with("a", &["--http-address", "127.0.0.1:0"])?;
    let serving = |line: &Value| line["message"] == "serving /metrics and /healthz";
    let line = repairer.wait_for_log(SOON, serving).await?;
    let address = line["address"].as_str().context("read the address")?;
    Ok((repairer, address.to_owned()))
}

pub(crate) async fn whole() -> anyhow::Result<()> {
    let scene = Scene::start(4).await?;
    // Longer than a busy machine needs for a pass: the wait is a decision that is to be told.
    scene
        .set_policy(&json!({"mode": "Enforce", "rules": [
            {"nodeMonitoringCondition": "StorageReady", "minRepairWaitTime": "8s", "repairActions": ["Replace"]},
        ]}))
        .await?;
    let (mut repairer, address) = with_pages(&scene).await?;
    let (status, _) = get(&address, "/healthz").await?;
    ensure!(status.ends_with("200 OK"), "{status}");
    let sick = scene.sicken("node-0").await?;
    let repair = scene.wait_outcome("node-0", "Succeeded").await?;
    drop(sick);

    let told = until(SOON, "the end is told on both", async || {
        let events = events(&scene).await?;
        let there = |kind| !about(&events, kind, "RepairSucceeded").is_empty();
        Ok((there("Node") && there("NodeRepair")).then_some(events))
    })
    .await?;
    for reason in [
        "RepairWaiting",
        "NodeCordoned",
        "NodeDraining",
        "NodeDrained",
        "NodeReplacing",
    ] {
        for kind in ["Node", "NodeRepair"] {
            let found = about(&told, kind, reason).len();
            ensure!(found == 1, "{found} Events {reason} on {kind}");
        }
    }
    let uid = repair["metadata"]["uid"].as_str().context("read a UID")?;
    let on_record = about(&told, "NodeRepair", "RepairSucceeded");
    let regarding = on_record[0].regarding.clone().unwrap_or_default();
    ensure!(regarding.uid.as_deref() == Some(uid), "{regarding:?}");
    let held = about(&told, "Node", "RepairHeld");
    let held = held.iter().filter_map(|event| event.note.as_deref());
    // The wait may end between two heartbeats.
    let held: Vec<_> = held
        .filter(|note| !note.starts_with("SignalStale: StorageReady has not been confirmed since"))
        .collect();
    ensure!(held.is_empty(), "held by something unusual: {held:?}");

    let decided =
        |line: &Value| line["message"] == "decided" && line["outcome"] == "Some(Succeeded)";
    let line = repairer.wait_for_log(SOON, decided).await?;
    for field in [
        "repair", "node", "policy", "change", "phase", "action", "why",
    ] {
        ensure!(
            line[field].is_string(),
            "the line does not tell {field}: {line}"
        );
    }

    let (_, text) = get(&address, "/metrics").await?;
    for series in [
        "nodemend_repairer_leader 1",
        "nodemend_repairer_repairs_finished_total{action=\"Replace\",outcome=\"Succeeded\"} 1",
        "nodemend_repairer_holds_total{gate=\"WaitTime\"} 1",
        "nodemend_repairer_drain_duration_seconds_count 1",
        "nodemend_repairer_repair_duration_seconds_count{outcome=\"Succeeded\"} 1",
        "nodemend_repairer_cloud_calls_total{api=\"TerminateInstanceInAutoScalingGroup\",result=\"ok\"} 1",
        "nodemend_repairer_nodes 4",
    ] {
        ensure!(
            text.contains(&format!("{series}\n")),
            "no {series} in\n{text}"
        );
    }
    for family in [
        "last_decision_timestamp_seconds",
        "cloud_calls_total{api=\"DescribeInstances\"",
    ] {
        ensure!(
            text.contains(&format!("nodemend_repairer_{family}")),
            "{text}"
        );
    }
    Ok(())
}

/// What `kubectl get noderepairs` shows.
pub(crate) async fn columns() -> anyhow::Result<()> {
    let scene = Scene::start(4).await?;
    scene
        .set_policy(&json!({"mode": "Enforce", "rules": [
            {"nodeMonitoringCondition": "StorageReady", "minRepairWaitTime": "10m", "repairActions": ["Replace"]},
        ]}))
        .await?;
    let _repairer = scene.repairer("a")?;
    let _sick = scene.sicken("node-0").await?;
    let waits = |repair: &Value| {
        let status = &repair["status"];
        status["phase"] == "Waiting" && status["hold"]["gate"] == "WaitTime"
    };
    scene
        .wait_repair("node-0", "cordoned, and waiting", waits)
        .await?;
    let request = Request::get("/apis/nodemend.dev/v1alpha1/noderepairs")
        .header("Accept", "application/json;as=Table;v=v1;g=meta.k8s.io")
        .body(Vec::new())?;
    let table: Value = scene.control_plane.admin().request(request).await?;
    let cells = table["rows"][0]["cells"].as_array().context("no row")?;
    let columns = table["columnDefinitions"]
        .as_array()
        .context("no columns")?;
    let of = |priority: u64| {
        let named = columns
            .iter()
            .zip(cells)
            .filter(|(column, _)| column["priority"] == priority);
        let shown = named.filter(|(column, _)| column["name"] != "Name" && column["name"] != "Age");
        let shown = shown.map(|(column, cell)| match cell.as_str() {
            Some(cell) if cell.starts_with("i-") => format!("{} i-", column["name"]),
            Some(cell) => format!("{} {cell}", column["name"]),
            None => format!("{}", column["name"]),
        });
        shown.collect::<Vec<_>>().join(", ").replace('"', "")
    };
    let story = "Node node-0, Reason FilesystemReadOnly, Action Replace, Phase Waiting, Gate WaitTime, Outcome";
    ensure!(of(0) == story, "{}", of(0));
    let wide = "Policy workers, Group workers, Instance i-, Trigger Auto, Replacement";
    ensure!(of(1) == wide, "{}", of(1));
    Ok(())
}

/// A finished record that nothing counts any more goes when more than so many are there.
pub(crate) async fn forgotten() -> anyhow::Result<()> {
    let scene = Scene::start(4).await?;
    scene
        .set_policy(&json!({"mode": "Enforce", "rules": [
            {"nodeMonitoringCondition": "StorageReady", "minRepairWaitTime": "10m", "repairActions": ["Replace"]},
        ]}))
        .await?;
    let _repairer = scene.repairer_with("a", &["--keep-repairs", "0"])?;
    let sick = scene.sicken("node-0").await?;
    scene.wait_hold("node-0", "WaitTime").await?;
    scene.heal("node-0", sick).await?;
    until(REPAIRED, "the record is forgotten", async || {
        Ok(scene.repairs_of("node-0").await?.is_empty().then_some(()))
    })
    .await?;
    let node = scene.nodes().get("node-0").await?.spec.unwrap_or_default();
    ensure!(node.unschedulable != Some(true), "it is still cordoned");
    Ok(())
}

pub(crate) async fn series() -> anyhow::Result<()> {
    let scene = Scene::start(4).await?;
    scene
        .set_policy(&json!({"mode": "Enforce", "rules": [
            {"nodeMonitoringCondition": "StorageReady", "minRepairWaitTime": "10m", "repairActions": ["Replace"]},
        ]}))
        .await?;
    let (_repairer, address) = with_pages(&scene).await?;
    let _sick = scene.sicken("node-0").await?;
    for _ in 0..3 {
        scene.wait_hold("node-0", "WaitTime").await?;
        scene
            .set_policy(&json!({"mode": "Enforce", "paused": true}))
            .await?;
        scene.wait_hold("node-0", "Paused").await?;
        // As of the decision after the one that has held it.
        until(SOON, "the hold is in the metrics", async || {
            let (_, text) = get(&address, "/metrics").await?;
            let held = "nodemend_repairer_held_nodes{gate=\"Paused\"} 1\n";
            Ok(text.contains(held).then_some(()))
        })
        .await?;
        scene
            .set_policy(&json!({"mode": "Enforce", "paused": false, "rules": [
                {"nodeMonitoringCondition": "StorageReady", "minRepairWaitTime": "10m", "repairActions": ["Replace"]},
            ]}))
            .await?;
    }
    let counted = async || {
        let events = events(&scene).await?;
        let held = about(&events, "Node", "RepairHeld");
        ensure!(held.len() <= 1, "{} Events for one hold", held.len());
        let series = held.first().and_then(|event| event.series.as_ref());
        let stopped = about(&events, "RepairPolicy", "RepairStopped");
        let stopped = stopped.first().and_then(|event| event.series.as_ref());
        let three = |series: Option<&k8s_openapi::api::events::v1::EventSeries>| {
            series.is_some_and(|series| series.count == 3)
        };
        Ok((three(series) && three(stopped)).then_some(()))
    };
    until(SOON, "three holds are one Event", counted).await
}

pub(crate) async fn refused() -> anyhow::Result<()> {
    let scene = Scene::start(3).await?;
    let bindings: Api<RoleBinding> = Api::namespaced(scene.control_plane.admin(), "default");
    bindings
        .delete("nodemend-repairer-events", &DeleteParams::default())
        .await?;
    let (mut repairer, address) = with_pages(&scene).await?;
    let _sick = scene.sicken("node-0").await?;
    scene.wait_outcome("node-0", "Succeeded").await?;
    let dropped = |line: &Value| line["message"] == "an Event was dropped";
    let line = repairer.wait_for_log(REPAIRED, dropped).await?;
    ensure!(line.to_string().contains("(403)"), "{line}");
    ensure!(events(&scene).await?.is_empty());
    let (_, text) = get(&address, "/metrics").await?;
    ensure!(
        text.contains("nodemend_repairer_events_total{became=\"dropped\"}"),
        "{text}"
    );
    Ok(())
}
