//! PURE. The measurements as a table and as JSON.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use crate::drops::Drops;
use crate::idle::Idle;

pub(crate) struct Report {
    pub(crate) findings: Vec<Duration>,
    pub(crate) conditions_found: Vec<Duration>,
    pub(crate) conditions: Vec<Duration>,
    pub(crate) idle: Idle,
    pub(crate) drops: Drops,
}

impl Report {
    fn latencies(&self) -> [(&'static str, &[Duration]); 3] {
        [
            ("OOM kill: kernel event to finding", &self.findings),
            (
                "read-only file system: fault to finding",
                &self.conditions_found,
            ),
            (
                "read-only file system: fault to condition",
                &self.conditions,
            ),
        ]
    }

    pub(crate) fn table(&self) -> String {
        let mut lines = vec![format!(
            "{:<44}{:>6}{:>10}{:>10}{:>10}",
            "latency, ms", "n", "p50", "p99", "max"
        )];
        for (what, latencies) in self.latencies() {
            let shown = |share| format!("{:.3}", milliseconds(percentile(latencies, share)));
            let (p50, p99, max) = (shown(50), shown(99), shown(100));
            lines.push(format!(
                "{what:<44}{:>6}{p50:>10}{p99:>10}{max:>10}",
                latencies.len()
            ));
        }
        let idle = &self.idle;
        lines.push(String::new());
        lines.push(format!("idle detector, {} s", idle.watched.as_secs()));
        lines.push(format!(
            "{:<44}{:>16.3}",
            "CPU s per hour, BPF programs included",
            idle.cpu_per_hour()
        ));
        lines.push(format!(
            "{:<44}{:>16.2}",
            "wake-ups per second",
            idle.wake_ups_per_second()
        ));
        let mib = |kib: u64| f64::from(u32::try_from(kib).unwrap_or(u32::MAX)) / 1024.0;
        lines.push(format!("{:<44}{:>16.1}", "RSS, MiB", mib(idle.rss_kib)));
        lines.push(format!(
            "{:<44}{:>16.1}",
            "of that anonymous, MiB",
            mib(idle.anonymous_kib)
        ));
        let drops = &self.drops;
        lines.push(String::new());
        lines.push(format!(
            "dropped packet (kfree_skb), {} events",
            drops.events
        ));
        lines.push(format!(
            "{:<44}{:>16}",
            "BPF program, ns per event",
            drops.program.as_nanos()
        ));
        lines.push(format!(
            "{:<44}{:>16}",
            "send to drop with the hook, ns",
            drops.hook_on.as_nanos()
        ));
        lines.push(format!(
            "{:<44}{:>16}",
            "send to drop without it, ns",
            drops.hook_off.as_nanos()
        ));
        lines.iter().fold(String::new(), |mut text, line| {
            // Writing to a String cannot fail.
            let _written = writeln!(text, "{line}");
            text
        })
    }

    pub(crate) fn json(&self) -> Value {
        let nanoseconds =
            |duration: Duration| u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        let latency = |latencies: &[Duration]| {
            let at = |share| nanoseconds(percentile(latencies, share));
            json!({"n": latencies.len(), "p50Ns": at(50), "p99Ns": at(99), "maxNs": at(100)})
        };
        json!({
            "oomKillToFinding": latency(&self.findings),
            "readOnlyToFinding": latency(&self.conditions_found),
            "readOnlyToCondition": latency(&self.conditions),
            "idle": {
                "seconds": self.idle.watched.as_secs(),
                "cpuNs": nanoseconds(self.idle.cpu),
                "cpuSecondsPerHour": self.idle.cpu_per_hour(),
                "wakeUps": self.idle.wake_ups,
                "rssKiB": self.idle.rss_kib,
                "rssAnonymousKiB": self.idle.anonymous_kib,
            },
            "kfreeSkb": {
                "events": self.drops.events,
                "programNs": nanoseconds(self.drops.program),
                "hookOnNs": nanoseconds(self.drops.hook_on),
                "hookOffNs": nanoseconds(self.drops.hook_off),
            },
        })
    }
}

impl Idle {
    fn cpu_per_hour(&self) -> f64 {
        self.cpu.as_secs_f64() / self.watched.as_secs_f64() * 3600.0
    }

    fn wake_ups_per_second(&self) -> f64 {
        f64::from(u32::try_from(self.wake_ups).unwrap_or(u32::MAX)) / self.watched.as_secs_f64()
    }
}

pub(crate) fn milliseconds(duration: Duration) -> f64 {
    duration.as_secs_f64() * 1e3
}

/// The smallest value that at least `share` percent of the values do not exceed (nearest rank).
pub(crate) fn percentile(values: &[Duration], share: usize) -> Duration {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    let rank = (sorted.len() * share).div_ceil(100).max(1);
    sorted.get(rank - 1).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_percentile_is_one_of_the_values() {
        let values: Vec<_> = (1..=200).rev().map(Duration::from_millis).collect();
        assert_eq!(
            [50, 99, 100].map(|share| percentile(&values, share).as_millis()),
            [100, 198, 200]
        );
        assert_eq!(percentile(&values[..1], 50).as_millis(), 200);
        assert_eq!(percentile(&[], 50), Duration::ZERO);
    }
}
