//! PURE. What earlier repairs say about the next one: all of it is read from the records, so that
//! it survives every restart.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::time::Duration;

use jiff::Timestamp;

use super::is_finished;
use crate::api::policy::RepairAction;
use crate::api::repair::{
    Attempt, AttemptResult, Gate, Hold, NodeRepair, NodeRepairStatus, Outcome,
};
use crate::cluster::Cluster;

/// From a failed canary to the next one; doubled by each further failure.
const COOLDOWN: Duration = Duration::from_secs(600);
/// Replacements of replacements that are followed.
const LONGEST_LINE: usize = 16;

#[derive(Debug, Default)]
pub(super) struct History<'a> {
    /// Repairs by the UID of their node.
    of_node: HashMap<&'a str, Vec<&'a NodeRepair>>,
    /// Repairs by the UID of the node that came in place of theirs.
    before: HashMap<&'a str, &'a NodeRepair>,
    /// By policy and group: each destruction, with the repair's name.
    destroyed: BTreeMap<(&'a str, &'a str), Vec<(Timestamp, &'a str)>>,
    /// By policy: the repairs that proved something.
    proofs: BTreeMap<&'a str, Vec<Proof<'a>>>,
    all_destroyed: Vec<(Timestamp, &'a str)>,
    /// By policy and group: the last call that AWS has answered, with the repair's name.
    answered: BTreeMap<(&'a str, &'a str), (&'a Attempt, &'a str)>,
    /// By Auto Scaling group: the last call that the account may not make.
    denied: BTreeMap<&'a str, &'a Attempt>,
    /// Repairs that lack a permission of the cluster's, by name; two are enough to find another one.
    lacking: Vec<(&'a str, &'a Hold)>,
}

/// The end of a repair that tells whether repairing helps.
#[derive(Clone, Copy, Debug)]
pub(super) struct Proof<'a> {
    pub(super) at: Timestamp,
    pub(super) success: bool,
    pub(super) repair: &'a NodeRepair,
}

/// How wide a breaker is open, going by what has been proven since.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Width {
    pub(super) width: u32,
    pub(super) successes: u32,
    /// Until when the next canary waits, after a failure.
    pub(super) not_before: Option<Timestamp>,
}

impl<'a> History<'a> {
    pub(super) fn read(cluster: &'a Cluster) -> Self {
        let mut history = Self::default();
        for (name, repair) in &cluster.repairs {
            let uid = repair.spec.node_ref.uid.as_str();
            history.of_node.entry(uid).or_default().push(repair);
            let Some(status) = &repair.status else {
                continue;
            };
            if let Some(replacement) = &status.replacement {
                history
                    .before
                    .entry(replacement.node_uid.as_str())
                    .or_insert(repair);
            }
            if let Some(hold) = &status.hold
                && hold.gate == Gate::Denied
                && history.lacking.len() < 2
            {
                history.lacking.push((name, hold));
            }
            if let Some(group) = &status.group {
                let denied = |attempt: &&Attempt| attempt.result == Some(AttemptResult::Denied);
                for attempt in status.attempts.iter().filter(denied) {
                    let last = history.denied.entry(group).or_insert(attempt);
                    if last.started < attempt.started {
                        *last = attempt;
                    }
                }
            }
            let policy = repair.policy();
            let group = status.counted_in().unwrap_or_default();
            for attempt in status
                .attempts
                .iter()
                .filter(|a| may_have_destroyed(a.result))
            {
                let entry = (attempt.started.0, name.as_str());
                history
                    .destroyed
                    .entry((policy, group))
                    .or_default()
                    .push(entry);
                history.all_destroyed.push(entry);
            }
            for attempt in status.attempts.iter().filter(|a| a.result.is_some()) {
                let last = history
                    .answered
                    .entry((policy, group))
                    .or_insert((attempt, name));
                if last.0.started < attempt.started {
                    *last = (attempt, name);
                }
            }
            if let Some(proof) = proof(repair, status) {
                history.proofs.entry(policy).or_default().push(proof);
            }
        }
        for list in history.destroyed.values_mut() {
            list.sort_unstable();
        }
        history.all_destroyed.sort_unstable();
        for proofs in history.proofs.values_mut() {
            proofs.sort_by_key(|proof| (proof.at, &proof.repair.metadata.name));
        }
        history
    }

    pub(super) fn of_node(&self, uid: &str) -> &[&'a NodeRepair] {
        self.of_node.get(uid).map_or(&[], Vec::as_slice)
    }

    /// When nodes of a group were destroyed by other repairs within the window, oldest first.
    pub(super) fn destroyed(
        &self,
        policy: &str,
        group: &str,
        except: &str,
        after: Timestamp,
    ) -> Vec<Timestamp> {
        let all = self
            .destroyed
            .get(&(policy, group))
            .map_or(&[][..], Vec::as_slice);
        within(all, except, after)
    }

    pub(super) fn all_destroyed(&self, except: &str, after: Timestamp) -> Vec<Timestamp> {
        within(&self.all_destroyed, except, after)
    }

