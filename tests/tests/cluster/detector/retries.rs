//! The API server answers, but not with what was asked for: each is tried again as it should be.

use std::fs;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use axum::http::Method;
use k8s_openapi::api::core::v1::Node;
use k8s_openapi::api::events::v1::Event;
use kube::Api;
use kube::api::{DeleteParams, ListParams};
use nodemend_tests::api_proxy::ApiProxy;
use nodemend_tests::crash_point::When;
use nodemend_tests::faults::LoopDisk;
use nodemend_tests::wait::until;
use serde_json::Value;

use super::agent::Agent;
use super::front::{Fault, Front};
use crate::suite::{Cluster, SOON, condition};

/// A node and its detector, which has not spoken through the front yet.
async fn behind(
    cluster: &Cluster,
    name: &str,
    faults: impl IntoIterator<Item = Fault>,
) -> anyhow::Result<(Front, Agent, Node)> {
    let node = cluster.create_node(name).await?;
    let front = Front::start(cluster).await?;
    front.fail(&Method::PATCH, faults);
    let agent = Agent::start(&front.kubeconfig()?, name, &[])?;
    Ok((front, agent, node))
}

pub(super) async fn busy(cluster: Arc<Cluster>) -> anyhow::Result<()> {
    let fault = Fault::Busy { retry_after: 3 };
    let (front, mut agent, _node) = behind(&cluster, "busy-node", [fault]).await?;
    agent.wait_ready().await?;
    let tries = front.seen(&Method::PATCH);
    ensure!(tries.len() == 2, "{tries:?}");
    let waited = tries[1].at.duration_since(tries[0].at);
    // Up to half as long again, so that a fleet does not come back in step.
    ensure!(
        (3.0..5.0).contains(&waited.as_secs_f64()),
        "it was asked to wait 3 s and waited {waited:?}"
    );
    Ok(())
}

pub(super) async fn errors(cluster: Arc<Cluster>) -> anyhow::Result<()> {
    let faults = [500, 503, 409, 504].map(Fault::Status);
    let (front, mut agent, _node) = behind(&cluster, "errors-node", faults).await?;
    for code in [500, 503, 409, 504] {
        agent.wait_complaint(&[&format!("injected {code}")]).await?;
    }
    agent.wait_ready().await?;
    let tries = front.seen(&Method::PATCH).len();
    ensure!(tries == 5, "{tries} tries for four failures");
    Ok(())
}

pub(super) async fn trickle(cluster: Arc<Cluster>) -> anyhow::Result<()> {
    let (_front, mut agent, _node) = behind(&cluster, "trickle-node", [Fault::Trickle]).await?;
    agent
        .wait_complaint(&["no answer from the API server within 2 s"])
        .await?;
    agent.wait_ready().await
}

pub(super) async fn invalid_event(cluster: Arc<Cluster>) -> anyhow::Result<()> {
    // Before the agent starts: what others have had under its name is then history.
    let (first, second) = (LoopDisk::new()?, LoopDisk::new()?);
    let (front, mut agent, node) = behind(&cluster, "invalid-node", []).await?;
    agent.wait_ready().await?;
    front.fail(&Method::POST, [Fault::Status(422)]);
    first.read_error()?;
    agent.wait_complaint(&["injected 422"]).await?;
    second.read_error()?;
    cluster
        .wait_event(&node, "the Event after an invalid one", |event| {
            names(event, second.name())
        })
        .await
        .map(drop)
}

