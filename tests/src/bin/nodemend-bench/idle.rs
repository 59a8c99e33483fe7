//! What the detector costs while nothing happens.

use std::fs;
use std::path::PathBuf;
use std::time::Duration;

use anyhow::{Context, ensure};
use nodemend_tests::daemon::Daemon;

use crate::drops::BpfStats;
use crate::stage::Stage;

pub(crate) struct Idle {
    pub(crate) watched: Duration,
    /// User and system time of all threads, with that of the BPF programs on top.
    pub(crate) cpu: Duration,
    pub(crate) wake_ups: u64,
    pub(crate) rss_kib: u64,
    pub(crate) anonymous_kib: u64,
}

pub(crate) async fn watch(stage: &Stage, watched: Duration) -> anyhow::Result<Idle> {
    let stats = BpfStats::enable()?;
    let detector = stage.detector(&[]).await?;
    // What starting costs is not idling.
    tokio::time::sleep(Duration::from_secs(2)).await;
    let before = (
        cpu(&detector)?,
        wake_ups(&detector)?,
        stats.total(&detector)?.nanoseconds,
    );
    ensure!(
        before.0 > Duration::ZERO,
        "this kernel does not count the time of threads (/proc/PID/task/TID/schedstat)"
    );
    tokio::time::sleep(watched).await;
    let after = (
        cpu(&detector)?,
        wake_ups(&detector)?,
        stats.total(&detector)?.nanoseconds,
    );
    let bpf = Duration::from_nanos(after.2.saturating_sub(before.2));
    Ok(Idle {
        watched,
        cpu: after.0.saturating_sub(before.0) + bpf,
        wake_ups: after.1.saturating_sub(before.1),
        rss_kib: status(&detector, "VmRSS:")?,
        anonymous_kib: status(&detector, "RssAnon:")?,
    })
}

/// Nanoseconds on a CPU, from schedstat: ticks are too coarse for so little.
pub(crate) fn cpu(detector: &Daemon) -> anyhow::Result<Duration> {
    let mut total = 0;
    for thread in threads(detector)? {
        let text =
            fs::read_to_string(thread.join("schedstat")).context("read schedstat of a thread")?;
        total += text
            .split(' ')
            .next()
            .and_then(|field| field.parse::<u64>().ok())
            .context("parse schedstat")?;
    }
    Ok(Duration::from_nanos(total))
}

fn wake_ups(detector: &Daemon) -> anyhow::Result<u64> {
    let mut total = 0;
    for thread in threads(detector)? {
        total += field(&thread.join("status"), "voluntary_ctxt_switches:")?;
    }
    Ok(total)
}

fn threads(detector: &Daemon) -> anyhow::Result<Vec<PathBuf>> {
    let folder = format!("/proc/{}/task", detector.pid());
    let entries = fs::read_dir(&folder).with_context(|| format!("list {folder}"))?;
    Ok(entries.flatten().map(|entry| entry.path()).collect())
}

pub(crate) fn status(detector: &Daemon, name: &str) -> anyhow::Result<u64> {
    field(
        &PathBuf::from(format!("/proc/{}/status", detector.pid())),
        name,
    )
}

fn field(file: &std::path::Path, name: &str) -> anyhow::Result<u64> {
    let text = fs::read_to_string(file).with_context(|| format!("read {}", file.display()))?;
    text.lines()
        .find_map(|line| {
            line.strip_prefix(name)?
                .split_whitespace()
                .next()?
                .parse()
                .ok()
        })
        .with_context(|| format!("find {name} in {}", file.display()))
}
