//! PURE. The gates as data: each is a reason not to go on, with its numbers and with what would
//! open it. All are asked; the first closed one is what holds a repair.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;

use super::count::{exceeded, percent};
use super::due::{Due, Ripeness};
use super::tally::{Share, group_of};
use super::{Planner, admitted};
use crate::api::policy::{
    Comparison, GroupKind, LastNode, Mode, RepairAction, RepairPolicy, ReplaceBy, ZonalShift,
};
use crate::api::repair::{Gate, NodeRepair, Trigger};
use crate::api::{EXCLUDE_LABEL, duration::Wait};
use crate::capacity::{self, Cause};
use crate::claim::{self, ClaimView, DO_NOT_DISRUPT};
use crate::cluster::{Asked, Cluster, InstanceId, NodeView};
use crate::drain;
use crate::episode::Episode;
use crate::owner::Owner;
use crate::rule::{self, Choice};
use crate::window::Window;

/// EKS's agent and ours confirm every condition at least every 5 minutes, with jitter.
const SIGNAL_LIFE: Duration = Duration::from_secs(360);
/// From a Lease that could not be read to the next look.
const LEASE_RETRY: Duration = Duration::from_secs(10);
/// Older than this, the word of another agent may be one that it forgot to take back.
const LATCH_AGE: Duration = Duration::from_secs(3600);
/// There is nothing left to repair.
const ENDS: &str = "nothing: the repair ends";
const HOUR: Duration = Duration::from_secs(3600);
const NO_REBOOT: &str = "the node is Karpenter's: it is replaced, never rebooted";
const REPLACE_TOO: &str = "a person writes a rule with repairActions: [Reboot, Replace]";

/// In the order in which they are reported.
pub const GATES: [Gate; 25] = [
    Gate::Unreadable,
    Gate::PolicyConflict,
    Gate::Disabled,
    Gate::Paused,
    Gate::Excluded,
    Gate::ControlPlane,
    Gate::NotOurs,
    Gate::OtherRepairer,
    Gate::Denied,
    Gate::Unsupported,
    Gate::SignalStale,
    Gate::SignalLatched,
    Gate::Partition,
    Gate::Correlated,
    Gate::UnhealthyThreshold,
    Gate::ZonalShift,
    Gate::ZoneShare,
    Gate::WaitTime,
    Gate::OutsideWindow,
    Gate::LastNode,
    Gate::AttemptsSpent,
    Gate::Capacity,
    Gate::RepairBudget,
    Gate::ParallelLimit,
    Gate::Shadow,
];

#[cfg(test)]
thread_local! {
    /// A gate that is not asked, to see what goes wrong without it.
    pub static REMOVED: std::cell::Cell<Option<Gate>> = const { std::cell::Cell::new(None) };
}

/// What is about to be done. A cordon destroys nothing, so it need not wait for its turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Stage {
    Cordon,
    Start,
    /// Evictions of a drain that has started.
    Continue,
    Destroy,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub enum State {
    Open,
    Closed,
    /// Closed, and a person has said to go on all the same.
    Overridden,
    /// What it needs to know is not asked for by this version: it closes nothing.
    NotAsked,
}

/// One gate's answer.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Verdict {
    pub gate: Gate,
    pub state: State,
    pub message: String,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, String>,
    /// What would open it; empty where it is open.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub opens: String,
}

/// The first closed gate, and those behind it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Held {
    pub gate: Gate,
    pub message: String,
    pub values: BTreeMap<String, String>,
    pub opens: String,
    pub behind: Vec<Gate>,
}

impl Held {
    pub(super) fn by(gate: Gate, message: impl Into<String>, opens: impl Into<String>) -> Self {
        Self {
            gate,
            message: message.into(),
            values: BTreeMap::new(),
            opens: opens.into(),
            behind: Vec::new(),
        }
    }

    /// What the verdicts of one moment come to.
    pub fn from_verdicts(verdicts: Vec<Verdict>) -> Option<Self> {
        let closed = |verdict: &Verdict| verdict.state == State::Closed;
        let mut closed = verdicts.into_iter().filter(closed);
        let first = closed.next()?;
        Some(Self {
            gate: first.gate,
            message: first.message,
            values: first.values,
            opens: first.opens,
            behind: closed.map(|verdict| verdict.gate).collect(),
        })
    }
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
    action: RepairAction,
    group: String,
    boot_id: Option<String>,
    target: Target,
}

/// What the call that destroys is about: each call takes its own kind, and none can be made elsewhere.
#[derive(Debug, PartialEq, Eq)]
pub enum Target {
    /// Through its Auto Scaling group.
    Instance(InstanceTarget),
    /// Karpenter ends the instance itself.
    Claim(ClaimTarget),
}

#[derive(Debug, PartialEq, Eq)]
pub struct InstanceTarget {
    id: InstanceId,
    by: ReplaceBy,
}

#[derive(Debug, PartialEq, Eq)]
pub struct ClaimTarget {
    name: String,
    uid: String,
    instance: InstanceId,
}

impl InstanceTarget {
    #[cfg(test)]
    pub(crate) fn of_a_test(id: InstanceId) -> Self {
        Self {
            id,
            by: ReplaceBy::default(),
        }
    }

    pub fn id(&self) -> &InstanceId {
        &self.id
    }

    /// Which call is meant.
    pub fn by(&self) -> ReplaceBy {
        self.by
    }
}

impl ClaimTarget {
    pub fn name(&self) -> &str {
        &self.name
    }

    pub fn uid(&self) -> &str {
        &self.uid
    }
}

/// The node's instance, and who would replace it.
struct Owned<'a> {
    instance: InstanceId,
    group: &'a str,
    claim: Option<&'a ClaimView>,
}

impl Clearance {
    /// `Reboot` or `Replace`.
    pub fn action(&self) -> RepairAction {
        self.action
    }

    /// Of the node before its reboot.
    pub fn boot_id(&self) -> Option<&str> {
        self.boot_id.as_deref()
    }

    pub fn instance(&self) -> &InstanceId {
        match &self.target {
            Target::Instance(target) => &target.id,
            Target::Claim(target) => &target.instance,
        }
    }

    /// The Auto Scaling group or NodePool.
    pub fn group(&self) -> &str {
        &self.group
    }

    pub fn target(&self) -> &Target {
        &self.target
    }

    pub fn into_target(self) -> Target {
        self.target
    }
}

/// The node of a repair, or one that may get one.
pub struct Subject<'a> {
    pub node: &'a NodeView,
    /// Its repair's name, for the parallel places; empty where there is none.
    pub name: &'a str,
    pub repair: Option<&'a NodeRepair>,
    pub episodes: Vec<&'a Episode>,
}

impl Subject<'_> {
    fn trigger(&self) -> Trigger {
        self.repair
            .map_or(Trigger::Auto, |repair| repair.spec.trigger)
    }

    fn overrides(&self, gate: Gate) -> bool {
        let overridden = self.repair.iter().flat_map(|r| &r.spec.override_gates);
        self.trigger() == Trigger::Manual && overridden.into_iter().any(|o| o.gate() == gate)
    }
}

