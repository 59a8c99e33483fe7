//! PURE. One repair's next step. A phase is an intent that is stored before what it names is done:
//! a pass either stores a new status, or does what the stored one allows, never both.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use super::due::Due;
use super::gate::{Held, Stage, Subject};
use super::tally::group_of;
use super::{Act, Planner, Step, admitted, is_finished, reasons};
use crate::api::policy::{GroupKind, RepairAction, RepairPolicy};
use crate::api::repair::{
    Ending, Gate, Hold, NodeRef, NodeRepair, NodeRepairStatus, Outcome, Phase, Trigger,
};
use crate::cluster::NodeView;

mod destroy;
mod drain;
mod start;
mod undo;
mod verify;

/// How often AWS is asked about an instance that is being replaced.
const CLOUD_POLL: Duration = Duration::from_secs(2);
/// How often the numbers of a hold are told anew that depend on other nodes.
const RETELL: Duration = Duration::from_secs(300);

/// A repair with what is known about its node.
struct Case<'a> {
    name: &'a str,
    repair: &'a NodeRepair,
    node: Option<&'a NodeView>,
    policy: Option<&'a RepairPolicy>,
    /// No condition of the node is unhealthy, nor was within the soak.
    is_over: bool,
}

impl Case<'_> {
    fn is_auto(&self) -> bool {
        self.repair.spec.trigger == Trigger::Auto
    }
}

