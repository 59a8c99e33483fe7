//! PURE. From the first sight to the start of the drain: nothing is touched but by the cordon.

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use super::{Case, Planner, finish};
use crate::api::policy::{CordonWhen, RepairAction};
use crate::api::repair::{
    DrainStatus, Gate, Hold, NodeRepairStatus, Outcome, Phase, PolicySnapshot, Shadow,
};
use crate::cluster::NodeView;
use crate::decide::Act;
use crate::decide::due::Due;
use crate::decide::gate::Stage;

impl Planner<'_> {
    pub(super) fn watching(
        &mut self,
        case: &Case<'_>,
        status: &mut NodeRepairStatus,
    ) -> Option<Act> {
        let Some(node) = case.node else {
            return self.without_node(case, status);
        };
        if case.is_over {
            return finish(
                status,
                Outcome::Recovered,
                "healthy again before anything was done",
                self.now,
            );
        }
        let early = self.early_cordon(case, node);
        let thought_of = |shadow: &Shadow| shadow.cordoned.is_some();
        let cordoned = status.shadow.as_ref().is_some_and(thought_of);
        let stage = if early.is_some_and(|due| due <= self.now) && !cordoned {
            Stage::Cordon
        } else {
            Stage::Start
        };
        if let Some(due) = early {
            self.wake(due);
        }
        if self.is_held(stage, case, node, status) {
            self.think(stage, status);
            return None;
        }
        status.shadow = None;
        if !node.joined {
            status.policy = case.policy.map(PolicySnapshot::of);
            status.phase = Phase::Replacing;
            status.note(self.now, "there is no Node to cordon or to drain");
            return None;
        }
        status.phase = Phase::Cordoning;
        status.found_cordoned = node.unschedulable
            && (!node.has_our_taint() || self.was_found_cordoned(case, &node.uid));
        None
    }

    /// In mode `Shadow`: what would be done now, and is not.
    pub(super) fn think(&self, stage: Stage, status: &mut NodeRepairStatus) {
        let only_shadow = |hold: &Hold| hold.gate == Gate::Shadow && hold.behind.is_empty();
        if !status.hold.as_ref().is_some_and(only_shadow) {
            return;
        }
        let now = MicroTime(self.now);
        let mut shadow = status.shadow.clone().unwrap_or_default();
        let event = match stage {
            Stage::Cordon => {
                shadow.cordoned = Some(now);
                "would be cordoned now (mode Shadow)"
            }
            Stage::Start if shadow.started.is_none() => {
                shadow.cordoned.get_or_insert_with(|| now.clone());
                shadow.started = Some(now);
                "would be drained and replaced now (mode Shadow)"
            }
            Stage::Start | Stage::Continue | Stage::Destroy => return,
        };
        status.shadow = Some(shadow);
        status.note(self.now, event);
    }

    /// By somebody else, before the repair that this one goes on for.
    pub(super) fn was_found_cordoned(&self, case: &Case<'_>, uid: &str) -> bool {
        let others = self.history.of_node(uid).iter();
        let mut others = others.filter(|other| other.metadata.name != case.repair.metadata.name);
        others.any(|other| other.status.as_ref().is_some_and(|s| s.found_cordoned))
    }

    /// When the node is to be cordoned ahead of its repair. Not for `Ready`: the control plane
    /// has tainted such a node itself.
    pub(super) fn early_cordon(&self, case: &Case<'_>, node: &NodeView) -> Option<Timestamp> {
        let cordon = &case.policy.filter(|_| node.joined)?.spec.cordon;
        match cordon.when {
            CordonWhen::AtRepair => return None,
            CordonWhen::Immediately => {}
        }
        let episodes = self.episodes.of(&node.uid);
        let mut open = episodes
            .iter()
            .filter(|e| e.recovered.is_none() && e.condition != "Ready");
        open.next().map(|first| first.since + cordon.after.0)
    }

    pub(super) fn cordoning(
        &mut self,
        case: &Case<'_>,
        status: &mut NodeRepairStatus,
    ) -> Option<Act> {
        let Some(node) = case.node else {
            return finish(status, Outcome::Cancelled, "the Node is gone", self.now);
        };
        if case.is_over {
            status.phase = Phase::Uncordoning;
            return None;
        }
        if node.has_our_cordon() {
            status.phase = Phase::Waiting;
            status.set_condition(
                "Cordoned",
                true,
                "Cordoned",
                "unschedulable, with our taint",
                self.now,
            );
            status.note(self.now, "cordoned");
            return None;
        }
        if self.is_held(Stage::Cordon, case, node, status) {
            return None;
        }
        Some(Act::Cordon)
    }

    pub(super) fn waiting(
        &mut self,
        case: &Case<'_>,
        status: &mut NodeRepairStatus,
    ) -> Option<Act> {
        let node = self.still_ours(case, status)?;
        if self.is_held(Stage::Start, case, node, status) {
            let spent = |hold: &Hold| hold.gate == Gate::AttemptsSpent;
            let spent = status.hold.as_ref().is_some_and(spent);
            if spent && case.policy.is_some_and(|p| self.line_is_spent(p, node)) {
                let said = status.hold.take().map(|hold| hold.message);
                let message = said.unwrap_or_default();
                return finish(status, Outcome::NeedsHuman, &message, self.now);
            }
            return None;
        }
        status.policy = case.policy.map(PolicySnapshot::of);
        status.next_action = self.next_action(case, node, status);
        status.phase = Phase::Draining;
        status.drain = Some(DrainStatus::begin(self.now));
        if self.skips_reboot(case, node) {
            let event = "Reboot is skipped: the node is Karpenter's, so it is replaced";
            status.note(self.now, event);
        }
        status.note(self.now, "drain started");
        None
    }

    /// What was loosened since is for the next repair.
    fn skips_reboot(&self, case: &Case<'_>, node: &NodeView) -> bool {
        let Some(policy) = case.policy.filter(|_| case.is_auto()) else {
            return false;
        };
        let episodes = self.episodes.of(&node.uid);
        let due = Due::of(&policy.spec, node, &episodes, self.now);
        due.is_some_and(|due| due.action == RepairAction::Reboot)
            && self.cluster.is_karpenters(node)
    }

    /// The rest of the ladder, kept because the fault may be silent when it is wanted.
    fn next_action(
        &self,
        case: &Case<'_>,
        node: &NodeView,
        status: &NodeRepairStatus,
    ) -> Option<RepairAction> {
        let policy = case.policy.filter(|_| case.is_auto())?;
        let episodes = self.episodes.of(&node.uid);
        let due = Due::of(&policy.spec, node, &episodes, self.now)?;
        due.next.filter(|next| status.action != Some(*next))
    }
}
