//! What one dropped packet costs: the BPF program's own time, and the whole way of a packet with
//! the hook and without.

#![expect(clippy::disallowed_methods, reason = "this measures time")]

use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use nodemend_tests::daemon::Daemon;
use nodemend_tests::faults::fill_socket_buffer;

use crate::stage::Stage;

const ROUNDS: usize = 5;

pub(crate) struct Drops {
    pub(crate) events: u64,
    /// Time of the BPF program for one event.
    pub(crate) program: Duration,
    /// From send to drop, median of the rounds.
    pub(crate) hook_on: Duration,
    pub(crate) hook_off: Duration,
}

pub(crate) async fn cost(stage: &Stage, packets: u32) -> anyhow::Result<Drops> {
    let (mut on, mut off) = (Vec::new(), Vec::new());
    let watching = stage.detector(&[]).await?;
    let watched = {
        let stats = BpfStats::enable()?;
        let before = stats.each(&watching)?;
        send(packets).await?;
        busiest(&before, &stats.each(&watching)?)
    };
    // Counting time costs time: measured without.
    drop(watching);
    for _ in 0..ROUNDS {
        let watching = stage.detector(&[]).await?;
        on.push(send(packets).await?);
        drop(watching);
        let blind = stage.detector(&["--disable-hook", "net-drop"]).await?;
        off.push(send(packets).await?);
        drop(blind);
    }
    ensure!(
        watched.runs >= u64::from(packets) / 10 * 9,
        "no program ran for each of {packets} dropped packets: the busiest ran {} times",
        watched.runs
    );
    let each = |rounds: Vec<Duration>| median(rounds) / packets;
    Ok(Drops {
        events: watched.runs,
        program: Duration::from_nanos(watched.nanoseconds / watched.runs.max(1)),
        hook_on: each(on),
        hook_off: each(off),
    })
}

async fn send(packets: u32) -> anyhow::Result<Duration> {
    tokio::task::spawn_blocking(move || {
        let started = Instant::now();
        fill_socket_buffer(packets)?;
        Ok(started.elapsed())
    })
    .await
    .context("send packets")?
}

fn median(mut rounds: Vec<Duration>) -> Duration {
    rounds.sort_unstable();
    rounds.get(rounds.len() / 2).copied().unwrap_or_default()
}

/// The kernel counts runs and time of BPF programs while this lives.
pub(crate) struct BpfStats {
    before: String,
}

#[derive(Clone, Copy, Default)]
pub(crate) struct Runs {
    pub(crate) runs: u64,
    pub(crate) nanoseconds: u64,
}

const SETTING: &str = "/proc/sys/kernel/bpf_stats_enabled";

impl BpfStats {
    pub(crate) fn enable() -> anyhow::Result<Self> {
        let before = fs::read_to_string(SETTING).with_context(|| format!("read {SETTING}"))?;
        fs::write(SETTING, "1").with_context(|| format!("write {SETTING}"))?;
        Ok(Self { before })
    }

    /// Of all programs of a detector.
    pub(crate) fn total(&self, detector: &Daemon) -> anyhow::Result<Runs> {
        let add = |sum: Runs, (_, one): &(u64, Runs)| Runs {
            runs: sum.runs + one.runs,
            nanoseconds: sum.nanoseconds + one.nanoseconds,
        };
        Ok(self.each(detector)?.iter().fold(Runs::default(), add))
    }

    /// By the id of the program, from the descriptors that the detector holds.
    pub(crate) fn each(&self, detector: &Daemon) -> anyhow::Result<Vec<(u64, Runs)>> {
        let folder = format!("/proc/{}/fdinfo", detector.pid());
        let mut found = Vec::new();
        for entry in fs::read_dir(&folder)
            .with_context(|| format!("list {folder}"))?
            .flatten()
        {
            let Ok(text) = fs::read_to_string(entry.path()) else {
                continue;
            };
            let field = |name: &str| {
                text.lines()
                    .find_map(|line| line.strip_prefix(name)?.trim().parse().ok())
            };
            if let (Some(id), Some(nanoseconds), Some(runs)) =
                (field("prog_id:"), field("run_time_ns:"), field("run_cnt:"))
            {
                found.push((id, Runs { runs, nanoseconds }));
            }
        }
        found.sort_unstable_by_key(|(id, _)| *id);
        found.dedup_by_key(|(id, _)| *id);
        ensure!(!found.is_empty(), "the detector holds no BPF program");
        Ok(found)
    }
}

impl Drop for BpfStats {
    fn drop(&mut self) {
        if let Err(error) = fs::write(PathBuf::from(SETTING), &self.before) {
            eprintln!("could not restore {SETTING}: {error}");
        }
    }
}

/// What was added by the program that ran most often in between.
fn busiest(before: &[(u64, Runs)], after: &[(u64, Runs)]) -> Runs {
    let added = after.iter().map(|(id, now)| {
        let then = before
            .iter()
            .find(|(other, _)| other == id)
            .map(|(_, runs)| *runs)
            .unwrap_or_default();
        Runs {
            runs: now.runs - then.runs,
            nanoseconds: now.nanoseconds - then.nanoseconds,
        }
    });
    added.max_by_key(|added| added.runs).unwrap_or_default()
}
