//! PURE. How long finished repairs are kept: they are the memory that budgets and attempts count on.

use std::time::Duration;

use jiff::Timestamp;

use super::{Planner, Step, is_finished};
use crate::api::repair::NodeRepair;

/// Of one pass: old records are no reason to hurry.
const MOST_AT_ONCE: usize = 20;
/// What no retention goes below.
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
                old(*at, needed) && !self.is_a_final_word(repair)
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
