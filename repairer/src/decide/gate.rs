//! PURE. The gates: each is a reason not to go on, with its numbers.

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;

use super::Planner;
use crate::api::policy::{Comparison, LastNode, Mode, RepairPolicy, UnhealthyThreshold};
use crate::api::repair::Gate;
use crate::api::{EXCLUDE_LABEL, duration::Wait};
use crate::cluster::{InstanceId, NodeView};
use crate::drain::Treatment;
use crate::episode::Episode;
use crate::rule::{self, Choice};

/// EKS's agent and ours confirm every condition at least every 5 minutes, with jitter.
const SIGNAL_LIFE: Duration = Duration::from_secs(360);
const DEFAULT_PERCENTAGE: u32 = 20;

/// What is about to be done. A cordon destroys nothing, so it need not wait for its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Cordon,
    Start,
    /// Evictions of a drain that has started.
    Continue,
    Destroy,
}

/// The first unmet gate, and those behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub gate: Gate,
    pub message: String,
    pub behind: Vec<Gate>,
}

impl fmt::Display for Held {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}: {}", self.gate, self.message)
    }
}

/// The proof that all gates were open for the destruction of one instance. It cannot be made
/// anywhere else, and the call that destroys takes it by value.
#[derive(Debug, PartialEq, Eq)]
pub struct Clearance {
    instance: InstanceId,
    group: String,
}

impl Clearance {
    pub fn instance(&self) -> &InstanceId {
        &self.instance
    }

    pub fn group(&self) -> &str {
        &self.group
    }
}

/// The node of a repair, or one that may get one.
pub(super) struct Subject<'a> {
    pub(super) node: &'a NodeView,
    /// Its repair's name, for the parallel places.
    pub(super) repair: &'a str,
    pub(super) episodes: Vec<&'a Episode>,
}

type Unmet = Option<String>;

