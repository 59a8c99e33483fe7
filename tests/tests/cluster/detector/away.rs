//! The API server cannot be reached, or does not answer: late rather than lost.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::Node;
use nodemend_tests::faults::{Ext4, LoopDisk};
use nodemend_tests::link::Link;

use super::agent::Agent;
use crate::suite::Cluster;

/// Longer than a second, the resolution of times in conditions.
const OUTAGE: Duration = Duration::from_secs(4);

struct Setting {
    node: Node,
    name: &'static str,
    disk: Ext4,
    link: Link,
    agent: Agent,
}

/// A node whose detector speaks through a link, which is down.
async fn setting(cluster: &Cluster, name: &'static str) -> anyhow::Result<Setting> {
    let node = cluster.create_node(name).await?;
    let disk = Ext4::mounted()?;
    let link = Link::new(&cluster.control_plane)?;
    let kubeconfig = cluster
        .control_plane
        .kubeconfig_through(&link, &cluster.detector_kubeconfig)?;
    let critical = disk.path().display().to_string();
    let agent = Agent::start(&kubeconfig, name, &["--critical-mount", &critical])?;
    Ok(Setting {
        node,
        name,
        disk,
        link,
        agent,
    })
}

/// The same, in touch with the API server.
async fn in_touch(cluster: &Cluster, name: &'static str) -> anyhow::Result<Setting> {
    let mut setting = setting(cluster, name).await?;
    setting.link.up()?;
    setting.agent.wait_ready().await?;
    setting.agent.daemon.forget_log();
    Ok(setting)
}

pub(super) async fn outage(cluster: Arc<Cluster>) -> anyhow::Result<()> {
    // Before the agent starts: what others have had under its name is then history.
    let other = LoopDisk::new()?;
    let Setting {
        node,
        name,
        disk,
        mut link,
        mut agent,
    } = in_touch(&cluster, "outage-node").await?;
    link.down().await?;
    let fault = now();
    disk.turn_read_only()?;
    other.read_error()?;
    agent.wait_complaint(&["Connection refused"]).await?;
    tokio::time::sleep(OUTAGE).await;
    link.up()?;
    let condition = cluster
        .wait_condition(name, "StorageReady", "False")
        .await?;
    is_of_the_fault(
        &condition
            .last_transition_time
            .context("read a transition time")?
            .0,
        &fault,
    )?;
    event_about(&cluster, &node, "FilesystemReadOnly", disk.device()).await?;
    event_about(&cluster, &node, "BlockDeviceIOError", other.name()).await
}

pub(super) async fn before_first_contact(cluster: Arc<Cluster>) -> anyhow::Result<()> {
    let Setting {
        node,
        name,
        disk,
        mut link,
        mut agent,
    } = setting(&cluster, "first-contact-node").await?;
    agent.wait_complaint(&["Connection refused"]).await?;
    let fault = now();
    disk.turn_read_only()?;
    agent
        .wait_for_log(|line| line["message"] == "finding" && line["reason"] == "FilesystemReadOnly")
        .await?;
    tokio::time::sleep(OUTAGE).await;
    link.up()?;
    let condition = cluster
        .wait_condition(name, "StorageReady", "False")
        .await?;
    is_of_the_fault(
        &condition
            .last_transition_time
            .context("read a transition time")?
            .0,
        &fault,
    )?;
    event_about(&cluster, &node, "FilesystemReadOnly", disk.device()).await
}

pub(super) async fn silence(cluster: Arc<Cluster>) -> anyhow::Result<()> {
    let Setting {
        name,
        disk,
        mut link,
        mut agent,
        ..
    } = in_touch(&cluster, "silence-node").await?;
    link.silence();
    let fault = now();
    disk.turn_read_only()?;
    agent
        .wait_complaint(&["no answer from the API server within 2 s"])
        .await?;
    link.up()?;
    let condition = cluster
        .wait_condition(name, "StorageReady", "False")
        .await?;
    is_of_the_fault(
        &condition
            .last_transition_time
            .context("read a transition time")?
            .0,
        &fault,
    )
}

pub(super) async fn dead_connection(cluster: Arc<Cluster>) -> anyhow::Result<()> {
    let Setting {
        name,
        disk,
        link,
        mut agent,
        ..
    } = in_touch(&cluster, "dead-connection-node").await?;
    link.forget_connections();
    disk.turn_read_only()?;
    agent
        .wait_complaint(&["no answer from the API server within 2 s"])
        .await?;
    cluster
        .wait_condition(name, "StorageReady", "False")
        .await
        .map(drop)
}

/// Within the second that times in conditions are rounded to.
fn is_of_the_fault(transition: &Timestamp, fault: &Timestamp) -> anyhow::Result<()> {
    let late = transition.as_second() - fault.as_second();
    ensure!(
        (0..=1).contains(&late),
        "the fault was at {fault}, the transition time says {transition}"
    );
    Ok(())
}

async fn event_about(
    cluster: &Cluster,
    node: &Node,
    reason: &str,
    device: &str,
) -> anyhow::Result<()> {
    cluster
        .wait_event(
            node,
            &format!("an Event {reason} that names {device}"),
            |event| {
                event.reason.as_deref() == Some(reason)
                    && event
                        .note
                        .as_deref()
                        .is_some_and(|note| note.contains(device))
            },
        )
        .await
        .map(drop)
}

#[expect(
    clippy::disallowed_methods,
    reason = "compared with the time that the detector writes"
)]
fn now() -> Timestamp {
    Timestamp::now()
}