/// Whether a gate has a say at a stage.
fn is_asked(gate: Gate, stage: Stage, trigger: Trigger) -> bool {
    match gate {
        // The request of a person is the trigger.
        Gate::WaitTime => stage != Stage::Cordon && trigger == Trigger::Auto,
        // What has started is not stopped half way by the end of its window.
        Gate::OutsideWindow => matches!(stage, Stage::Cordon | Stage::Start),
        Gate::AttemptsSpent | Gate::RepairBudget | Gate::ParallelLimit => {
            matches!(stage, Stage::Start | Stage::Destroy)
        }
        Gate::Unreadable
        | Gate::PolicyConflict
        | Gate::Disabled
        | Gate::Paused
        | Gate::Excluded
        | Gate::ControlPlane
        | Gate::NotOurs
        | Gate::OtherRepairer
        | Gate::Unsupported
        | Gate::SignalStale
        | Gate::SignalLatched
        | Gate::Partition
        | Gate::Correlated
        | Gate::UnhealthyThreshold
        | Gate::ZonalShift
        | Gate::ZoneShare
        | Gate::LastNode
        | Gate::Capacity
        | Gate::Shadow => true,
        // What is under way is not stopped by the trouble of another.
        Gate::Denied => matches!(stage, Stage::Cordon | Stage::Start),
        // Asked by the drain itself, and after it.
        Gate::Drain | Gate::Preserve => false,
    }
}

/// An answer before it is known whose it is.
struct Answer {
    state: State,
    message: String,
    values: BTreeMap<String, String>,
    opens: String,
}

fn open(message: impl Into<String>) -> Answer {
    Answer {
        state: State::Open,
        message: message.into(),
        values: BTreeMap::new(),
        opens: String::new(),
    }
}

fn closed(message: impl Into<String>, opens: impl Into<String>) -> Answer {
    Answer {
        state: State::Closed,
        opens: opens.into(),
        ..open(message)
    }
}

/// What it waits for, with nobody doing anything.
fn itself(what: impl fmt::Display) -> String {
    format!("by itself: {what}")
}

/// Said by another module of the world outside, which is looked at again and again.
fn outside(clears: &str) -> String {
    if clears.starts_with("nothing") {
        return clears.to_owned();
    }
    format!("{clears}; it is looked at again by itself")
}

fn not_asked(what: &str) -> Answer {
    Answer {
        state: State::NotAsked,
        ..open(format!("not checked: this version does not ask {what}"))
    }
}

impl Answer {
    fn with(mut self, name: &str, value: impl fmt::Display) -> Self {
        if self.message.is_empty() {
            return self;
        }
        self.values.insert(name.to_owned(), value.to_string());
        self
    }

    fn close_if(mut self, closed: bool, opens: impl Into<String>) -> Self {
        if closed {
            self.state = State::Closed;
            self.opens = opens.into();
        }
        self
    }
}

impl<'a> Planner<'a> {
    /// What an open gate says is put into words only for somebody who wants to know.
    fn tell(&self, message: fmt::Arguments<'_>) -> Answer {
        self.answer(false, message, "")
    }

    fn answer(
        &self,
        is_closed: bool,
        message: fmt::Arguments<'_>,
        opens: impl Into<String>,
    ) -> Answer {
        let telling = is_closed || self.telling;
        let answer = open(if telling {
            message.to_string()
        } else {
            String::new()
        });
        answer.close_if(is_closed, opens)
    }

    pub(super) fn gates(&mut self, stage: Stage, subject: &Subject<'_>) -> Result<(), Held> {
        match Held::from_verdicts(self.verdicts(stage, subject)) {
            Some(held) => Err(held),
            None => Ok(()),
        }
    }

    /// Every gate that has a say, in the order in which they are reported.
    pub fn verdicts(&mut self, stage: Stage, subject: &Subject<'_>) -> Vec<Verdict> {
        let mut verdicts = Vec::with_capacity(GATES.len());
        for gate in GATES {
            #[cfg(test)]
            if REMOVED.get() == Some(gate) {
                continue;
            }
            if !is_asked(gate, stage, subject.trigger()) {
                continue;
            }
            let Some(mut answer) = self.ask(gate, stage, subject) else {
                continue;
            };
            if answer.state == State::Closed {
                if subject.overrides(gate) {
                    answer.state = State::Overridden;
                } else if gate.overridable() {
                    answer.opens = format!(
                        "{}; or a person creates a NodeRepair of the node with trigger: Manual and overrideGates: [{gate:?}]",
                        answer.opens
                    );
                }
            }
            verdicts.push(Verdict {
                gate,
                state: answer.state,
                message: answer.message,
                values: answer.values,
                opens: answer.opens,
            });
        }
        verdicts
    }

    /// Mints the proof, for a repair whose node still is the one that it began with, and has nobody
    /// left to hurt.
    pub(super) fn clearance(&mut self, name: &str) -> Result<Clearance, Held> {
        let cluster = self.cluster;
        let Some(object) = cluster.repairs.get(name) else {
            return Err(Held::by(Gate::NotOurs, "its NodeRepair is gone", ENDS));
        };
        let Some(node) = cluster.node_of(object) else {
            let message = "its Node is gone or another one";
            return Err(Held::by(Gate::NotOurs, message, ENDS));
        };
        let subject = Subject {
            node,
            name,
            repair: Some(object),
            episodes: self.episodes.of(&node.uid),
        };
        self.gates(Stage::Destroy, &subject)?;
        let Owned {
            instance,
            group,
            claim,
        } = self
            .ownership(node)
            .map_err(|(message, opens)| Held::by(Gate::NotOurs, message, opens))?;
        let status = object.status.as_ref();
        let recorded = status.and_then(|status| status.instance_id.as_deref());
        let begun_with = match InstanceId::parse(&object.spec.provider_id) {
            Ok(begun) => begun == instance,
            // Who creates a repair by hand need not know it: what was seen first counts.
            Err(_) => object.spec.trigger == Trigger::Manual && recorded == Some(instance.as_str()),
        };
        if !begun_with {
            let message = "the Node's spec.providerID is not the one that the repair began with";
            let opens = "a person deletes the NodeRepair; the node gets another one";
            return Err(Held::by(Gate::NotOurs, message, opens));
        }
        if !self.is_drained(node, object) {
            let message = "there are pods on the node that have to leave, or they are not known";
            return Err(Held::by(Gate::Drain, message, itself("the drain goes on")));
        }
        let action = status.and_then(|status| status.action);
        let action = action.unwrap_or(object.spec.action);
        let boot_id = (action == RepairAction::Reboot).then(|| node.boot_id.clone());
        let policy = self.assigned.policy(node);
        let by = policy
            .map(|policy| admitted::replace(policy, Some(object)).by)
            .unwrap_or_default();
        let target = match claim {
            Some(_) if action == RepairAction::Reboot => {
                return Err(Held::by(Gate::Unsupported, NO_REBOOT, REPLACE_TOO));
            }
            Some(claim) => Target::Claim(ClaimTarget {
                name: claim.name.clone(),
                uid: claim.uid.clone(),
                instance,
            }),
            None => Target::Instance(InstanceTarget { id: instance, by }),
        };
        Ok(Clearance {
            action,
            group: group.to_owned(),
            boot_id,
            target,
        })
    }

