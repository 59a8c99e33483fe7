//! PURE. Prometheus' text format.

use std::fmt::{Debug, Display, Write as _};

use jiff::Timestamp;

use super::State;
use super::histogram::Histogram;
use super::process::Process;

const PREFIX: &str = "nodemend_repairer_";

pub(super) fn text(state: &State, process: Option<&Process>, now: Timestamp) -> String {
    let mut page = Page::default();
    page.own("build_info", "gauge", "The release that runs.");
    page.sample(&[("version", &env!("CARGO_PKG_VERSION"))], &1);
    page.own("leader", "gauge", "Whether this replica acts.");
    page.sample(&[], &u8::from(state.leader));
    // One that does not lead knows nothing of the cluster.
    if let Some(decided) = state.decided {
        page.own(
            "last_decision_timestamp_seconds",
            "gauge",
            "When the last decision was made.",
        );
        page.sample(&[], &decided.as_second());
        standing(state, now, &mut page);
    }
    page.own(
        "decision_duration_seconds",
        "histogram",
        "Of one decision about all nodes.",
    );
    page.histogram(&[], &state.decisions);
    repairs(state, &mut page);
    page.own(
        "cloud_calls_total",
        "counter",
        "Calls to AWS, by the result.",
    );
    for ((api, result), count) in &state.cloud_calls {
        page.sample(&[("api", api), ("result", result)], count);
    }
    page.own("events_total", "counter", "Events, by what became of them.");
    for (became, count) in &state.events {
        page.sample(&[("became", became)], count);
    }
    if let Some(process) = process {
        page.family(
            "process_cpu_seconds_total",
            "counter",
            "User and system time.",
        );
        page.sample(&[], &process.cpu_seconds);
        page.family("process_resident_memory_bytes", "gauge", "Resident memory.");
        page.sample(&[], &process.resident_bytes);
    }
    page.text
}

fn standing(state: &State, now: Timestamp, page: &mut Page) {
    let now_is = &state.now;
    page.own("nodes", "gauge", "Nodes of the cluster.");
    page.sample(&[], &now_is.nodes);
    page.own(
        "unhealthy_nodes",
        "gauge",
        "Nodes that are unhealthy or in repair, by group.",
    );
    for (group, count) in &now_is.unhealthy {
        page.sample(&[("group", group)], count);
    }
    page.own("repairs", "gauge", "Repairs that have not finished.");
    for ((phase, action), count) in &now_is.open {
        page.sample(
            &[("phase", &word(phase)), ("action", &action_word(action))],
            count,
        );
    }
    page.own(
        "held_nodes",
        "gauge",
        "Repairs that are held, by the first closed gate.",
    );
    for (gate, count) in &now_is.held {
        page.sample(&[("gate", &word(gate))], count);
    }
    page.own(
        "oldest_hold_age_seconds",
        "gauge",
        "How long the oldest hold has lasted.",
    );
    let age = |since: Timestamp| now.duration_since(since).unsigned_abs().as_secs();
    page.sample(&[], &now_is.oldest_hold.map_or(0, age));
    page.own(
        "needs_human_nodes",
        "gauge",
        "Nodes whose repair ended with the need for a person.",
    );
    page.sample(&[], &now_is.needs_human);
}

fn repairs(state: &State, page: &mut Page) {
    page.own("repairs_finished_total", "counter", "Repairs that ended.");
    for ((action, outcome), count) in &state.finished {
        page.sample(
            &[
                ("action", &action_word(action)),
                ("outcome", &word(outcome)),
            ],
            count,
        );
    }
    page.own(
        "holds_total",
        "counter",
        "Holds that began, by the first closed gate.",
    );
    for (gate, count) in &state.holds {
        page.sample(&[("gate", &word(gate))], count);
    }
    page.own(
        "drain_duration_seconds",
        "histogram",
        "From the first eviction to the last pod gone.",
    );
    page.histogram(&[], &state.drains);
    page.own(
        "repair_duration_seconds",
        "histogram",
        "From the first sight of the fault to the outcome.",
    );
    for (outcome, histogram) in &state.repairs {
        page.histogram(&[("outcome", &word(outcome))], histogram);
    }
}