impl Planner<'_> {
    pub(super) fn gates(&mut self, stage: Stage, subject: &Subject<'_>) -> Result<(), Held> {
        let unmet = self.unmet(stage, subject);
        let mut unmet = unmet.into_iter();
        match unmet.next() {
            None => Ok(()),
            Some((gate, message)) => Err(Held {
                gate,
                message,
                behind: unmet.map(|(gate, _)| gate).collect(),
            }),
        }
    }

    /// Mints the proof, for a repair whose node still is the one that it began with, and has nobody
    /// left to hurt.
    pub(super) fn clearance(&mut self, repair: &str) -> Result<Clearance, Held> {
        let held = |gate: Gate, message: &str| Held {
            gate,
            message: message.to_owned(),
            behind: Vec::new(),
        };
        let cluster = self.cluster;
        let Some(object) = cluster.repairs.get(repair) else {
            return Err(held(Gate::NotOurs, "its NodeRepair is gone"));
        };
        let Some(node) = cluster.node_of(object) else {
            return Err(held(Gate::NotOurs, "its Node is gone or another one"));
        };
        let subject = Subject {
            node,
            repair,
            episodes: self.episodes.of(&node.uid),
        };
        self.gates(Stage::Destroy, &subject)?;
        let (instance, group) = self
            .ownership(node)
            .map_err(|message| held(Gate::NotOurs, &message))?;
        if InstanceId::parse(&object.spec.provider_id).ok().as_ref() != Some(&instance) {
            let message = "the Node's spec.providerID is not the one that the repair began with";
            return Err(held(Gate::NotOurs, message));
        }
        if !self.is_drained(node) {
            let message = "there are pods on the node that have to leave, or they are not known";
            return Err(held(Gate::Drain, message));
        }
        Ok(Clearance { instance, group })
    }

    fn is_drained(&self, node: &NodeView) -> bool {
        let Choice::One(policy) = rule::policy_for(node, &self.cluster.policies) else {
            return false;
        };
        let local_volumes = policy.spec.drain.local_volumes;
        self.cluster.pods.get(&node.name).is_some_and(|pods| {
            pods.iter()
                .all(|pod| pod.treatment(local_volumes) == Treatment::Leave)
        })
    }

    /// All are asked, in the order in which they are reported.
    fn unmet(&mut self, stage: Stage, subject: &Subject<'_>) -> Vec<(Gate, String)> {
        let mut found = Vec::new();
        let mut ask = |gate: Gate, unmet: Unmet| found.extend(unmet.map(|message| (gate, message)));
        ask(Gate::Unreadable, self.cluster.unreadable.first().cloned());
        ask(Gate::Excluded, excluded(subject.node));
        ask(Gate::ControlPlane, control_plane(subject.node));
        ask(Gate::NotOurs, self.ownership(subject.node).err());
        let policy = match rule::policy_for(subject.node, &self.cluster.policies) {
            Choice::One(policy) => Some(policy),
            Choice::None => {
                ask(
                    Gate::PolicyConflict,
                    Some("no RepairPolicy selects the node any more".to_owned()),
                );
                None
            }
            Choice::Tie(names) => {
                let names = names.join(", ");
                ask(
                    Gate::PolicyConflict,
                    Some(format!("{names} select the node with the same priority")),
                );
                None
            }
        };
        if let Some(policy) = policy {
            ask(Gate::Disabled, disabled(policy));
            ask(Gate::Paused, paused(policy));
            ask(Gate::Partition, self.partitioned(policy));
            ask(
                Gate::UnhealthyThreshold,
                self.too_many_unhealthy(policy, subject.node),
            );
            ask(Gate::LastNode, self.last_node(policy, subject.node));
            let ripeness = ripeness(policy, subject);
            ask(Gate::SignalStale, self.stale(stage, subject, &ripeness));
            match stage {
                Stage::Cordon => {}
                Stage::Start | Stage::Continue | Stage::Destroy => {
                    ask(Gate::WaitTime, self.too_early(&ripeness))
                }
            }
            match stage {
                Stage::Cordon | Stage::Continue => {}
                Stage::Start | Stage::Destroy => {
                    ask(Gate::ParallelLimit, self.no_place(policy, subject.repair))
                }
            }
        }
        found.sort_by_key(|(gate, _)| *gate);
        found
    }

    /// The instance and its group, or why it is not ours to touch.
    fn ownership(&self, node: &NodeView) -> Result<(InstanceId, String), String> {
        let foreign = [
            ("karpenter.sh/nodepool", "Karpenter"),
            (
                "eks.amazonaws.com/compute-type",
                "EKS (Fargate, hybrid or Auto Mode)",
            ),
        ];
        if let Some((label, owner)) = foreign
            .iter()
            .find(|(label, _)| node.labels.contains_key(*label))
        {
            return Err(format!(
                "the node belongs to {owner}, says its label {label}"
            ));
        }
        if node.deleting {
            return Err("somebody is deleting the node".to_owned());
        }
        let instance = node.instance().map_err(|error| error.to_string())?;
        let view = self
            .cluster
            .instances
            .get(instance.as_str())
            .ok_or_else(|| {
                format!("AWS has not said yet to which Auto Scaling group {instance} belongs")
            })?;
        let group = view.group.clone().ok_or_else(|| {
            format!("{instance} is in no Auto Scaling group: nothing would replace it")
        })?;
        match view.lifecycle.as_deref() {
            Some("InService") => Ok((instance, group)),
            other => {
                let lifecycle = other.unwrap_or("unknown");
                Err(format!(
                    "{instance} is {lifecycle} in its Auto Scaling group {group}, not InService"
                ))
            }
        }
    }

    fn partitioned(&self, policy: &RepairPolicy) -> Unmet {
        let name = policy.metadata.name.as_deref().unwrap_or_default();
        let partition = self.partitions.get(name)?;
        Some(format!(
            "{} of {} nodes became Unknown within {} of each other, from {}: more likely the network or the control plane",
            partition.silent,
            partition.nodes,
            policy.spec.partition.window,
            second(partition.since)
        ))
    }

    fn too_many_unhealthy(&self, policy: &RepairPolicy, node: &NodeView) -> Unmet {
        let name = self.cluster.group_of(node)?;
        let group = self
            .tally
            .group(policy.metadata.name.as_deref().unwrap_or_default(), name)?;
        let threshold = &policy.spec.unhealthy_threshold;
        let limit = exceeded(threshold, group.unhealthy, group.nodes)?;
        Some(format!(
            "{} of {} nodes of {name} are unhealthy: {limit}",
            group.unhealthy, group.nodes
        ))
    }

    fn last_node(&self, policy: &RepairPolicy, node: &NodeView) -> Unmet {
        match policy.spec.last_node {
            LastNode::Allow => return None,
            LastNode::Hold => {}
        }
        let name = self.cluster.group_of(node)?;
        let group = self
            .tally
            .group(policy.metadata.name.as_deref().unwrap_or_default(), name)?;
        let others = group
            .serving
            .iter()
            .filter(|&other| *other != node.name)
            .count();
        // A node that does not serve any more is no loss.
        (node.is_ready() && others == 0).then(|| format!("no other node of {name} serves"))
    }

    fn no_place(&self, policy: &RepairPolicy, repair: &str) -> Unmet {
        let name = policy.metadata.name.as_deref().unwrap_or_default();
        let others: Vec<_> = self
            .in_progress
            .get(name)?
            .iter()
            .filter(|&other| other != repair)
            .cloned()
            .collect();
        let count = policy.spec.parallel.count as usize;
        (others.len() >= count).then(|| {
            format!(
                "{} of {count} places are taken: {}",
                others.len(),
                others.join(", ")
            )
        })
    }

    fn too_early(&mut self, ripeness: &Ripeness<'_>) -> Unmet {
        match ripeness {
            Ripeness::Recovering { condition, since } => Some(format!(
                "{condition} is healthy again since {}; waiting whether it stays so",
                second(*since)
            )),
            Ripeness::At { episode, wait, at } if *at > self.now => {
                self.wake(*at);
                Some(format!(
                    "{} is unhealthy since {}; after {wait}, at {}, it may be repaired",
                    episode.condition,
                    second(episode.since),
                    second(*at)
                ))
            }
            Ripeness::At { .. } => None,
            Ripeness::Nothing => {
                Some("no condition of the node is unhealthy by the policy's rules".to_owned())
            }
        }
    }

    /// A condition that its writer has stopped confirming says nothing about now.
    fn stale(&self, stage: Stage, subject: &Subject<'_>, ripeness: &Ripeness<'_>) -> Unmet {
        let Ripeness::At { episode, at, .. } = ripeness else {
            return None;
        };
        // Written by kubelet or, when that is silent, by the control plane itself.
        if episode.condition == "Ready" {
            return None;
        }
        let heartbeat = subject
            .node
            .condition(&episode.condition)
            .and_then(|condition| condition.heartbeat);
        let Some(heartbeat) = heartbeat else {
            return Some(format!(
                "{} has no lastHeartbeatTime: is it still true?",
                episode.condition
            ));
        };
        // Also where the writer's clock runs ahead: its word would never grow old.
        if self.now.duration_since(heartbeat).unsigned_abs() > SIGNAL_LIFE {
            let life = Wait(SIGNAL_LIFE);
            return Some(format!(
                "{} was last confirmed at {}, more than {life} from now",
                episode.condition,
                second(heartbeat)
            ));
        }
        // Times of conditions are whole seconds.
        let confirmed = heartbeat.as_second() >= at.as_second();
        let asked = match stage {
            Stage::Cordon => false,
            Stage::Start | Stage::Continue | Stage::Destroy => *at <= self.now,
        };
        (asked && !confirmed).then(|| {
            format!(
                "{} has not been confirmed since its wait ended at {}",
                episode.condition,
                second(*at)
            )
        })
    }
}