    /// The last call for a group that the account may not make.
    pub(super) fn denied(&self, group: &str) -> Option<&'a Attempt> {
        self.denied.get(group).copied()
    }

    /// A repair other than this one that lacks a permission, and what it says.
    pub(super) fn lacking(&self, except: &str) -> Option<(&'a str, &'a Hold)> {
        let mut others = self.lacking.iter().copied();
        others.find(|(name, _)| *name != except)
    }

    /// Whether a node was rebooted after a moment, as far as anybody knows.
    pub(super) fn was_rebooted(&self, node_uid: &str, after: Timestamp) -> bool {
        let repairs = self.of_node(node_uid).iter();
        let attempts = repairs.filter_map(|repair| repair.status.as_ref());
        let mut attempts = attempts.flat_map(|status| &status.attempts);
        attempts.any(|attempt| {
            let reboot = attempt.action == RepairAction::Reboot;
            reboot && attempt.started.0 > after && may_have_destroyed(attempt.result)
        })
    }

    /// The last call about a node of a group, if it was another repair's and AWS has refused it.
    pub(super) fn refused(&self, policy: &str, group: &str, except: &str) -> Option<&'a Attempt> {
        let (attempt, name) = self.answered.get(&(policy, group))?;
        let refused = attempt.result == Some(AttemptResult::Refused);
        (refused && *name != except).then_some(*attempt)
    }

    /// How many nodes in a row were destroyed for this one to be here, within the window.
    pub(super) fn line_of(&self, node_uid: &str, after: Timestamp) -> usize {
        let mut uid = node_uid;
        let mut count = 0;
        let mut seen = BTreeSet::new();
        while let Some(repair) = self.before.get(uid) {
            let accepted = repair
                .status
                .iter()
                .flat_map(|status| &status.attempts)
                .any(|a| may_have_destroyed(a.result) && a.started.0 > after);
            if !accepted || count >= LONGEST_LINE || !seen.insert(uid) {
                break;
            }
            count += 1;
            uid = repair.spec.node_ref.uid.as_str();
        }
        count
    }

    /// Repairs of a policy that ended after `since`, oldest first.
    pub(super) fn proofs(&self, policy: &str, since: Timestamp) -> impl Iterator<Item = Proof<'a>> {
        let proofs = self.proofs.get(policy).map_or(&[][..], Vec::as_slice);
        proofs
            .iter()
            .filter(move |proof| proof.at >= since)
            .copied()
    }
}

fn within(all: &[(Timestamp, &str)], except: &str, after: Timestamp) -> Vec<Timestamp> {
    let from = all.partition_point(|(at, _)| *at <= after);
    let others = all[from..].iter().filter(|(_, name)| *name != except);
    others.map(|(at, _)| *at).collect()
}

/// One by default, doubled by each success, back to one after a failure.
pub(super) fn width<'a>(proofs: impl Iterator<Item = Proof<'a>>) -> Width {
    let mut width = Width {
        width: 1,
        successes: 0,
        not_before: None,
    };
    let mut failures = 0;
    for proof in proofs {
        if proof.success {
            width.width = width.width.saturating_mul(2);
            width.successes += 1;
            width.not_before = None;
            failures = 0;
        } else {
            width.width = 1;
            width.successes = 0;
            width.not_before = Some(proof.at + COOLDOWN * (1 << failures));
            failures = (failures + 1).min(3);
        }
    }
    width
}

/// A call without a known end counts as made.
fn may_have_destroyed(result: Option<AttemptResult>) -> bool {
    match result {
        None | Some(AttemptResult::Accepted) => true,
        Some(
            AttemptResult::Refused
            | AttemptResult::NotApplied
            | AttemptResult::Withheld
            | AttemptResult::Throttled
            | AttemptResult::Denied,
        ) => false,
    }
}

/// Whether a repair has failed lately.
pub(super) fn failed_after(repair: &NodeRepair, after: Timestamp) -> bool {
    let proof = repair.status.as_ref().and_then(|s| proof(repair, s));
    proof.is_some_and(|proof| !proof.success && proof.at > after)
}

fn proof<'a>(repair: &'a NodeRepair, status: &'a NodeRepairStatus) -> Option<Proof<'a>> {
    if !is_finished(repair) {
        return None;
    }
    let success = match status.outcome? {
        Outcome::Succeeded => true,
        Outcome::Failed => false,
        Outcome::Recovered | Outcome::Cancelled | Outcome::Superseded | Outcome::NeedsHuman => {
            return None;
        }
    };
    Some(Proof {
        at: status.timeline.last()?.at.0,
        success,
        repair,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::fixture::{self, at};

    #[test]
    fn the_width_doubles_with_success_and_falls_back_with_failure() {
        let repair = NodeRepair::new("r", fixture::spec("node-0"));
        let ends = |ends: &[bool]| {
            let proofs = ends.iter().zip(0..).map(|(success, second)| Proof {
                at: at(second),
                success: *success,
                repair: &repair,
            });
            let width = width(proofs);
            (width.width, width.not_before)
        };
        assert_eq!(ends(&[]), (1, None));
        assert_eq!(ends(&[true, true]), (4, None));
        assert_eq!(ends(&[true, true, false]), (1, Some(at(2 + 600))));
        assert_eq!(ends(&[false, false]), (1, Some(at(1 + 1200))));
        assert_eq!(ends(&[false, true]), (2, None));
    }
}