fn word(value: &impl Debug) -> String {
    format!("{value:?}")
}

fn action_word(action: &Option<impl Debug>) -> String {
    action.as_ref().map_or_else(|| "None".to_owned(), word)
}

#[derive(Default)]
struct Page {
    text: String,
    name: String,
}

impl Page {
    fn own(&mut self, name: &str, kind: &str, help: &str) {
        self.family(&format!("{PREFIX}{name}"), kind, help);
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) {
        name.clone_into(&mut self.name);
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    fn sample(&mut self, labels: &[(&str, &dyn Display)], value: &dyn Display) {
        self.part("", labels, value);
    }

    fn part(&mut self, suffix: &str, labels: &[(&str, &dyn Display)], value: &dyn Display) {
        let labels: Vec<_> = labels
            .iter()
            .map(|(name, value)| format!("{name}=\"{}\"", escaped(&value.to_string())))
            .collect();
        let labels = match labels.is_empty() {
            true => String::new(),
            false => format!("{{{}}}", labels.join(",")),
        };
        let name = format!("{}{suffix}", self.name);
        self.line(format_args!("{name}{labels} {value}"));
    }

    fn histogram(&mut self, labels: &[(&str, &dyn Display)], histogram: &Histogram) {
        let bounds = histogram
            .buckets()
            .map(|(bound, count)| (bound.as_secs_f64().to_string(), count));
        for (bound, count) in bounds.chain([("+Inf".to_owned(), histogram.count)]) {
            let mut labels = labels.to_vec();
            labels.push(("le", &bound));
            self.part("_bucket", &labels, &count);
        }
        self.part("_sum", labels, &histogram.sum.as_secs_f64());
        self.part("_count", labels, &histogram.count);
    }

    fn line(&mut self, line: std::fmt::Arguments<'_>) {
        // Writing to a String cannot fail.
        let _written = writeln!(self.text, "{line}");
    }
}

fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::api::repair::{Gate, Outcome};

    #[test]
    fn every_family_has_help_and_type_before_its_samples_and_no_series_comes_twice() {
        let mut state = State {
            decided: Some(Timestamp::UNIX_EPOCH),
            ..State::default()
        };
        state.drains.observe(Duration::from_secs(3));
        for outcome in [Outcome::Succeeded, Outcome::Failed] {
            let repairs = state.repairs.entry(outcome).or_default();
            repairs.observe(Duration::from_secs(600));
        }
        state.holds.insert(Gate::LastNode, 2);
        let key = ("DescribeInstances".to_owned(), "ok");
        state.cloud_calls.insert(key, 3);
        let text = text(&state, None, Timestamp::UNIX_EPOCH);
        let (mut family, mut seen) = (String::new(), Vec::new());
        for line in text.lines() {
            if let Some(rest) = line.strip_prefix("# TYPE ") {
                family = rest.split(' ').next().unwrap().to_owned();
            } else if !line.starts_with('#') {
                let (series, value) = line.rsplit_once(' ').unwrap();
                assert!(series.starts_with(&family), "{line} in {family}");
                assert!(value.parse::<f64>().is_ok(), "{line}");
                assert!(!seen.contains(&series), "{line}");
                seen.push(series);
            }
        }
        for series in [
            "nodemend_repairer_holds_total{gate=\"LastNode\"}",
            "nodemend_repairer_cloud_calls_total{api=\"DescribeInstances\",result=\"ok\"}",
            "nodemend_repairer_repair_duration_seconds_bucket{outcome=\"Failed\",le=\"900\"}",
            "nodemend_repairer_oldest_hold_age_seconds",
        ] {
            assert!(seen.contains(&series), "{series}: {text}");
        }
    }

    #[test]
    fn a_label_value_cannot_break_out() {
        assert_eq!(escaped("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }
}
