//! PURE. Instances that serve in their Auto Scaling group and never became Nodes. Each counts as a node of
//! the group with one bad condition, so that the same gates are asked: ten instances that do not join
//! are a bad image, not ten bad machines.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;

use crate::api::policy::Mode;
use crate::api::repair::NodeRepair;
use crate::cluster::{Cluster, ConditionView, InstanceId, InstanceState, InstanceView, NodeView};

/// `True` is bad. It needs a rule of its own.
pub const CONDITION: &str = "InstanceWithoutNode";
const REASON: &str = "NeverJoined";
/// What nodes of a group may share by chance.
const OF_ONE_NODE: [&str; 3] = [
    "kubernetes.io/hostname",
    "topology.kubernetes.io/zone",
    "topology.k8s.aws/zone-id",
];

/// One whole look at the members of the groups.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Members {
    pub at: Timestamp,
    pub in_service: Vec<Member>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Member {
    pub id: InstanceId,
    pub group: String,
    pub zone: String,
}

impl Members {
    /// Those that are no Node's instance.
    pub fn without_node<'a>(&'a self, cluster: &'a Cluster) -> impl Iterator<Item = &'a Member> {
        let nodes: BTreeSet<_> = cluster
            .nodes
            .values()
            .filter_map(|node| node.instance().ok())
            .collect();
        let members = self.in_service.iter();
        members.filter(move |member| !nodes.contains(&member.id))
    }
}

impl Cluster {
    /// Whether any policy has a rule about them: else nobody is asked.
    pub fn wants_members(&self) -> bool {
        self.policies.iter().any(|policy| {
            let mut rules = policy.spec.rules.iter();
            policy.spec.mode != Mode::Disabled
                && rules.any(|rule| rule.node_monitoring_condition == CONDITION)
        })
    }

    /// Adds them to the nodes, as old as the look.
    pub fn see_unjoined(&mut self) {
        let Some(members) = &self.members else { return };
        // A Node that does not say which instance it is could be that of any.
        if self.nodes.values().any(|node| node.provider_id.is_empty()) {
            return;
        }
        let unjoined: Vec<_> = members
            .without_node(self)
            .filter_map(|member| self.unjoined(member, members.at))
            .collect();
        for node in unjoined {
            self.nodes.entry(node.name.clone()).or_insert(node);
        }
    }

    /// Whether it is known that an instance is a Node now or serves no more. A look that failed, or that a
    /// process has not made yet, tells neither.
    pub fn has_settled(&self, id: &str) -> bool {
        if !self.wants_members() {
            return true;
        }
        let Some(members) = &self.members else {
            return false;
        };
        let mut unjoined = members.without_node(self);
        let view = self.instances.get(id);
        !unjoined.any(|member| member.id.as_str() == id) || view.is_some_and(|view| !serves(view))
    }

    /// `None`: it is not known since when it runs, or it goes.
    fn unjoined(&self, member: &Member, at: Timestamp) -> Option<NodeView> {
        let id = member.id.as_str();
        let view = self.instances.get(id)?;
        let launched = view.facts.launched.filter(|_| serves(view))?;
        Some(NodeView {
            name: id.to_owned(),
            uid: id.to_owned(),
            resource_version: String::new(),
            labels: self.shared_labels(&member.group),
            provider_id: format!("aws:///{}/{id}", member.zone),
            joined: false,
            unschedulable: false,
            taints: Vec::new(),
            conditions: vec![condition(launched, at)],
            created: launched,
            deleting: false,
            others: Vec::new(),
            devices: BTreeMap::new(),
            boot_id: String::new(),
            marks: None,
            kept_off: BTreeSet::new(),
            dismissed: None,
            traits: BTreeMap::new(),
        })
    }

    /// By which the policy of a group's nodes selects its instance, too.
    fn shared_labels(&self, group: &str) -> BTreeMap<String, String> {
        let of_group = |node: &&NodeView| node.joined && self.group_of(node) == Some(group);
        let mut nodes = self.nodes.values().filter(of_group);
        let mut shared = nodes.next().map(|node| node.labels.clone());
        for node in nodes {
            if let Some(shared) = &mut shared {
                shared.retain(|key, value| node.labels.get(key) == Some(value));
            }
        }
        let mut shared = shared.unwrap_or_default();
        shared.retain(|key, _| !OF_ONE_NODE.contains(&key.as_str()));
        shared
    }
}

