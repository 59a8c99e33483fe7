//! PURE. Nodes that fail for one reason at about one time: then it is not each of them, but what
//! they share. One is repaired first, and how that ends decides about the others.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use super::history::{self, History};
use super::{is_finished, phase};
use crate::api::policy::RepairPolicy;
use crate::api::repair::{NodeRepair, Phase};
use crate::cluster::{Cluster, NodeView};
use crate::episode::Episodes;

/// What many nodes have in common.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Correlated {
    pub(super) condition: String,
    pub(super) reason: String,
    /// UIDs of the nodes that have it now.
    pub(super) nodes_with_it: BTreeSet<String>,
    pub(super) count: usize,
    /// Those that may be repaired, in the order in which they are.
    pub(super) members: Vec<String>,
    /// Nodes of the policy.
    pub(super) nodes: usize,
    /// For example `instance type g5.xlarge`.
    pub(super) shared: Vec<String>,
    pub(super) width: u32,
    pub(super) not_before: Option<Timestamp>,
    /// Repairs that are under way of nodes that had it and are gone.
    pub(super) gone: usize,
}

impl Correlated {
    pub(super) fn concerns(&self, uid: &str) -> bool {
        self.nodes_with_it.contains(uid)
    }

    /// Whether a member may go on.
    pub(super) fn lets_through(&self, uid: &str, started: bool, now: Timestamp) -> bool {
        let free = (self.width as usize).saturating_sub(self.gone);
        let cooling = !started && self.not_before.is_some_and(|at| at > now);
        !cooling && self.members.iter().take(free).any(|member| member == uid)
    }
}

/// One that has the reason: a node, or a repair of one that is gone.
#[derive(Clone, Copy)]
struct Member<'a> {
    at: Timestamp,
    node: Option<&'a NodeView>,
}

/// All that correlate under a policy.
pub(super) fn find(
    cluster: &Cluster,
    policy: &RepairPolicy,
    nodes: &[&NodeView],
    now: Timestamp,
    episodes: &Episodes,
    history: &History<'_>,
    may_be_repaired: impl Fn(&NodeView) -> bool,
) -> Vec<Correlated> {
    let limits = &policy.spec.correlation;
    let name = policy.metadata.name.as_deref().unwrap_or_default();
    let mut by_reason: BTreeMap<(&str, &str), Vec<Member<'_>>> = BTreeMap::new();
    for node in nodes {
        let open = episodes.all_of(&node.uid);
        for episode in open.filter(|e| e.acts && e.recovered.is_none()) {
            for seen in &episode.reasons {
                let key = (episode.condition.as_str(), seen.reason.as_str());
                by_reason.entry(key).or_default().push(Member {
                    at: seen.at,
                    node: Some(node),
                });
            }
        }
    }
    // A node that is being replaced, or was in vain, still is one of those that failed together.
    let lost = cluster.repairs.values().filter(|repair| {
        let counts = !is_finished(repair) || history::failed_after(repair, now - limits.window.0);
        counts && repair.policy() == name && cluster.node_of(repair).is_none()
    });
    let lost: Vec<_> = lost.collect();
    for repair in &lost {
        for reason in repair.status.iter().flat_map(|status| &status.reasons) {
            let key = (reason.condition.as_str(), reason.reason.as_str());
            by_reason.entry(key).or_default().push(Member {
                at: reason.seen.as_ref().unwrap_or(&reason.since).0,
                node: None,
            });
        }
    }
    let all = nodes.len() + lost.len();
    let enough = |count: usize| {
        count >= limits.min_nodes as usize && count * 100 >= limits.percentage as usize * all
    };
    let mut found = Vec::new();
    for ((condition, reason), mut seen) in by_reason {
        seen.sort_by_key(|member| (member.at, member.node.map(|node| &node.name)));
        let together = clusters(&seen, limits.window.0, &enough);
        let Some(since) = together.first().map(|member| member.at) else {
            continue;
        };
        let members: Vec<_> = together.iter().filter_map(|member| member.node).collect();
        let Some(shared) = shared(&members) else {
            continue;
        };
        let of_reason = |repair: &NodeRepair| {
            let reasons = repair.status.iter().flat_map(|status| &status.reasons);
            repair.policy() == name
                && reasons
                    .into_iter()
                    .any(|r| r.condition == condition && r.reason == reason)
        };
        let proofs = history.proofs(name, since);
        let width = history::width(proofs.filter(|proof| of_reason(proof.repair)));
        let gone = lost
            .iter()
            .filter(|r| !is_finished(r) && of_reason(r))
            .count();
        let mut ordered: Vec<_> = together
            .iter()
            .filter_map(|member| Some((member.at, member.node?)))
            .filter(|(_, node)| may_be_repaired(node))
            .map(|(at, node)| {
                let furthest = history
                    .of_node(&node.uid)
                    .iter()
                    .filter(|repair| !is_finished(repair))
                    .map(|repair| phase(repair))
                    .max()
                    .unwrap_or(Phase::Watching);
                (std::cmp::Reverse(furthest), at, &node.name, &node.uid)
            })
            .collect();
        ordered.sort();
        found.push(Correlated {
            condition: condition.to_owned(),
            reason: reason.to_owned(),
            nodes_with_it: members.iter().map(|node| node.uid.clone()).collect(),
            count: together.len(),
            members: ordered.into_iter().map(|(.., uid)| uid.clone()).collect(),
            nodes: all,
            shared,
            width: width.width,
            not_before: width.not_before,
            gone,
        });
    }
    found
}

/// All that lie in some window with enough others, by time.
fn clusters<'a>(
    seen: &[Member<'a>],
    window: std::time::Duration,
    enough: &impl Fn(usize) -> bool,
) -> Vec<Member<'a>> {
    let mut last = 0;
    let mut taken = Vec::new();
    let mut covered = 0;
    for first in 0..seen.len() {
        last = last.max(first);
        while last < seen.len()
            && seen[last].at.duration_since(seen[first].at).unsigned_abs() <= window
        {
            last += 1;
        }
        if enough(last - first) {
            taken.extend_from_slice(&seen[first.max(covered)..last]);
            covered = last;
        }
    }
    taken
}

/// What all of them have in common. `None`: they are known to share nothing.
fn shared(members: &[&NodeView]) -> Option<Vec<String>> {
    let names: BTreeSet<_> = members.iter().flat_map(|node| node.traits.keys()).collect();
    if names.is_empty() {
        // Nothing is known of them, so nothing speaks against it.
        return Some(Vec::new());
    }
    let common = names.into_iter().filter_map(|name| {
        let first = members.first()?.traits.get(name)?;
        let all = members
            .iter()
            .all(|node| node.traits.get(name) == Some(first));
        all.then(|| format!("{name} {first}"))
    });
    let common: Vec<_> = common.collect();
    (!common.is_empty()).then_some(common)
}
