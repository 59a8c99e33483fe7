//! PURE. Whether what was done has helped.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use super::destroy::has_rebooted;
use super::{CLOUD_POLL, Case, Planner, finish};
use crate::api::policy::{RepairAction, Verify};
use crate::api::repair::{
    Attempt, Ending, EpisodeReason, NodeRef, NodeRepairStatus, Outcome, Phase, Replacement,
};
use crate::cluster::{Asked, NodeView};
use crate::decide::Act;

impl Planner<'_> {
    pub(super) fn verifying(
        &mut self,
        case: &Case<'_>,
        status: &mut NodeRepairStatus,
    ) -> Option<Act> {
        self.wake(self.now + CLOUD_POLL);
        let last = status.attempts.last().cloned();
        if let Some(attempt) = last.filter(|attempt| attempt.action == RepairAction::Reboot) {
            return self.verifying_reboot(case, &attempt, status);
        }
        if let Some(act) = case.node.and_then(|node| self.fence(node)) {
            return Some(act);
        }
        let began = status
            .attempts
            .last()
            .map_or(self.now, |attempt| attempt.started.0);
        let verify = self.verify_limits(case);
        let deadline = began + verify.replace_deadline.0;
        let instance = status
            .instance_id
            .as_deref()
            .and_then(|id| self.cluster.instances.get(id));
        let gone = match &status.node_claim {
            None => instance.is_some_and(|instance| instance.is_ending()),
            // Its object stays until Karpenter has ended the instance.
            Some(claim) => self.has_no_claim(claim),
        };
        let found = self.replacement(case, status, began);
        if found.as_ref().map(|r| &r.node_uid) != status.replacement.as_ref().map(|r| &r.node_uid)
            && let Some(found) = &found
        {
            status.note(
                self.now,
                format!("{} ({}) is Ready", found.node_name, found.instance_id),
            );
        }
        status.replacement = found;
        if let Some(replacement) = status.replacement.clone() {
            let verified = replacement.since.0 + verify.soak.0;
            if gone && verified <= self.now {
                let message = format!(
                    "{} has been healthy for {}",
                    replacement.node_name, verify.soak
                );
                status.set_condition("Verified", true, "Verified", &message, self.now);
                return finish(status, Outcome::Succeeded, &message, self.now);
            }
            self.wake(verified);
        }
        if deadline <= self.now {
            let after = verify.replace_deadline;
            if gone && status.node_claim.is_some() && !self.is_launching(status, began) {
                let message = format!(
                    "the node is gone, and Karpenter launched none in its place within {after}: no pod needed one, or the NodePool has reached its limits"
                );
                return finish(status, Outcome::Cancelled, &message, self.now);
            }
            let message = format!("no healthy replacement {after} after the call");
            return finish(status, Outcome::Failed, &message, self.now);
        }
        self.wake(deadline);
        None
    }

    fn has_no_claim(&self, claim: &NodeRef) -> bool {
        match &self.cluster.claims {
            Asked::Yes(Ok(claims)) => claims.find(&claim.uid).is_none(),
            Asked::Yes(Err(_)) | Asked::No => false,
        }
    }

    /// Karpenter has asked for a node of the pool since, whether or not it serves.
    fn is_launching(&self, status: &NodeRepairStatus, began: Timestamp) -> bool {
        match &self.cluster.claims {
            Asked::Yes(Ok(claims)) => claims.all().any(|claim| {
                claim.group == status.group && claim.created.as_second() >= began.as_second()
            }),
            Asked::Yes(Err(_)) | Asked::No => true,
        }
    }

    /// Another boot, Ready, and every condition of the episode healthy again: for the whole soak.
    fn verifying_reboot(
        &mut self,
        case: &Case<'_>,
        attempt: &Attempt,
        status: &mut NodeRepairStatus,
    ) -> Option<Act> {
        let Some(node) = case.node else {
            let message = "the Node went away while it was rebooted";
            return finish(status, Outcome::Cancelled, message, self.now);
        };
        if let Some(act) = self.fence(node) {
            return Some(act);
        }
        let verify = self.verify_limits(case);
        let deadline = attempt.started.0 + verify.reboot_deadline.0;
        let rebooted = has_rebooted(node, attempt);
        if !rebooted || !self.is_well_again(node, status) {
            status.well_since = None;
            if deadline <= self.now {
                let what = if rebooted {
                    "the node is not well"
                } else {
                    "no other boot of the node was seen"
                };
                let message = format!("{what} {} after the reboot", verify.reboot_deadline);
                return self.escalate(&message, status);
            }
            self.wake(deadline);
            return None;
        }
        let Some(since) = &status.well_since else {
            status.well_since = Some(MicroTime(self.now));
            let boot: String = node.boot_id.chars().take(64).collect();
            status.note(self.now, format!("well again, in boot {boot}"));
            return None;
        };
        let verified = since.0 + verify.soak.0;
        if verified > self.now {
            self.wake(verified);
            return None;
        }
        let message = format!("has been healthy for {} after its reboot", verify.soak);
        status.set_condition("Verified", true, "Verified", &message, self.now);
        status.ending = Some(Ending {
            outcome: Outcome::Succeeded,
            message,
        });
        status.phase = Phase::Uncordoning;
        status.note(self.now, "verified; un-cordoning");
        None
    }

    /// An absent condition is unknown, and unknown is not healthy.
    fn is_well_again(&self, node: &NodeView, status: &NodeRepairStatus) -> bool {
        let episodes = self.episodes.of(&node.uid);
        let present = |reason: &EpisodeReason| node.condition(&reason.condition).is_some();
        node.is_ready()
            && episodes.iter().all(|episode| episode.recovered.is_some())
            && status.reasons.iter().all(present)
    }

    /// The node may be gone, and its policy with it.
    pub(super) fn verify_limits(&self, case: &Case<'_>) -> Verify {
        let by_name = || {
            let wanted = &case.repair.spec.policy_ref.name;
            self.cluster
                .policies
                .iter()
                .find(|policy| policy.metadata.name.as_ref() == Some(wanted))
        };
        let started = case.repair.status.as_ref().and_then(|s| s.policy.as_ref());
        if let Some(started) = started {
            return started.verify.clone();
        }
        case.policy
            .or_else(by_name)
            .map(|policy| policy.spec.verify.clone())
            .unwrap_or_default()
    }

    /// A Ready, healthy node of the group that came after the call and that no other repair claims.
    fn replacement(
        &mut self,
        case: &Case<'_>,
        status: &NodeRepairStatus,
        began: Timestamp,
    ) -> Option<Replacement> {
        let group = status.group.as_deref()?;
        let claimed = |uid: &str| {
            self.claims
                .get(uid)
                .is_some_and(|repair| repair != case.name)
        };
        let healthy =
            |node: &NodeView| node.is_ready() && !node.deleting && self.episodes.is_well(&node.uid);
        let mut nodes: Vec<_> = self
            .cluster
            .nodes
            .values()
            .filter(|node| {
                node.uid != case.repair.spec.node_ref.uid && healthy(node) && !claimed(&node.uid)
            })
            // Creation times are whole seconds.
            .filter(|node| node.created.as_second() >= began.as_second())
            .filter(|node| self.cluster.group_of(node) == Some(group))
            .collect();
        nodes.sort_by_key(|node| {
            let known = status
                .replacement
                .as_ref()
                .is_some_and(|known| known.node_uid == node.uid);
            (!known, node.created, node.name.clone())
        });
        let node = nodes.first()?;
        self.claims.insert(node.uid.clone(), case.name.to_owned());
        let since = match &status.replacement {
            Some(known) if known.node_uid == node.uid => known.since.0,
            Some(_) | None => self.now,
        };
        Some(Replacement {
            node_name: node.name.clone(),
            node_uid: node.uid.clone(),
            instance_id: node.instance().ok()?.to_string(),
            since: MicroTime(since),
        })
    }
}
