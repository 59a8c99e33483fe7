//! PURE. The decision: a snapshot, the episodes and `now` in; what to do next and when to look
//! again out. The limits are global, so there is one decision for the whole cluster.

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};

use jiff::Timestamp;
use kube::api::ObjectMeta;

use crate::api::policy::{RepairAction, RepairPolicy, RepairPolicyStatus, ZonalShift};
use crate::api::repair::{
    EpisodeReason, Gate, Hold, NODE_UID_LABEL, NodeRef, NodeRepair, NodeRepairSpec,
    NodeRepairStatus, Outcome, Phase, PolicyRef, Trigger,
};
use crate::cluster::{Asked, Cluster, NodeView};
use crate::drain::{Deletion, PodView};
use crate::episode::{self, Episode, Episodes, Partition};
use crate::rule::Assigned;
use crate::unjoined;

mod admitted;
mod advance;
mod breaker;
mod correlation;
mod count;
mod due;
#[cfg(test)]
pub mod fixture;
pub mod gate;
mod history;
mod retention;
mod status;
mod tally;
#[cfg(test)]
mod tests;

use self::breaker::Pace;
use self::correlation::Correlated;
use self::due::Due;
pub use self::gate::{
    ClaimTarget, Clearance, InstanceTarget, Stage, State, Subject, Target, Verdict,
};
use self::history::History;
pub use self::retention::Retention;
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
    /// Delete this NodeRepair: it is finished, and old.
    Forget { repair: String },
    /// Take our marks off a Node whose NodeRepair a person has deleted.
    Dismiss { node: String },
}

#[derive(Debug, PartialEq)]
pub enum Act {
    /// Make the node unschedulable and taint it.
    Cordon,
    /// Undo our cordon.
    Uncordon,
    Evict(Vec<PodView>),
    /// Past their budgets, because the policy says so after the timeout.
    Delete(Vec<Deletion>),
    /// Only our own pod is left: let another replica lead, then evict it.
    StepDown(Box<PodView>),
    /// The instance is proven to be off: Kubernetes may take its pods and volumes away.
    OutOfService,
    /// It is back.
    BackInService,
    Reboot(Clearance),
    /// Terminate the instance through its group, or delete its NodeClaim.
    Replace(Clearance),
}

pub fn decide(
    cluster: &Cluster,
    episodes: &Episodes,
    retention: Retention,
    now: Timestamp,
) -> Plan {
    let assigned = Assigned::of(cluster);
    let mut planner = Planner::new(cluster, &assigned, episodes, now);
    for (name, repair) in planner.under_way() {
        planner.advance(name, repair);
    }
    for node in cluster.nodes.values() {
        planner.open(node);
    }
    planner.plan.policies = planner.policy_statuses();
    planner.forget(retention);
    planner.dismiss();
    planner.plan
}

/// Every gate of a node with its numbers, now: what the next step of its repair is asked, or what
/// the start of one would be.
pub fn explain(
    cluster: &Cluster,
    episodes: &Episodes,
    node: &NodeView,
    now: Timestamp,
) -> Vec<Verdict> {
    let assigned = Assigned::of(cluster);
    let mut planner = Planner::new(cluster, &assigned, episodes, now);
    planner.telling = true;
    let open = cluster.open_repair(&node.uid);
    let stage = match open.map(|(_, repair)| phase(repair)) {
        None | Some(Phase::Watching | Phase::Cordoning | Phase::Waiting) => Stage::Start,
        Some(Phase::Draining) => Stage::Continue,
        Some(
            Phase::Rebooting
            | Phase::Replacing
            | Phase::Verifying
            | Phase::Uncordoning
            | Phase::Finished,
        ) => Stage::Destroy,
    };
    let subject = Subject {
        node,
        name: open.map_or("", |(name, _)| name),
        repair: open.map(|(_, repair)| repair),
        episodes: episodes.of(&node.uid),
    };
    planner.verdicts(stage, &subject)
}