    fn is_drained(&self, node: &NodeView, repair: &NodeRepair) -> bool {
        let status = repair.status.clone().unwrap_or_default();
        let plan = self.drain_of(node, repair, &status);
        plan.is_some_and(|plan| plan.state == drain::State::Drained)
    }

    /// `None`: without a policy it cannot be asked.
    fn ask(&mut self, gate: Gate, stage: Stage, subject: &Subject<'_>) -> Option<Answer> {
        let node = subject.node;
        let policy = self.assigned.policy(node);
        let answer = match gate {
            Gate::Unreadable => self.unreadable(),
            Gate::PolicyConflict => self.policy_conflict(node),
            Gate::Disabled => disabled(policy?),
            Gate::Paused => self.paused(policy?),
            Gate::Excluded => excluded(node),
            Gate::ControlPlane => control_plane(node),
            Gate::NotOurs => self.not_ours(subject),
            Gate::OtherRepairer => self.other_repairer(node),
            Gate::Unsupported => self.unsupported(policy?, subject),
            Gate::SignalStale => self.stale(policy?, stage, subject),
            Gate::SignalLatched => self.latched(policy?, subject),
            Gate::Partition => self.partitioned(policy?),
            Gate::Correlated => self.correlated(policy?, subject),
            Gate::UnhealthyThreshold => self.too_many_unhealthy(policy?, subject),
            Gate::ZonalShift => self.shifted(policy?, node),
            Gate::ZoneShare => self.zone_share(policy?, node),
            Gate::WaitTime => self.too_early(policy?, subject),
            Gate::OutsideWindow => self.outside_window(policy?),
            Gate::LastNode => self.last_node(policy?, subject),
            Gate::AttemptsSpent => self.attempts_spent(policy?, subject),
            Gate::Capacity => self.capacity(policy?, subject),
            Gate::RepairBudget => self.over_budget(policy?, subject),
            Gate::ParallelLimit => self.no_place(policy?, subject),
            Gate::Shadow => shadow(policy?),
            Gate::Denied => self.denied(subject),
            // Asked by the drain itself, and after it.
            Gate::Drain | Gate::Preserve => return None,
        };
        Some(answer)
    }

    fn unreadable(&self) -> Answer {
        match self.cluster.unreadable.first() {
            None => open("every NodeRepair and RepairPolicy can be read"),
            Some(first) => closed(first, "a person mends or deletes the object")
                .with("objects", self.cluster.unreadable.len()),
        }
    }

    fn policy_conflict(&self, node: &NodeView) -> Answer {
        match self.assigned.choice(node) {
            Choice::One(policy) => {
                let name = policy.metadata.name.as_deref().unwrap_or_default();
                self.tell(format_args!("RepairPolicy {name} is for the node"))
            }
            Choice::None => closed(
                "no RepairPolicy selects the node",
                "a person makes a RepairPolicy whose selector matches the node's labels",
            ),
            Choice::Tie(names) => {
                let names = names.join(", ");
                closed(
                    format!("{names} select the node with the same priority"),
                    "a person gives one of them a higher priority",
                )
            }
        }
    }

    fn paused(&self, policy: &RepairPolicy) -> Answer {
        let name = policy.metadata.name.as_deref().unwrap_or_default();
        if self.cluster.limits.paused {
            return closed(
                "the repairer is paused as a whole (--paused)",
                "a person starts it without --paused (NODEMEND_PAUSED)",
            );
        }
        self.tell(format_args!("RepairPolicy {name} is not paused"))
            .or(policy.spec.paused.then(|| {
                closed(
                    format!("RepairPolicy {name} is paused (spec.paused)"),
                    "a person sets spec.paused: false",
                )
            }))
    }

