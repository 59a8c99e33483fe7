//! PURE. How many nodes of a group there are, and how many of them are not well.

use std::collections::{BTreeMap, BTreeSet, HashSet};

use jiff::Timestamp;

use super::{is_finished, record_after};
use crate::api::policy::{GroupKind, RepairPolicy};
use crate::api::repair::{NodeRepair, Outcome};
use crate::cluster::{Cluster, NodeView};
use crate::episode::Episodes;
use crate::rule::Assigned;

#[derive(Debug, Default)]
pub(super) struct Tally {
    groups: BTreeMap<String, BTreeMap<String, Group>>,
    zones: BTreeMap<String, BTreeMap<String, Share>>,
    policies: BTreeMap<String, Counts>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Share {
    pub(super) nodes: usize,
    pub(super) unhealthy: usize,
}

/// What percentages are of, as far as one policy selects it.
#[derive(Debug, Default)]
pub(super) struct Group {
    /// Excluded nodes count; those still joining, and those that others are deleting, do not.
    pub(super) share: Share,
    /// Names of the nodes that take and run pods.
    pub(super) serving: BTreeSet<String>,
}

#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub(super) struct Counts {
    pub(super) nodes: usize,
    pub(super) unhealthy: usize,
    pub(super) in_repair: usize,
    pub(super) needs_human: usize,
    /// Unhealthy or in repair, whether or not the Node object still exists.
    pub(super) bad: usize,
}

impl Tally {
    pub(super) fn count(
        cluster: &Cluster,
        assigned: &Assigned<'_>,
        in_repair: &HashSet<&str>,
        episodes: &Episodes,
        now: Timestamp,
    ) -> Self {
        let mut tally = Self::default();
        for node in cluster.nodes.values() {
            let Some(policy) = assigned.policy(node) else {
                continue;
            };
            let name = policy.metadata.name.as_deref().unwrap_or_default();
            let in_repair = in_repair.contains(node.uid.as_str());
            let unhealthy = in_repair || is_unhealthy(node, policy, episodes, now);
            let counts = entry(&mut tally.policies, name);
            counts.nodes += 1;
            counts.unhealthy += usize::from(unhealthy);
            counts.bad += usize::from(unhealthy);
            let joining = joins_until(node, policy).is_some_and(|until| until > now);
            if !in_repair && (joining || node.deleting) {
                continue;
            }
            if let Some(zone) = node.zone() {
                let zones = entry(&mut tally.zones, name);
                entry(zones, zone).add(unhealthy);
            }
            let Some(group) = group_of(cluster, node, policy) else {
                continue;
            };
            let group = entry(entry(&mut tally.groups, name), group);
            group.share.add(unhealthy);
            let well = episodes.is_well(&node.uid);
            if node.is_ready() && !node.unschedulable && !node.deleting && well && !in_repair {
                group.serving.insert(node.name.clone());
            }
        }
        tally
    }

    /// Its node is gone but not replaced yet: the group is still short of one.
    pub(super) fn add_repair(&mut self, cluster: &Cluster, policy: &str, repair: &NodeRepair) {
        let counts = entry(&mut self.policies, policy);
        let status = repair.status.as_ref();
        let there = cluster.node_of(repair).is_some();
        if is_finished(repair) {
            let outcome = status.and_then(|status| status.outcome);
            counts.needs_human += usize::from(there && outcome == Some(Outcome::NeedsHuman));
            return;
        }
        counts.in_repair += 1;
        if there {
            return;
        }
        counts.bad += 1;
        // The node that has come in its place is there already, and not proven yet.
        let replacement = status.and_then(|status| status.replacement.as_ref());
        let replaced = replacement.is_some_and(|new| {
            let node = cluster.nodes.get(&new.node_name);
            node.is_some_and(|node| node.uid == new.node_uid)
        });
        let short = Share {
            nodes: usize::from(!replaced),
            unhealthy: 1,
        };
        if let Some(group) = status.and_then(|status| status.counted_in()) {
            let group = entry(entry(&mut self.groups, policy), group);
            group.share.count(short);
        }
        if let Some(zone) = status.and_then(|status| status.zone.as_deref()) {
            entry(entry(&mut self.zones, policy), zone).count(short);
        }
    }

    pub(super) fn groups(&self, policy: &str) -> impl Iterator<Item = (&str, &Group)> {
        let groups = self.groups.get(policy).into_iter().flatten();
        groups.map(|(name, group)| (name.as_str(), group))
    }

    pub(super) fn group(&self, policy: &str, group: &str) -> Option<&Group> {
        self.groups.get(policy)?.get(group)
    }

    pub(super) fn zones(&self, policy: &str) -> impl Iterator<Item = (&str, Share)> {
        let zones = self.zones.get(policy).into_iter().flatten();
        zones.map(|(name, share)| (name.as_str(), *share))
    }

    pub(super) fn zone(&self, policy: &str, zone: &str) -> Share {
        let zones = self.zones.get(policy);
        zones
            .and_then(|zones| zones.get(zone))
            .copied()
            .unwrap_or_default()
    }

    pub(super) fn counts(&self, policy: &str) -> Counts {
        self.policies.get(policy).copied().unwrap_or_default()
    }
}

impl Share {
    fn add(&mut self, unhealthy: bool) {
        self.count(Self {
            nodes: 1,
            unhealthy: usize::from(unhealthy),
        });
    }

    fn count(&mut self, other: Self) {
        self.nodes += other.nodes;
        self.unhealthy += other.unhealthy;
    }
}

/// Until when a node that is not Ready counts as "still joining".
pub(super) fn joins_until(node: &NodeView, policy: &RepairPolicy) -> Option<Timestamp> {
    let until = node.created.checked_add(policy.spec.startup_timeout.0);
    // A Node may say that it was made in the year 9999.
    (!node.is_ready()).then(|| until.unwrap_or(Timestamp::MAX))
}

fn entry<'a, V: Default>(map: &'a mut BTreeMap<String, V>, key: &str) -> &'a mut V {
    map.entry(key.to_owned()).or_default()
}

/// What a node counts in; unknown where AWS has not told its group, or it has no such label.
pub(super) fn group_of<'a>(
    cluster: &'a Cluster,
    node: &'a NodeView,
    policy: &RepairPolicy,
) -> Option<&'a str> {
    let by = &policy.spec.group_by;
    match by.kind {
        GroupKind::Auto => cluster.group_of(node),
        GroupKind::Label => node.labels.get(by.label.as_deref()?).map(String::as_str),
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
        .all_of(&node.uid)
        .any(|e| e.acts && e.recovered.is_none() && old_enough(e.since))
}