/// Asks once more, on a snapshot taken for this purpose, whether a node may be destroyed.
pub fn clearance(
    cluster: &Cluster,
    episodes: &Episodes,
    repair: &str,
    now: Timestamp,
) -> Result<Clearance, gate::Held> {
    let assigned = Assigned::of(cluster);
    Planner::new(cluster, &assigned, episodes, now).clearance(repair)
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

/// Past the point where its place is given away again by mere recovery.
fn has_started(repair: &NodeRepair) -> bool {
    match phase(repair) {
        Phase::Draining | Phase::Rebooting | Phase::Replacing | Phase::Verifying => true,
        Phase::Watching
        | Phase::Cordoning
        | Phase::Waiting
        | Phase::Uncordoning
        | Phase::Finished => false,
    }
}

struct Planner<'a> {
    cluster: &'a Cluster,
    assigned: &'a Assigned<'a>,
    episodes: &'a Episodes,
    now: Timestamp,
    tally: Tally,
    history: History<'a>,
    /// Names of the nodes that say that they are an instance, by its id.
    claimants: HashMap<&'a str, Vec<&'a str>>,
    /// Repairs that hold one of a policy's parallel places, by the policy's name.
    in_progress: BTreeMap<String, BTreeSet<String>>,
    /// Repairs on their way to a destruction, by policy and group.
    coming: BTreeMap<(String, String), BTreeSet<String>>,
    /// Repairs whose nodes are kept for a person, by the policy's name.
    preserved: BTreeMap<String, BTreeSet<String>>,
    /// Which repair counts a new node as its replacement, by the node's UID.
    claims: BTreeMap<String, String>,
    /// UIDs of the nodes with a repair that has not finished.
    in_repair: HashSet<&'a str>,
    /// The policies whose nodes look cut off, by name.
    partitions: BTreeMap<String, Partition>,
    /// Nodes of each policy whose kubelets are silent.
    silent: BTreeMap<String, usize>,
    correlations: BTreeMap<String, Vec<Correlated>>,
    breakers: BTreeMap<String, Vec<Pace>>,
    /// Whether somebody wants to know what open gates say.
    telling: bool,
    plan: Plan,
}

/// The last part of `aws:///us-west-2a/i-0123456789abcdef0`.
fn claimants(cluster: &Cluster) -> HashMap<&str, Vec<&str>> {
    let mut found: HashMap<&str, Vec<&str>> = HashMap::with_capacity(cluster.nodes.len());
    for node in cluster.nodes.values() {
        if let Some((_, instance)) = node.provider_id.rsplit_once('/') {
            found.entry(instance).or_default().push(&node.name);
        }
    }
    found
}

impl<'a> Planner<'a> {
    fn new(
        cluster: &'a Cluster,
        assigned: &'a Assigned<'a>,
        episodes: &'a Episodes,
        now: Timestamp,
    ) -> Self {
        let in_repair = cluster.in_repair();
        let mut planner = Self {
            cluster,
            assigned,
            episodes,
            now,
            tally: Tally::count(cluster, assigned, &in_repair, episodes, now),
            history: History::read(cluster),
            claimants: claimants(cluster),
            in_progress: BTreeMap::new(),
            coming: BTreeMap::new(),
            preserved: BTreeMap::new(),
            claims: BTreeMap::new(),
            in_repair,
            partitions: BTreeMap::new(),
            silent: BTreeMap::new(),
            correlations: BTreeMap::new(),
            breakers: BTreeMap::new(),
            telling: false,
            plan: Plan::default(),
        };
        for (name, repair) in &cluster.repairs {
            let status = repair.status.as_ref();
            let counts = !is_finished(repair)
                || status.is_some_and(|s| s.outcome == Some(Outcome::NeedsHuman));
            if counts {
                let policy = planner.policy_name(repair);
                planner.tally.add_repair(cluster, &policy, repair);
                if let Some(status) = status {
                    planner.place(name, &policy, status);
                }
            }
            let Some(status) = status else {
                continue;
            };
            if let Some(replacement) = &status.replacement {
                let claims = &mut planner.claims;
                claims
                    .entry(replacement.node_uid.clone())
                    .or_insert_with(|| name.clone());
            }
        }
        planner.look_at_policies();
        planner
    }

