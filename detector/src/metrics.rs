//! What this agent does, in numbers, and what it knows, for `/metrics`, `/findings` and `/healthz`.

use std::borrow::Cow;
use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use crate::core::Condition;
use crate::export::Coexistence;
use crate::finding::{Change, Finding, Now, Transition};
use crate::host::Host;
use crate::reason::{Reason, Severity};
use crate::signal::{Counted, GpuState, Signal, SourceName, What};
use crate::text;

pub(crate) mod counted;
mod gpus;
mod histogram;
mod process;
mod render;

pub(crate) use self::gpus::Health;
use self::histogram::Histogram;

/// Rules and XIDs make reasons up; beyond so many they share a label.
const MOST_REASONS: usize = 256;
const OTHERS: &str = "(others)";

/// Shared by the reader thread, the exporter and the HTTP server.
#[derive(Default)]
pub(crate) struct Metrics(Mutex<State>);

#[derive(Default)]
struct State {
    hooks: BTreeMap<&'static str, bool>,
    sources: BTreeMap<SourceName, Arc<SourceCounts>>,
    findings: BTreeMap<(Cow<'static, str>, Severity), u64>,
    open: BTreeMap<(Reason, String), Finding>,
    conditions: Vec<Condition>,
    gpus: BTreeMap<String, GpuState>,
    /// From the fault to the finding.
    lag: Histogram,
    /// From the fault to the API server.
    latency: BTreeMap<&'static str, Histogram>,
    exports: BTreeMap<&'static str, u64>,
    requests: BTreeMap<&'static str, u64>,
    failures: BTreeMap<(&'static str, u16), u64>,
    withheld: BTreeMap<Cow<'static, str>, u64>,
    dropped: BTreeMap<&'static str, u64>,
    waiting: usize,
    foreign_writer: Option<Coexistence>,
    health: Exporting,
}

/// The reader thread counts without a lock: it runs in real time, and who holds the lock may not.
#[derive(Default)]
pub(crate) struct SourceCounts {
    up: AtomicBool,
    signals: AtomicU64,
    lost: AtomicU64,
}

impl SourceCounts {
    fn signal(&self, signal: &Signal) {
        let (counter, count) = match signal.what {
            What::Lost { count, .. } => (&self.lost, count),
            // At least.
            What::Overrun { .. } => (&self.lost, 1),
            What::Counted {
                ref fault,
                counted: Counted::Times(count),
            } if fault.reason == Reason::SignalsLost => (&self.lost, count),
            _ => (&self.signals, 1),
        };
        counter.fetch_add(count, Ordering::Relaxed);
    }
}

/// What came from a source.
#[derive(Debug, Clone, Default)]
pub(crate) struct Source {
    pub signals: u64,
    pub lost: u64,
}

/// How the exporter is.
#[derive(Debug, Clone, Default)]
pub(crate) struct Exporting {
    /// When it will have shown a sign of life again; None while nothing is due.
    pub back_by: Option<Duration>,
    pub wrote: Option<Now>,
    /// Since the last write of conditions that went well.
    pub failed: Option<String>,
}

/// What `/findings` shows.
pub(crate) struct Known {
    pub findings: Vec<Finding>,
    pub conditions: Vec<Condition>,
    /// By address.
    pub gpus: BTreeMap<String, GpuState>,
}

impl Metrics {
    /// All of them, as they are now.
    pub(crate) fn open(&self, findings: Vec<Finding>) {
        let key = |finding: Finding| ((finding.reason, finding.entity.clone()), finding);
        self.state().open = findings.into_iter().map(key).collect();
    }

    pub(crate) fn host(&self, host: &Host) {
        let mut state = self.state();
        for status in host.hooks.iter().filter(|status| !status.absent) {
            state
                .hooks
                .insert(status.hook.name(), status.using.is_some());
        }
        for source in SourceName::ALL {
            let up = host.sources.iter().any(|open| open.name() == source);
            let counts = state.sources.entry(source).or_default();
            counts.up.store(up, Ordering::Relaxed);
        }
    }

    fn source(&self, source: SourceName) -> Arc<SourceCounts> {
        Arc::clone(self.state().sources.entry(source).or_default())
    }

    pub(crate) fn transition(&self, transition: &Transition) {
        let mut state = self.state();
        let finding = &transition.finding;
        let key = (finding.reason, finding.entity.clone());
        match transition.change {
            Change::Opened => {
                let reason = label(finding.reason, state.findings.keys().map(|(name, _)| name));
                let total = state.findings.entry((reason, finding.severity));
                *total.or_default() += 1;
                let lag = transition.found.boot.saturating_sub(transition.fault);
                state.lag.observe(lag);
                state.open.insert(key, finding.clone());
            }
            Change::Repeated => {
                state.open.insert(key, finding.clone());
            }
            Change::Cleared => {
                state.open.remove(&key);
            }
        }
    }

    pub(crate) fn conditions(&self, conditions: &[Condition]) {
        conditions.clone_into(&mut self.state().conditions);
    }

    pub(crate) fn gpus(&self, gpus: &BTreeMap<String, GpuState>) {
        gpus.clone_into(&mut self.state().gpus);
    }

    /// `object`: "condition" or "event".
    pub(crate) fn exported(&self, object: &'static str, latency: Option<Duration>) {
        let mut state = self.state();
        *state.exports.entry(object).or_default() += 1;
        if let Some(latency) = latency {
            state.latency.entry(object).or_default().observe(latency);
        }
    }

    pub(crate) fn wrote_conditions(&self, now: Now) {
        let mut state = self.state();
        state.health.wrote = Some(now);
        state.health.failed = None;
    }

    /// Also those that fail.
    pub(crate) fn requested(&self, verb: &'static str) {
        *self.state().requests.entry(verb).or_default() += 1;
    }

    /// Requests that were answered, and those that were not.
    pub(crate) fn requests(&self) -> (u64, u64) {
        let state = self.state();
        let all: u64 = state.requests.values().sum();
        let failures = state.failures.iter();
        let silent: u64 = failures
            .filter(|((_, code), _)| *code == 0)
            .map(|(_, count)| count)
            .sum();
        (all.saturating_sub(silent), silent)
    }

    /// `code` is the HTTP status, 0 without an answer.
    pub(crate) fn export_failed(&self, verb: &'static str, code: u16, error: &anyhow::Error) {
        let mut state = self.state();
        *state.failures.entry((verb, code)).or_default() += 1;
        state.health.failed = Some(text::printable(
            format!("{verb}: {error:#}").as_bytes(),
            500,
        ));
    }

    pub(crate) fn event_withheld(&self, reason: Reason) {
        let mut state = self.state();
        let reason = label(reason, state.withheld.keys());
        *state.withheld.entry(reason).or_default() += 1;
    }

    pub(crate) fn event_dropped(&self, why: &'static str) {
        *self.state().dropped.entry(why).or_default() += 1;
    }

    pub(crate) fn events_waiting(&self, waiting: usize) {
        self.state().waiting = waiting;
    }

    pub(crate) fn foreign_writer(&self, mode: Coexistence) {
        self.state().foreign_writer = Some(mode);
    }

    pub(crate) fn exporter_back_by(&self, at: Option<Duration>) {
        self.state().health.back_by = at;
    }

    pub(crate) fn exporting(&self) -> Exporting {
        self.state().health.clone()
    }

    pub(crate) fn known(&self) -> Known {
        let state = self.state();
        Known {
            findings: state.open.values().cloned().collect(),
            conditions: state.conditions.clone(),
            gpus: state.gpus.clone(),
        }
    }

    pub(crate) fn sources(&self) -> BTreeMap<SourceName, Source> {
        let state = self.state();
        let counted = |counts: &SourceCounts| Source {
            signals: counts.signals.load(Ordering::Relaxed),
            lost: counts.lost.load(Ordering::Relaxed),
        };
        let sources = state.sources.iter();
        sources
            .map(|(name, counts)| (*name, counted(counts)))
            .collect()
    }

    /// In Prometheus' text format.
    pub(crate) fn text(&self) -> String {
        render::text(&self.state(), process::read().as_ref())
    }

    fn state(&self) -> MutexGuard<'_, State> {
        // Numbers do not become wrong because another thread panicked.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn label<'a>(
    reason: Reason,
    known: impl Iterator<Item = &'a Cow<'static, str>>,
) -> Cow<'static, str> {
    let name = reason.name();
    let mut count = 0;
    for known in known {
        if *known == name {
            return name;
        }
        count += 1;
    }
    if count < MOST_REASONS {
        name
    } else {
        Cow::Borrowed(OTHERS)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::finding::Subject;

    pub(super) fn opened(reason: Reason, entity: &str) -> Transition {
        let now = Now {
            boot: Duration::from_secs(9),
            wall: "2026-01-02T03:04:05Z".parse().unwrap(),
        };
        Transition {
            change: Change::Opened,
            finding: Finding {
                reason,
                entity: entity.to_owned(),
                severity: Severity::Warning,
                message: "m".to_owned(),
                subject: Subject::default(),
                count: 1,
                flaps: 0,
                historic: false,
                opened: now,
                last_seen: now.boot,
            },
            fault: now.boot,
            found: now,
        }
    }

    #[test]
    fn a_finding_that_cleared_is_counted_but_not_open() {
        let metrics = Metrics::default();
        let mut transition = opened(Reason::OomKilling, "e");
        metrics.transition(&transition);
        transition.change = Change::Cleared;
        metrics.transition(&transition);
        assert!(metrics.known().findings.is_empty());
        let text = metrics.text();
        assert!(
            text.contains(
                "nodemend_detector_findings_total{reason=\"OOMKilling\",severity=\"Warning\"} 1\n"
            ),
            "{text}"
        );
    }

    #[test]
    fn reasons_that_the_kernel_log_makes_up_do_not_make_labels_without_end() {
        let metrics = Metrics::default();
        for xid in 0..1000 {
            metrics.transition(&opened(Reason::NvidiaXidError(xid), "gpu"));
        }
        let text = metrics.text();
        let series = text
            .lines()
            .filter(|line| line.starts_with("nodemend_detector_findings_total{"));
        assert_eq!(series.count(), MOST_REASONS + 1);
        assert!(
            text.contains("reason=\"(others)\",severity=\"Warning\"} 744\n"),
            "{text}"
        );
    }
}
