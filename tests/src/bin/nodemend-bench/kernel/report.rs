//! PURE. The measurements of the kernel part as a table and as JSON.

use std::fmt::Write as _;
use std::time::Duration;

use serde_json::{Value, json};

use crate::report::{milliseconds, percentile};

pub(crate) struct Report {
    /// Time of a program that does nothing, for one event.
    pub(super) empty: Duration,
    pub(super) costs: Vec<Cost>,
    pub(super) quiet: Vec<Duration>,
    pub(super) busy: Vec<Duration>,
    pub(super) burst: Burst,
}

pub(super) struct Cost {
    pub(super) hook: &'static str,
    pub(super) event: &'static str,
    pub(super) runs: u64,
    /// With what counting costs.
    pub(super) each: Duration,
}

pub(super) struct Burst {
    pub(super) lines: u32,
    /// Until the last line was written.
    pub(super) wrote: Duration,
    /// Until the last crash was told.
    pub(super) took: Duration,
    /// Of the detector.
    pub(super) cpu: Duration,
    pub(super) crashes: u32,
    pub(super) told: usize,
    /// Lines were overwritten before they were read.
    pub(super) overrun: bool,
}

impl Report {
    fn latencies(&self) -> [(&'static str, &[Duration]); 2] {
        [
            ("OOM kill to finding, machine as it is", &self.quiet),
            ("OOM kill to finding, busy machine", &self.busy),
        ]
    }

    fn net(&self, cost: &Cost) -> Duration {
        cost.each.saturating_sub(self.empty)
    }

    /// Of one CPU, by the packets' program alone.
    fn drops_percent(&self) -> f64 {
        let cost = self.costs.iter().find(|cost| cost.hook == "net-drop");
        cost.map_or(0.0, |cost| self.net(cost).as_secs_f64() * 100_000.0 * 100.0)
    }

    pub(crate) fn table(&self) -> String {
        let mut lines = vec![format!(
            "{:<12}{:<46}{:>10}{:>14}",
            "hook", "event", "events", "ns per event"
        )];
        for cost in &self.costs {
            lines.push(format!(
                "{:<12}{:<46}{:>10}{:>14}",
                cost.hook,
                cost.event,
                cost.runs,
                self.net(cost).as_nanos()
            ));
        }
        lines.push(format!(
            "an empty program, subtracted: {} ns; 100,000 dropped packets/s: {:.2} % of a CPU",
            self.empty.as_nanos(),
            self.drops_percent()
        ));
        lines.push(String::new());
        lines.push(format!(
            "{:<44}{:>6}{:>10}{:>10}{:>10}",
            "latency, ms", "n", "p50", "p99", "max"
        ));
        for (what, latencies) in self.latencies() {
            let shown = |share| format!("{:.3}", milliseconds(percentile(latencies, share)));
            lines.push(format!(
                "{what:<44}{:>6}{:>10}{:>10}{:>10}",
                latencies.len(),
                shown(50),
                shown(99),
                shown(100)
            ));
        }
        let burst = &self.burst;
        lines.push(String::new());
        lines.push(format!(
            "{} log lines in {:.0} ms: {} of {} crashes told after {:.0} ms, {:.0} ms of CPU, {}",
            burst.lines,
            milliseconds(burst.wrote),
            burst.told,
            burst.crashes,
            milliseconds(burst.took),
            milliseconds(burst.cpu),
            if burst.overrun {
                "lines were overwritten before they were read"
            } else {
                "no line lost"
            }
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
        let costs: Vec<_> = self
            .costs
            .iter()
            .map(|cost| {
                json!({
                    "hook": cost.hook,
                    "event": cost.event,
                    "events": cost.runs,
                    "ns": nanoseconds(self.net(cost)),
                })
            })
            .collect();
        let burst = &self.burst;
        json!({
            "emptyProgramNs": nanoseconds(self.empty),
            "programs": costs,
            "dropsPercentOfCpu": self.drops_percent(),
            "oomKillToFinding": latency(&self.quiet),
            "oomKillToFindingBusy": latency(&self.busy),
            "burst": {
                "lines": burst.lines,
                "wroteNs": nanoseconds(burst.wrote),
                "tookNs": nanoseconds(burst.took),
                "cpuNs": nanoseconds(burst.cpu),
                "crashes": burst.crashes,
                "told": burst.told,
                "overrun": burst.overrun,
            },
        })
    }
}
