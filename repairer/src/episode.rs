//! PURE. Since when a condition has been unhealthy, by our own clock: transition times of
//! conditions are reset by restarts of their writers and by flapping reasons.

use std::collections::{BTreeMap, HashMap, HashSet};

use jiff::Timestamp;

use crate::api::policy::{RepairPolicy, RepairPolicySpec};
use crate::api::repair::EpisodeReason;
use crate::cluster::{Cluster, ConditionView, NodeView};
use crate::rule::{self, Assigned};

/// Reasons that are remembered of one episode. Whoever makes up more has them forgotten.
const MOST_REASONS: usize = 16;

/// Of one condition of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Episode {
    pub condition: String,
    /// Every reason that it had while it was unhealthy, in the order of their first sight.
    pub reasons: Vec<Seen>,
    /// From when its wait is counted.
    pub since: Timestamp,
    /// Since when it has been healthy again, if it is.
    pub recovered: Option<Timestamp>,
    /// How often it has recovered and come back.
    pub flaps: u32,
    /// False: the policy says to leave all of it alone.
    pub acts: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub reason: String,
    pub at: Timestamp,
}

impl Episode {
    fn begin(condition: &ConditionView, acts: bool, now: Timestamp) -> Self {
        Self {
            condition: condition.kind.clone(),
            reasons: vec![Seen {
                reason: condition.reason.clone(),
                at: now,
            }],
            since: now,
            recovered: None,
            flaps: 0,
            acts,
        }
    }

    /// As another process has left it.
    fn resume(
        condition: &ConditionView,
        stored: &[&EpisodeReason],
        now: Timestamp,
    ) -> Option<Self> {
        let first = stored.first()?;
        let mut reasons: Vec<_> = stored
            .iter()
            .map(|stored| Seen {
                reason: stored.reason.clone(),
                at: stored.seen.as_ref().unwrap_or(&stored.since).0,
            })
            .collect();
        reasons.sort_by_key(|seen| seen.at);
        Some(Self {
            condition: condition.kind.clone(),
            reasons,
            // A time from the future is no time: the wait begins now.
            since: first.since.0.min(now),
            recovered: None,
            flaps: first.flaps,
            acts: true,
        })
    }

    /// Remembers the present reason.
    fn see(&mut self, condition: &ConditionView, policy: &RepairPolicySpec, now: Timestamp) {
        if self
            .reasons
            .iter()
            .any(|seen| seen.reason == condition.reason)
        {
            return;
        }
        if self.reasons.len() >= MOST_REASONS {
            let acts = |reason: &str| {
                let rule =
                    rule::matching_reason(policy, &condition.kind, &condition.status, reason);
                rule.is_some_and(rule::acts)
            };
            let Some(spare) = self.reasons.iter().position(|seen| !acts(&seen.reason)) else {
                return;
            };
            self.reasons.remove(spare);
        }
        self.reasons.push(Seen {
            reason: condition.reason.clone(),
            at: now,
        });
    }

