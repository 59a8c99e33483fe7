//! PURE. How long finished repairs are kept: they are the memory that budgets and attempts count on.

use std::time::Duration;

use jiff::Timestamp;

use super::{Planner, Step, is_finished};
use crate::api::repair::NodeRepair;

/// Of one pass: old records are no reason to hurry.
const MOST_AT_ONCE: usize = 50;
/// What no retention of a repair that has destroyed something goes below.
const AT_LEAST: Duration = Duration::from_secs(24 * 3600);

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Retention {
    /// Finished repairs.
    pub count: usize,
    pub age: Duration,
}

impl Default for Retention {
    fn default() -> Self {
        Self {
            count: 1000,
            age: Duration::from_secs(30 * 24 * 3600),
        }
    }
}

impl Planner<'_> {
    /// Finished repairs that are too old, or too many. None that a policy still counts.
    pub(super) fn forget(&mut self, retention: Retention) {
        let windows = self.cluster.policies.iter().flat_map(|policy| {
            let spec = &policy.spec;
            [spec.attempts.window.0, spec.repair_budget.window.0]
        });
        let needed = windows.chain([AT_LEAST]).max().unwrap_or(AT_LEAST);
        let mut finished: Vec<_> = self
            .cluster
            .repairs
            .iter()
            .filter(|(_, repair)| is_finished(repair))
            .filter_map(|(name, repair)| Some((ended(repair)?, name)))
            .collect();
        finished.sort_unstable();
        let too_many = finished.len().saturating_sub(retention.count);
        let now = self.now;
        let old = |at: Timestamp, than: Duration| now.duration_since(at).unsigned_abs() > than;
        let mut steps: Vec<_> = finished
            .into_iter()
            .enumerate()
            .filter(|(index, (at, _))| *index < too_many || old(*at, retention.age))
            .filter(|(_, (at, name))| {
                let repair = &self.cluster.repairs[*name];
                let counted = repair
                    .status
                    .as_ref()
                    .is_some_and(|s| !s.attempts.is_empty());
                (!counted || old(*at, needed)) && !self.is_a_final_word(repair)
            })
            .take(MOST_AT_ONCE)
            .map(|(_, (_, name))| Step::Forget {
                repair: name.clone(),
            })
            .collect();
        self.plan.steps.append(&mut steps);
    }
}

impl Planner<'_> {
    /// It keeps a node that still is there from being repaired again for the same.
    fn is_a_final_word(&self, repair: &NodeRepair) -> bool {
        let outcome = repair.status.as_ref().and_then(|status| status.outcome);
        super::ends_for_good(outcome) && self.cluster.node_of(repair).is_some()
    }
}

fn ended(repair: &NodeRepair) -> Option<Timestamp> {
    Some(repair.status.as_ref()?.timeline.last()?.at.0)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::repair::{Outcome, Phase};
    use crate::cluster::Cluster;
    use crate::decide::fixture::{self, at};
    use crate::episode::Episodes;

    const DAY: i64 = 24 * 3600;

    /// Finished repairs of nodes that are gone: an outcome, and whether something was destroyed.
    fn finished(ends: &[(Outcome, bool, i64)]) -> Cluster {
        let mut cluster = fixture::cluster(ends.len());
        for (index, (outcome, destroyed, end)) in ends.iter().enumerate() {
            let node = format!("node-{index}");
            let phase = if *destroyed {
                Phase::Verifying
            } else {
                Phase::Waiting
            };
            let name = fixture::add_repair(&mut cluster, &node, phase, *end);
            let status = cluster.repairs.get_mut(&name).unwrap().status.as_mut();
            let status = status.unwrap();
            (status.phase, status.outcome) = (Phase::Finished, Some(*outcome));
            cluster.nodes.remove(&node);
        }
        cluster
    }

    fn forgotten(cluster: &Cluster, count: usize, now: i64) -> Vec<String> {
        let retention = Retention {
            count,
            ..Retention::default()
        };
        let plan = super::super::decide(cluster, &Episodes::default(), retention, at(now));
        let step = |step: &Step| match step {
            Step::Forget { repair } => Some(repair.clone()),
            Step::Open(_) | Step::Record { .. } | Step::Act { .. } | Step::Dismiss { .. } => None,
        };
        plan.steps.iter().filter_map(step).collect()
    }

    #[test]
    fn the_oldest_go_when_there_are_too_many_or_their_time_is_over() {
        let recovered = |end| (Outcome::Recovered, false, end);
        let cluster = finished(&[recovered(20), recovered(10), recovered(30)]);
        assert_eq!(forgotten(&cluster, 10, 100), Vec::<String>::new());
        assert_eq!(forgotten(&cluster, 2, 100), ["node-1-repair"]);
        assert_eq!(forgotten(&cluster, 10, 31 * DAY).len(), 3);
    }

    #[test]
    fn what_a_budget_still_counts_is_kept() {
        let cluster = finished(&[(Outcome::Succeeded, true, 10)]);
        assert_eq!(forgotten(&cluster, 0, DAY), Vec::<String>::new());
        assert_eq!(forgotten(&cluster, 0, DAY + 60).len(), 1);
    }

    #[test]
    fn the_last_word_about_a_node_is_kept_while_it_is_there() {
        let mut cluster = finished(&[(Outcome::Failed, true, 10)]);
        let node = fixture::node("node-0", 0);
        cluster.nodes.insert(node.name.clone(), node);
        assert_eq!(forgotten(&cluster, 0, 40 * DAY), Vec::<String>::new());
        cluster.nodes.clear();
        assert_eq!(forgotten(&cluster, 0, 40 * DAY).len(), 1);
    }
}
