//! The fault that a node does not survive, and its repair: each step must be seen to happen.

use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::apps::v1::Deployment;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::Api;
use kube::api::{Patch, PatchParams};
use serde_json::json;
use tokio::time::Instant;

use super::latency::Latency;
use super::replacement::{Patient, Told};
use super::screen::{Screen, printable};
use super::stage::{HOST, REPLICAS, SOON, Stage, WORKLOAD, runs_on};
use crate::wait::until;

/// With room for the eviction of one.
pub(super) const MORE_REPLICAS: u16 = REPLICAS + 1;

pub(super) async fn follow(
    stage: &mut Stage,
    disabled_for: Duration,
    latencies: &mut Vec<Latency>,
    screen: &Screen,
) -> anyhow::Result<Told> {
    let patient = Patient::admit(stage, HOST).await?;
    let mut told = Told::since_now("the repair");
    let sick = patient.falls_sick(
        &stage.client,
        &mut stage.detector,
        "StorageReady",
        ("file system read-only", stage.disk.turn_read_only()?),
        screen,
    );
    latencies.push(sick.await?.0);
    told.step("StorageReady is False");
    left_alone(stage, &patient, disabled_for, screen).await?;

    screen.line(&format!("  $ {}", stage.records.enable().await?));
    told.step("a person enables the policy");
    patient.becomes_cordoned(stage, &mut told, screen).await?;
    budget_blocks(stage, &patient, screen).await?;
    told.step("the PodDisruptionBudget blocks the drain");
    scale(stage).await?;
    screen.line(&format!(
        "  $ kubectl scale deployment {WORKLOAD} --replicas={MORE_REPLICAS}"
    ));
    told.step("a person makes room for the budget");
    patient.is_terminated(stage, &mut told, screen).await?;
    // Its host is gone.
    stage.detector.kill();
    patient
        .is_replaced(stage, MORE_REPLICAS, &mut told, screen)
        .await?;
    Ok(told)
}

/// A disabled policy records what it would have to wait for, and nothing is touched.
async fn left_alone(
    stage: &Stage,
    patient: &Patient,
    disabled_for: Duration,
    screen: &Screen,
) -> anyhow::Result<()> {
    let hold = stage.repairer.while_running(until(
        SOON,
        "a NodeRepair that is held by the gate Disabled",
        async || {
            let repair = stage.records.repair(HOST).await?;
            let hold = repair.and_then(|repair| repair.hold);
            Ok(hold.filter(|hold| hold.gate == "Disabled"))
        },
    ));
    let hold = hold.await?;
    let watched = async {
        let end = Instant::now() + disabled_for;
        while Instant::now() < end {
            ensure!(
                !patient.is_cordoned(stage).await?,
                "the node was cordoned under a disabled policy"
            );
            ensure!(
                stage.cloud.mutating_calls().is_empty(),
                "AWS was asked for a change under a disabled policy"
            );
            tokio::time::sleep(Duration::from_millis(100)).await;
        }
        Ok(())
    };
    let what = format!(
        "nothing is touched: NodeRepair is held by the gate Disabled: {}",
        printable(&hold.message)
    );
    screen.step(&what, watched).await
}

/// The drain asks, the budget refuses, the pod stays.
async fn budget_blocks(stage: &Stage, patient: &Patient, screen: &Screen) -> anyhow::Result<()> {
    let mut why = String::new();
    let what = "the drain waits: its PodDisruptionBudget blocks";
    let blocks = patient.wait(stage, screen, what, async |_, repair| {
        let blocked = repair.and_then(|repair| repair.drain.as_ref()?.blocked.first());
        why = blocked
            .map(|blocked| format!("{}: {}", blocked.pod, blocked.why))
            .unwrap_or_default();
        Ok(blocked.is_some())
    });
    blocks.await?;
    screen.note(&printable(&why));
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(stage.client.clone(), "default");
    let budget = budgets
        .get(WORKLOAD)
        .await
        .context("get the PodDisruptionBudget")?;
    let allowed = budget.status.map(|status| status.disruptions_allowed);
    ensure!(
        allowed == Some(0),
        "the budget allows {allowed:?} disruptions, so it is not what blocks: {why}"
    );
    let still = stage
        .pods()
        .await?
        .iter()
        .any(|pod| runs_on(pod) == Some(HOST));
    ensure!(still, "the pod was evicted against its budget");
    Ok(())
}

async fn scale(stage: &Stage) -> anyhow::Result<()> {
    let deployments: Api<Deployment> = Api::namespaced(stage.client.clone(), "default");
    let patch = Patch::Merge(json!({"spec": {"replicas": MORE_REPLICAS}}));
    deployments
        .patch(WORKLOAD, &PatchParams::default(), &patch)
        .await
        .context("scale the Deployment")?;
    Ok(())
}
