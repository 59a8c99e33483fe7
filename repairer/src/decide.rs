//! PURE. The decision: a snapshot, the episodes and `now` in; what to do next and when to look
//! again out. The limits are global, so there is one decision for the whole cluster.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use kube::api::ObjectMeta;

use crate::api::policy::{RepairAction, RepairPolicy, RepairPolicyStatus};
use crate::api::repair::{
    EpisodeReason, NODE_UID_LABEL, NodeRef, NodeRepair, NodeRepairSpec, NodeRepairStatus, Outcome,
    Phase, PolicyRef,
};
use crate::cluster::{Cluster, NodeView};
use crate::drain::PodView;
use crate::episode::{self, Episode, Episodes, Partition};
use crate::rule::{self, Choice};

mod advance;
#[cfg(test)]
pub mod fixture;
pub mod gate;
mod tally;
#[cfg(test)]
mod tests;

pub use self::gate::Clearance;
use self::tally::Tally;

/// An episode gets its NodeRepair after this at the latest, so that its beginning survives a restart.
const RECORD_AFTER: u64 = 60;

#[derive(Debug, Default, PartialEq)]
pub struct Plan {
    pub steps: Vec<Step>,
    /// When time alone changes the decision.
    pub wake_at: Option<Timestamp>,
    /// What each policy's status should say, by its name.
    pub policies: BTreeMap<String, RepairPolicyStatus>,
}

#[derive(Debug, PartialEq)]
pub enum Step {
    /// Create this NodeRepair.
    Open(Box<NodeRepair>),
    /// Store this status; nothing else.
    Record {
        repair: String,
        status: Box<NodeRepairStatus>,
    },
    /// The stored status allows this side effect.
    Act { repair: String, act: Act },
}

#[derive(Debug, PartialEq)]
pub enum Act {
    /// Make the node unschedulable and taint it.
    Cordon,
    /// Undo our cordon.
    Uncordon,
    Evict(Vec<PodView>),
    /// Terminate the instance through its group.
    Replace(Clearance),
}

pub fn decide(cluster: &Cluster, episodes: &Episodes, now: Timestamp) -> Plan {
    let mut planner = Planner::new(cluster, episodes, now);
    for (name, repair) in under_way(cluster) {
        planner.advance(name, repair);
    }
    for node in cluster.nodes.values() {
        planner.open(node);
    }
    planner.plan.policies = planner.tally.policy_statuses(cluster);
    planner.plan
}

/// Asks once more, on a snapshot taken for this purpose, whether a node may be destroyed.
pub fn clearance(
    cluster: &Cluster,
    episodes: &Episodes,
    repair: &str,
    now: Timestamp,
) -> Result<Clearance, gate::Held> {
    Planner::new(cluster, episodes, now).clearance(repair)
}

/// Those furthest first, so that they keep their places; then the oldest.
fn under_way(cluster: &Cluster) -> Vec<(&String, &NodeRepair)> {
    let began = |repair: &NodeRepair| {
        repair
            .status
            .as_ref()
            .and_then(|s| s.reasons.first())
            .map(|r| r.since.0)
    };
    let mut repairs: Vec<_> = cluster
        .repairs
        .iter()
        .filter(|(_, repair)| !is_finished(repair))
        .collect();
    repairs.sort_by_key(|(name, repair)| {
        (
            std::cmp::Reverse(phase(repair)),
            began(repair),
            (*name).clone(),
        )
    });
    repairs
}

fn phase(repair: &NodeRepair) -> Phase {
    repair
        .status
        .as_ref()
        .map(|status| status.phase)
        .unwrap_or_default()
}

fn is_finished(repair: &NodeRepair) -> bool {
    phase(repair) == Phase::Finished
}

struct Planner<'a> {
    cluster: &'a Cluster,
    episodes: &'a Episodes,
    now: Timestamp,
    tally: Tally,
    /// Repairs that hold one of a policy's parallel places, by the policy's name.
    in_progress: BTreeMap<String, BTreeSet<String>>,
    /// Which repair counts a new node as its replacement, by the node's UID.
    claims: BTreeMap<String, String>,
    /// UIDs of the nodes with a repair that has not finished.
    in_repair: BTreeSet<&'a str>,
    /// The policies whose nodes look cut off, by name.
    partitions: BTreeMap<String, Partition>,
    plan: Plan,
}

impl<'a> Planner<'a> {
    fn new(cluster: &'a Cluster, episodes: &'a Episodes, now: Timestamp) -> Self {
        let mut in_progress: BTreeMap<_, BTreeSet<_>> = BTreeMap::new();
        let mut claims = BTreeMap::new();
        for (name, repair) in &cluster.repairs {
            let Some(status) = &repair.status else {
                continue;
            };
            if takes_a_place(status) {
                in_progress
                    .entry(policy_name(cluster, repair))
                    .or_default()
                    .insert(name.clone());
            }
            if let Some(replacement) = &status.replacement {
                claims
                    .entry(replacement.node_uid.clone())
                    .or_insert_with(|| name.clone());
            }
        }
        let in_repair = cluster.in_repair();
        let tally = Tally::count(cluster, &in_repair, episodes, now);
        let partitions = cluster.policies.iter().filter_map(|policy| {
            let name = policy.metadata.name.clone()?;
            let partition = episode::partition(cluster, &name, &policy.spec)?;
            Some((name, partition))
        });
        let partitions = partitions.collect();
        Self {
            cluster,
            episodes,
            now,
            tally,
            in_progress,
            claims,
            in_repair,
            partitions,
            plan: Plan::default(),
        }
    }