    fn look_at_policies(&mut self) {
        let mut nodes: BTreeMap<&str, Vec<&NodeView>> = BTreeMap::new();
        for node in self.cluster.nodes.values() {
            if let Some(policy) = self.assigned.policy(node) {
                let name = policy.metadata.name.as_deref().unwrap_or_default();
                nodes.entry(name).or_default().push(node);
            }
        }
        for policy in &self.cluster.policies {
            let name = policy.metadata.name.as_deref().unwrap_or_default();
            let nodes = nodes.get(name).map_or(&[][..], Vec::as_slice);
            let joined = |node: &&&NodeView| {
                tally::joins_until(node, policy).is_none_or(|until| until <= self.now)
            };
            let settled: Vec<_> = nodes.iter().filter(joined).copied().collect();
            let silent = nodes.iter().filter(|node| node.is_silent()).count();
            self.silent.insert(name.to_owned(), silent);
            let partition = episode::partition(self.cluster, self.assigned, name, &policy.spec);
            if let Some(partition) = partition {
                self.partitions.insert(name.to_owned(), partition);
            }
            let found = correlation::find(
                self.cluster,
                policy,
                &settled,
                self.now,
                self.episodes,
                &self.history,
                |node| self.may_be_repaired(node),
            );
            for not_before in found.iter().filter_map(|c| c.not_before) {
                self.wake(not_before);
            }
            self.correlations.insert(name.to_owned(), found);
            let paces = self.paces(policy);
            self.breakers.insert(name.to_owned(), paces);
        }
    }

    /// Persons first, then those furthest, so that they keep their places; then the surest and most
    /// severe, and then the oldest.
    fn under_way(&self) -> Vec<(&'a String, &'a NodeRepair)> {
        let strength = |repair: &NodeRepair| {
            let node = self.cluster.node_of(repair)?;
            let policy = self.assigned.policy(node)?;
            let episodes = self.episodes.of(&node.uid);
            Due::of(&policy.spec, node, &episodes, self.now).map(|due| due.strength())
        };
        let began = |repair: &NodeRepair| {
            let reasons = repair.status.iter().flat_map(|status| &status.reasons);
            reasons.map(|reason| reason.since.0).min()
        };
        let cluster: &'a Cluster = self.cluster;
        let open = cluster.repairs.iter().filter(|(_, r)| !is_finished(r));
        let mut repairs: Vec<_> = open
            .map(|(name, repair)| {
                let order = (
                    std::cmp::Reverse(phase(repair)),
                    repair.spec.trigger != Trigger::Manual,
                    std::cmp::Reverse(strength(repair)),
                    began(repair),
                );
                (order, name, repair)
            })
            .collect();
        repairs.sort_by(|a, b| (&a.0, a.1).cmp(&(&b.0, b.1)));
        repairs
            .into_iter()
            .map(|(_, name, repair)| (name, repair))
            .collect()
    }

    /// The policy that counts for a repair: the node's present one, or the one it began under.
    fn policy_name(&self, repair: &NodeRepair) -> String {
        let node = self.cluster.node_of(repair);
        let present = node.and_then(|node| self.assigned.policy(node));
        let present = present.and_then(|policy| policy.metadata.name.clone());
        present.unwrap_or_else(|| repair.policy().to_owned())
    }

