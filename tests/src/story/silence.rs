//! The second act: three of ten nodes fall silent at once. That is not three broken nodes, so the
//! repairer holds; when two report again, the third is repaired, alone.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::core::v1::Node;
use kube::Api;
use tokio::time::Instant;

use super::policy::Repair;
use super::replacement::{Told, terminations};
use super::screen::{Screen, printable, seconds};
use super::stage::Stage;
use crate::wait::until;

/// All of its nodes, whoever plays their kubelets.
pub(super) const LABEL: (&str, &str) = ("nodemend.dev/demo", "fleet");
const GROUP: &str = "fleet";
const ZONES: [&str; 10] = [
    "us-west-2a",
    "us-west-2b",
    "us-west-2a",
    "us-west-2b",
    "us-west-2a",
    "us-west-2b",
    "us-west-2a",
    "us-west-2b",
    "us-west-2a",
    "us-west-2b",
];
/// It does not come back.
pub(super) const CANARY: &str = "nodemend-fleet-1";
const SILENT: [&str; 3] = [CANARY, "nodemend-fleet-2", "nodemend-fleet-3"];
/// The node controller of a cluster that was there before takes its time.
const IN_TIME: Duration = Duration::from_secs(120);

pub(super) struct Silence {
    told: Told,
    began: Instant,
    /// Of the one that stays silent.
    instance: String,
}

/// Ten nodes of a group of their own; then three kubelets stop.
pub(super) async fn begin(stage: &mut Stage, screen: &Screen) -> anyhow::Result<Silence> {
    stage.stop_the_world();
    let instances = stage.cloud.create_group(GROUP, &ZONES);
    let labels = BTreeMap::from([(LABEL.0.to_owned(), LABEL.1.to_owned())]);
    let ready = async {
        let nodes = (1..).zip(instances.iter().zip(ZONES));
        for (number, (instance, zone)) in nodes {
            let name = format!("nodemend-fleet-{number}");
            let fleet = &stage.fleet;
            fleet
                .create_labelled_node(&name, instance, zone, &labels)
                .await?;
        }
        stage
            .fleet
            .wait_ready(stage.cloud.instances().len())
            .await?;
        stage.records.create_fleet_policy(LABEL).await
    };
    let what = format!("10 more Nodes, of the group `{GROUP}`, with an enabled RepairPolicy");
    screen.step(&what, ready).await?;
    stage.start_the_world();
    for node in SILENT {
        stage.fleet.lose_node(node).await?;
    }
    screen.done("three of their kubelets stop; more of that below");
    Ok(Silence {
        told: Told::since_now("the nodes that fell silent"),
        began: Instant::now(),
        instance: instances.into_iter().next().context("no instance")?,
    })
}

pub(super) async fn follow(
    stage: &Stage,
    silence: Silence,
    screen: &Screen,
) -> anyhow::Result<Told> {
    let Silence {
        mut told,
        began,
        instance,
    } = silence;
    let calls = terminations(stage).len();
    let since = seconds(began.elapsed());
    let what = format!("held: their kubelets stopped {since} ago, and nothing was touched");
    let held = screen.step(&what, stage.repairer.while_running(held(stage)));
    screen.note(&printable(&held.await?));
    told.step("three nodes are held");
    untouched(stage).await?;

    let [canary, back @ ..] = SILENT;
    for node in back {
        stage.fleet.recover_node(node).await?;
    }
    let recovered = async {
        for node in back {
            let what = format!("{node} has recovered");
            outcome(stage, node, &what, "Recovered").await?;
        }
        Ok(())
    };
    screen
        .step(
            "two kubelets start again: their repairs are over",
            recovered,
        )
        .await?;
    told.step("two have recovered");
    let replaced = outcome(stage, canary, "the canary is replaced", "Succeeded");
    let what = format!("the breaker opens for one canary: {canary} is replaced");
    screen
        .step(&what, stage.repairer.while_running(replaced))
        .await?;
    told.step("one canary is replaced");
    let made = &terminations(stage)[calls..];
    let of = |call: &crate::cloud::Call| call.params.get("InstanceId") == Some(&instance);
    ensure!(
        made.len() == 1 && made.iter().all(of),
        "not only {canary} was terminated: {made:?}"
    );
    Ok(told)
}

/// Waits until all three are held by the share of their group, and two of them also by what they have
/// in common; returns the reason.
async fn held(stage: &Stage) -> anyhow::Result<String> {
    const SHARE: &str = "UnhealthyThreshold";
    let mut said = String::new();
    let all_held = async || {
        for node in SILENT {
            let hold = stage.records.repair(node).await?.and_then(|r| r.hold);
            match hold {
                Some(hold) if hold.gate == SHARE && hold.message.starts_with("3 of 10") => {
                    said = hold.message;
                }
                Some(hold)
                    if hold.gate == "Correlated" && hold.behind.iter().any(|g| g == SHARE) => {}
                Some(_) | None => return Ok(None),
            }
        }
        Ok((!said.is_empty()).then_some(()))
    };
    let what = format!("three nodes are held by {SHARE}");
    until(IN_TIME, &what, all_held).await?;
    Ok(said)
}

async fn untouched(stage: &Stage) -> anyhow::Result<()> {
    let nodes: Api<Node> = Api::all(stage.client.clone());
    for name in SILENT {
        let node = nodes.get(name).await.context("get the node")?;
        let cordoned = node.spec.and_then(|spec| spec.unschedulable);
        ensure!(cordoned != Some(true), "{name} was cordoned");
    }
    Ok(())
}

async fn outcome(stage: &Stage, node: &str, what: &str, wanted: &str) -> anyhow::Result<()> {
    let of = |repair: Option<Repair>| repair.and_then(|repair| repair.outcome);
    until(IN_TIME, what, async || {
        let outcome = of(stage.records.repair(node).await?);
        ensure!(
            outcome.as_deref().is_none_or(|outcome| outcome == wanted),
            "the repair of {node} ended as {outcome:?}"
        );
        Ok(outcome.map(drop))
    })
    .await
}
