//! What Prometheus is told: counted where it happens, labelled from closed sets.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::Instant;

pub use self::cloud::CountCalls;
use self::histogram::Histogram;
use crate::api::policy::RepairAction;
use crate::api::repair::{Gate, NodeRepairStatus, Outcome, Phase};
use crate::clock;
use crate::cluster::Cluster;
use crate::decide::Plan;

mod cloud;
mod histogram;
mod process;
mod render;

/// Groups that have a series of their own, those with most unhealthy nodes; the rest is `other`.
const MOST_GROUPS: usize = 20;
/// A pass that lasts longer hangs: its steps have deadlines of their own.
const LONGEST_PASS: Duration = Duration::from_secs(600);

#[derive(Default)]
pub struct Metrics(Mutex<State>);

#[derive(Default)]
struct State {
    leader: bool,
    pass_began: Option<Instant>,
    decided: Option<Timestamp>,
    decisions: Histogram,
    finished: BTreeMap<(Option<RepairAction>, Outcome), u64>,
    holds: BTreeMap<Gate, u64>,
    drains: Histogram,
    repairs: BTreeMap<Outcome, Histogram>,
    cloud_calls: BTreeMap<(String, &'static str), u64>,
    events: BTreeMap<&'static str, u64>,
    now: Standing,
}

/// As things stood at the last decision.
#[derive(Default)]
struct Standing {
    nodes: usize,
    open: BTreeMap<(Phase, Option<RepairAction>), u64>,
    held: BTreeMap<Gate, u64>,
    oldest_hold: Option<Timestamp>,
    unhealthy: BTreeMap<String, u64>,
    needs_human: u64,
}

impl Metrics {
    fn state(&self) -> MutexGuard<'_, State> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub fn leads(&self) {
        self.state().leader = true;
    }

    pub fn pass_begins(&self) {
        self.state().pass_began = Some(Instant::now());
    }

    pub fn pass_ends(&self) {
        self.state().pass_began = None;
    }

    /// Whether the loop moves, or has nothing to do.
    pub fn is_alive(&self) -> bool {
        let began = self.state().pass_began;
        began.is_none_or(|began| began.elapsed() < LONGEST_PASS)
    }

    pub fn decided(&self, cluster: &Cluster, plan: &Plan, took: Duration, now: Timestamp) {
        let standing = Standing::of(cluster, plan);
        let mut state = self.state();
        state.decisions.observe(took);
        state.decided = Some(now);
        state.now = standing;
    }

    /// What a new status of a repair says that the one before did not.
    pub fn recorded(&self, before: &NodeRepairStatus, status: &NodeRepairStatus, now: Timestamp) {
        let since = |at: Timestamp| now.duration_since(at).unsigned_abs();
        let mut state = self.state();
        let gate = |status: &NodeRepairStatus| status.hold.as_ref().map(|hold| hold.gate);
        if let Some(gate) = gate(status).filter(|_| gate(before) != gate(status)) {
            *state.holds.entry(gate).or_default() += 1;
        }
        if let Some(drain) = &before.drain
            && status.drain.is_none()
            && !status.is_finished()
        {
            state.drains.observe(since(drain.since.0));
        }
        if let Some(outcome) = status.outcome.filter(|_| before.outcome.is_none()) {
            *state.finished.entry((status.action, outcome)).or_default() += 1;
            if let Some(first) = status.timeline.first() {
                let repairs = state.repairs.entry(outcome).or_default();
                repairs.observe(since(first.at.0));
            }
        }
    }

    /// `api` is the SDK's own name of the operation.
    pub fn cloud_call(&self, api: &str, result: &'static str) {
        let key = (api.to_owned(), result);
        *self.state().cloud_calls.entry(key).or_default() += 1;
    }

    pub fn event(&self, became: &'static str) {
        *self.state().events.entry(became).or_default() += 1;
    }

    pub fn text(&self) -> String {
        let process = process::read();
        render::text(&self.state(), process.as_ref(), clock::now())
    }
}

impl Standing {
    fn of(cluster: &Cluster, plan: &Plan) -> Self {
        let mut standing = Self {
            nodes: cluster.nodes.len(),
            ..Self::default()
        };
        let statuses = cluster.repairs.values().filter_map(|r| r.status.as_ref());
        for status in statuses.filter(|status| !status.is_finished()) {
            let open = standing.open.entry((status.phase, status.action));
            *open.or_default() += 1;
            if let Some(hold) = &status.hold {
                *standing.held.entry(hold.gate).or_default() += 1;
                let oldest = standing.oldest_hold.get_or_insert(hold.since.0);
                *oldest = hold.since.0.min(*oldest);
            }
        }
        let policies = || plan.policies.values();
        standing.needs_human = policies().map(|p| u64::from(p.needs_human)).sum();
        let mut groups: BTreeMap<&str, u64> = BTreeMap::new();
        for group in policies().flat_map(|policy| &policy.groups) {
            *groups.entry(&group.name).or_default() += u64::from(group.unhealthy);
        }
        let mut groups: Vec<_> = groups.into_iter().collect();
        groups.sort_by_key(|(_, unhealthy)| std::cmp::Reverse(*unhealthy));
        groups.truncate(MOST_GROUPS);
        let all: u64 = policies().map(|p| u64::from(p.unhealthy)).sum();
        let told: u64 = groups.iter().map(|(_, unhealthy)| unhealthy).sum();
        let own = groups.into_iter().map(|(name, n)| (name.to_owned(), n));
        standing.unhealthy = own.collect();
        // A group of that name is not lost either.
        *standing.unhealthy.entry("other".to_owned()).or_default() += all.saturating_sub(told);
        standing
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::fixture::{self, at};
    use crate::decide::{Retention, decide};

    #[test]
    fn groups_beyond_the_cap_are_counted_as_other() {
        let mut cluster = fixture::cluster(60);
        for index in 0..30 {
            let name = format!("node-{index}");
            fixture::make_sick(&mut cluster, &name);
            let id = cluster.nodes[&name].instance().unwrap();
            let instance = cluster.instances.get_mut(id.as_str()).unwrap();
            instance.group = Some(format!("group-{index}"));
        }
        let episodes = fixture::episodes_since(&cluster, 0);
        let plan = decide(&cluster, &episodes, Retention::default(), at(100));
        let standing = Standing::of(&cluster, &plan);
        assert_eq!(standing.unhealthy.values().sum::<u64>(), 30);
        assert!(standing.unhealthy.len() <= MOST_GROUPS + 1);
        assert!(standing.unhealthy["other"] >= 10);
    }

    #[test]
    fn a_hold_is_counted_when_its_gate_changes_and_a_repair_when_it_ends() {
        let metrics = Metrics::default();
        let before = NodeRepairStatus::default();
        let mut ended = NodeRepairStatus {
            action: Some(RepairAction::Replace),
            phase: Phase::Finished,
            outcome: Some(Outcome::Succeeded),
            ..NodeRepairStatus::default()
        };
        ended.note(at(0), "unhealthy");
        metrics.recorded(&before, &ended, at(90));
        metrics.recorded(&ended, &ended, at(95));
        metrics.leads();
        let text = metrics.text();
        for line in [
            "nodemend_repairer_leader 1\n",
            "nodemend_repairer_repairs_finished_total{action=\"Replace\",outcome=\"Succeeded\"} 1\n",
            "nodemend_repairer_repair_duration_seconds_sum{outcome=\"Succeeded\"} 90\n",
        ] {
            assert!(text.contains(line), "{line}{text}");
        }
    }
}