    /// Whether any reason of it, past or present, asks for something to be done.
    fn acts_now(&self, condition: &ConditionView, policy: &RepairPolicySpec) -> bool {
        let acts = |reason: &str| {
            rule::matching_reason(policy, &condition.kind, &condition.status, reason)
                .is_some_and(rule::acts)
        };
        acts(&condition.reason) || self.reasons.iter().any(|seen| acts(&seen.reason))
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Episodes {
    /// By UID of the node and type of the condition.
    open: HashMap<String, BTreeMap<String, Episode>>,
    /// UIDs of the nodes that this process has seen: what is stored of others is older.
    known: HashSet<String>,
    /// Since when each policy's nodes look cut off, while they do.
    partitions: BTreeMap<String, Timestamp>,
    /// Since when the API server has not answered us, while it does not.
    unreachable: Option<Timestamp>,
}

impl Episodes {
    /// The open episodes of a node that ask for something to be done, oldest first.
    pub fn of(&self, node_uid: &str) -> Vec<&Episode> {
        let mut episodes: Vec<_> = self.all_of(node_uid).filter(|e| e.acts).collect();
        episodes.sort_by_key(|episode| episode.since);
        episodes
    }

    /// Those that the policy leaves alone, too.
    pub fn all_of(&self, node_uid: &str) -> impl Iterator<Item = &Episode> {
        self.open
            .get(node_uid)
            .into_iter()
            .flat_map(BTreeMap::values)
    }

    pub fn is_well(&self, node_uid: &str) -> bool {
        !self.all_of(node_uid).any(|episode| episode.acts)
    }

    /// Takes in the present state. Of a node that this process has not seen before, the repair
    /// that another one began says since when it is unhealthy.
    pub fn observe(&mut self, cluster: &Cluster, now: Timestamp) {
        let assigned = Assigned::of(cluster);
        let mut uids = HashSet::new();
        for node in cluster.nodes.values() {
            uids.insert(node.uid.as_str());
            // Nobody to ask what is unhealthy: what was known stays.
            if let Some(policy) = assigned.policy(node) {
                self.observe_node(cluster, node, policy, now);
            }
        }
        self.open.retain(|uid, _| uids.contains(uid.as_str()));
        self.known.retain(|uid| uids.contains(uid.as_str()));
        self.restart_after_partitions(cluster, &assigned, now);
        self.restart_when_reached(cluster, now);
    }

    /// Nor does what was seen while the API server did not answer all that we asked.
    fn restart_when_reached(&mut self, cluster: &Cluster, now: Timestamp) {
        if let Some(since) = cluster.unreachable_since {
            self.unreachable.get_or_insert(since);
        } else if let Some(began) = self.unreachable.take() {
            let episodes = self.open.values_mut().flat_map(BTreeMap::values_mut);
            restart(episodes, began, now);
        }
    }

    fn observe_node(
        &mut self,
        cluster: &Cluster,
        node: &NodeView,
        policy: &RepairPolicy,
        now: Timestamp,
    ) {
        let stored = if self.known.contains(&node.uid) {
            &[]
        } else {
            self.known.insert(node.uid.clone());
            stored_reasons(cluster, &node.uid)
        };
        let mut open = self.open.remove(&node.uid).unwrap_or_default();
        // A condition that has gone says nothing any more.
        open.retain(|kind, _| node.condition(kind).is_some());
        for condition in &node.conditions {
            let stored: Vec<_> = stored
                .iter()
                .filter(|reason| reason.condition == condition.kind)
                .collect();
            let before = open
                .remove(&condition.kind)
                .or_else(|| Episode::resume(condition, &stored, now));
            if let Some(episode) = next(before, condition, &policy.spec, now) {
                open.insert(condition.kind.clone(), episode);
            }
        }
        if !open.is_empty() {
            self.open.insert(node.uid.clone(), open);
        }
    }

    /// What a cut-off control plane saw does not count towards any wait.
    fn restart_after_partitions(
        &mut self,
        cluster: &Cluster,
        assigned: &Assigned<'_>,
        now: Timestamp,
    ) {
        for (name, policy) in named(&cluster.policies) {
            if let Some(partition) = partition(cluster, assigned, name, &policy.spec) {
                self.partitions
                    .entry(name.to_owned())
                    .or_insert(partition.since);
                continue;
            }
            let Some(began) = self.partitions.remove(name) else {
                continue;
            };
            for node in selected(cluster, assigned, name) {
                let episodes = self.open.get_mut(&node.uid);
                restart(
                    episodes.into_iter().flat_map(BTreeMap::values_mut),
                    began,
                    now,
                );
            }
        }
    }
}

/// The waits of those that began in something that is over begin now.
fn restart<'a>(episodes: impl Iterator<Item = &'a mut Episode>, began: Timestamp, now: Timestamp) {
    for episode in episodes.filter(|episode| episode.since >= began) {
        episode.since = now;
    }
}

/// What becomes of an episode with the present word of its condition.
fn next(
    before: Option<Episode>,
    condition: &ConditionView,
    policy: &RepairPolicySpec,
    now: Timestamp,
) -> Option<Episode> {
    let Some(mut episode) = before else {
        let rule = rule::matching(policy, condition)?;
        return Some(Episode::begin(condition, rule::acts(rule), now));
    };
    let acts = episode.acts_now(condition, policy);
    let unhealthy = acts || rule::matching(policy, condition).is_some();
    // What was to be acted on and no longer is has recovered from that.
    if !unhealthy || (episode.acts && !acts) {
        let since = *episode.recovered.get_or_insert(now);
        let over = now.duration_since(since).unsigned_abs() >= policy.cordon.recovery_soak.0;
        return (!over).then_some(episode);
    }
    if episode.recovered.take().is_some() {
        // A short recovery restarts the wait, but it is the same episode.
        episode.since = now;
        episode.flaps = episode.flaps.saturating_add(1);
    }
    if acts && !episode.acts {
        // The first reason to do something: its wait begins with it.
        episode.acts = true;
        episode.since = now;
    }
    episode.see(condition, policy, now);
    Some(episode)
}

fn named(policies: &[RepairPolicy]) -> impl Iterator<Item = (&str, &RepairPolicy)> {
    policies
        .iter()
        .map(|policy| (policy.metadata.name.as_deref().unwrap_or_default(), policy))
}

/// What a repair that is under way says about its node.
fn stored_reasons<'a>(cluster: &'a Cluster, node_uid: &str) -> &'a [EpisodeReason] {
    cluster
        .open_repair(node_uid)
        .and_then(|(_, repair)| repair.status.as_ref())
        .map_or(&[], |status| status.reasons.as_slice())
}