    /// The instance and who would replace it, or why it is not ours to touch and what would change that.
    fn ownership(&self, node: &NodeView) -> Result<Owned<'a>, (String, String)> {
        let cluster: &'a Cluster = self.cluster;
        let view = node
            .instance()
            .ok()
            .and_then(|id| cluster.instances.get(id.as_str()));
        let owner = Owner::of(node, view);
        let claim = cluster.claim_of(node);
        if let Some(claim) = claim.filter(|_| matches!(owner, Owner::Group { .. })) {
            let message = format!(
                "Karpenter's NodeClaim {} has the node's providerID, but its instance is in an Auto Scaling group",
                claim.name
            );
            let opens = "a person deletes the NodeClaim that is not real".to_owned();
            return Err((message, opens));
        }
        let (instance, claim) = match owner {
            Owner::Group { instance, .. } => (instance, None),
            Owner::Karpenter { instance, by } => {
                let claim = cluster
                    .claim_to_delete(node, &instance, &by)
                    .map_err(|(message, clears)| (message, outside(&clears)))?;
                (instance, Some(claim))
            }
            other => {
                return Err(match other.refusal() {
                    Some((message, clears)) => (message, outside(&clears)),
                    None => {
                        let message = "whose the node is is not known".to_owned();
                        (message, itself("AWS describes the instance"))
                    }
                });
            }
        };
        let of_instance = || view.and_then(|view| view.group.as_deref());
        let group = claim.map_or_else(of_instance, |claim| claim.group.as_deref());
        let group = group.unwrap_or_default();
        if node.deleting {
            let message = "somebody is deleting the node".to_owned();
            return Err((message, "nothing: the node goes".to_owned()));
        }
        let claimants = self.claimants.get(instance.as_str());
        let mut others = claimants.into_iter().flatten();
        if let Some(other) = others.find(|other| **other != node.name) {
            let message = format!("{instance} is the instance of the node {other}, too");
            return Err((
                message,
                "a person deletes the Node that is not real".to_owned(),
            ));
        }
        Ok(Owned {
            instance,
            group,
            claim,
        })
    }

    /// Whether a node could ever be a canary.
    pub(super) fn may_be_repaired(&self, node: &NodeView) -> bool {
        excluded(node).state == State::Open
            && control_plane(node).state == State::Open
            && self.ownership(node).is_ok()
    }

    fn not_ours(&self, subject: &Subject<'_>) -> Answer {
        let Owned {
            instance,
            group,
            claim,
        } = match self.ownership(subject.node) {
            Ok(owned) => owned,
            Err((message, opens)) => return closed(message, opens),
        };
        let status = subject.repair.and_then(|repair| repair.status.as_ref());
        let began_with = status.and_then(|status| status.node_claim.as_ref());
        if let (Some(claim), Some(before)) = (claim, began_with)
            && claim.uid != before.uid
        {
            let message = format!(
                "{instance} has the NodeClaim {} now, and had another one when its repair began",
                claim.name
            );
            return closed(message, "nothing: this is another node's repair");
        }
        let admitted = status
            .filter(|status| status.policy.is_some())
            .and_then(|status| status.group.as_deref());
        if let Some(admitted) = admitted.filter(|admitted| *admitted != group) {
            let message = format!(
                "{instance} is in {group} now, and was in {admitted} when its repair started"
            );
            let opens = format!(
                "a person moves the instance back into {admitted}, or deletes the NodeRepair"
            );
            return closed(message, opens);
        }
        self.tell(format_args!("{instance} is in {group}"))
    }

    /// What would be done, or is being done.
    fn action_for(&self, policy: &RepairPolicy, subject: &Subject<'_>) -> Option<RepairAction> {
        let status = subject.repair.and_then(|repair| repair.status.as_ref());
        let recorded = status.and_then(admitted::decided);
        let due = || match (subject.trigger(), subject.repair) {
            (Trigger::Manual, Some(repair)) => Some(repair.spec.action),
            (Trigger::Manual, None) | (Trigger::Auto, _) => {
                let due = Due::of(&policy.spec, subject.node, &subject.episodes, self.now)?;
                Some(self.action_of(policy, subject.node, &due, status))
            }
        };
        recorded.or_else(due)
    }

    fn unsupported(&self, policy: &RepairPolicy, subject: &Subject<'_>) -> Answer {
        let action = self.action_for(policy, subject);
        match action {
            Some(RepairAction::Reboot) if subject.node.boot_id.is_empty() => closed(
                "the action that is due is Reboot, and the Node has no status.nodeInfo.bootID: nothing would prove it",
                "by itself: the kubelet reports the bootID; or a person writes a rule with repairActions: [Replace]",
            )
            .with("action", "Reboot"),
            Some(action) if self.is_ruled_out(policy, subject, action) => closed(
                format!("the policy was edited: no rule of it goes as far as {action:?} for this node any more"),
                format!("a person writes a rule with {action:?} among its repairActions, or deletes the NodeRepair"),
            )
            .with("action", format!("{action:?}")),
            Some(RepairAction::Reboot) if self.cluster.is_karpenters(subject.node) => {
                closed(NO_REBOOT, REPLACE_TOO)
            }
            Some(RepairAction::Reboot) => open("the action that is due is Reboot"),
            Some(RepairAction::Replace) => open("the action that is due is Replace"),
            Some(RepairAction::NoAction) | None => open("no action is due"),
        }
    }

    /// What was decided under a policy that said so, and does not any more.
    fn is_ruled_out(
        &self,
        policy: &RepairPolicy,
        subject: &Subject<'_>,
        action: RepairAction,
    ) -> bool {
        let status = subject.repair.and_then(|repair| repair.status.as_ref());
        let decided = status.filter(|status| {
            subject.trigger() == Trigger::Auto && admitted::decided(status).is_some()
        });
        decided.is_some_and(|status| {
            let mut reasons = status.reasons.iter();
            !reasons.any(|seen| rule::reaches(&policy.spec, &seen.condition, &seen.reason, action))
        })
    }

    /// One repair that may not do what it needs is enough.
    fn denied(&self, subject: &Subject<'_>) -> Answer {
        match self.history.lacking(subject.name) {
            None => open("no repair lacks a permission"),
            Some((name, hold)) => closed(
                format!("NodeRepair {name} lacks a permission: {}", hold.message),
                "a person applies deploy/rbac/repairer.yaml, or deletes that NodeRepair",
            ),
        }
    }

    /// A condition that its writer has stopped confirming says nothing about now.
    fn stale(&mut self, policy: &RepairPolicy, stage: Stage, subject: &Subject<'_>) -> Answer {
        if subject.trigger() == Trigger::Manual {
            return open("a person asks for the repair, not a condition");
        }
        let status = subject.repair.and_then(|repair| repair.status.as_ref());
        if status.is_some_and(|status| !status.attempts.is_empty()) && subject.node.is_silent() {
            return open("the node has not come back from what was done to it");
        }
        let ripeness = Ripeness::of(&policy.spec, subject.node, &subject.episodes, self.now);
        let Ripeness::Due(due) = ripeness else {
            return open("no condition is to be acted on");
        };
        let kind = &due.episode.condition;
        // Written by kubelet or, when that is silent, by the control plane itself.
        if kind == "Ready" {
            return self.silence(policy, subject.node);
        }
        let heartbeat = subject.node.condition(kind).and_then(|c| c.heartbeat);
        let opens = itself(format_args!(
            "a heartbeat of {kind}; a person looks whether its agent runs on the node"
        ));
        let Some(heartbeat) = heartbeat else {
            let message = format!("{kind} has no lastHeartbeatTime: is it still true?");
            return closed(message, opens);
        };
        // Also where the writer's clock runs ahead: its word would never grow old.
        if self.now.duration_since(heartbeat).unsigned_abs() > SIGNAL_LIFE {
            let life = Wait(SIGNAL_LIFE);
            let heartbeat = second(heartbeat);
            let message =
                format!("{kind} was last confirmed at {heartbeat}, more than {life} from now");
            return closed(message, opens)
                .with("lastHeartbeat", heartbeat)
                .with("limit", life);
        }
        // Times of conditions are whole seconds.
        let confirmed = heartbeat.as_second() >= due.at.as_second();
        let asked = match stage {
            Stage::Cordon => false,
            Stage::Start | Stage::Continue | Stage::Destroy => due.at <= self.now,
        };
        self.tell(format_args!(
            "{kind} is confirmed within {}",
            Wait(SIGNAL_LIFE)
        ))
        .or((asked && !confirmed).then(|| {
            let due = second(due.at);
            let message = format!("{kind} has not been confirmed since its wait ended at {due}");
            closed(message, opens)
                .with("lastHeartbeat", second(heartbeat))
                .with("waitEnded", due)
        }))
    }

    /// What else is known of a kubelet that is said to be silent.
    fn silence(&mut self, policy: &RepairPolicy, node: &NodeView) -> Answer {
        if !node.is_silent() {
            return open("kubelet itself says that it is not ready");
        }
        let name = policy.metadata.name.as_deref().unwrap_or_default();
        let silent = self.silent.get(name).copied().unwrap_or_default();
        let instance = node
            .instance()
            .ok()
            .and_then(|id| self.cluster.instances.get(id.as_str()));
        let checks = match instance.and_then(|instance| instance.checks_pass) {
            Some(true) => "pass",
            Some(false) => "fail",
            None => "not asked",
        };
        let lease = match &self.cluster.leases {
            Asked::No => "its Lease is not asked for".to_owned(),
            Asked::Yes(leases) => match leases.get(&node.name) {
                None => {
                    self.wake(self.now + LEASE_RETRY);
                    let message = "kubelet is said to be silent, and its Lease could not be read";
                    return closed(
                        message,
                        itself("the Lease can be read, or Ready becomes True"),
                    );
                }
                Some(None) => "it has no Lease".to_owned(),
                Some(Some(lease)) => {
                    let (renewed, lasts) = (second(lease.renewed), Wait(lease.lasts));
                    if lease.expires() > self.now {
                        self.wake(lease.expires());
                        return closed(
                            format!(
                                "kubelet is said to be silent, and its Lease was renewed, or first looked at, less than {lasts} ago"
                            ),
                            itself(format_args!("the Lease does not change for {lasts}, or Ready becomes True")),
                        )
                        .with("leaseRenewed", renewed)
                        .with("limit", lasts);
                    }
                    format!("its Lease was last renewed at {renewed}")
                }
            },
        };
        self.tell(format_args!(
            "kubelet is silent; {lease}; the cloud's checks of the machine: {checks}; silent nodes of the policy: {silent}"
        ))
        .with("silentNodes", silent)
        .with("cloudChecks", checks)
    }

    /// EKS's agent sets its conditions False and never back until it is started anew.
    fn latched(&self, policy: &RepairPolicy, subject: &Subject<'_>) -> Answer {
        let ripeness = Ripeness::of(&policy.spec, subject.node, &subject.episodes, self.now);
        let Ripeness::Due(due) = ripeness else {
            return open("no condition is to be acted on");
        };
        let kind = due.episode.condition.as_str();
        let condition = subject.node.condition(kind);
        let Some(writer) = condition.and_then(|c| c.foreign_writer()) else {
            return self.tell(format_args!(
                "{kind} is not known to be another agent's word"
            ));
        };
        let age = condition
            .and_then(|c| c.transition)
            .map(|at| self.now.duration_since(at).unsigned_abs());
        if age.is_none_or(|age| age < LATCH_AGE) {
            return self.tell(format_args!(
                "{writer} changed {kind} less than {} ago",
                Wait(LATCH_AGE)
            ));
        }
        let evidence = match kind {
            "AcceleratedHardwareReady" => whole_devices(subject.node),
            _ => subject
                .node
                .is_ready()
                .then(|| "kubelet says that the node is Ready".to_owned()),
        };
        match evidence {
            None => self.tell(format_args!("nothing speaks against what {writer} says of {kind}")),
            Some(evidence) => closed(
                format!(
                    "{writer} has said so of {kind} for more than {} without a change, and {evidence}: has it forgotten to take it back?",
                    Wait(LATCH_AGE)
                ),
                format!("a person starts the pod of {writer} on the node anew: a fault that lasts is found again"),
            )
            .with("writer", writer)
            .with("evidence", evidence),
        }
    }

    fn partitioned(&self, policy: &RepairPolicy) -> Answer {
        let name = policy.metadata.name.as_deref().unwrap_or_default();
        let limits = &policy.spec.partition;
        let limit = format_args!(
            "limit: at least {} nodes and {} % within {} of each other",
            limits.min_nodes, limits.percentage, limits.window
        );
        if let Some(since) = self.cluster.unreachable_since {
            let since = second(since);
            return closed(
                format!("the API server does not answer our watches since {since}: what is known of the nodes is old"),
                itself("it answers again; then the waits that began in between start anew"),
            )
            .with("unreachableSince", since);
        }
        let nodes = self.tally.counts(name).nodes;
        let Some(partition) = self.partitions.get(name) else {
            let silent = self.silent.get(name).copied().unwrap_or_default();
            return self.tell(format_args!(
                "{silent} of {nodes} nodes are silent, {limit}"
            ));
        };
        let (silent, nodes) = (partition.silent, partition.nodes);
        closed(
            format!(
                "{silent} of {nodes} nodes = {} became Unknown from {} on, {limit}: more likely the network or the control plane",
                percent(silent, nodes),
                second(partition.since)
            ),
            itself("the nodes report again; then the waits that began in it start anew"),
        )
        .with("silent", silent)
        .with("nodes", nodes)
        .with("limitPercent", limits.percentage)
        .with("limitNodes", limits.min_nodes)
    }

    fn correlated(&self, policy: &RepairPolicy, subject: &Subject<'_>) -> Answer {
        let name = policy.metadata.name.as_deref().unwrap_or_default();
        let uid = &subject.node.uid;
        let started = subject.repair.is_some_and(super::has_started);
        let limits = &policy.spec.correlation;
        let limit = format_args!(
            "limit: at least {} nodes and {} % within {}",
            limits.min_nodes, limits.percentage, limits.window
        );
        let found = self.correlations.get(name).map_or(&[][..], Vec::as_slice);
        let of_node = found.iter().filter(|c| c.concerns(uid));
        let mut verdict = self.tell(format_args!("its reason is not that of many, {limit}"));
        for correlated in of_node {
            let (count, nodes) = (correlated.count, correlated.nodes);
            let shared = match correlated.shared.join(", ") {
                shared if shared.is_empty() => String::new(),
                shared => format!(" and share {shared}"),
            };
            let what = format!(
                "{count} of {nodes} nodes = {} have {} ({}){shared}, {limit}",
                percent(count, nodes),
                correlated.condition,
                correlated.reason,
            );
            let width = correlated.width;
            let answer = if correlated.lets_through(uid, started, self.now) {
                self.tell(format_args!(
                    "{what}: it is among the first {width}, to find out"
                ))
            } else {
                let opens = match correlated.not_before.filter(|at| *at > self.now) {
                    Some(at) => format!(
                        "the repair of one of them failed; another one is tried at {}",
                        second(at)
                    ),
                    None => format!("the first {width} of them are repaired and stay well"),
                };
                closed(
                    format!("{what}: more likely what they share than each of them"),
                    itself(opens),
                )
            };
            let answer = answer
                .with("nodes", nodes)
                .with("withReason", count)
                .with("width", width);
            if answer.state == State::Closed {
                return answer;
            }
            verdict = answer;
        }
        verdict
    }

    fn too_many_unhealthy(&self, policy: &RepairPolicy, subject: &Subject<'_>) -> Answer {
        let Some(name) = group_of(self.cluster, subject.node, policy) else {
            // Of the Auto Scaling group `NotOurs` says so.
            return match policy.spec.group_by.kind {
                GroupKind::Auto => open("its group is not known"),
                GroupKind::Label => {
                    let label = policy.spec.group_by.label.as_deref().unwrap_or_default();
                    let message = format!("the node has no label {label}, which says its group");
                    closed(
                        message,
                        "a person gives the node the label, or changes groupBy",
                    )
                }
            };
        };
        let policy_name = policy.metadata.name.as_deref().unwrap_or_default();
        let share = self
            .tally
            .group(policy_name, name)
            .map(|group| group.share)
            .unwrap_or_default();
        // What was loosened after the drain started is for the next repair.
        let snapshot = subject
            .repair
            .and_then(|repair| repair.status.as_ref()?.policy.as_ref())
            .map(|snapshot| &snapshot.unhealthy_threshold);
        let now = &policy.spec.unhealthy_threshold;
        let strictest = snapshot
            .filter(|threshold| exceeded(threshold, share))
            .unwrap_or(now);
        let Share { nodes, unhealthy } = share;
        let word = match strictest.comparison {
            Comparison::AtLeast => "at least",
            Comparison::Above => "above",
        };
        let limit = match strictest.count {
            Some(count) => format!("{word} {count}"),
            None => format!("{word} {} %", super::count::percentage(strictest)),
        };
        let over = exceeded(strictest, share);
        let floor = if over || nodes >= strictest.min_nodes as usize {
            String::new()
        } else {
            format!(
                " (of groups with {} nodes or more, which it is not)",
                strictest.min_nodes
            )
        };
        let opens = format_args!(
            "by itself: fewer unhealthy nodes of {name}; then they are repaired one at a time"
        );
        self.answer(
            over,
            format_args!(
                "{unhealthy} of {nodes} nodes of {name} are unhealthy = {}, limit: {limit}{floor}",
                percent(unhealthy, nodes)
            ),
            if over {
                opens.to_string()
            } else {
                String::new()
            },
        )
        .with("group", name)
        .with("unhealthy", unhealthy)
        .with("nodes", nodes)
        .with("limit", limit)
    }

    fn shifted(&self, policy: &RepairPolicy, node: &NodeView) -> Answer {
        let mode = policy.spec.zonal_shift;
        let shifted = match (&self.cluster.shifted, mode) {
            (_, ZonalShift::Ignore) => return open("zonal shifts are ignored (zonalShift)"),
            (Asked::No, _) => return not_asked("for zonal shifts"),
            (Asked::Yes(Err(error)), _) => {
                let message = format!("whether a zonal shift is on is not known: {error}");
                return closed(message, itself("the question is answered"));
            }
            (Asked::Yes(Ok(shifted)), _) => shifted,
        };
        if shifted.is_empty() {
            return open("no zonal shift is on");
        }
        let zones = shifted.iter().cloned().collect::<Vec<_>>().join(", ");
        let opens = "by itself: the zonal shift ends";
        match (mode, self.cluster.zone_id(node)) {
            (ZonalShift::PauseAll | ZonalShift::Ignore, _) => {
                closed(format!("a zonal shift away from {zones} is on"), opens)
            }
            (ZonalShift::PauseZone, None) => closed(
                format!("a zonal shift away from {zones} is on, and the node has no label topology.k8s.aws/zone-id"),
                opens,
            ),
            (ZonalShift::PauseZone, Some(zone)) => {
                let message = format!("a zonal shift away from {zones} is on; the node is in {zone}");
                open(message).close_if(shifted.contains(zone), opens)
            }
        }
        .with("shifted", zones)
    }

    /// EKS promises to leave the nodes of such a zone cordoned, and a cordon has no second owner.
    pub(super) fn shifted_away(&self, policy: &RepairPolicy, node: &NodeView) -> Option<Held> {
        let (Asked::Yes(Ok(shifted)), ZonalShift::PauseAll | ZonalShift::PauseZone) =
            (&self.cluster.shifted, policy.spec.zonal_shift)
        else {
            return None;
        };
        let zone = self
            .cluster
            .zone_id(node)
            .filter(|zone| shifted.contains(*zone))?;
        let message = format!("a zonal shift away from {zone} is on: the node stays cordoned");
        let opens = itself("the zonal shift ends; or a person un-cordons the node");
        Some(Held::by(Gate::ZonalShift, message, opens))
    }

    fn zone_share(&self, policy: &RepairPolicy, node: &NodeView) -> Answer {
        let Some(zone) = node.zone() else {
            return open("the node is in no zone");
        };
        let name = policy.metadata.name.as_deref().unwrap_or_default();
        let share = self.tally.zone(name, zone);
        let limits = &policy.spec.zones;
        let Share { nodes, unhealthy } = share;
        let limit = format_args!("at least {} %", limits.max_unhealthy_percentage);
        self.answer(
            super::count::zone_exceeded(limits, share),
            format_args!(
                "{unhealthy} of {nodes} nodes of zone {zone} are unhealthy = {}, limit: {limit} (of {} nodes or more)",
                percent(unhealthy, nodes),
                limits.min_nodes
            ),
            itself("fewer unhealthy nodes in the zone"),
        )
        .with("zone", zone)
        .with("unhealthy", unhealthy)
        .with("nodes", nodes)
        .with("limit", limit)
    }

    fn too_early(&mut self, policy: &RepairPolicy, subject: &Subject<'_>) -> Answer {
        match Ripeness::of(&policy.spec, subject.node, &subject.episodes, self.now) {
            Ripeness::Recovering { condition, since } => closed(
                format!(
                    "{condition} is healthy again since {}; waiting whether it stays so",
                    second(since)
                ),
                itself(format_args!(
                    "{condition} is unhealthy again, or stays healthy and ends the repair"
                )),
            ),
            Ripeness::Due(due) => {
                let condition = &due.episode.condition;
                let stays_until = due.at + policy.spec.drain.timeout.0;
                if due.at <= self.now
                    && stays_until > self.now
                    && self.cluster.asks_to_stay(subject.node)
                {
                    self.wake(stays_until);
                    let until = second(stays_until);
                    return closed(
                        format!("the node asks to be left alone ({DO_NOT_DISRUPT}) until {until}, drain.timeout after its wait"),
                        format!("take the annotation {DO_NOT_DISRUPT} off the node, or it is {until}"),
                    )
                    .with("until", until);
                }
                let early = due.at > self.now;
                if early {
                    self.wake(due.at);
                } else if !self.telling {
                    return open(String::new());
                }
                let flaps = match due.episode.flaps {
                    0 => String::new(),
                    flaps => format!("; it has come back {flaps} times"),
                };
                let until = second(due.at);
                let message = format!(
                    "{condition} is unhealthy since {}; after {}, at {until}, it may be repaired{flaps}",
                    second(due.episode.since),
                    due.wait,
                );
                open(message)
                    .with("since", second(due.episode.since))
                    .with("wait", due.wait)
                    .with("until", &until)
                    .with("reason", due.reason)
                    .with("action", format!("{:?}", due.action))
                    .close_if(early, itself(format_args!("it is {until}")))
            }
            Ripeness::Nothing => closed(
                "no condition of the node is unhealthy by the policy's rules",
                "a person writes a rule that acts on a condition of the node",
            ),
        }
    }

    fn outside_window(&mut self, policy: &RepairPolicy) -> Answer {
        if policy.spec.maintenance_windows.is_empty() {
            return open("the policy has no maintenance windows");
        }
        let mut next = None;
        for window in &policy.spec.maintenance_windows {
            match Window::read(window) {
                Err(error) => {
                    return closed(error, "a person mends the policy's maintenanceWindows");
                }
                Ok(window) => {
                    if let Some(until) = window.open_until(self.now) {
                        return self.tell(format_args!(
                            "a maintenance window is open until {}",
                            second(until)
                        ));
                    }
                    let opens = window.next(self.now);
                    next = next.into_iter().chain(opens).min();
                }
            }
        }
        let next = next.map(|at: Timestamp| {
            self.wake(at);
            second(at)
        });
        let next = next.unwrap_or_else(|| "none within a year".to_owned());
        closed(
            format!("outside of the policy's maintenance windows; the next one: {next}"),
            itself("a maintenance window opens"),
        )
        .with("next", next)
    }

    fn last_node(&self, policy: &RepairPolicy, subject: &Subject<'_>) -> Answer {
        let node = subject.node;
        let snapshot = subject
            .repair
            .and_then(|repair| repair.status.as_ref()?.policy.as_ref())
            .map(|snapshot| snapshot.last_node);
        let hold = LastNode::Hold;
        if policy.spec.last_node != hold && snapshot != Some(hold) {
            return open("the last node may go (lastNode: Allow)");
        }
        let Some(name) = group_of(self.cluster, node, policy) else {
            return open("its group is not known");
        };
        let policy_name = policy.metadata.name.as_deref().unwrap_or_default();
        let others = self.tally.group(policy_name, name).map_or(0, |group| {
            let serving = group.serving.iter();
            serving.filter(|&other| *other != node.name).count()
        });
        // A node that does not serve any more is no loss.
        if others == 0 && node.is_ready() {
            return closed(
                format!("no other node of {name} serves"),
                "by itself: another node of the group is Ready; or a person sets lastNode: Allow",
            )
            .with("others", others);
        }
        let how = if node.is_ready() {
            "serves"
        } else {
            "does not serve"
        };
        self.tell(format_args!(
            "{others} other nodes of {name} serve; this one {how}"
        ))
    }

    fn attempts_spent(&self, policy: &RepairPolicy, subject: &Subject<'_>) -> Answer {
        let limits = &policy.spec.attempts;
        let after = self.now - limits.window.0;
        let line = self.history.line_of(&subject.node.uid, after);
        let name = policy.metadata.name.as_deref().unwrap_or_default();
        let group = group_of(self.cluster, subject.node, policy).unwrap_or_default();
        let failed = self
            .history
            .proofs(name, after)
            .filter(|proof| !proof.success)
            .filter(|proof| {
                let status = proof.repair.status.as_ref();
                status.and_then(|status| status.counted_in()) == Some(group)
            })
            .count();
        let count = limits.count as usize;
        let reboot = self.action_for(policy, subject) == Some(RepairAction::Reboot)
            && subject
                .repair
                .is_none_or(|repair| !super::has_started(repair));
        if reboot && self.history.was_rebooted(&subject.node.uid, after) {
            return closed(
                format!(
                    "the node was rebooted within {}, and no rule says what to do next",
                    limits.window
                ),
                "a person looks at the node, or writes a rule with repairActions: [Reboot, Replace]",
            );
        }
        self.answer(
            line >= count || failed >= count,
            format_args!(
                "{line} nodes in a row were replaced for this one to be here, and {failed} repairs of {group} have failed, within {}; limit: {count}",
                limits.window
            ),
            "a person finds out why replacing does not help",
        )
        .with("line", line)
        .with("failed", failed)
        .with("limit", count)
    }

    /// Whether the line of replacements alone has used up what is allowed.
    pub(super) fn line_is_spent(&self, policy: &RepairPolicy, node: &NodeView) -> bool {
        let limits = &policy.spec.attempts;
        let after = self.now - limits.window.0;
        self.history.line_of(&node.uid, after) >= limits.count as usize
            || self.history.was_rebooted(&node.uid, after)
    }

    fn other_repairer(&self, node: &NodeView) -> Answer {
        if let Some(first) = node.others.first() {
            let opens = itself("it is done with the node, and takes its mark away");
            return closed(first, opens);
        }
        if let Some(claim) = self.cluster.claim_of(node).filter(|claim| claim.deleting) {
            let message = format!("Karpenter removes it (NodeClaim {})", claim.name);
            return closed(message, "nothing: the node goes");
        }
        let launches = match &self.cluster.launches {
            Asked::No => None,
            Asked::Yes(launches) => self.cluster.group_of(node).and_then(|g| launches.get(g)),
        };
        let itself = launches
            .and_then(|launches| launches.node_group.as_ref())
            .filter(|node_group| node_group.repairs_itself);
        match itself {
            None => open("nobody else repairs or removes the node"),
            Some(node_group) => {
                let name = &node_group.name;
                closed(
                    format!(
                        "EKS repairs the nodes of the managed node group {name} itself (nodeRepairConfig)"
                    ),
                    format!("a person sets nodeRepairConfig enabled=false on {name}"),
                )
            }
        }
    }

    /// Nothing is destroyed that would not come back. A reboot destroys nothing.
    fn capacity(&mut self, policy: &RepairPolicy, subject: &Subject<'_>) -> Answer {
        let node = subject.node;
        // Or each node of the group would be cordoned and drained for the same answer.
        let name = policy.metadata.name.as_deref().unwrap_or_default();
        let counted_in = group_of(self.cluster, node, policy).unwrap_or_default();
        if let Some(refused) = self.history.refused(name, counted_in, subject.name)
            && refused.started.0 + HOUR > self.now
        {
            let again = refused.started.0 + HOUR;
            self.wake(again);
            let (again, why) = (second(again), refused.message.as_deref());
            let who = who_answers(counted_in);
            return closed(
                format!(
                    "{who} refused the last call about a node of {counted_in}: {}",
                    why.unwrap_or("no reason was given")
                ),
                format!("a person mends what {who} refused (`nodemend-repairer check`); by itself it is tried again at {again}"),
            )
            .with("tryAgain", again);
        }
        if let Some(claim) = self.cluster.claim_of(node) {
            let denied = claim.group.as_deref().and_then(|g| self.denied_call(g));
            return match denied {
                Some(cause) => closed(cause.message, cause.clears).with("causes", cause.name),
                None => open("Karpenter launches another node where pods need one"),
            };
        }
        let view = node
            .instance()
            .ok()
            .and_then(|id| self.cluster.instances.get(id.as_str()));
        let (Some(view), Some(group)) = (view, self.cluster.group_of(node)) else {
            return open("its group is not known");
        };
        if self.action_for(policy, subject) == Some(RepairAction::Reboot) {
            return match capacity::lifecycle(view) {
                Some(cause) => {
                    closed(cause.message, outside(&cause.clears)).with("causes", cause.name)
                }
                None => open("a reboot destroys nothing"),
            };
        }
        let wish = &admitted::replace(policy, subject.repair);
        let mut causes = capacity::of_instance(view, wish);
        if let Some(denied) = self.denied_call(group) {
            causes.push(denied);
        }
        let launches = match &self.cluster.launches {
            Asked::No => None,
            Asked::Yes(launches) => match launches.get(group) {
                Some(launches) => Some(launches),
                None => {
                    let message = format!("whether {group} can launch instances is not known");
                    return closed(message, itself("AWS describes the group"));
                }
            },
        };
        if let Some(launches) = launches {
            causes.extend(capacity::of_group(group, launches, wish));
        }
        match (causes.first(), launches) {
            (Some(first), _) => {
                let names: Vec<_> = causes.iter().map(|cause| cause.name).collect();
                closed(first.message.clone(), outside(&first.clears))
                    .with("causes", names.join(", "))
            }
            (None, None) => not_asked("AWS whether the group can launch instances"),
            (None, Some(launches)) => self
                .tell(format_args!(
                    "nothing stands against an instance of {group} in its place"
                ))
                .with("failedLaunches", launches.failed),
        }
    }

    /// What was denied for one node of a group is denied for the others.
    fn denied_call(&self, group: &str) -> Option<Cause> {
        let last = self.history.denied(group)?;
        let again = last.started.0 + HOUR;
        if again <= self.now {
            return None;
        }
        let until = second(again);
        Some(Cause {
            name: "Denied",
            message: format!(
                "{} has denied a call for {group}: {}",
                who_answers(group),
                last.message.as_deref().unwrap_or("no message")
            ),
            clears: format!(
                "the permission ({}); it is tried again at {until}",
                if is_pool(group) {
                    "deploy/rbac"
                } else {
                    "deploy/iam"
                }
            ),
        })
    }

    fn over_budget(&mut self, policy: &RepairPolicy, subject: &Subject<'_>) -> Answer {
        let name = policy.metadata.name.as_deref().unwrap_or_default();
        let group = group_of(self.cluster, subject.node, policy).unwrap_or_default();
        let budget = &policy.spec.repair_budget;
        let own = self
            .history
            .destroyed(name, group, subject.name, self.now - budget.window.0);
        let coming = self.coming.get(&(name.to_owned(), group.to_owned()));
        let others = |names: Option<&BTreeSet<String>>| {
            names.map_or(0, |names| {
                names.iter().filter(|n| *n != subject.name).count()
            })
        };
        let used = own.len() + others(coming);
        let count = budget.count as usize;
        let all = self.history.all_destroyed(subject.name, self.now - HOUR);
        let all_used = all.len()
            + self
                .coming
                .values()
                .map(|names| others(Some(names)))
                .sum::<usize>();
        let most = self.cluster.limits.max_repairs_per_hour as usize;
        let (over, oldest, window) = if used >= count {
            (true, own.first(), budget.window.0)
        } else {
            (all_used >= most, all.first(), HOUR)
        };
        let opens = match oldest {
            Some(oldest) if over => {
                self.wake(*oldest + window);
                itself(format_args!("it is {}", second(*oldest + window)))
            }
            _ if over => itself("a repair that is under way ends without a call"),
            _ => String::new(),
        };
        self.answer(
            over,
            format_args!(
                "{used} nodes of {group} were or are being destroyed within {}, limit: {count}; {all_used} in all within 1h, limit: {most}",
                budget.window
            ),
            opens,
        )
        .with("used", used)
        .with("limit", count)
        .with("usedInAll", all_used)
        .with("limitInAll", most)
    }

    fn no_place(&mut self, policy: &RepairPolicy, subject: &Subject<'_>) -> Answer {
        let name = policy.metadata.name.as_deref().unwrap_or_default();
        let others = |names: &BTreeSet<String>| {
            let own = usize::from(names.contains(subject.name));
            names.len() - own
        };
        let taken = self.in_progress.get(name).map_or(0, others);
        let count = self.parallel_of(policy);
        let all = self.in_progress.values().map(others).sum::<usize>();
        let most = self.cluster.limits.max_parallel as usize;
        let answer = if taken >= count {
            let own = self.in_progress.get(name).into_iter().flatten();
            let own: Vec<_> = own.filter(|n| *n != subject.name).cloned().collect();
            closed(
                format!("{taken} of {count} places are taken: {}", some(&own)),
                itself("one of them ends, or its drain is held"),
            )
        } else if all >= most {
            closed(
                format!("{all} of {most} places of all policies are taken (--max-parallel)"),
                itself("any repair ends"),
            )
        } else if let Some(answer) = self.half_way(policy, name, subject) {
            answer
        } else {
            self.tell(format_args!("{taken} of {count} places are taken"))
        };
        answer
            .with("taken", taken)
            .with("limit", count)
            .with("takenInAll", all)
            .with("limitInAll", most)
    }

    /// What a breaker says that has opened again.
    fn half_way(
        &mut self,
        policy: &RepairPolicy,
        name: &str,
        subject: &Subject<'_>,
    ) -> Option<Answer> {
        let started = subject.repair.is_some_and(super::has_started);
        for breaker in self.breakers_of(policy, subject.node) {
            let (gate, scope, width) = (breaker.gate, &breaker.scope, breaker.width);
            if let Some(at) = breaker.not_before.filter(|at| *at > self.now && !started) {
                self.wake(at);
                let at = second(at);
                let message = format!(
                    "the first repair of {scope} after {gate:?} opened again has failed; another one is tried at {at}"
                );
                return Some(closed(message, itself(format_args!("it is {at}"))));
            }
            let busy = self.busy_in(&breaker, name, subject.name);
            if busy >= width as usize {
                let message = format!(
                    "{gate:?} of {scope} has opened again, half way: {busy} of {width} places are taken until that has proven well"
                );
                let answer = closed(message, itself("the repair that is under way succeeds"));
                return Some(answer.with("width", width));
            }
        }
        None
    }
}

