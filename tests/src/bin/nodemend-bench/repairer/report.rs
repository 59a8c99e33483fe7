//! What was measured, as a table and as JSON.

use std::collections::BTreeMap;
use std::time::Duration;

use anyhow::{Context, bail, ensure};
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
    pub(super) passes: Passes,
}

/// What the repairer may cost, among 5,000 nodes.
const MOST_RSS_KIB: u64 = 150 << 10;
const PASS: Duration = Duration::from_millis(50);

/// The decisions of the whole run, by the repairer's own metrics.
pub(crate) struct Passes {
    pub(super) all: u32,
    /// Within [`PASS`].
    pub(super) quick: u32,
    pub(super) mean: Duration,
    /// The same without the time in which others had the core: a decision waits for nothing else.
    pub(super) computing: Duration,
}

impl Passes {
    pub(super) fn read(metrics: &str, schedstat: &str) -> anyhow::Result<Self> {
        let value = |series: &str| {
            let name = format!("nodemend_repairer_decision_duration_seconds{series} ");
            let mut lines = metrics.lines();
            let value = lines.find_map(|line| line.strip_prefix(&name));
            value.with_context(|| format!("the metrics have no {name}"))
        };
        let bucket = format!("_bucket{{le=\"{}\"}}", PASS.as_secs_f64());
        let all: u32 = value("_count")?.parse().context("read a number")?;
        let quick = value(&bucket)?.parse().context("read a number")?;
        let sum = value("_sum")?.parse().context("read a sum")?;
        ensure!(all > 0, "nothing was decided");
        let mean = Duration::from_secs_f64(sum) / all;
        // proc(5): nanoseconds on a core, and waiting for one.
        let mut times = schedstat.split_ascii_whitespace().map(str::parse::<f64>);
        let (Some(Ok(ran)), Some(Ok(waited))) = (times.next(), times.next()) else {
            bail!("schedstat is {schedstat:?}");
        };
        let computing = mean.mul_f64(ran / (ran + waited));
        Ok(Self {
            all,
            quick,
            mean,
            computing,
        })
    }
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
    /// What is above its limit.
    pub(crate) fn ensure_within_limits(&self) -> anyhow::Result<()> {
        let computing = self.passes.computing;
        ensure!(
            computing <= PASS,
            "a decision takes {computing:?} of a core, the limit is {PASS:?}"
        );
        let most = self.nodes_rss.max(self.known_rss);
        ensure!(
            most <= MOST_RSS_KIB,
            "{} MiB are resident, the limit is {} MiB",
            most >> 10,
            MOST_RSS_KIB >> 10
        );
        Ok(())
    }

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
        let Passes {
            all,
            quick,
            mean,
            computing,
        } = self.passes;
        lines.push(format!(
            "decisions within {PASS:?}            {quick} of {all}, {:.1} ms on average, {:.1} ms of a core",
            milliseconds(mean),
            milliseconds(computing)
        ));
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
            "decisions": {"n": self.passes.all, "within50ms": self.passes.quick, "meanMs": milliseconds(self.passes.mean), "computingMs": milliseconds(self.passes.computing)},
            "rssKiB": {"nodes": self.nodes_rss, "known": self.known, "knownRss": self.known_rss},
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_decisions_are_read_from_the_metrics() {
        let name = "nodemend_repairer_decision_duration_seconds";
        let metrics = format!(
            "{name}_bucket{{le=\"0.01\"}} 5\n{name}_bucket{{le=\"0.05\"}} 8\n{name}_sum 0.2\n{name}_count 10\n"
        );
        let passes = Passes::read(&metrics, "3000 1000 7\n").unwrap();
        assert_eq!((passes.all, passes.quick), (10, 8));
        assert_eq!(passes.mean, Duration::from_millis(20));
        assert_eq!(passes.computing, Duration::from_millis(15));
        assert!(Passes::read("", "3000 1000 7").is_err());
        assert!(Passes::read(&metrics, "").is_err());
    }
}