/// Many nodes whose kubelets fell silent together.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Partition {
    pub since: Timestamp,
    pub silent: usize,
    pub nodes: usize,
}

/// Looks for a time window in which too many of a policy's nodes became `Ready=Unknown`. The
/// node controller of the control plane writes that status, so its transition time can be trusted.
pub fn partition(
    cluster: &Cluster,
    assigned: &Assigned<'_>,
    policy_name: &str,
    policy: &RepairPolicySpec,
) -> Option<Partition> {
    let nodes: Vec<_> = selected(cluster, assigned, policy_name).collect();
    let mut silent: Vec<_> = nodes
        .iter()
        .filter_map(|node| node.condition("Ready"))
        .filter(|ready| ready.status == "Unknown")
        .filter_map(|ready| ready.transition)
        .collect();
    silent.sort_unstable();
    let limits = &policy.partition;
    let enough = |count: usize| {
        count >= limits.min_nodes as usize
            && count * 100 >= limits.percentage as usize * nodes.len()
    };
    silent.iter().enumerate().find_map(|(first, &since)| {
        let together = silent[first..]
            .iter()
            .take_while(|&&at| at.duration_since(since).unsigned_abs() <= limits.window.0)
            .count();
        enough(together).then_some(Partition {
            since,
            silent: together,
            nodes: nodes.len(),
        })
    })
}

