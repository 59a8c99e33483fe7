//! PURE. What a node's episodes ask for, and when: the strongest reason of an episode decides.

use jiff::Timestamp;

use crate::api::duration::Wait;
use crate::api::policy::{RepairAction, RepairPolicySpec, RepairRule};
use crate::cluster::NodeView;
use crate::episode::Episode;
use crate::rule::{self, Certainty};

/// The one thing that is due next for a node.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Due<'a> {
    pub(super) episode: &'a Episode,
    /// The reason that decides.
    pub(super) reason: &'a str,
    pub(super) action: RepairAction,
    /// What is tried if that does not help.
    pub(super) next: Option<RepairAction>,
    pub(super) certainty: Certainty,
    pub(super) wait: Wait,
    pub(super) at: Timestamp,
}

pub(super) enum Ripeness<'a> {
    Nothing,
    /// All are healthy again, for now.
    Recovering {
        condition: String,
        since: Timestamp,
    },
    Due(Due<'a>),
}

impl<'a> Due<'a> {
    /// Of what is ripe the strongest; else what ripens first.
    pub(super) fn of(
        policy: &RepairPolicySpec,
        node: &NodeView,
        episodes: &[&'a Episode],
        now: Timestamp,
    ) -> Option<Self> {
        let open = episodes.iter().filter(|e| e.recovered.is_none());
        let due: Vec<_> = open.filter_map(|e| of_episode(policy, node, e)).collect();
        let ripe = due.iter().filter(|due| due.at <= now);
        let strongest = ripe.max_by_key(|due| (due.strength(), std::cmp::Reverse(due.at)));
        strongest
            .or_else(|| due.iter().min_by_key(|due| due.at))
            .copied()
    }

    pub(super) fn strength(&self) -> (RepairAction, Certainty) {
        (self.action, self.certainty)
    }
}

/// The strongest of all reasons that the episode has had.
fn of_episode<'a>(
    policy: &RepairPolicySpec,
    node: &NodeView,
    episode: &'a Episode,
) -> Option<Due<'a>> {
    let condition = node.condition(&episode.condition)?;
    // Of equal ones the first that was seen: `max_by_key` takes the last.
    let rules = episode.reasons.iter().rev().filter_map(|seen| {
        let (kind, status) = (&condition.kind, &condition.status);
        let rule = rule::matching_reason(policy, kind, status, &seen.reason)?;
        rule::acts(rule).then_some((seen.reason.as_str(), rule))
    });
    let strength = |rule: &RepairRule| {
        (
            rule::first_action(rule),
            rule::certainty(rule),
            // Of equals the one that waits longer.
            rule.min_repair_wait_time,
        )
    };
    let (reason, rule) = rules.max_by_key(|(_, rule)| strength(rule))?;
    let wait = rule.min_repair_wait_time;
    Some(Due {
        episode,
        reason,
        action: rule::first_action(rule),
        next: rule.repair_actions.get(1).copied(),
        certainty: rule::certainty(rule),
        wait,
        at: episode.since + wait.0,
    })
}

impl<'a> Ripeness<'a> {
    pub(super) fn of(
        policy: &RepairPolicySpec,
        node: &NodeView,
        episodes: &[&'a Episode],
        now: Timestamp,
    ) -> Self {
        if let Some(due) = Due::of(policy, node, episodes, now) {
            return Self::Due(due);
        }
        let recovering = episodes.iter().find_map(|episode| {
            Some(Self::Recovering {
                condition: episode.condition.clone(),
                since: episode.recovered?,
            })
        });
        recovering.unwrap_or(Self::Nothing)
    }
}
