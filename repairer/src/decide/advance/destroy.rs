//! PURE. The calls that destroy: a reboot, a termination. One for each recorded attempt, and a further
//! attempt only after a look.

use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use super::{CLOUD_POLL, Case, Planner, finish, release};
use crate::api::policy::{CordonWhen, RepairAction, RepairPolicy, ReplaceBy};
use crate::api::repair::{
    Attempt, AttemptResult, DrainStatus, NodeRef, NodeRepairStatus, Outcome, Phase,
};
use crate::cluster::{Asked, InstanceView, NodeView};
use crate::decide::due::Due;
use crate::decide::{Act, Clearance, Target};
use crate::drain::State;

/// An instance that shows no sign of a call after this did not get it: longer than the call's
/// own deadline and than AWS's descriptions lag behind.
const SETTLE: Duration = Duration::from_secs(20);
/// From a refused call to the next attempt.
const RETRY: Duration = Duration::from_secs(30);
/// The call after which it is the health of the instance that changes first.
const SET_HEALTH: &str = "SetInstanceHealth";
/// AWS has said no so often: the rest is for a person.
const MOST_REFUSALS: usize = 3;
/// Of any result.
const MOST_ATTEMPTS: usize = 10;

impl Planner<'_> {
    /// In the phase `Rebooting` or `Replacing`.
    pub(super) fn destroying(
        &mut self,
        case: &Case<'_>,
        action: RepairAction,
        status: &mut NodeRepairStatus,
    ) -> Option<Act> {
        self.wake(self.now + CLOUD_POLL);
        let of_action = |attempt: &&Attempt| attempt.action == action;
        let attempts: Vec<_> = status.attempts.iter().filter(of_action).cloned().collect();
        if let Some(last) = attempts.last() {
            match last.result {
                None => {
                    self.settle(case, last, status);
                    return None;
                }
                Some(AttemptResult::Accepted) => {
                    status.phase = Phase::Verifying;
                    return None;
                }
                Some(AttemptResult::Denied) => return self.after_denial(case, last, status),
                Some(
                    AttemptResult::Refused
                    | AttemptResult::NotApplied
                    | AttemptResult::Withheld
                    | AttemptResult::Throttled,
                ) => {}
            }
            let refused = attempts
                .iter()
                .filter(|a| a.result == Some(AttemptResult::Refused));
            if refused.count() >= MOST_REFUSALS || attempts.len() >= MOST_ATTEMPTS {
                let said = last.message.clone().unwrap_or_default();
                let message = format!(
                    "gave up after {} attempts; the last: {said}",
                    attempts.len()
                );
                return self.escalate(&message, status);
            }
            let again = last.started.0 + RETRY;
            if again > self.now {
                self.wake(again);
                return None;
            }
        }
        let node = self.still_ours(case, status)?;
        if let Some(act) = self.fence(node) {
            return Some(act);
        }
        if action == RepairAction::Reboot && self.is_to_be_replaced(case, node) {
            status.action = Some(RepairAction::Replace);
            self.drain_again(status, "a stronger reason came: replaced, not rebooted");
            return None;
        }
        let drain = self.drain_of(node, case.repair, status)?;
        if drain.state != State::Drained {
            // Bound just before the cordon, or tolerating it.
            self.drain_again(status, "new pods came; draining again");
            return None;
        }
        if let Some(held) = self.preserved(case, node, status) {
            self.hold(status, held);
            return None;
        }
        match self.clearance(case.name) {
            Ok(clearance) => {
                release(status);
                Some(match action {
                    RepairAction::Reboot => Act::Reboot(clearance),
                    RepairAction::Replace | RepairAction::NoAction => Act::Replace(clearance),
                })
            }
            Err(held) => {
                self.hold(status, held);
                None
            }
        }
    }

    /// The node gets back what the policy would not have taken from it by itself.
    fn after_denial(
        &self,
        case: &Case<'_>,
        denied: &Attempt,
        status: &mut NodeRepairStatus,
    ) -> Option<Act> {
        let at_repair = |policy: &RepairPolicy| policy.spec.cordon.when == CordonWhen::AtRepair;
        if case.policy.is_some_and(at_repair) && case.node.is_some_and(NodeView::has_our_taint) {
            return Some(Act::Uncordon);
        }
        let message = denied.message.clone().unwrap_or_default();
        finish(status, Outcome::Failed, &message, self.now)
    }

    fn is_to_be_replaced(&self, case: &Case<'_>, node: &NodeView) -> bool {
        let episodes = self.episodes.of(&node.uid);
        let policy = case.policy.filter(|_| case.is_auto());
        let due = policy.and_then(|policy| {
            let due = Due::of(&policy.spec, node, &episodes, self.now)?;
            (due.at <= self.now)
                .then(|| self.action_of(policy, node, &due, case.repair.status.as_ref()))
        });
        due == Some(RepairAction::Replace)
    }

    fn drain_again(&self, status: &mut NodeRepairStatus, why: &str) {
        release(status);
        status.phase = Phase::Draining;
        status.drain = Some(DrainStatus::begin(self.now));
        status.note(self.now, why);
    }

    /// What was done has not helped: the next action of the ladder, or a person.
    pub(super) fn escalate(&self, why: &str, status: &mut NodeRepairStatus) -> Option<Act> {
        let Some(next) = status.next_action.take() else {
            return finish(status, Outcome::Failed, why, self.now);
        };
        status.action = Some(next);
        status.well_since = None;
        self.drain_again(status, &format!("{why}; now {next:?}"));
        None
    }

    /// A call whose end was never learned: look, never repeat.
    fn settle(&mut self, case: &Case<'_>, attempt: &Attempt, status: &mut NodeRepairStatus) {
        match attempt.action {
            RepairAction::Reboot => self.settle_reboot(case, attempt, status),
            RepairAction::Replace | RepairAction::NoAction => {
                if let Some(claim) = status.node_claim.clone() {
                    return self.settle_deletion(attempt, &claim, status);
                }
                let id = status.instance_id.as_deref();
                let instance = id.and_then(|id| self.cluster.instances.get(id));
                self.settle_termination(attempt, instance, status);
            }
        }
    }

    fn settle_deletion(
        &mut self,
        attempt: &Attempt,
        claim: &NodeRef,
        status: &mut NodeRepairStatus,
    ) {
        let Some(gone) = self.claim_is_going(claim) else {
            return;
        };
        let settled = attempt.started.0 + SETTLE;
        if gone {
            let seen = "seen by the NodeClaim".to_owned();
            status.end_attempt(AttemptResult::Accepted, None, Some(seen), self.now);
        } else if settled <= self.now {
            let message = "the NodeClaim shows no sign of the call".to_owned();
            status.end_attempt(AttemptResult::NotApplied, None, Some(message), self.now);
        } else {
            self.wake(settled);
        }
    }

    /// `None`: the NodeClaims are not known.
    fn claim_is_going(&self, claim: &NodeRef) -> Option<bool> {
        match &self.cluster.claims {
            Asked::Yes(Ok(claims)) => {
                let found = claims.find(&claim.uid);
                Some(found.is_none_or(|claim| claim.deleting))
            }
            Asked::Yes(Err(_)) | Asked::No => None,
        }
    }

    fn settle_termination(
        &mut self,
        attempt: &Attempt,
        instance: Option<&InstanceView>,
        status: &mut NodeRepairStatus,
    ) {
        let Some(instance) = instance else { return };
        let started = attempt.started.0;
        let call = attempt.message.as_deref();
        let by_health = call.is_some_and(|call| call.starts_with(SET_HEALTH));
        if instance.is_ending() || (by_health && instance.facts.unhealthy) {
            let seen = "seen by the state of the instance".to_owned();
            status.end_attempt(AttemptResult::Accepted, None, Some(seen), self.now);
        } else if started + SETTLE <= self.now {
            let message = "the instance shows no sign of the call".to_owned();
            status.end_attempt(AttemptResult::NotApplied, None, Some(message), self.now);
        } else {
            self.wake(started + SETTLE);
        }
    }

    /// A second reboot would be one too many: only another boot id tells, or the deadline.
    fn settle_reboot(&mut self, case: &Case<'_>, attempt: &Attempt, status: &mut NodeRepairStatus) {
        let deadline = attempt.started.0 + self.verify_limits(case).reboot_deadline.0;
        if case.node.is_some_and(|node| has_rebooted(node, attempt)) {
            let seen = "seen by the boot id of the node".to_owned();
            status.end_attempt(AttemptResult::Accepted, None, Some(seen), self.now);
        } else if deadline <= self.now {
            let message = "no other boot of the node was seen in time".to_owned();
            status.end_attempt(
                AttemptResult::NotApplied,
                None,
                Some(message.clone()),
                self.now,
            );
            self.escalate(&message, status);
        } else {
            self.wake(deadline);
        }
    }
}

