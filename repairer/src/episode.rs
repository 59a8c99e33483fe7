//! PURE. Since when a condition has been unhealthy, by our own clock: transition times of
//! conditions are reset by restarts of their writers and by flapping reasons.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::api::policy::RepairPolicySpec;
use crate::api::repair::EpisodeReason;
use crate::cluster::{Cluster, NodeView};
use crate::rule::{self, Choice};

/// Of one condition of one node.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Episode {
    pub condition: String,
    /// The reason seen last while it was unhealthy.
    pub reason: String,
    pub since: Timestamp,
    /// Since when it has been healthy again, if it is.
    pub recovered: Option<Timestamp>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Episodes {
    /// By UID of the node and type of the condition.
    open: BTreeMap<(String, String), Episode>,
    /// UIDs of the nodes that this process has seen: what is stored of others is older.
    known: BTreeSet<String>,
    /// Since when each policy's nodes look cut off, while they do.
    partitions: BTreeMap<String, Timestamp>,
}

impl Episodes {
    /// The open episodes of a node, oldest first.
    pub fn of(&self, node_uid: &str) -> Vec<&Episode> {
        let from = (node_uid.to_owned(), String::new());
        let mut episodes: Vec<_> = self
            .open
            .range(from..)
            .take_while(|((uid, _), _)| uid == node_uid)
            .map(|(_, episode)| episode)
            .collect();
        episodes.sort_by_key(|episode| episode.since);
        episodes
    }

    /// Takes in the present state. Of a node that this process has not seen before, the repair
    /// that another one began says since when it is unhealthy.
    pub fn observe(&mut self, cluster: &Cluster, now: Timestamp) {
        let mut there = BTreeSet::new();
        for node in cluster.nodes.values() {
            let Choice::One(policy) = rule::policy_for(node, &cluster.policies) else {
                // Nobody to ask what is unhealthy: what was known stays.
                there.extend(
                    self.of(&node.uid)
                        .iter()
                        .map(|e| (node.uid.clone(), e.condition.clone())),
                );
                continue;
            };
            let stored = if self.known.insert(node.uid.clone()) {
                stored_reasons(cluster, &node.uid)
            } else {
                &[]
            };
            for condition in &node.conditions {
                let key = (node.uid.clone(), condition.kind.clone());
                let stored = stored
                    .iter()
                    .find(|reason| reason.condition == condition.kind);
                let stored = stored.map(|reason| reason.since.0);
                let unhealthy = rule::matching(&policy.spec, condition).is_some_and(rule::acts);
                match (self.open.get_mut(&key), unhealthy) {
                    (None, false) if stored.is_none() => continue,
                    (None, _) => {
                        let episode = Episode {
                            condition: condition.kind.clone(),
                            reason: condition.reason.clone(),
                            since: stored.unwrap_or(now),
                            recovered: (!unhealthy).then_some(now),
                        };
                        self.open.insert(key.clone(), episode);
                    }
                    (Some(episode), true) => {
                        if episode.recovered.take().is_some() {
                            // A short recovery restarts the wait, but it is the same episode.
                            episode.since = now;
                        }
                        episode.reason.clone_from(&condition.reason);
                    }
                    (Some(episode), false) => {
                        let since = *episode.recovered.get_or_insert(now);
                        if now.duration_since(since).unsigned_abs()
                            >= policy.spec.cordon.recovery_soak.0
                        {
                            self.open.remove(&key);
                            continue;
                        }
                    }
                }
                there.insert(key);
            }
        }
        self.open.retain(|key, _| there.contains(key));
        let uids: BTreeSet<_> = cluster
            .nodes
            .values()
            .map(|node| node.uid.as_str())
            .collect();
        self.known.retain(|uid| uids.contains(uid.as_str()));
        self.restart_after_partitions(cluster, now);
    }

    /// What a cut-off control plane saw does not count towards any wait.
    fn restart_after_partitions(&mut self, cluster: &Cluster, now: Timestamp) {
        for policy in &cluster.policies {
            let name = policy.metadata.name.clone().unwrap_or_default();
            if let Some(partition) = partition(cluster, &name, &policy.spec) {
                self.partitions.entry(name).or_insert(partition.since);
                continue;
            }
            let Some(began) = self.partitions.remove(&name) else {
                continue;
            };
            for node in selected(cluster, &name) {
                for ((uid, _), episode) in &mut self.open {
                    if *uid == node.uid && episode.since >= began {
                        episode.since = now;
                    }
                }
            }
        }
    }
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
    policy_name: &str,
    policy: &RepairPolicySpec,
) -> Option<Partition> {
    let nodes: Vec<_> = selected(cluster, policy_name).collect();
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
    policy_name: &'a str,
) -> impl Iterator<Item = &'a NodeView> {
    cluster.nodes.values().filter(
        move |node| match rule::policy_for(node, &cluster.policies) {
            Choice::One(policy) => policy.metadata.name.as_deref() == Some(policy_name),
            Choice::None | Choice::Tie(_) => false,
        },
    )
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::fixture::{self, at, sick_cluster};

    fn since(episodes: &Episodes) -> Vec<(String, Timestamp, Option<Timestamp>)> {
        episodes
            .open
            .values()
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
        assert!(partition(&cluster, "workers", &cluster.policies[0].spec).is_some());
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
}