    /// Asks to be woken at `at`, if that is to come.
    fn wake(&mut self, at: Timestamp) {
        if at > self.now {
            self.plan.wake_at = Some(self.plan.wake_at.map_or(at, |earlier| earlier.min(at)));
        }
    }

    /// A node that became unhealthy gets its NodeRepair.
    fn open(&mut self, node: &NodeView) {
        if node.deleting || self.in_repair.contains(node.uid.as_str()) {
            return;
        }
        let Choice::One(policy) = rule::policy_for(node, &self.cluster.policies) else {
            return;
        };
        let unhealthy: Vec<_> = self
            .episodes
            .of(&node.uid)
            .into_iter()
            .filter(|episode| episode.recovered.is_none())
            .collect();
        let Some(first) = unhealthy.first() else {
            return;
        };
        let due = first.since + record_after(policy);
        if due > self.now {
            self.wake(due);
        } else if !self.is_settled(node, &unhealthy) {
            self.plan
                .steps
                .push(Step::Open(Box::new(new_repair(node, policy, first))));
        }
    }

    /// A person, or our own failure, has ended the repair of just this: it is not begun again.
    fn is_settled(&self, node: &NodeView, unhealthy: &[&Episode]) -> bool {
        self.cluster
            .repairs
            .values()
            .filter(|repair| repair.spec.node_ref.uid == node.uid)
            .any(|repair| {
                let Some(status) = &repair.status else {
                    return false;
                };
                let final_word = match status.outcome {
                    Some(Outcome::Cancelled | Outcome::Failed) => true,
                    Some(Outcome::Succeeded | Outcome::Recovered) | None => false,
                };
                let Some(finished) = status.timeline.last().map(|entry| entry.at.0) else {
                    return false;
                };
                final_word
                    && unhealthy.iter().all(|episode| {
                        let known = status
                            .reasons
                            .iter()
                            .any(|reason| reason.condition == episode.condition);
                        let transition = node
                            .condition(&episode.condition)
                            .and_then(|condition| condition.transition);
                        known && transition.is_none_or(|at| at <= finished)
                    })
            })
    }
}

/// From the start of the drain to the verified replacement; a drain that cannot end gives its
/// place to another.
fn takes_a_place(status: &NodeRepairStatus) -> bool {
    match status.phase {
        Phase::Draining => status
            .hold
            .as_ref()
            .is_none_or(|hold| hold.gate != crate::api::repair::Gate::Drain),
        Phase::Replacing | Phase::Verifying => true,
        Phase::Watching
        | Phase::Cordoning
        | Phase::Waiting
        | Phase::Uncordoning
        | Phase::Finished => false,
    }
}

/// The policy that counts for a repair: the node's present one, or the one it began under.
fn policy_name(cluster: &Cluster, repair: &NodeRepair) -> String {
    let present =
        cluster
            .node_of(repair)
            .and_then(|node| match rule::policy_for(node, &cluster.policies) {
                Choice::One(policy) => policy.metadata.name.clone(),
                Choice::None | Choice::Tie(_) => None,
            });
    present.unwrap_or_else(|| repair.spec.policy_ref.name.clone())
}

fn record_after(policy: &RepairPolicy) -> std::time::Duration {
    std::time::Duration::from_secs(RECORD_AFTER).min(policy.spec.cordon.after.0)
}

/// Its name follows from the episode, so that creating it twice creates it once.
fn new_repair(node: &NodeView, policy: &RepairPolicy, first: &Episode) -> NodeRepair {
    let short = |text: &str, length: usize| text.chars().take(length).collect::<String>();
    let name = format!(
        "{}-{}-{:x}",
        short(&node.name, 200).trim_end_matches(['-', '.']),
        short(&node.uid, 8).trim_end_matches('-'),
        first.since.as_second()
    );
    let spec = NodeRepairSpec {
        node_ref: NodeRef {
            name: node.name.clone(),
            uid: node.uid.clone(),
        },
        provider_id: short(&node.provider_id, 512),
        policy_ref: PolicyRef {
            name: policy.metadata.name.clone().unwrap_or_default(),
            uid: policy.metadata.uid.clone().unwrap_or_default(),
        },
        action: RepairAction::Replace,
    };
    let labels = BTreeMap::from([(NODE_UID_LABEL.to_owned(), node.uid.clone())]);
    NodeRepair {
        metadata: ObjectMeta {
            labels: Some(labels),
            ..NodeRepair::new(&name, spec.clone()).metadata
        },
        spec,
        status: None,
    }
}

fn reasons(episodes: &[&Episode]) -> Vec<EpisodeReason> {
    let reason = |episode: &&Episode| EpisodeReason {
        condition: episode.condition.clone(),
        reason: episode.reason.clone(),
        since: k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime(episode.since),
    };
    episodes.iter().map(reason).collect()
}