impl Answer {
    fn or(self, other: Option<Answer>) -> Answer {
        other.unwrap_or(self)
    }
}

/// All of what device plugins offer is there and given out: GPUs that work, as far as they see.
fn whole_devices(node: &NodeView) -> Option<String> {
    let present: Vec<_> = node
        .devices
        .iter()
        .filter(|(_, (_, capacity))| capacity != "0")
        .collect();
    let whole = !present.is_empty()
        && present
            .iter()
            .all(|(_, (given, capacity))| given == capacity);
    whole.then(|| {
        let told = |(name, (given, capacity)): &(&String, &(String, String))| {
            format!("{given} of {capacity} {name} are allocatable")
        };
        present.iter().map(told).collect::<Vec<_>>().join(", ")
    })
}

fn disabled(policy: &RepairPolicy) -> Answer {
    let name = policy.metadata.name.as_deref().unwrap_or_default();
    match policy.spec.mode {
        Mode::Enforce | Mode::Shadow => open(format!(
            "RepairPolicy {name} is in mode {:?}",
            policy.spec.mode
        )),
        Mode::Disabled => closed(
            format!("RepairPolicy {name} is Disabled; enable it with spec.mode: Enforce"),
            "a person sets spec.mode: Enforce",
        ),
    }
}

fn shadow(policy: &RepairPolicy) -> Answer {
    let name = policy.metadata.name.as_deref().unwrap_or_default();
    match policy.spec.mode {
        Mode::Enforce | Mode::Disabled => {
            open(format!("RepairPolicy {name} is not in mode Shadow"))
        }
        Mode::Shadow => closed(
            format!(
                "RepairPolicy {name} is in mode Shadow: what would be done is recorded, nothing is touched"
            ),
            "a person sets spec.mode: Enforce",
        ),
    }
}

