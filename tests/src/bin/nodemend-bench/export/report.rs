//! What the fleet asked for, as a table and as JSON.

use std::collections::BTreeMap;
use std::fmt::Write as _;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use serde_json::{Value, json};
use tokio::task::JoinHandle;

/// Users' heartbeat.
const USUAL: Duration = Duration::from_secs(300);

/// By node and condition type: status and transition time.
pub(super) type Transitions = BTreeMap<(String, String), (String, Option<String>)>;

/// One that goes on.
pub(super) struct Phase {
    pub(super) name: &'static str,
    pub(super) started: Duration,
    pub(super) requests: (u64, u64),
    pub(super) counted: u64,
    /// The total of answered requests, once a second.
    pub(super) seconds: Arc<Mutex<Vec<u64>>>,
    pub(super) sampler: JoinHandle<()>,
}

impl Phase {
    pub(super) fn totals(&self) -> Vec<u64> {
        let seconds = self.seconds.lock();
        seconds.unwrap_or_else(PoisonError::into_inner).clone()
    }
}

/// One that is over.
pub(super) struct Measured {
    pub(super) name: &'static str,
    pub(super) took: Duration,
    pub(super) answered: u64,
    /// Tries without an answer.
    pub(super) unanswered: u64,
    /// In one second.
    pub(super) peak: u64,
    /// Patches of nodes/status by the API server's own count.
    pub(super) counted: u64,
}

pub(crate) struct Report {
    pub(super) agents: u32,
    pub(super) heartbeat: Duration,
    pub(super) outage: Duration,
    pub(super) phases: Vec<Measured>,
    pub(super) conditions: usize,
    pub(super) changed_by_outage: usize,
    pub(super) changed_by_restart: usize,
}

/// Conditions that are gone, new, or have another status or transition time.
pub(super) fn changes(before: &Transitions, after: &Transitions) -> usize {
    let changed = before
        .iter()
        .filter(|&(key, old)| after.get(key) != Some(old));
    let new = after.keys().filter(|key| !before.contains_key(*key));
    changed.count() + new.count()
}

impl Measured {
    fn mean(&self) -> f64 {
        let answered = f64::from(u32::try_from(self.answered).unwrap_or(u32::MAX));
        answered / self.took.as_secs_f64().max(f64::MIN_POSITIVE)
    }
}

impl Report {
    pub(crate) fn table(&self) -> String {
        let beat = self.heartbeat.as_secs();
        let mut lines = vec![
            format!(
                "{} exporters, heartbeat {beat} s, an outage of {} s",
                self.agents,
                self.outage.as_secs()
            ),
            format!(
                "{:<26}{:>9}{:>10}{:>9}{:>9}{:>12}{:>17}",
                "", "seconds", "requests", "mean/s", "peak/s", "unanswered", "status patches *"
            ),
        ];
        for phase in &self.phases {
            lines.push(format!(
                "{:<26}{:>9.1}{:>10}{:>9.1}{:>9}{:>12}{:>17}",
                phase.name,
                phase.took.as_secs_f64(),
                phase.answered,
                phase.mean(),
                phase.peak,
                phase.unanswered,
                phase.counted
            ));
        }
        lines.push("* as the API server has counted them".to_owned());
        if let Some(usual) = self.usual() {
            let usual_beat = USUAL.as_secs();
            lines.push(format!(
                "steady state, scaled to a heartbeat of {usual_beat} s: {usual:.1} requests/s"
            ));
        }
        lines.push(format!(
            "lastTransitionTime or status changed, of {} conditions: {} by the outage, {} by the restart",
            self.conditions, self.changed_by_outage, self.changed_by_restart
        ));
        lines.iter().fold(String::new(), |mut text, line| {
            // Writing to a String cannot fail.
            let _written = writeln!(text, "{line}");
            text
        })
    }

    /// The steady state with the heartbeat that users have.
    fn usual(&self) -> Option<f64> {
        let steady = self
            .phases
            .iter()
            .find(|phase| phase.name == "steady state")?;
        Some(steady.mean() * self.heartbeat.as_secs_f64() / USUAL.as_secs_f64())
    }

    pub(crate) fn json(&self) -> Value {
        let phases: Vec<_> = self
            .phases
            .iter()
            .map(|phase| {
                json!({
                    "name": phase.name,
                    "seconds": phase.took.as_secs_f64(),
                    "requests": phase.answered,
                    "requestsPerSecond": phase.mean(),
                    "peakPerSecond": phase.peak,
                    "unanswered": phase.unanswered,
                    "statusPatchesByApiServer": phase.counted,
                })
            })
            .collect();
        json!({
            "agents": self.agents,
            "heartbeatSeconds": self.heartbeat.as_secs(),
            "outageSeconds": self.outage.as_secs(),
            "phases": phases,
            "steadyRequestsPerSecondAt300s": self.usual(),
            "conditions": self.conditions,
            "transitionsChangedByOutage": self.changed_by_outage,
            "transitionsChangedByRestart": self.changed_by_restart,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn one(status: &str, time: &str) -> Transitions {
        let key = ("node".to_owned(), "KernelReady".to_owned());
        BTreeMap::from([(key, (status.to_owned(), Some(time.to_owned())))])
    }

    #[test]
    fn a_condition_that_moved_went_or_came_is_a_change() {
        let before = one("True", "1");
        assert_eq!(changes(&before, &before), 0);
        assert_eq!(changes(&before, &one("True", "2")), 1);
        assert_eq!(changes(&before, &one("False", "1")), 1);
        assert_eq!(changes(&before, &Transitions::new()), 1);
        assert_eq!(changes(&Transitions::new(), &before), 1);
    }
}
