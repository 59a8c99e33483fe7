//! Watches that end badly, and an API server that goes away in the middle of a drain.

use std::time::Duration;

use anyhow::ensure;
use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use kube::Api;
use kube::api::DeleteParams;
use nodemend_tests::api_proxy::Trouble;
use serde_json::Value;

use super::scene::{Scene, is_blocked, watches_nodes};

/// What a silent watch of the nodes has lost is seen when 410 Gone has it listed anew; while that of
/// the records is silent, nothing is done twice.
pub(crate) async fn gone() -> anyhow::Result<()> {
    let scene = Scene::start(3).await?;
    let mut repairer = scene.repairer("a")?;
    watches_nodes(&mut repairer).await?;
    scene
        .proxy
        .trouble_watches(Some(("/nodes", Trouble::Silent)));
    let _sick = scene.sicken("node-0").await?;
    tokio::time::sleep(Duration::from_secs(4)).await;
    let repairs = scene.repairs_of("node-0").await?;
    ensure!(repairs.is_empty(), "the watch was not silent: {repairs:?}");
    scene.proxy.trouble_watches(None);
    let seen = |repair: &Value| repair["status"]["phase"].is_string();
    scene.wait_repair("node-0", "seen", seen).await?;

    scene
        .proxy
        .trouble_watches(Some(("/noderepairs", Trouble::Silent)));
    tokio::time::sleep(Duration::from_secs(4)).await;
    scene.proxy.trouble_watches(None);
    let repair = scene.wait_outcome("node-0", "Succeeded").await?;
    let gone = |line: &String| line.contains("too old resource version");
    let lines = repairer.log_lines();
    let gone = lines.iter().filter(|line| gone(line)).count();
    ensure!(gone >= 2, "{gone} watches were gone");
    ensure!(scene.terminations() == 1 && scene.terminate_calls() == 1);
    ensure!(scene.repairs_of("node-0").await?.len() == 1);
    let attempts = repair["status"]["attempts"].as_array().map(Vec::len);
    ensure!(attempts == Some(1), "{}", repair["status"]);
    Ok(())
}

/// Killed while a budget blocks a drain, and back with the same etcd.
pub(crate) async fn restarts() -> anyhow::Result<()> {
    let mut scene = Scene::start(3).await?;
    scene.block_drain_of("node-0").await?;
    let repairer = scene.repairer("a")?;
    let _sick = scene.sicken("node-0").await?;
    scene.wait_repair("node-0", "blocked", is_blocked).await?;
    scene.control_plane.restart_apiserver().await?;
    ensure!(scene.terminate_calls() == 0);
    let budgets: Api<PodDisruptionBudget> = Api::namespaced(scene.control_plane.admin(), "default");
    budgets.delete("kept", &DeleteParams::default()).await?;
    let repair = scene.wait_outcome("node-0", "Succeeded").await?;
    ensure!(scene.terminations() == 1 && scene.terminate_calls() == 1);
    ensure!(scene.repairs_of("node-0").await?.len() == 1, "{repair}");
    // The same process: its lease outlived the restart.
    let leads = |line: &&String| line.contains("\"leading\"");
    let led = repairer.log_lines().iter().filter(leads).count();
    ensure!(led == 1, "it led {led} times");
    Ok(())
}
