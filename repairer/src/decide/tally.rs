//! PURE. How many nodes of a group there are, and how many of them are not well.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use jiff::Timestamp;

use super::{is_finished, policy_name, record_after};
use crate::api::policy::{RepairPolicy, RepairPolicyStatus};
use crate::cluster::{Cluster, NodeView};
use crate::episode::Episodes;
use crate::rule::{self, Choice};

/// A node that is not Ready this long after its creation is no longer "still joining".
const JOINING: Duration = Duration::from_secs(600);

#[derive(Debug, Default)]
pub(super) struct Tally {
    groups: BTreeMap<(String, String), Group>,
    policies: BTreeMap<String, RepairPolicyStatus>,
}

/// One Auto Scaling group as far as one policy selects it.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// Excluded nodes count; those still joining, and those that others are deleting, do not.
    pub(super) nodes: usize,
    pub(super) unhealthy: usize,
    /// Names of the nodes that take and run pods.
    pub(super) serving: BTreeSet<String>,
}

impl Tally {
    pub(super) fn count(
        cluster: &Cluster,
        in_repair: &BTreeSet<&str>,
        episodes: &Episodes,
        now: Timestamp,
    ) -> Self {
        let mut tally = Self::default();
        for node in cluster.nodes.values() {
            let Choice::One(policy) = rule::policy_for(node, &cluster.policies) else {
                continue;
            };
            let name = policy.metadata.name.clone().unwrap_or_default();
            let in_repair = in_repair.contains(node.uid.as_str());
            let unhealthy = in_repair || is_unhealthy(node, policy, episodes, now);
            let status = tally.policies.entry(name.clone()).or_default();
            status.nodes += 1;
            status.unhealthy += u32::from(unhealthy);
            let Some(group) = cluster.group_of(node) else {
                continue;
            };
            let joining =
                !node.is_ready() && now.duration_since(node.created).unsigned_abs() < JOINING;
            if !in_repair && (joining || node.deleting) {
                continue;
            }
            let group = tally.groups.entry((name, group.to_owned())).or_default();
            group.nodes += 1;
            group.unhealthy += usize::from(unhealthy);
            let well = episodes.of(&node.uid).is_empty();
            if node.is_ready() && !node.unschedulable && !node.deleting && well && !in_repair {
                group.serving.insert(node.name.clone());
            }
        }
        tally.add_repairs(cluster);
        tally
    }

    fn add_repairs(&mut self, cluster: &Cluster) {
        for repair in cluster
            .repairs
            .values()
            .filter(|repair| !is_finished(repair))
        {
            let name = policy_name(cluster, repair);
            self.policies.entry(name.clone()).or_default().in_repair += 1;
            // Its node is gone but not replaced yet: the group is still short of one.
            if cluster.node_of(repair).is_none()
                && let Some(group) = repair
                    .status
                    .as_ref()
                    .and_then(|status| status.group.clone())
            {
                let group = self.groups.entry((name, group)).or_default();
                group.nodes += 1;
                group.unhealthy += 1;
            }
        }
    }

    pub(super) fn group(&self, policy: &str, group: &str) -> Option<&Group> {
        self.groups.get(&(policy.to_owned(), group.to_owned()))
    }

    pub(super) fn policy_statuses(
        &self,
        cluster: &Cluster,
    ) -> BTreeMap<String, RepairPolicyStatus> {
        let status = |policy: &RepairPolicy| {
            let name = policy.metadata.name.clone()?;
            let counted = self.policies.get(&name).cloned().unwrap_or_default();
            let observed_generation = policy.metadata.generation.unwrap_or_default();
            Some((
                name,
                RepairPolicyStatus {
                    observed_generation,
                    ..counted
                },
            ))
        };
        cluster.policies.iter().filter_map(status).collect()
    }
}

/// An episode that is too young to be recorded is too young to count.
fn is_unhealthy(
    node: &NodeView,
    policy: &RepairPolicy,
    episodes: &Episodes,
    now: Timestamp,
) -> bool {
    let old_enough =
        |since: Timestamp| now.duration_since(since).unsigned_abs() >= record_after(policy);
    episodes
        .of(&node.uid)
        .iter()
        .any(|episode| episode.recovered.is_none() && old_enough(episode.since))
}
