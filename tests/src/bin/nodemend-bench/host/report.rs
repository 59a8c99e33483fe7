//! PURE. The cost of a sweep, as a table and as JSON.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::ensure;
use serde_json::{Value, json};

use crate::report::{milliseconds, percentile};

/// Of a sweep, on a node with 250 pods.
const LIMIT: Duration = Duration::from_millis(50);

pub(crate) struct Report {
    pub(super) pods: u16,
    pub(super) rules: u32,
    pub(super) processes: usize,
    pub(super) sweeps: u32,
    /// Of each look.
    pub(super) checks: BTreeMap<String, Vec<Duration>>,
    /// By name, for one sweep.
    pub(super) threads: BTreeMap<String, Duration>,
    pub(super) steady: Duration,
    /// Programs, in that time.
    pub(super) started: Vec<String>,
}

/// The detector's other work: the kernel's tasks, rings and log, and what it writes.
const OTHER_WORK: [&str; 6] = [
    "nodemend-detect",
    "reader",
    "tasks",
    "log-files",
    "journal",
    "config",
];

impl Report {
    /// Of all checks, whether or not they were due, with the threads of their own.
    fn sweep(&self) -> Duration {
        let looks = self.checks.values().map(|looks| percentile(looks, 50));
        looks.chain(self.own_threads().map(|(_, cpu)| cpu)).sum()
    }

    fn own_threads(&self) -> impl Iterator<Item = (&str, Duration)> {
        let threads = self.threads.iter();
        threads
            .filter(|(name, _)| !OTHER_WORK.contains(&name.as_str()) && *name != "checks")
            .map(|(name, cpu)| (name.as_str(), *cpu))
    }

    pub(crate) fn ensure_within_limits(&self) -> anyhow::Result<()> {
        let sweep = self.sweep();
        ensure!(
            sweep <= LIMIT,
            "a sweep costs {:.1} ms of CPU, more than {} ms",
            milliseconds(sweep),
            LIMIT.as_millis()
        );
        // Evidence of a fault is read by a process of its own.
        ensure!(
            self.started.is_empty(),
            "programs were started, as they are when the host has a fault: {:#?}",
            self.started
        );
        Ok(())
    }

    pub(crate) fn table(&self) -> String {
        let mut text = format!(
            "{} pods, {} rules, {} processes on the host, {} sweeps\n{:<32}{:>10}{:>10}\n",
            self.pods,
            self.rules,
            self.processes,
            self.sweeps,
            "check, CPU ms of a look",
            "p50",
            "max"
        );
        let mut dearest: Vec<_> = self.checks.iter().collect();
        dearest.sort_by_key(|(_, looks)| std::cmp::Reverse(percentile(looks, 50)));
        for (name, looks) in dearest {
            let shown = |share| milliseconds(percentile(looks, share));
            text += &format!("{name:<32}{:>10.3}{:>10.3}\n", shown(50), shown(100));
        }
        text += "\nthreads beside, CPU ms for a sweep\n";
        for (name, cpu) in self.own_threads() {
            text += &format!("{name:<32}{:>10.3}\n", milliseconds(cpu));
        }
        text + &format!(
            "\n{:<32}{:>10.1}\n{} programs were started in {} s\n",
            "a whole sweep",
            milliseconds(self.sweep()),
            self.started.len(),
            self.steady.as_secs()
        )
    }

    pub(crate) fn json(&self) -> Value {
        let nanoseconds =
            |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let checks = self.checks.iter().map(|(name, looks)| {
            let at = |share| nanoseconds(percentile(looks, share));
            let cost = json!({"n": looks.len(), "p50Ns": at(50), "maxNs": at(100)});
            (name.clone(), cost)
        });
        let threads = self.own_threads();
        let threads = threads.map(|(name, cpu)| (name.to_owned(), json!(nanoseconds(cpu))));
        json!({
            "pods": self.pods,
            "rules": self.rules,
            "processes": self.processes,
            "sweeps": self.sweeps,
            "checks": checks.collect::<serde_json::Map<_, _>>(),
            "threadsNs": threads.collect::<serde_json::Map<_, _>>(),
            "sweepNs": nanoseconds(self.sweep()),
            "steadySeconds": self.steady.as_secs(),
            "programsStarted": self.started,
        })
    }
}
