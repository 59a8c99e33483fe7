//! What was measured, as a table and as JSON.

use std::collections::BTreeMap;
use std::time::Duration;

use serde_json::{Value, json};

use super::Usage;
use crate::report::{milliseconds, percentile};

pub(crate) struct Report {
    pub(super) nodes: u32,
    pub(super) failures: u32,
    pub(super) parallel: u32,
    pub(super) peace: Usage,
    pub(super) failing: Usage,
    /// From the write of a fault to its first sight.
    pub(super) lags: Vec<Duration>,
    pub(super) most_at_once: usize,
    pub(super) all_replaced: Duration,
    /// By verb and resource, the lease's included.
    pub(super) writes: BTreeMap<String, usize>,
    pub(super) nodes_rss: u64,
    pub(super) known: u32,
    pub(super) known_rss: u64,
}

impl Usage {
    fn per_second(&self) -> f64 {
        let requests = u32::try_from(self.requests).unwrap_or(u32::MAX);
        f64::from(requests) / self.took.as_secs_f64()
    }

    fn cpu_share(&self) -> f64 {
        self.cpu.as_secs_f64() / self.took.as_secs_f64() * 100.0
    }
}

impl Report {
    pub(crate) fn table(&self) -> String {
        let lag = |share| milliseconds(percentile(&self.lags, share));
        let mut lines = vec![
            format!(
                "{} nodes, {} failures at once, {} repairs allowed at a time",
                self.nodes, self.failures, self.parallel
            ),
            String::new(),
            format!(
                "fault written to first sight     p50 {:.0} ms, p99 {:.0} ms, max {:.0} ms",
                lag(50),
                lag(99),
                lag(100)
            ),
            format!(
                "all replaced and verified after  {:.0} s, at most {} under way",
                self.all_replaced.as_secs_f64(),
                self.most_at_once
            ),
        ];
        for (name, usage) in [
            ("in peace", &self.peace),
            ("with the failures", &self.failing),
        ] {
            lines.push(format!(
                "{name:<32} {:.1} requests/s, {:.1} % of a core",
                usage.per_second(),
                usage.cpu_share()
            ));
        }
        let writes = self
            .writes
            .iter()
            .map(|(name, count)| format!("{count} {name}"));
        lines.push(format!(
            "writes                           {}",
            writes.collect::<Vec<_>>().join(", ")
        ));
        for (count, kib) in [(self.nodes, self.nodes_rss), (self.known, self.known_rss)] {
            let what = format!("resident with {count} Nodes");
            lines.push(format!("{what:<32} {} MiB", kib >> 10));
        }
        lines.join("\n") + "\n"
    }

    pub(crate) fn json(&self) -> Value {
        let usage = |usage: &Usage| {
            json!({
                "seconds": usage.took.as_secs_f64(),
                "cpuSeconds": usage.cpu.as_secs_f64(),
                "requests": usage.requests,
            })
        };
        let lag = |share| milliseconds(percentile(&self.lags, share));
        json!({
            "nodes": self.nodes,
            "failures": self.failures,
            "parallel": self.parallel,
            "mostAtOnce": self.most_at_once,
            "allReplacedSeconds": self.all_replaced.as_secs_f64(),
            "watchLagMs": {"n": self.lags.len(), "p50": lag(50), "p99": lag(99), "max": lag(100)},
            "peace": usage(&self.peace),
            "failing": usage(&self.failing),
            "writes": self.writes,
            "rssKiB": {"nodes": self.nodes_rss, "known": self.known, "knownRss": self.known_rss},
        })
    }
}