/// When the first of a node's episodes has been open for as long as its rule waits.
enum Ripeness<'a> {
    Nothing,
    /// All are healthy again, for now.
    Recovering {
        condition: String,
        since: Timestamp,
    },
    At {
        episode: &'a Episode,
        wait: Wait,
        at: Timestamp,
    },
}

fn ripeness<'a>(policy: &RepairPolicy, subject: &Subject<'a>) -> Ripeness<'a> {
    let open = subject
        .episodes
        .iter()
        .filter(|episode| episode.recovered.is_none());
    let first = open
        .filter_map(|episode| {
            let rule = rule::matching(&policy.spec, subject.node.condition(&episode.condition)?)?;
            let wait = rule.min_repair_wait_time;
            rule::acts(rule).then(|| (episode.since + wait.0, wait, *episode))
        })
        .min_by_key(|(at, ..)| *at);
    match first {
        Some((at, wait, episode)) => Ripeness::At { episode, wait, at },
        None => subject
            .episodes
            .iter()
            .find_map(|episode| {
                Some(Ripeness::Recovering {
                    condition: episode.condition.clone(),
                    since: episode.recovered?,
                })
            })
            .unwrap_or(Ripeness::Nothing),
    }
}

fn disabled(policy: &RepairPolicy) -> Unmet {
    let name = policy.metadata.name.as_deref().unwrap_or_default();
    match policy.spec.mode {
        Mode::Enforce => None,
        Mode::Disabled => Some(format!(
            "RepairPolicy {name} is Disabled; enable it with spec.mode: Enforce"
        )),
    }
}

fn paused(policy: &RepairPolicy) -> Unmet {
    let name = policy.metadata.name.as_deref().unwrap_or_default();
    policy
        .spec
        .paused
        .then(|| format!("RepairPolicy {name} is paused (spec.paused)"))
}

/// Whatever the label's value, short of `false`: who sets it means it.
fn excluded(node: &NodeView) -> Unmet {
    let value = node.labels.get(EXCLUDE_LABEL)?;
    (value != "false").then(|| format!("the node has the label {EXCLUDE_LABEL}={value}"))
}

fn control_plane(node: &NodeView) -> Unmet {
    let labels = [
        "node-role.kubernetes.io/control-plane",
        "node-role.kubernetes.io/master",
    ];
    let label = labels
        .into_iter()
        .find(|label| node.labels.contains_key(*label))?;
    Some(format!("the node has the label {label}"))
}

/// The limit that is passed, in words. Whole numbers only: no rounding to argue about. One
/// unhealthy node alone passes no limit.
fn exceeded(threshold: &UnhealthyThreshold, unhealthy: usize, nodes: usize) -> Option<String> {
    if unhealthy <= 1 || nodes < threshold.min_nodes as usize {
        return None;
    }
    let over = |left: usize, right: usize| match threshold.comparison {
        Comparison::AtLeast => left >= right,
        Comparison::Above => left > right,
    };
    let word = match threshold.comparison {
        Comparison::AtLeast => "at",
        Comparison::Above => "above",
    };
    if let Some(count) = threshold.count {
        return over(unhealthy, count as usize).then(|| format!("repair stops at {word} {count}"));
    }
    let percentage = threshold.percentage.unwrap_or(DEFAULT_PERCENTAGE);
    over(unhealthy * 100, percentage as usize * nodes)
        .then(|| format!("repair stops at {word} {percentage} %"))
}

fn second(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