fn serves(view: &InstanceView) -> bool {
    view.lifecycle.as_deref() == Some("InService") && view.state == InstanceState::There
}

pub fn condition(since: Timestamp, at: Timestamp) -> ConditionView {
    ConditionView {
        kind: CONDITION.to_owned(),
        status: "True".to_owned(),
        reason: REASON.to_owned(),
        heartbeat: Some(at),
        transition: Some(since),
        writer: None,
    }
}

impl NodeRepair {
    /// Of an instance without a Node; UIDs of Nodes are UUIDs.
    pub fn is_of_instance(&self) -> bool {
        self.spec.node_ref.uid.starts_with("i-")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::fixture::{self, GROUP, at};

    /// Five nodes, and an instance of their group that none of them is.
    fn cluster() -> Cluster {
        let mut cluster = fixture::cluster(5);
        for node in cluster.nodes.values_mut() {
            let label = |key: &str, value: &str| (key.to_owned(), value.to_owned());
            node.labels = [
                label("team", "a"),
                label("topology.kubernetes.io/zone", "us-west-2a"),
                label("own", &node.name),
            ]
            .into();
        }
        let member = |index: usize| Member {
            id: InstanceId::parse(&fixture::provider_id(index)).unwrap(),
            group: GROUP.to_owned(),
            zone: "us-west-2b".to_owned(),
        };
        let mut view = fixture::in_service();
        view.facts.launched = Some(at(500));
        let id = member(9).id.to_string();
        cluster.instances.insert(id, view);
        cluster.members = Some(Members {
            at: at(600),
            in_service: vec![member(0), member(9)],
        });
        cluster
    }

    fn seen(change: impl FnOnce(&mut Cluster)) -> Vec<NodeView> {
        let mut cluster = cluster();
        change(&mut cluster);
        cluster.see_unjoined();
        let nodes = cluster.nodes.into_values();
        nodes.filter(|node| !node.joined).collect()
    }

    #[test]
    fn an_instance_without_a_node_counts_as_one_of_its_group() {
        let found = seen(|_| {});
        assert_eq!(found.len(), 1);
        let node = &found[0];
        assert_eq!(node.provider_id, "aws:///us-west-2b/i-00000000000000009");
        assert_eq!(node.created, at(500));
        let labels: Vec<_> = node.labels.iter().collect();
        assert_eq!(labels, [(&"team".to_owned(), &"a".to_owned())]);
        assert_eq!(node.conditions, [condition(at(500), at(600))]);
    }

    #[test]
    fn a_look_that_was_not_made_settles_nothing() {
        const ID: &str = "i-00000000000000009";
        type Row = (fn(&mut Cluster), bool);
        let rows: [Row; 6] = [
            (|_| {}, false),
            (|c| c.members = None, false),
            (|c| drop(c.instances.remove(ID)), false),
            (
                |c| c.instances.get_mut(ID).unwrap().state = InstanceState::Going,
                true,
            ),
            (|c| c.members = Some(Members::default()), true),
            (|c| c.policies[0].spec.rules.clear(), true),
        ];
        for (index, (change, settled)) in rows.into_iter().enumerate() {
            let mut cluster = cluster();
            let rule = fixture::rule(CONDITION, 60);
            cluster.policies[0].spec.rules.push(rule);
            change(&mut cluster);
            assert_eq!(cluster.has_settled(ID), settled, "{index}");
        }
    }

    #[test]
    fn what_may_have_a_node_or_does_not_serve_is_none() {
        const ID: &str = "i-00000000000000009";
        let rows: [fn(&mut Cluster); 6] = [
            |c| c.members = None,
            |c| {
                let node = fixture::node("late", 9);
                c.nodes.insert("late".to_owned(), node);
            },
            |c| {
                let node = c.nodes.get_mut("node-4").unwrap();
                node.provider_id.clear();
            },
            |c| drop(c.instances.remove(ID)),
            |c| {
                let lifecycle = Some("Terminating:Wait".to_owned());
                c.instances.get_mut(ID).unwrap().lifecycle = lifecycle;
            },
            |c| c.instances.get_mut(ID).unwrap().facts.launched = None,
        ];
        for change in rows {
            assert_eq!(seen(change), []);
        }
    }
}