/// The API server has the Event, and the detector does not know it.
pub(super) async fn lost_answer(cluster: Arc<Cluster>) -> anyhow::Result<()> {
    let node = cluster.create_node("lost-answer-node").await?;
    let proxy = ApiProxy::start(&cluster.control_plane).await?;
    let kubeconfig = proxy.kubeconfig(&cluster.control_plane, &cluster.detector_kubeconfig)?;
    // Before the agent starts: what others have had under its name is then history.
    let disk = LoopDisk::new()?;
    let mut agent = Agent::start(&kubeconfig, "lost-answer-node", &[])?;
    agent.wait_ready().await?;
    // What the kernel log still holds is told first, so that the lost answer is this fault's.
    tokio::time::sleep(Duration::from_secs(3)).await;
    agent.daemon.forget_log();
    proxy.points().arm("POST events", 1, When::After, || {});
    // The kernel log's clock runs apart from this one by milliseconds.
    let began = disk
        .read_error()?
        .saturating_sub(Duration::from_millis(200));
    let began = u64::try_from(began.as_nanos()).context("read the clock")?;
    let told = agent
        .wait_for_log(|line| {
            line["kind"] == "event"
                && line["reason"] == "BlockDeviceIOError"
                && line["fault_ns"].as_u64() >= Some(began)
                && line["entity"]
                    .as_str()
                    .is_some_and(|entity| entity.contains(disk.name()))
        })
        .await;
    told.context("wait until the Event counts as told")?;
    ensure!(!proxy.points().is_armed(), "no answer was lost");
    let events: Api<Event> = Api::namespaced(cluster.control_plane.admin(), "default");
    let events = events.list(&ListParams::default()).await?.items;
    let about_disk = events.iter().filter(|event| {
        let about = event
            .regarding
            .as_ref()
            .is_some_and(|object| object.uid == node.metadata.uid);
        // Other tests have had this device: what it was called for them is not this fault.
        let history = names(event, "before the agent's start");
        let of_it = event.reason.as_deref() == Some("BlockDeviceIOError") && !history;
        about && of_it && names(event, disk.name())
    });
    let count = about_disk.count();
    ensure!(count == 1, "{count} Events tell one fault");
    Ok(())
}

pub(super) async fn expired_token(cluster: Arc<Cluster>) -> anyhow::Result<()> {
    cluster.create_node("expired-node").await?;
    let text = fs::read_to_string(&cluster.detector_kubeconfig).context("read a kubeconfig")?;
    let mut config: Value = serde_json::from_str(&text).context("parse a kubeconfig")?;
    let user = config["users"][0]["user"]
        .as_object_mut()
        .context("find the user")?;
    let good = user.remove("token").context("find the token")?;
    let good = good.as_str().context("read the token")?;
    let folder = tempfile::tempdir().context("make a folder")?;
    let (path, token) = (
        folder.path().join("kubeconfig"),
        folder.path().join("token"),
    );
    user.insert(
        "tokenFile".to_owned(),
        Value::from(token.display().to_string()),
    );
    fs::write(&path, config.to_string()).context("write a kubeconfig")?;
    fs::write(&token, "expired").context("write a token")?;
    let mut agent = Agent::start(&path, "expired-node", &[])?;
    agent.wait_complaint(&["does not know this token"]).await?;
    fs::write(&token, good).context("write a token")?;
    // kube would read it again after a minute.
    agent.wait_ready().await
}

pub(super) async fn created_again(cluster: Arc<Cluster>) -> anyhow::Result<()> {
    let name = "reborn-node";
    let old = cluster.create_node(name).await?;
    // Before the agent starts: what others have had under its name is then history.
    let disk = LoopDisk::new()?;
    let mut agent = Agent::start(&cluster.detector_kubeconfig, name, &["--heartbeat", "1s"])?;
    agent.wait_ready().await?;
    cluster
        .nodes()
        .delete(name, &DeleteParams::default())
        .await
        .context("delete the node")?;
    agent.wait_complaint(&["no Node `reborn-node`"]).await?;
    let new = cluster.create_node(name).await?;
    ensure!(old.metadata.uid != new.metadata.uid, "it has its old UID");
    until(
        SOON,
        "all conditions are there, with messages",
        async || {
            let node = cluster.nodes().get(name).await?;
            let there = ["KernelReady", "StorageReady", "NetworkingReady"]
                .iter()
                .all(|kind| {
                    condition(&node, kind).is_some_and(|condition| condition.message.is_some())
                });
            Ok(there.then_some(()))
        },
    )
    .await?;
    disk.read_error()?;
    cluster
        .wait_event(&new, "an Event with the new UID", |event| {
            names(event, disk.name())
        })
        .await
        .map(drop)
}

/// The heartbeat of a whole fleet must not be one of the server's troubles.
pub(super) async fn no_storm(cluster: Arc<Cluster>) -> anyhow::Result<()> {
    let faults = (0..100).map(|_| Fault::Status(503));
    let (front, mut agent, _node) = behind(&cluster, "storm-node", faults).await?;
    agent.wait_complaint(&["injected 503"]).await?;
    tokio::time::sleep(Duration::from_secs(8)).await;
    let tries = front.seen(&Method::PATCH).len();
    // 0.25, 0.5, 1, 2, 4 s, each half to one and a half.
    ensure!((3..=8).contains(&tries), "{tries} tries in 8 s");
    Ok(())
}

fn names(event: &Event, what: &str) -> bool {
    event
        .note
        .as_deref()
        .is_some_and(|note| note.contains(what))
}