    /// The places of a policy are given within one pass, too.
    fn place(&mut self, name: &str, policy: &str, status: &NodeRepairStatus) {
        let shadowed = || {
            let started = status.shadow.as_ref()?.started.as_ref()?.0;
            let lasts = self.shadow_lasts(policy);
            (status.phase != Phase::Finished && started + lasts > self.now)
                .then_some(started + lasts)
        };
        let shadowed = shadowed();
        let places = self.in_progress.entry(policy.to_owned()).or_default();
        // A place that is given back is free in the next pass, when it is known what came of it.
        if takes_a_place(status) || shadowed.is_some() {
            places.insert(name.to_owned());
        }
        let preserved = self.preserved.entry(policy.to_owned()).or_default();
        let is_kept = |hold: &Hold| hold.gate == Gate::Preserve;
        if status.hold.as_ref().is_some_and(is_kept) {
            preserved.insert(name.to_owned());
        } else {
            preserved.remove(name);
        }
        let group = status.counted_in().unwrap_or_default();
        let coming = self
            .coming
            .entry((policy.to_owned(), group.to_owned()))
            .or_default();
        let will_destroy = match status.phase {
            Phase::Draining => true,
            Phase::Rebooting | Phase::Replacing => {
                status.attempts.iter().all(|a| a.result.is_some())
            }
            Phase::Watching
            | Phase::Cordoning
            | Phase::Waiting
            | Phase::Verifying
            | Phase::Uncordoning
            | Phase::Finished => false,
        };
        if will_destroy || shadowed.is_some() {
            coming.insert(name.to_owned());
        } else {
            coming.remove(name);
        }
        if let Some(end) = shadowed {
            self.wake(end);
        }
    }

    /// How long a repair that is only thought of is taken to last.
    fn shadow_lasts(&self, policy: &str) -> std::time::Duration {
        let spec = |p: &&RepairPolicy| p.metadata.name.as_deref() == Some(policy);
        let policy = self.cluster.policies.iter().find(spec);
        policy.map_or_else(Default::default, |policy| {
            policy.spec.drain.timeout.0 + policy.spec.verify.soak.0
        })
    }

    /// How many repairs a policy may have under way.
    fn parallel_of(&self, policy: &RepairPolicy) -> usize {
        let name = policy.metadata.name.as_deref().unwrap_or_default();
        let parallel = &policy.spec.parallel;
        let count = match (parallel.count, parallel.percentage_of_unhealthy) {
            (Some(count), _) => count as usize,
            (None, Some(percentage)) => {
                (percentage as usize * self.tally.counts(name).bad / 100).max(1)
            }
            (None, None) => 1,
        };
        let shift = match (&self.cluster.shifted, policy.spec.zonal_shift) {
            (Asked::Yes(Ok(shifted)), ZonalShift::PauseZone) => !shifted.is_empty(),
            (Asked::No | Asked::Yes(_), _) => false,
        };
        if shift { 1 } else { count }
    }

    /// Asks to be woken at `at`, if that is to come.
    fn wake(&mut self, at: Timestamp) {
        if at > self.now {
            self.plan.wake_at = Some(self.plan.wake_at.map_or(at, |earlier| earlier.min(at)));
        }
    }

