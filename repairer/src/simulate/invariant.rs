//! PURE. What must hold in every simulation, whatever it is about. Counted apart from the decision:
//! from the records and the Nodes alone.

use std::collections::BTreeMap;

use jiff::Timestamp;

use super::world::Done;
use crate::api::EXCLUDE_LABEL;
use crate::api::policy::{LocalVolumes, LocalVolumesAtReboot, Mode, RepairAction, RepairPolicy};
use crate::api::repair::{Gate, NodeRepairStatus, Outcome, Phase, Trigger};
use crate::cluster::{Cluster, InstanceState, NodeView};
use crate::decide::{Act, Step};
use crate::drain::PodView;
use crate::rule::Assigned;

#[derive(Default)]
pub struct Invariants {
    outcomes: BTreeMap<String, Outcome>,
    broken: Vec<String>,
}

impl Invariants {
    pub fn broken(&mut self, what: String) {
        self.broken.push(what);
    }

    pub fn take(&mut self) -> Vec<String> {
        std::mem::take(&mut self.broken)
    }

    fn must(&mut self, holds: bool, what: impl FnOnce() -> String) {
        if !holds {
            self.broken.push(what());
        }
    }

    /// What must hold for a step to be taken.
    pub fn before(&mut self, cluster: &Cluster, step: &Step, now: Timestamp) {
        match step {
            Step::Open(_) | Step::Forget { .. } => {}
            Step::Dismiss { node } => {
                let uid = cluster.nodes.get(node).map(|node| node.uid.as_str());
                let mut repairs = cluster.repairs.values();
                let recorded = repairs.any(|r| Some(r.spec.node_ref.uid.as_str()) == uid);
                self.must(!recorded, || {
                    format!("{node} has a record and is dismissed")
                });
            }
            Step::Record { repair, status } => {
                let stored = cluster.repairs.get(repair).and_then(|r| r.status.clone());
                let stored = stored.unwrap_or_default();
                if status.phase == Phase::Draining && stored.phase < Phase::Draining {
                    self.start(cluster, repair);
                }
            }
            Step::Act { repair, act } => match act {
                Act::Uncordon | Act::BackInService => {}
                Act::Cordon => self.touch(cluster, repair),
                Act::Evict(pods) => {
                    self.touch(cluster, repair);
                    self.local_data(cluster, repair, pods);
                }
                Act::StepDown(pod) => {
                    self.touch(cluster, repair);
                    self.local_data(cluster, repair, std::slice::from_ref(pod));
                }
                Act::Delete(deletions) => {
                    self.touch(cluster, repair);
                    let pods: Vec<_> = deletions.iter().map(|d| d.pod.clone()).collect();
                    self.local_data(cluster, repair, &pods);
                    let graceful = deletions.iter().all(|d| d.grace.as_secs() > 0);
                    self.must(graceful, || {
                        format!("{repair}: a pod is deleted without grace")
                    });
                }
                Act::OutOfService => self.fence(cluster, repair),
                Act::Reboot(_) => {
                    self.touch(cluster, repair);
                    self.start(cluster, repair);
                    self.destroy(cluster, repair, Phase::Rebooting, now);
                }
                Act::Replace(_) => {
                    self.touch(cluster, repair);
                    self.start(cluster, repair);
                    self.destroy(cluster, repair, Phase::Replacing, now);
                }
            },
        }
    }

    /// No node is touched that nobody asked for, nor under a policy that does not enforce.
    fn touch(&mut self, cluster: &Cluster, name: &str) {
        let node = cluster.repairs.get(name).and_then(|r| cluster.node_of(r));
        let Some(node) = node else {
            self.broken(format!("{name}: a node that is not there is touched"));
            return;
        };
        let excluded = node.labels.get(EXCLUDE_LABEL).is_some_and(|v| v != "false");
        self.must(!excluded, || {
            format!("{} is excluded and touched", node.name)
        });
        let label = "node-role.kubernetes.io/control-plane";
        let control_plane = node.labels.contains_key(label);
        self.must(!control_plane, || {
            format!("{} of the control plane is touched", node.name)
        });
        let policy = self.policy(cluster, node);
        let enforced = policy.is_some_and(|p| p.spec.mode == Mode::Enforce && !p.spec.paused);
        self.must(enforced && !cluster.limits.paused, || {
            format!(
                "{} is touched under a policy that does not enforce",
                node.name
            )
        });
    }

    /// None is lost but where the policy says so.
    fn local_data(&mut self, cluster: &Cluster, name: &str, pods: &[PodView]) {
        let repair = cluster.repairs.get(name);
        let Some((repair, node)) = repair.and_then(|r| Some((r, cluster.node_of(r)?))) else {
            return;
        };
        let Some(policy) = self.policy(cluster, node) else {
            return;
        };
        let status = repair.status.as_ref();
        let action = status.and_then(|s| s.action).unwrap_or(repair.spec.action);
        let drain = &policy.spec.drain;
        let discards = match action {
            RepairAction::Reboot => drain.local_volumes_at_reboot == LocalVolumesAtReboot::Discard,
            RepairAction::Replace | RepairAction::NoAction => {
                drain.local_volumes == LocalVolumes::Discard
            }
        };
        let lost = pods.iter().find(|pod| pod.local_volume && !discards);
        self.must(lost.is_none(), || {
            format!("{name}: the local data of {lost:?} is lost")
        });
    }

