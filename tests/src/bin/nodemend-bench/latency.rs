//! From a fault to the finding, and to the condition at the API server.

use std::time::Duration;

use anyhow::Context;
use nodemend_tests::faults::{Ext4, PodCgroup};
use serde_json::Value;

use crate::stage::{SOON, Stage};

/// From the kernel's event to the finding, of OOM kills in that many containers.
pub(crate) async fn oom_kills(stage: &Stage, count: u32) -> anyhow::Result<Vec<Duration>> {
    let mut detector = stage.detector(&[]).await?;
    let mut latencies = Vec::new();
    for number in 0..count {
        let container = tokio::task::spawn_blocking(move || -> anyhow::Result<String> {
            let cgroup = PodCgroup::systemd(&format!("00000000-0000-4000-8000-{number:012}"))?;
            cgroup.oom_kill("bench")?;
            Ok(cgroup.container_id().to_owned())
        })
        .await
        .context("provoke a fault")??;
        let is_it = |line: &Value| {
            line["message"] == "finding"
                && line["entity"]
                    .as_str()
                    .is_some_and(|entity| entity.contains(&container))
        };
        let line = detector
            .wait_for_log(SOON, is_it)
            .await
            .context("wait for the finding of an OOM kill")?;
        latencies.push(time(&line, "found_ns")?.saturating_sub(time(&line, "fault_ns")?));
    }
    Ok(latencies)
}

/// From the writing of the fault to the finding, and to the API server's answer.
pub(crate) async fn read_only(
    stage: &Stage,
    count: u32,
) -> anyhow::Result<(Vec<Duration>, Vec<Duration>)> {
    let (mut found, mut exported) = (Vec::new(), Vec::new());
    for _ in 0..count {
        let disk = tokio::task::spawn_blocking(Ext4::mounted)
            .await
            .context("mount a file system")??;
        let mut detector = stage
            .detector(&["--critical-mount", &disk.path().display().to_string()])
            .await?;
        let at = disk.turn_read_only()?;
        let is_it = |line: &Value| {
            line["kind"] == "condition"
                && line["condition"] == "StorageReady"
                && line["status"] == "False"
        };
        let line = detector
            .wait_for_log(SOON, is_it)
            .await
            .context("wait for StorageReady=False")?;
        found.push(time(&line, "found_ns")?.saturating_sub(at));
        exported.push(time(&line, "exported_ns")?.saturating_sub(at));
    }
    Ok((found, exported))
}

fn time(line: &Value, key: &str) -> anyhow::Result<Duration> {
    line[key]
        .as_u64()
        .map(Duration::from_nanos)
        .with_context(|| format!("no {key} in {line}"))
}