    /// A node that became unhealthy gets its NodeRepair.
    fn open(&mut self, node: &NodeView) {
        // One that carries our marks without a record is given back first.
        let lost = || node.has_marks() && self.history.of_node(&node.uid).is_empty();
        // One whose instance ends goes by itself; its replacement may serve already.
        let ending = || self.cluster.is_ending(node);
        let in_repair = self.in_repair.contains(node.uid.as_str());
        if node.deleting || in_repair || lost() || ending() {
            return;
        }
        let Some(policy) = self.assigned.policy(node) else {
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
        // That a node which has just been created is not Ready yet is no fault of it.
        let joins = ["Ready", unjoined::CONDITION];
        let only_ready = unhealthy
            .iter()
            .all(|episode| joins.contains(&episode.condition.as_str()));
        let joined = tally::joins_until(node, policy).filter(|_| only_ready);
        let due = (first.since + record_after(policy)).max(joined.unwrap_or(Timestamp::MIN));
        if due > self.now {
            self.wake(due);
        } else if !self.is_settled(node, &unhealthy) {
            let due = Due::of(&policy.spec, node, &unhealthy, self.now);
            let action = due.map_or(RepairAction::Replace, |due| {
                self.action_of(policy, node, &due, None)
            });
            let repair = new_repair(node, policy, first, action);
            self.plan.steps.push(Step::Open(Box::new(repair)));
        }
    }

    /// A person, or our own failure, has ended the repair of just this: it is not begun again.
    fn is_settled(&self, node: &NodeView, unhealthy: &[&Episode]) -> bool {
        let is_old = |episode: &&Episode, than: Timestamp| {
            let condition = node.condition(&episode.condition);
            let changed = condition.and_then(|condition| condition.transition);
            changed.is_none_or(|at| at <= than)
        };
        if let Some(dismissed) = node.dismissed
            // Our own first sight is lost with a process, the transition time with its writer.
            && unhealthy
                .iter()
                .all(|episode| episode.since <= dismissed || is_old(episode, dismissed))
        {
            return true;
        }
        self.history.of_node(&node.uid).iter().any(|repair| {
            let Some(status) = &repair.status else {
                return false;
            };
            let Some(finished) = status.timeline.last().map(|entry| entry.at.0) else {
                return false;
            };
            ends_for_good(status.outcome)
                && unhealthy.iter().all(|episode| {
                    let known = status
                        .reasons
                        .iter()
                        .any(|reason| reason.condition == episode.condition);
                    known && is_old(episode, finished)
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
            .is_none_or(|hold| hold.gate != Gate::Drain),
        // What is kept for a person is in nobody's way.
        Phase::Rebooting | Phase::Replacing => status
            .hold
            .as_ref()
            .is_none_or(|hold| hold.gate != Gate::Preserve),
        Phase::Verifying => true,
        Phase::Watching
        | Phase::Cordoning
        | Phase::Waiting
        | Phase::Uncordoning
        | Phase::Finished => false,
    }
}

fn record_after(policy: &RepairPolicy) -> std::time::Duration {
    std::time::Duration::from_secs(RECORD_AFTER).min(policy.spec.cordon.after.0)
}

/// Its name follows from the episode, so that creating it twice creates it once.
fn new_repair(
    node: &NodeView,
    policy: &RepairPolicy,
    first: &Episode,
    action: RepairAction,
) -> NodeRepair {
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
            generation: policy.metadata.generation.unwrap_or_default(),
        },
        trigger: Trigger::Auto,
        action,
        override_gates: Vec::new(),
        requested_by: None,
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

/// A person, or our own failure, has had the last word.
fn ends_for_good(outcome: Option<Outcome>) -> bool {
    match outcome {
        Some(Outcome::Cancelled | Outcome::Failed | Outcome::NeedsHuman) => true,
        Some(Outcome::Succeeded | Outcome::Recovered | Outcome::Superseded) | None => false,
    }
}

/// Reasons that are stored of one node; the schema has no limit, but people read less.
const MOST_REASONS: usize = 32;

/// All that the episodes have had; what decides first, then by their age.
fn reasons(episodes: &[&Episode], due: Option<&Due<'_>>) -> Vec<EpisodeReason> {
    let time = k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;
    let of = |episode: &&Episode| {
        let episode = (*episode).clone();
        let (condition, since, flaps) = (episode.condition, episode.since, episode.flaps);
        episode.reasons.into_iter().map(move |seen| EpisodeReason {
            condition: condition.clone(),
            reason: seen.reason,
            since: time(since),
            seen: Some(time(seen.at)),
            flaps,
        })
    };
    let mut reasons: Vec<_> = episodes.iter().flat_map(of).collect();
    let decides = |reason: &EpisodeReason| {
        due.is_some_and(|due| {
            reason.condition == due.episode.condition && reason.reason == due.reason
        })
    };
    reasons.sort_by_key(|reason| (!decides(reason), reason.since.0));
    reasons.truncate(MOST_REASONS);
    reasons
}
