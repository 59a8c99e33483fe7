//! PURE. Measured latencies of faults, as a table.

use std::time::Duration;

use serde_json::Value;

/// One fault on its way, by `CLOCK_BOOTTIME`.
#[derive(Clone, Debug)]
pub struct Latency {
    pub what: String,
    /// When the fault was provoked.
    pub provoked: Duration,
    /// When the kernel told of it.
    pub kernel: Duration,
    /// When the detector had decided what it is.
    pub found: Duration,
    /// When the API server had taken it.
    pub exported: Duration,
}

impl Latency {
    /// From a log line `exported` of the detector.
    pub fn of_log_line(what: &str, provoked: Duration, line: &Value) -> Option<Self> {
        let at = |key: &str| line[key].as_u64().map(Duration::from_nanos);
        Some(Self {
            what: what.to_owned(),
            provoked,
            kernel: at("fault_ns")?,
            found: at("found_ns")?,
            exported: at("exported_ns")?,
        })
    }
}

/// Cumulative, from the fault on; a fault that takes its time until the kernel sees it shows that.
pub fn table(latencies: &[Latency]) -> Vec<String> {
    let mut lines = vec![format!(
        "{:<28}{:>14}{:>12}{:>12}",
        "ms since the fault", "kernel event", "finding", "API server"
    )];
    for latency in latencies {
        let since = |at: Duration| {
            format!(
                "{:.1}",
                at.saturating_sub(latency.provoked).as_secs_f64() * 1e3
            )
        };
        lines.push(format!(
            "{:<28}{:>14}{:>12}{:>12}",
            latency.what,
            since(latency.kernel),
            since(latency.found),
            since(latency.exported)
        ));
    }
    lines
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn shows_each_stage_since_the_fault() {
        let line = json!({"fault_ns": 1_002_000_000_u64, "found_ns": 1_002_500_000_u64, "exported_ns": 1_010_000_000_u64});
        let latency = Latency::of_log_line("OOM kill", Duration::from_secs(1), &line).unwrap();
        assert!(
            table(&[latency])[1]
                .split_whitespace()
                .eq(["OOM", "kill", "2.0", "2.5", "10.0"])
        );
    }

    #[test]
    fn a_line_without_times_is_no_latency() {
        assert!(Latency::of_log_line("x", Duration::ZERO, &json!({"fault_ns": 1})).is_none());
    }
}
