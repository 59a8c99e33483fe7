//! Killed at any point, again and again: the next agent knows what one that was never killed would.

use std::collections::BTreeSet;
use std::hash::{BuildHasher as _, Hasher as _, RandomState};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::ListParams;
use nodemend_tests::faults::Ext4;
use nodemend_tests::wait::until;

use super::agent::Agent;
use crate::suite::{Cluster, SOON};

const KILLS: u32 = 1000;
const NODE: &str = "killed-node";
/// An error of the file system makes the condition False, until there has been none for a while.
const CONFIG: &str = "reasons: {FilesystemError: {severity: Fatal, clearAfter: 15s}}\n";

pub(super) async fn a_thousand_times(cluster: Arc<Cluster>) -> anyhow::Result<()> {
    cluster.create_node(NODE).await?;
    let file_system = Ext4::mounted_reporting()?;
    let folder = tempfile::tempdir().context("make a folder")?;
    let config = folder.path().join("detector.yaml");
    std::fs::write(&config, CONFIG).context("write a configuration")?;
    let config = config.display().to_string();
    // What is not needed is off: an agent that starts faster gets further before it dies.
    let off = "oom,hung-task,net-drop";
    let args = ["--config", &config, "--disable-hook", off];
    let mut agent = Agent::start(&cluster.detector_kubeconfig, NODE, &args)?;
    agent.wait_ready().await?;
    file_system.report_error()?;
    let mut errors = 1;
    let began = cluster
        .wait_condition(NODE, "StorageReady", "False")
        .await?
        .last_transition_time;
    // A transition time that is made anew must differ.
    tokio::time::sleep(Duration::from_millis(1100)).await;
    // What had happened to the device before is told as well, at the start.
    let told = opened(&cluster, file_system.device()).await?;
    ensure!(told > 0, "the fault was not told");

    let mut seen = BTreeSet::new();
    for kill in 0..KILLS {
        agent.daemon.restart()?;
        // Most die while they start; some get as far as to the API server.
        let life = if kill % 10 == 0 { 400 } else { 60 };
        let life = Duration::from_micros(random() % (life * 1000));
        if random().is_multiple_of(4) {
            tokio::time::sleep(life / 2).await;
            file_system.report_error()?;
            errors += 1;
            tokio::time::sleep(life / 2).await;
        } else {
            tokio::time::sleep(life).await;
        }
        if kill % 50 == 0 {
            let condition = cluster.condition(NODE, "StorageReady").await?;
            let condition = condition.context("the condition has gone")?;
            seen.insert((
                condition.status,
                format!("{:?}", condition.last_transition_time),
            ));
        }
    }
    file_system.report_error()?;
    errors += 1;
    agent.daemon.restart()?;
    agent.wait_ready().await?;
    until(SOON, "every error is counted, and none twice", async || {
        let state = agent.daemon.saved_state()?.context("no state was saved")?;
        let findings = state["findings"].as_array().context("no findings")?;
        let count = findings
            .iter()
            .find(|finding| {
                finding["reason"] == "FilesystemError" && finding["entity"] == file_system.device()
            })
            .and_then(|finding| finding["count"].as_u64());
        ensure!(count <= Some(errors), "{count:?} of {errors} errors");
        Ok((count == Some(errors)).then_some(()))
    })
    .await?;
    seen.insert(("False".to_owned(), format!("{began:?}")));
    ensure!(
        seen.len() == 1,
        "the status or its time changed while agents died: {seen:?}"
    );
    let again = opened(&cluster, file_system.device()).await?;
    ensure!(
        again == told,
        "{again} Events, and {told} before it was killed"
    );
    // And it clears, as if nothing had been.
    cluster.wait_condition(NODE, "StorageReady", "True").await?;
    Ok(())
}

/// Events that the file system has an error; repeats are others.
async fn opened(cluster: &Cluster, device: &str) -> anyhow::Result<usize> {
    let events: Api<Event> = Api::namespaced(cluster.control_plane.admin(), "default");
    let of_node = ListParams::default().fields(&format!("regarding.name={NODE}"));
    let events = events.list(&of_node).await.context("list Events")?;
    let ours = |event: &&Event| {
        event.reason.as_deref() == Some("FilesystemError")
            && event.action.as_deref() == Some("opened")
            && event
                .note
                .as_deref()
                .is_some_and(|note| note.contains(device))
    };
    Ok(events.items.iter().filter(ours).count())
}

fn random() -> u64 {
    RandomState::new().build_hasher().finish()
}
