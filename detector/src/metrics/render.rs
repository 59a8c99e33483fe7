//! PURE. Prometheus' text format.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::sync::atomic::Ordering::Relaxed;
use std::time::Duration;

use super::State;
use super::gpus;
use super::histogram::Histogram;
use super::process::Process;
use crate::export::Coexistence;

const PREFIX: &str = "nodemend_detector_";

pub(super) fn text(state: &State, process: Option<&Process>) -> String {
    let mut page = Page::default();
    page.own("build_info", "gauge", "The release that runs.");
    page.sample(&[("version", &env!("CARGO_PKG_VERSION"))], &1);
    sources(state, &mut page);
    findings(state, &mut page);
    gpus::all(state, &mut page);
    export(state, &mut page);
    if let Some(process) = process {
        page.family(
            "process_cpu_seconds_total",
            "counter",
            "User and system time.",
        );
        page.sample(&[], &process.cpu_seconds);
        page.family("process_resident_memory_bytes", "gauge", "Resident memory.");
        page.sample(&[], &process.resident_bytes);
        page.family("process_open_fds", "gauge", "Open file descriptors.");
        page.sample(&[], &process.open_files);
        page.family("process_threads", "gauge", "Threads.");
        page.sample(&[], &process.threads);
    }
    page.text
}

fn sources(state: &State, page: &mut Page) {
    page.own("hook_attached", "gauge", "Whether a BPF hook is attached.");
    for (hook, attached) in &state.hooks {
        page.sample(&[("hook", hook)], &u8::from(*attached));
    }
    let sources: Vec<_> = state
        .sources
        .iter()
        .map(|(name, source)| (format!("{name:?}").to_ascii_lowercase(), source))
        .collect();
    page.own("source_up", "gauge", "Whether a source of signals works.");
    for (name, source) in &sources {
        page.sample(&[("source", name)], &u8::from(source.up.load(Relaxed)));
    }
    page.own("signals_total", "counter", "Observations, by source.");
    for (name, source) in &sources {
        page.sample(&[("source", name)], &source.signals.load(Relaxed));
    }
    let help = "Observations that a source lost.";
    page.own("signals_lost_total", "counter", help);
    for (name, source) in &sources {
        page.sample(&[("source", name)], &source.lost.load(Relaxed));
    }
}

fn findings(state: &State, page: &mut Page) {
    page.own("findings_total", "counter", "Findings that opened.");
    for ((reason, severity), count) in &state.findings {
        page.sample(&[("reason", reason), ("severity", severity)], count);
    }
    let mut open = BTreeMap::new();
    for finding in state.open.values() {
        // Bounded by what the core keeps open.
        *open
            .entry((finding.reason.name(), finding.severity))
            .or_insert(0u64) += 1;
    }
    page.own("findings_open", "gauge", "Findings that are open.");
    for ((reason, severity), count) in &open {
        page.sample(&[("reason", reason), ("severity", severity)], count);
    }
    let help = "Whether a condition is healthy; absent where it is not watched.";
    page.own("condition_healthy", "gauge", help);
    for condition in &state.conditions {
        page.sample(
            &[("type", &condition.kind.name())],
            &u8::from(condition.healthy),
        );
    }
}

fn export(state: &State, page: &mut Page) {
    page.own(
        "fault_to_finding_seconds",
        "histogram",
        "From the fault to the finding.",
    );
    page.histogram(&[], &state.lag);
    let help = "From the fault to the API server's word that it has it.";
    page.own("fault_to_export_seconds", "histogram", help);
    for (object, histogram) in &state.latency {
        page.histogram(&[("object", object)], histogram);
    }
    let help = "Changed conditions and Events that the API server took.";
    page.own("exports_total", "counter", help);
    for (object, count) in &state.exports {
        page.sample(&[("object", object)], count);
    }
    page.own(
        "export_requests_total",
        "counter",
        "Requests to the API server.",
    );
    for (verb, count) in &state.requests {
        page.sample(&[("verb", verb)], count);
    }
    let help = "Requests that failed; code 0 is no answer.";
    page.own("export_failures_total", "counter", help);
    for ((verb, code), count) in &state.failures {
        page.sample(&[("verb", verb), ("code", code)], count);
    }
    let help = "Events that the rate limit of their reason held back.";
    page.own("events_withheld_total", "counter", help);
    for (reason, count) in &state.withheld {
        page.sample(&[("reason", reason)], count);
    }
    page.own(
        "events_dropped_total",
        "counter",
        "Events that were given up.",
    );
    for (why, count) in &state.dropped {
        page.sample(&[("why", why)], count);
    }
    page.own(
        "events_waiting",
        "gauge",
        "Events that wait for the API server.",
    );
    page.sample(&[], &state.waiting);
    if let Some(wrote) = state.health.wrote {
        let help = "When the conditions were written last.";
        page.own("last_export_timestamp_seconds", "gauge", help);
        page.sample(&[], &wrote.wall.as_second());
    }
    let help = "Whether another agent writes the same condition types, by what is done about it.";
    page.own("foreign_condition_writer", "gauge", help);
    for (mode, name) in [
        (Coexistence::Shadow, "shadow"),
        (Coexistence::Refuse, "refuse"),
    ] {
        page.sample(
            &[("mode", &name)],
            &u8::from(state.foreign_writer == Some(mode)),
        );
    }
}

#[derive(Default)]
pub(super) struct Page {
    text: String,
    name: String,
}

impl Page {
    pub(super) fn own(&mut self, name: &str, kind: &str, help: &str) {
        self.family(&format!("{PREFIX}{name}"), kind, help);
    }

    fn family(&mut self, name: &str, kind: &str, help: &str) {
        name.clone_into(&mut self.name);
        self.line(format_args!("# HELP {name} {help}"));
        self.line(format_args!("# TYPE {name} {kind}"));
    }

    pub(super) fn sample(&mut self, labels: &[(&str, &dyn Display)], value: &dyn Display) {
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
            .map(|(bound, count)| (seconds(bound), count));
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

fn seconds(duration: Duration) -> String {
    duration.as_secs_f64().to_string()
}

fn escaped(value: &str) -> String {
    value
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_family_has_help_and_type_before_its_samples_and_no_series_comes_twice() {
        let mut state = State::default();
        for object in ["condition", "event"] {
            let latency = state.latency.entry(object).or_default();
            latency.observe(Duration::from_millis(3));
        }
        state.failures.insert(("get Node", 503), 2);
        let text = text(&state, None);
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
        assert!(
            seen.contains(
                &"nodemend_detector_fault_to_export_seconds_bucket{object=\"event\",le=\"0.005\"}"
            ),
            "{text}"
        );
        assert!(text.contains("export_failures_total{verb=\"get Node\",code=\"503\"} 2\n"));
    }

    #[test]
    fn a_label_value_cannot_break_out() {
        assert_eq!(escaped("a\"b\\c\nd"), "a\\\"b\\\\c\\nd");
    }
}
