//! PURE. The drain as a step of a repair: what its plan comes to, and what is said of it.

use std::time::Duration;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use super::{Case, Planner, release};
use crate::api::policy::{OnTimeout, RepairAction};
use crate::api::repair::{
    Blocked, DrainStatus, Ending, Gate, NodeRepair, NodeRepairStatus, Outcome, Phase,
};
use crate::cluster::NodeView;
use crate::decide::gate::{Held, Stage};
use crate::decide::{Act, admitted};
use crate::drain::{Attachment, Drain, Rules, State, Task};

/// How often the pods of a node in its drain are listed and evicted again.
const POLL: Duration = Duration::from_secs(3);

impl Planner<'_> {
    pub(super) fn draining(
        &mut self,
        case: &Case<'_>,
        status: &mut NodeRepairStatus,
    ) -> Option<Act> {
        let node = self.still_ours(case, status)?;
        if self.is_held(Stage::Continue, case, node, status) {
            return None;
        }
        self.wake(self.now + POLL);
        // Not listed in this pass: nothing is known, so nothing is done.
        let plan = self.drain_of(node, case.repair, status)?;
        if let Some(wake) = plan.wake {
            self.wake(wake);
        }
        if let Some(act) = self.fence(node) {
            return Some(act);
        }
        self.tell_drain(&plan, status);
        let policy = case.policy?;
        match &plan.state {
            State::Drained => {
                self.drained(node, &plan, status);
                return None;
            }
            State::Detaching | State::Going => release(status),
            State::Stuck => {
                let message = format!("the drain waits for a person; {}", said(&plan));
                let opens = "a person ends or moves those pods, or deletes the NodeRepair; what the policy says of them is loosened only for the next repair";
                self.hold(status, Held::by(Gate::Drain, message, opens));
            }
            State::Denied(why) => {
                let message = format!("the repairer may not evict pods: {why}");
                let opens = "a person applies deploy/rbac/repairer.yaml";
                self.hold(status, Held::by(Gate::Denied, message, opens));
            }
            State::Late => {
                let limits = admitted::drain(policy, case.repair);
                let timeout = limits.timeout;
                let message = format!("the drain took longer than {timeout}; {}", said(&plan));
                if limits.on_timeout == OnTimeout::Release {
                    status.ending = Some(Ending {
                        outcome: Outcome::Cancelled,
                        message: format!("{message} (onTimeout: Release)"),
                    });
                    release(status);
                    status.phase = Phase::Uncordoning;
                    status.note(self.now, format!("{message}; the node is given back"));
                    return None;
                }
                let opens = "by itself: the pods end, or their budgets let go; or a person ends them, changes a budget, or deletes the NodeRepair";
                self.hold(status, Held::by(Gate::Drain, message, opens));
            }
        }
        if !plan.delete.is_empty() {
            return Some(Act::Delete(plan.delete));
        }
        if plan.own_pod_is_last {
            return plan
                .evict
                .into_iter()
                .next()
                .map(|pod| Act::StepDown(Box::new(pod)));
        }
        (!plan.evict.is_empty()).then_some(Act::Evict(plan.evict))
    }

    fn drained(&self, node: &NodeView, plan: &Drain, status: &mut NodeRepairStatus) {
        release(status);
        status.phase = match status.action {
            Some(RepairAction::Reboot) => Phase::Rebooting,
            Some(RepairAction::Replace | RepairAction::NoAction) | None => Phase::Replacing,
        };
        let (reason, message) = if node.is_silent() {
            // Nobody can say that a container has ended.
            let message = "the kubelet is silent: what is left may run until the instance ends";
            ("KubeletSilent", message)
        } else {
            ("Drained", "no pod is left that has to leave")
        };
        status.set_condition("Drained", true, reason, message, self.now);
        let left: Vec<_> = plan.left.iter().map(|left| left.pod.as_str()).collect();
        let left = if left.is_empty() {
            String::new()
        } else {
            format!("; left where they are: {}", left.join(", "))
        };
        status.drain = None;
        status.note(self.now, format!("drained{left}"));
    }

    fn tell_drain(&self, plan: &Drain, status: &mut NodeRepairStatus) {
        let drain = status
            .drain
            .get_or_insert_with(|| DrainStatus::begin(self.now));
        drain.remaining = u32::try_from(plan.remaining).unwrap_or(u32::MAX);
        drain.blocked.clone_from(&plan.blocked);
        drain.left.clone_from(&plan.left);
        drain.detaching.clone_from(&plan.detaching);
        drain.emptied = match plan.state {
            State::Detaching => drain.emptied.clone().or(Some(MicroTime(self.now))),
            State::Drained | State::Going | State::Stuck | State::Late | State::Denied(_) => None,
        };
    }

    /// What is to be done with the pods of a node now; `None` where they are not known.
    pub(in crate::decide) fn drain_of(
        &self,
        node: &NodeView,
        repair: &NodeRepair,
        status: &NodeRepairStatus,
    ) -> Option<Drain> {
        let cluster = self.cluster;
        let policy = self.assigned.policy(node)?;
        let limits = admitted::drain(policy, repair);
        let attachments: Option<Vec<&Attachment>> = cluster.attachments.as_ref().map(|all| {
            let own = all.iter().filter(|attachment| attachment.node == node.name);
            own.collect()
        });
        let drain = status.drain.as_ref();
        let cordoned = status.conditions.iter().find(|c| c.type_ == "Cordoned");
        let cordoned = cordoned.map(|condition| condition.last_transition_time.0);
        let since = drain.map(|drain| drain.since.0).or(cordoned);
        let task = Task {
            pods: cluster.pods.get(&node.name)?,
            budgets: cluster.budgets.as_deref(),
            daemon_sets: cluster.daemon_sets.as_ref(),
            attachments: attachments.as_deref(),
            tries: &cluster.tries,
            own_pod: cluster.own_pod.as_deref(),
            kubelet_is_silent: node.is_silent(),
            rules: Rules {
                action: status.action.unwrap_or(repair.spec.action),
                since: since.unwrap_or(self.now),
                // Who has drained it before has waited for its volumes.
                emptied: match drain {
                    Some(drain) => drain.emptied.as_ref().map(|at| at.0),
                    None => Some(jiff::Timestamp::UNIX_EPOCH),
                },
                timeout: limits.timeout,
                on_timeout: limits.on_timeout,
                local_volumes: limits.local_volumes,
                local_volumes_at_reboot: limits.local_volumes_at_reboot,
                unmanaged_pods: limits.unmanaged_pods,
            },
            now: self.now,
        };
        Some(task.plan())
    }

    /// A machine that is proven to be off has its volumes and pods taken from it; one that is back has
    /// that undone.
    pub(super) fn fence(&self, node: &NodeView) -> Option<Act> {
        if node.is_out_of_service() {
            return node.is_ready().then_some(Act::BackInService);
        }
        let id = node.instance().ok()?;
        let fenced = self.cluster.instances.get(id.as_str())?.is_fenced();
        let attachments = self.cluster.attachments.iter().flatten();
        let attached = attachments.into_iter().any(|a| a.node == node.name);
        let pods = self.cluster.pods.get(&node.name).into_iter().flatten();
        let volumes = attached || pods.into_iter().any(|pod| !pod.claims.is_empty());
        let wanted = fenced && node.is_silent() && volumes;
        wanted.then_some(Act::OutOfService)
    }

    /// A drained node that a person wants to look at, within the policy's quota and age.
    pub(super) fn preserved(
        &mut self,
        case: &Case<'_>,
        node: &NodeView,
        status: &NodeRepairStatus,
    ) -> Option<Held> {
        let label = crate::api::PRESERVE_LABEL;
        let value = node.labels.get(label).filter(|value| *value != "false")?;
        let policy = case.policy?;
        let limits = &policy.spec.preserve;
        let drained = status.conditions.iter().find(|c| c.type_ == "Drained")?;
        let until = drained.last_transition_time.0 + limits.age.0;
        if until <= self.now {
            return None;
        }
        let name = policy.metadata.name.as_deref().unwrap_or_default();
        let kept = self.preserved.get(name);
        let others = kept.map_or(0, |names| {
            names.iter().filter(|other| *other != case.name).count()
        });
        if others >= limits.count as usize {
            return None;
        }
        self.wake(until);
        let until = crate::decide::gate::second(until);
        let message = format!(
            "the node is drained and kept for a person ({label}={value}), until {until} at the latest"
        );
        let opens = format!("a person takes the label {label} off the node; by itself at {until}");
        Some(Held::by(Gate::Preserve, message, opens))
    }
}

fn said(plan: &Drain) -> String {
    let told = |entry: &Blocked| format!("{}: {}", entry.pod, entry.why);
    let blocked: Vec<_> = plan.blocked.iter().map(told).collect();
    format!("{} pods are left: {}", plan.remaining, blocked.join("; "))
}