/// A Node without a boot id has not reported yet.
pub(super) fn has_rebooted(node: &NodeView, attempt: &Attempt) -> bool {
    !node.boot_id.is_empty()
        && attempt
            .boot_id
            .as_ref()
            .is_some_and(|before| *before != node.boot_id)
}

impl NodeRepairStatus {
    /// The intent; stored before the call is made.
    pub fn begin_attempt(&mut self, clearance: &Clearance, now: Timestamp) {
        let instance = clearance.instance();
        let group = clearance.group();
        let (call, event) = match (clearance.action(), clearance.target()) {
            (RepairAction::Reboot, _) => (
                format!("RebootInstances {instance}"),
                format!("rebooting {instance}"),
            ),
            (RepairAction::Replace | RepairAction::NoAction, Target::Instance(target)) => {
                let call = match target.by() {
                    ReplaceBy::Terminate => "TerminateInstanceInAutoScalingGroup",
                    ReplaceBy::InstanceHealth => SET_HEALTH,
                };
                let event = format!("replacing {instance} of {group}");
                (format!("{call} {instance}"), event)
            }
            (RepairAction::Replace | RepairAction::NoAction, Target::Claim(claim)) => (
                format!("delete NodeClaim {}", claim.name()),
                format!(
                    "replacing {instance} of {group}: NodeClaim {}",
                    claim.name()
                ),
            ),
        };
        // A call that AWS threw away is no attempt of its own: there may be any number of them.
        let throttled = |last: &mut Attempt| last.result == Some(AttemptResult::Throttled);
        self.attempts.pop_if(throttled);
        self.attempts.push(Attempt {
            action: clearance.action(),
            started: MicroTime(now),
            boot_id: clearance.boot_id().map(str::to_owned),
            result: None,
            request_id: None,
            message: Some(call),
        });
        self.note(now, event);
    }