impl Planner<'_> {
    pub(super) fn advance(&mut self, name: &str, repair: &NodeRepair) {
        let cluster = self.cluster;
        let node = cluster.node_of(repair);
        let policy = node.and_then(|node| self.assigned.policy(node));
        // Nobody but that person takes a person's request back.
        let is_over = repair.spec.trigger == Trigger::Auto
            && node.is_some_and(|node| self.episodes.is_well(&node.uid));
        let case = Case {
            name,
            repair,
            node,
            policy,
            is_over,
        };
        self.wake_when_over(&case);

        let stored = repair.status.clone().unwrap_or_default();
        let mut status = self.refreshed(&case, &stored);
        let act = if let Some(other) = self.superseded_by(&case, &stored) {
            let message = format!("NodeRepair {other} of the node goes on in its place");
            finish(&mut status, Outcome::Superseded, &message, self.now)
        } else {
            self.step(&case, &stored, &mut status)
        };
        let policy = self.policy_name(repair);
        self.place(name, &policy, &status);
        let repair = name.to_owned();
        if repair_is_new(&case) || status != stored {
            self.plan.steps.push(Step::Record {
                repair,
                status: Box::new(status),
            });
        } else if let Some(act) = act {
            self.plan.steps.push(Step::Act { repair, act });
        }
    }

    fn step(
        &mut self,
        case: &Case<'_>,
        stored: &NodeRepairStatus,
        status: &mut NodeRepairStatus,
    ) -> Option<Act> {
        match stored.phase {
            Phase::Watching => self.watching(case, status),
            Phase::Cordoning => self.cordoning(case, status),
            Phase::Waiting => self.waiting(case, status),
            Phase::Draining => self.draining(case, status),
            Phase::Rebooting => self.destroying(case, RepairAction::Reboot, status),
            Phase::Replacing => self.destroying(case, RepairAction::Replace, status),
            Phase::Verifying => self.verifying(case, status),
            Phase::Uncordoning => self.uncordoning(case, status),
            Phase::Finished => None,
        }
    }

    /// Of several repairs of one node one goes on: the one that has called for its destruction, then
    /// a person's, then the oldest.
    fn superseded_by(&self, case: &Case<'_>, stored: &NodeRepairStatus) -> Option<String> {
        let uid = case.repair.spec.node_ref.uid.as_str();
        let all = self.history.of_node(uid);
        if all.len() < 2 {
            return None;
        }
        let rank = |repair: &NodeRepair| {
            let called = repair
                .status
                .as_ref()
                .is_some_and(|s| !s.attempts.is_empty());
            (
                !called,
                repair.spec.trigger != Trigger::Manual,
                repair.metadata.creation_timestamp.as_ref().map(|at| at.0),
                repair.metadata.name.clone().unwrap_or_default(),
            )
        };
        let open = all.iter().filter(|repair| !is_finished(repair));
        let first = open.min_by_key(|repair| rank(repair))?;
        let name = first.metadata.name.as_deref().unwrap_or_default();
        (name != case.name && !stored.is_finished()).then(|| name.to_owned())
    }

    /// What is due for a node, going by what was done to it: no second reboot within the window, and
    /// none of a node of Karpenter's.
    pub(super) fn action_of(
        &self,
        policy: &RepairPolicy,
        node: &NodeView,
        due: &Due<'_>,
        status: Option<&NodeRepairStatus>,
    ) -> RepairAction {
        let after = self.now - policy.spec.attempts.window.0;
        let skips =
            || self.cluster.is_karpenters(node) || self.history.was_rebooted(&node.uid, after);
        let action = match (due.action, due.next) {
            (RepairAction::Reboot, Some(next)) if skips() => next,
            (action, _) => action,
        };
        status.map_or(action, |status| admitted::action(policy, status, action))
    }

    /// A recovery is over, or not, at the end of its soak.
    fn wake_when_over(&mut self, case: &Case<'_>) {
        let (Some(node), Some(policy)) = (case.node, case.policy) else {
            return;
        };
        for recovered in self
            .episodes
            .of(&node.uid)
            .iter()
            .filter_map(|episode| episode.recovered)
        {
            self.wake(recovered + policy.spec.cordon.recovery_soak.0);
        }
    }

    /// What follows from the snapshot whatever the phase.
    fn refreshed(&self, case: &Case<'_>, stored: &NodeRepairStatus) -> NodeRepairStatus {
        let mut status = stored.clone();
        let Some(node) = case.node else { return status };
        let episodes = self.episodes.of(&node.uid);
        let due = case
            .policy
            .and_then(|policy| Due::of(&policy.spec, node, &episodes, self.now));
        if !episodes.is_empty() {
            status.reasons = reasons(&episodes, due.as_ref());
        }
        status.action = match (case.repair.spec.trigger, case.policy, due) {
            _ if admitted::decided(&status).is_some() => status.action,
            (Trigger::Manual, ..) => Some(case.repair.spec.action),
            (Trigger::Auto, Some(policy), Some(due)) => {
                Some(self.action_of(policy, node, &due, Some(stored)))
            }
            (Trigger::Auto, ..) => status.action,
        };
        if let (None, Ok(instance)) = (&status.instance_id, node.instance()) {
            status.instance_id = Some(instance.to_string());
        }
        if let (None, Some(claim)) = (&status.node_claim, self.cluster.claim_of(node)) {
            status.node_claim = Some(NodeRef {
                name: claim.name.clone(),
                uid: claim.uid.clone(),
            });
        }
        // The group that it was admitted with stays in the record: another one is refused.
        if let Some(group) = self.cluster.group_of(node)
            && status.policy.is_none()
        {
            status.group = Some(group.to_owned());
        }
        if let Some(zone) = node.zone() {
            status.zone = Some(zone.to_owned());
        }
        if let Some(policy) = case.policy
            && policy.spec.group_by.kind == GroupKind::Label
        {
            status.count_group = group_of(self.cluster, node, policy).map(str::to_owned);
        }
        if repair_is_new(case) {
            let seen: Vec<_> = episodes
                .iter()
                .flat_map(|e| e.reasons.iter().map(|seen| (&e.condition, &seen.reason)))
                .map(|(condition, reason)| format!("{condition} ({reason})"))
                .collect();
            let spec = &case.repair.spec;
            match spec.trigger {
                Trigger::Auto => status.note(self.now, format!("unhealthy: {}", seen.join(", "))),
                Trigger::Manual => {
                    let who = spec.requested_by.as_deref().unwrap_or("nobody");
                    let gates: Vec<_> = spec.override_gates.iter().map(|o| o.gate()).collect();
                    let event = format!("{who} asks for {:?} and overrides {gates:?}", spec.action);
                    status.note(self.now, event);
                }
            }
        }
        status
    }

    /// The node, unless there is nothing left to repair, or somebody has taken it back.
    fn still_ours<'c>(
        &mut self,
        case: &Case<'c>,
        status: &mut NodeRepairStatus,
    ) -> Option<&'c NodeView> {
        let Some(node) = case.node else {
            return self.without_node(case, status);
        };
        if case.is_over {
            release(status);
            status.phase = Phase::Uncordoning;
            status.note(self.now, "healthy again; un-cordoning");
            return None;
        }
        if node.joined && !node.has_our_cordon() {
            let message = "somebody un-cordoned the node: it is theirs until its condition changes";
            if !node.has_marks() {
                return finish(status, Outcome::Cancelled, message, self.now);
            }
            release(status);
            status.phase = Phase::Uncordoning;
            status.ending = Some(Ending {
                outcome: Outcome::Cancelled,
                message: message.to_owned(),
            });
            status.note(self.now, "somebody un-cordoned the node; our marks go, too");
            return None;
        }
        Some(node)
    }

    /// Before anything was destroyed.
    fn without_node<T>(&self, case: &Case<'_>, status: &mut NodeRepairStatus) -> Option<T> {
        let (outcome, message) = if case.repair.is_of_instance() {
            if !self.cluster.has_settled(&case.repair.spec.node_ref.uid) {
                return None;
            }
            let message = "the instance has become a Node, or does not serve any more";
            (Outcome::Recovered, message)
        } else {
            let message = "the Node went away before we touched its instance";
            (Outcome::Cancelled, message)
        };
        finish(status, outcome, message, self.now)
    }

    /// Asks the gates, and says in the status what they answer.
    fn is_held(
        &mut self,
        stage: Stage,
        case: &Case<'_>,
        node: &NodeView,
        status: &mut NodeRepairStatus,
    ) -> bool {
        let subject = Subject {
            node,
            name: case.name,
            repair: Some(case.repair),
            episodes: self.episodes.of(&node.uid),
        };
        match self.gates(stage, &subject) {
            Ok(()) => {
                // The drain's own hold is the drain's to release: until then it keeps its age.
                let of_drain = |hold: &Hold| matches!(hold.gate, Gate::Drain | Gate::Denied);
                if status.hold.as_ref().is_some_and(|hold| !of_drain(hold)) {
                    release(status);
                }
                false
            }
            Err(held) => {
                self.hold(status, held);
                true
            }
        }
    }

    /// A hold keeps its age while its gate is the same.
    fn hold(&self, status: &mut NodeRepairStatus, held: Held) {
        let known = status.hold.as_ref().filter(|hold| hold.gate == held.gate);
        if let Some(known) = known
            && known.behind == held.behind
        {
            let same = known.message == held.message && known.opens == held.opens;
            let told = known.told.as_ref().unwrap_or(&known.since).0;
            // Or every change of one node would be a write for each that is held with it.
            if same || (held.gate.counts_others() && told + RETELL > self.now) {
                return;
            }
        }
        let now = MicroTime(self.now);
        status.hold = Some(Hold {
            gate: held.gate,
            since: known.map_or(now.clone(), |known| known.since.clone()),
            told: Some(now),
            message: held.message,
            values: held.values,
            opens: held.opens,
            behind: held.behind,
        });
    }
}

/// Created, but its first status was never stored.
fn repair_is_new(case: &Case<'_>) -> bool {
    case.repair
        .status
        .as_ref()
        .is_none_or(|status| status.timeline.is_empty())
}

fn release(status: &mut NodeRepairStatus) {
    status.hold = None;
}

/// Always `None`, for use as the last word of a phase.
fn finish<T>(
    status: &mut NodeRepairStatus,
    outcome: Outcome,
    message: &str,
    now: Timestamp,
) -> Option<T> {
    status.phase = Phase::Finished;
    status.outcome = Some(outcome);
    status.hold = None;
    status.drain = None;
    status.set_condition("Finished", true, &format!("{outcome:?}"), message, now);
    status.note(now, format!("{outcome:?}: {message}"));
    None
}