    fn policy(&mut self, cluster: &Cluster, node: &NodeView) -> Option<RepairPolicy> {
        Assigned::of(cluster).policy(node).cloned()
    }

    /// No start and no destruction beyond the places or the threshold.
    fn start(&mut self, cluster: &Cluster, name: &str) {
        let Some(repair) = cluster.repairs.get(name) else {
            return;
        };
        let Some(node) = cluster.node_of(repair) else {
            return;
        };
        let Some(policy) = self.policy(cluster, node) else {
            self.broken(format!("{} starts without a policy", node.name));
            return;
        };
        let busy = |status: &NodeRepairStatus| match status.phase {
            Phase::Draining => status.hold.as_ref().is_none_or(|h| h.gate != Gate::Drain),
            Phase::Rebooting | Phase::Replacing => status
                .hold
                .as_ref()
                .is_none_or(|h| h.gate != Gate::Preserve),
            Phase::Verifying => true,
            Phase::Watching
            | Phase::Cordoning
            | Phase::Waiting
            | Phase::Uncordoning
            | Phase::Finished => false,
        };
        let others = cluster.repairs.iter().filter(|(other, _)| *other != name);
        let others: Vec<_> = others
            .filter(|(_, other)| other.status.as_ref().is_some_and(busy))
            .collect();
        let most = cluster.limits.max_parallel as usize;
        self.must(others.len() < most, || {
            format!("more than {most} repairs in all")
        });
        let own = others
            .iter()
            .filter(|(_, other)| Some(other.policy()) == policy.metadata.name.as_deref())
            .count();
        if let Some(count) = policy.spec.parallel.count {
            self.must(own < count as usize, || {
                format!("more than {count} repairs of {}", repair.policy())
            });
        }
        self.threshold(cluster, node, &policy, repair.spec.trigger);
    }

    /// Nodes in repair alone, which nobody can argue about, never pass the threshold.
    fn threshold(
        &mut self,
        cluster: &Cluster,
        node: &NodeView,
        policy: &RepairPolicy,
        trigger: Trigger,
    ) {
        let (Some(group), Trigger::Auto) = (cluster.group_of(node), trigger) else {
            return;
        };
        let limits = &policy.spec.unhealthy_threshold;
        let members = cluster
            .nodes
            .values()
            .filter(|n| cluster.group_of(n) == Some(group));
        let (mut all, mut bad) = (0, 0);
        for member in members {
            all += 1;
            bad += usize::from(cluster.open_repair(&member.uid).is_some());
        }
        let gone = cluster.repairs.values().filter(|repair| {
            let status = repair.status.as_ref();
            let open = !status.is_some_and(|status| status.is_finished());
            let here = status.and_then(|status| status.group.as_deref()) == Some(group);
            open && here && cluster.node_of(repair).is_none()
        });
        let gone = gone.count();
        let (all, bad) = (all + gone, bad + gone);
        let passed = match (limits.count, limits.percentage) {
            (Some(count), _) => bad > count as usize,
            (None, percentage) => bad * 100 > percentage.unwrap_or(20) as usize * all,
        };
        let counts = bad > 1 && all >= limits.min_nodes as usize;
        self.must(!(counts && passed), || {
            format!("{bad} of {all} nodes of {group} are in repair, and another step is taken")
        });
    }

    /// No machine is declared dead that may be alive.
    fn fence(&mut self, cluster: &Cluster, name: &str) {
        let node = cluster.repairs.get(name).and_then(|r| cluster.node_of(r));
        let id = node.and_then(|node| node.instance().ok());
        let view = id.and_then(|id| cluster.instances.get(id.as_str()));
        let off = view
            .is_some_and(|view| matches!(view.state, InstanceState::Gone | InstanceState::Stopped));
        self.must(off, || format!("{name}: out of service while it may run"));
    }

    /// One call for each recorded attempt, and the next one only after a look.
    fn destroy(&mut self, cluster: &Cluster, name: &str, phase: Phase, now: Timestamp) {
        let status = cluster.repairs.get(name).and_then(|r| r.status.as_ref());
        let Some(status) = status else {
            self.broken(format!("{name}: a destructive call without a record"));
            return;
        };
        self.must(status.phase == phase, || {
            format!("{name}: a destructive call in phase {:?}", status.phase)
        });
        let unresolved = status
            .attempts
            .iter()
            .any(|attempt| attempt.result.is_none());
        self.must(!unresolved, || {
            format!("{name}: a call at {now} while the end of another one is not known")
        });
    }

    /// What must hold after it.
    pub fn after(&mut self, cluster: &Cluster, done: &Done) {
        let Done::Recorded(name) = done else {
            return;
        };
        let Some(status) = cluster.repairs.get(name).and_then(|r| r.status.as_ref()) else {
            return;
        };
        let finished = status.is_finished();
        self.must(finished == status.outcome.is_some(), || {
            format!("{name}: an outcome and the end do not come together")
        });
        if let Some(outcome) = status.outcome {
            let known = self.outcomes.insert(name.clone(), outcome);
            self.must(known.is_none_or(|known| known == outcome), || {
                format!("{name}: another outcome, {outcome:?}")
            });
        }
    }
}
