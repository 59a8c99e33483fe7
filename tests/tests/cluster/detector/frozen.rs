//! Every disk that the agent writes to hangs: it still reports, and still ends.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use nodemend_tests::faults::Ext4;
use tokio::time::Instant;

use super::agent::Agent;
use crate::suite::Cluster;

const NODE: &str = "frozen-node";

pub(super) async fn disks(cluster: Arc<Cluster>) -> anyhow::Result<()> {
    cluster.create_node(NODE).await?;
    // The disk that hangs is critical, and is the agent's own; another one breaks.
    let (hanging, breaking) = (Ext4::mounted()?, Ext4::mounted()?);
    let path = |file_system: &Ext4| file_system.path().display().to_string();
    let boots = hanging.path().join("boots").display().to_string();
    let mounts = format!("{},{}", path(&hanging), path(&breaking));
    let args = ["--boots-dir", &boots, "--critical-mount", &mounts];
    let mut agent = Agent::start(&cluster.detector_kubeconfig, NODE, &args)?;
    agent.wait_ready().await?;
    let frozen = hanging.freeze()?;
    let started = Instant::now();
    breaking.turn_read_only()?;
    cluster
        .wait_condition(NODE, "StorageReady", "False")
        .await?;
    let took = started.elapsed();
    ensure!(
        took < Duration::from_secs(5),
        "the condition took {took:?} beside a hanging disk"
    );
    let stopping = Instant::now();
    let status = agent.stop().context("it hangs with its disk")?;
    ensure!(status.success(), "it ended with {status}");
    let took = stopping.elapsed();
    ensure!(took < Duration::from_secs(5), "it took {took:?} to end");
    drop(frozen);
    Ok(())
}