    /// What became of the attempt that was begun last.
    pub fn end_attempt(
        &mut self,
        result: AttemptResult,
        request_id: Option<String>,
        message: Option<String>,
        now: Timestamp,
    ) {
        let said = message
            .clone()
            .map(|message| format!(": {message}"))
            .unwrap_or_default();
        let mut action = RepairAction::Replace;
        let who = match self.node_claim {
            Some(_) => "the API server",
            None => "AWS",
        };
        if let Some(attempt) = self.attempts.last_mut() {
            attempt.result = Some(result);
            attempt.request_id = request_id;
            attempt.message = message.or(attempt.message.take());
            action = attempt.action;
        }
        match result {
            AttemptResult::Accepted => {
                let what = match (action, &self.node_claim) {
                    (RepairAction::Reboot, _) => "AWS reboots the instance",
                    (_, None) => "AWS replaces the instance",
                    (_, Some(_)) => "Karpenter ends the instance",
                };
                let reason = format!("{action:?}");
                self.set_condition("ActionTaken", true, &reason, what, now);
                self.phase = Phase::Verifying;
                self.note(now, format!("{who} accepted the call{said}"));
            }
            AttemptResult::Refused => self.note(now, format!("{who} refused{said}")),
            AttemptResult::NotApplied => self.note(now, format!("not applied{said}")),
            AttemptResult::Withheld => self.note(now, format!("not called{said}")),
            AttemptResult::Throttled => self.note(now, format!("{who} throttles{said}")),
            AttemptResult::Denied => self.note(now, format!("{who} denied the call{said}")),
        }
    }
}