fn is_pool(group: &str) -> bool {
    group.starts_with(claim::GROUP_PREFIX)
}

/// To the call that replaces a node of the group.
fn who_answers(group: &str) -> &'static str {
    if is_pool(group) {
        "the API server"
    } else {
        "AWS"
    }
}

/// Whatever the label's value, short of `false`: who sets it means it.
fn excluded(node: &NodeView) -> Answer {
    match node.labels.get(EXCLUDE_LABEL) {
        Some(value) if value != "false" => closed(
            format!("the node has the label {EXCLUDE_LABEL}={value}"),
            format!("a person takes the label {EXCLUDE_LABEL} off the node"),
        ),
        Some(_) | None => open(format!("the node has no label {EXCLUDE_LABEL}")),
    }
}

fn control_plane(node: &NodeView) -> Answer {
    let labels = [
        "node-role.kubernetes.io/control-plane",
        "node-role.kubernetes.io/master",
    ];
    match labels
        .into_iter()
        .find(|label| node.labels.contains_key(*label))
    {
        Some(label) => closed(
            format!("the node has the label {label}"),
            "nothing: nodes of the control plane are never repaired",
        ),
        None => open("the node is not of the control plane"),
    }
}

/// A list for people.
fn some(names: &[String]) -> String {
    const MOST: usize = 3;
    match names.len().checked_sub(MOST) {
        Some(more) if more > 0 => format!("{} and {more} more", names[..MOST].join(", ")),
        Some(_) | None => names.join(", "),
    }
}

pub(super) fn second(at: Timestamp) -> String {
    at.strftime("%Y-%m-%dT%H:%M:%SZ").to_string()
}
