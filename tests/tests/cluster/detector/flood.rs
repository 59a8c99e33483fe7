//! Ten thousand lines a second: each is counted, memory stays flat, and a disk that dies in the
//! middle of it is reported as if it were quiet.

use std::fs::{self, File};
use std::io::Write as _;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};
use nodemend_tests::faults::Ext4;
use nodemend_tests::wait::until;
use serde_json::Value;
use tokio::time::{Instant, interval};

use super::agent::Agent;
use crate::suite::Cluster;

const NODE: &str = "flooded-node";
const ROUNDS: u64 = 100;
const LINES: u64 = 1000;
const ROUND: Duration = Duration::from_millis(100);
const MOST_MEMORY: u64 = 16 << 20;

pub(super) async fn counted_and_survived(cluster: Arc<Cluster>) -> anyhow::Result<()> {
    cluster.create_node(NODE).await?;
    let disk = Ext4::mounted()?;
    let folder = tempfile::tempdir().context("make a folder")?;
    let (log, config) = (folder.path().join("log"), folder.path().join("config.yaml"));
    let rule = format!(
        "logRules:\n- {{name: flood, source: file, path: {}, pattern: '^fault [0-9]+$', \
         reason: FloodedLine, condition: KernelReady}}\n",
        log.display()
    );
    fs::write(&config, rule).context("write a configuration")?;
    let mut log = File::create(&log).context("create a log")?;
    let (config, critical) = (
        config.display().to_string(),
        disk.path().display().to_string(),
    );
    let args = ["--config", &config, "--critical-mount", &critical];
    let mut agent = Agent::start(&cluster.detector_kubeconfig, NODE, &args)?;
    agent.wait_ready().await?;
    let before = memory(&agent)?;

    let mut ticks = interval(ROUND);
    for round in 0..ROUNDS {
        ticks.tick().await;
        let lines: String = (0..LINES).map(|line| format!("fault {line}\n")).collect();
        log.write_all(lines.as_bytes()).context("write to a log")?;
        if round == ROUNDS / 2 {
            let started = Instant::now();
            disk.turn_read_only()?;
            cluster
                .wait_condition(NODE, "StorageReady", "False")
                .await?;
            let took = started.elapsed();
            ensure!(took < Duration::from_secs(3), "the condition took {took:?}");
        }
    }
    let sent = ROUNDS * LINES;
    until(
        Duration::from_secs(30),
        "every line is counted, as a fault or as lost",
        async || {
            let state = agent.daemon.saved_state()?.context("no state was saved")?;
            let known =
                count(&state, "FloodedLine", "flood") + count(&state, "SignalsLost", "log files");
            ensure!(known <= sent, "{known} of {sent} lines are counted");
            Ok((known == sent).then_some(()))
        },
    )
    .await?;
    let grown = memory(&agent)?.saturating_sub(before);
    ensure!(grown < MOST_MEMORY, "it has grown by {grown} bytes");
    Ok(())
}

fn count(state: &Value, reason: &str, entity: &str) -> u64 {
    let findings = state["findings"].as_array().into_iter().flatten();
    findings
        .filter(|finding| finding["reason"] == reason && finding["entity"] == entity)
        .filter_map(|finding| finding["count"].as_u64())
        .sum()
}

/// The most that it has had in memory, in bytes.
fn memory(agent: &Agent) -> anyhow::Result<u64> {
    let path = format!("/proc/{}/status", agent.daemon.pid());
    let status = fs::read_to_string(&path).with_context(|| format!("read {path}"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:"));
    let kilobytes = line.and_then(|line| line.trim().strip_suffix(" kB"));
    let kilobytes: u64 = kilobytes
        .context("find VmHWM")?
        .trim()
        .parse()
        .context("read VmHWM")?;
    Ok(kilobytes << 10)
}
