//! PURE. What we have set on a node is taken off again, and nothing else.

use super::{Case, Planner, finish, release};
use crate::api::repair::{Ending, NodeRepairStatus, Outcome};
use crate::decide::{Act, Step};

impl Planner<'_> {
    pub(super) fn uncordoning(
        &mut self,
        case: &Case<'_>,
        status: &mut NodeRepairStatus,
    ) -> Option<Act> {
        match case.node {
            Some(node) if node.has_marks() => {
                let policy = case.policy.filter(|_| node.has_our_cordon());
                if let Some(held) = policy.and_then(|policy| self.shifted_away(policy, node)) {
                    self.hold(status, held);
                    return None;
                }
                release(status);
                Some(Act::Uncordon)
            }
            Some(_) => {
                let message = "nothing of ours is left on the node";
                status.set_condition("Cordoned", false, "Uncordoned", message, self.now);
                let ending = status.ending.take().unwrap_or(Ending {
                    outcome: Outcome::Recovered,
                    message: "healthy again; un-cordoned".to_owned(),
                });
                finish(status, ending.outcome, &ending.message, self.now)
            }
            None => finish(status, Outcome::Cancelled, "the Node is gone", self.now),
        }
    }

    /// Nodes that carry our marks while no record of them is left: a person has deleted it.
    pub(in crate::decide) fn dismiss(&mut self) {
        let cluster = self.cluster;
        for node in cluster.nodes.values().filter(|node| node.has_marks()) {
            // One that cannot be read is none that was deleted.
            let known = cluster.unreadable.is_empty();
            let recorded = !self.history.of_node(&node.uid).is_empty();
            if known && !recorded && !node.deleting && !cluster.is_ending(node) {
                let node = node.name.clone();
                self.plan.steps.push(Step::Dismiss { node });
            }
        }
    }
}