/// The nodes that fall under a policy.
pub fn selected<'a>(
    cluster: &'a Cluster,
    assigned: &'a Assigned<'_>,
    policy_name: &'a str,
) -> impl Iterator<Item = &'a NodeView> {
    cluster.nodes.values().filter(move |node| {
        assigned
            .policy(node)
            .is_some_and(|policy| policy.metadata.name.as_deref() == Some(policy_name))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::fixture::{self, at, sick_cluster};

    fn since(episodes: &Episodes) -> Vec<(String, Timestamp, Option<Timestamp>)> {
        episodes
            .open
            .values()
            .flat_map(BTreeMap::values)
            .map(|e| (e.condition.clone(), e.since, e.recovered))
            .collect()
    }

    fn set_status(cluster: &mut Cluster, status: &str) {
        fixture::set_condition(cluster, "node-0", "StorageReady", status);
    }

    #[test]
    fn begins_when_we_first_see_it_whatever_its_transition_time_says() {
        let cluster = sick_cluster();
        let mut episodes = Episodes::default();
        episodes.observe(&cluster, at(1000));
        episodes.observe(&cluster, at(1100));
        assert_eq!(
            since(&episodes),
            [("StorageReady".to_owned(), at(1000), None)]
        );
    }

    #[test]
    fn a_short_recovery_restarts_the_wait_and_a_long_one_ends_the_episode() {
        let mut cluster = sick_cluster();
        let mut episodes = Episodes::default();
        episodes.observe(&cluster, at(1000));
        set_status(&mut cluster, "True");
        episodes.observe(&cluster, at(1010));
        episodes.observe(&cluster, at(1100));
        set_status(&mut cluster, "False");
        episodes.observe(&cluster, at(1110));
        assert_eq!(
            since(&episodes),
            [("StorageReady".to_owned(), at(1110), None)]
        );
        set_status(&mut cluster, "True");
        episodes.observe(&cluster, at(1200));
        episodes.observe(&cluster, at(1200 + 300));
        assert_eq!(since(&episodes), []);
    }

    #[test]
    fn a_new_process_takes_the_time_from_the_repair() {
        let mut cluster = sick_cluster();
        fixture::add_repair(
            &mut cluster,
            "node-0",
            crate::api::repair::Phase::Watching,
            500,
        );
        let mut episodes = Episodes::default();
        episodes.observe(&cluster, at(1000));
        assert_eq!(since(&episodes)[0].1, at(500));
    }

    #[test]
    fn a_node_that_was_created_again_has_no_episode_of_the_old_one() {
        let mut cluster = sick_cluster();
        let mut episodes = Episodes::default();
        episodes.observe(&cluster, at(1000));
        cluster.nodes.get_mut("node-0").unwrap().uid = "another".to_owned();
        episodes.observe(&cluster, at(1050));
        assert_eq!(since(&episodes)[0].1, at(1050));
    }

    #[test]
    fn a_partition_restarts_the_waits_that_began_in_it() {
        let mut cluster = sick_cluster();
        cluster.policies[0]
            .spec
            .rules
            .push(fixture::ready_rule(1800));
        let mut episodes = Episodes::default();
        episodes.observe(&cluster, at(900));
        for name in ["node-1", "node-2", "node-3", "node-4"] {
            fixture::set_condition(&mut cluster, name, "Ready", "Unknown");
        }
        episodes.observe(&cluster, at(1000));
        let assigned = Assigned::of(&cluster);
        assert!(partition(&cluster, &assigned, "workers", &cluster.policies[0].spec).is_some());
        for name in ["node-1", "node-2", "node-3"] {
            fixture::set_condition(&mut cluster, name, "Ready", "True");
        }
        episodes.observe(&cluster, at(1500));
        assert_eq!(
            episodes.of("uid-node-4")[0].since,
            at(1500),
            "began in the partition"
        );
        assert_eq!(
            episodes.of("uid-node-0")[0].since,
            at(900),
            "began before it"
        );
    }

    #[test]
    fn what_began_while_the_api_server_did_not_answer_begins_when_it_does() {
        let mut cluster = sick_cluster();
        let mut episodes = Episodes::default();
        episodes.observe(&cluster, at(900));
        cluster.unreachable_since = Some(at(1000));
        fixture::make_sick(&mut cluster, "node-1");
        episodes.observe(&cluster, at(1010));
        cluster.unreachable_since = None;
        episodes.observe(&cluster, at(1500));
        assert_eq!(episodes.of("uid-node-1")[0].since, at(1500));
        assert_eq!(episodes.of("uid-node-0")[0].since, at(900), "began before");
    }
}
