//! PURE. A policy that is edited in the middle of a repair: what was tightened counts at once, what was
//! loosened is for the next repair.

use crate::api::policy::{
    Drain, LocalVolumes, LocalVolumesAtReboot, OnTimeout, Protected, RepairAction, RepairPolicy,
    Replace, UnmanagedPods,
};
use crate::api::repair::{NodeRepair, NodeRepairStatus, Phase, PolicySnapshot};

fn snapshot(repair: &NodeRepair) -> Option<&PolicySnapshot> {
    repair.status.as_ref()?.policy.as_ref()
}

/// Of each setting the gentler one of then and now.
pub(super) fn drain(policy: &RepairPolicy, repair: &NodeRepair) -> Drain {
    let now = &policy.spec.drain;
    let Some(PolicySnapshot { drain: then, .. }) = snapshot(repair) else {
        return now.clone();
    };
    Drain {
        timeout: then.timeout.max(now.timeout),
        on_timeout: match (then.on_timeout, now.on_timeout) {
            (then, OnTimeout::Force) => then,
            (_, now @ (OnTimeout::Hold | OnTimeout::Release)) => now,
        },
        local_volumes: match (then.local_volumes, now.local_volumes) {
            (LocalVolumes::Discard, LocalVolumes::Discard) => LocalVolumes::Discard,
            (LocalVolumes::Hold, _) | (_, LocalVolumes::Hold) => LocalVolumes::Hold,
        },
        local_volumes_at_reboot: match (then.local_volumes_at_reboot, now.local_volumes_at_reboot) {
            (LocalVolumesAtReboot::Hold, _) | (_, LocalVolumesAtReboot::Hold) => {
                LocalVolumesAtReboot::Hold
            }
            (LocalVolumesAtReboot::Leave, _) | (_, LocalVolumesAtReboot::Leave) => {
                LocalVolumesAtReboot::Leave
            }
            (LocalVolumesAtReboot::Discard, LocalVolumesAtReboot::Discard) => {
                LocalVolumesAtReboot::Discard
            }
        },
        unmanaged_pods: match (then.unmanaged_pods, now.unmanaged_pods) {
            (UnmanagedPods::Evict, UnmanagedPods::Evict) => UnmanagedPods::Evict,
            (UnmanagedPods::Hold, _) | (_, UnmanagedPods::Hold) => UnmanagedPods::Hold,
        },
    }
}

/// The call stays the one that was meant.
pub(super) fn replace(policy: &RepairPolicy, repair: Option<&NodeRepair>) -> Replace {
    let now = &policy.spec.replace;
    let Some(PolicySnapshot { replace: then, .. }) = repair.and_then(snapshot) else {
        return now.clone();
    };
    Replace {
        by: then.by,
        protected: match (then.protected, now.protected) {
            (Protected::Replace, Protected::Replace) => Protected::Replace,
            (Protected::Hold, _) | (_, Protected::Hold) => Protected::Hold,
        },
    }
}

/// A stronger reason makes for a stronger action; a stronger rule does not.
pub(super) fn action(
    policy: &RepairPolicy,
    status: &NodeRepairStatus,
    due: RepairAction,
) -> RepairAction {
    let edited = status.policy.as_ref().is_some_and(|then| {
        policy.metadata.name.as_deref() != Some(&then.name)
            || policy.metadata.generation != Some(then.generation)
    });
    match status.action {
        Some(then) if edited => then.min(due),
        Some(_) | None => due,
    }
}

/// The step at which the action no longer changes with what is due.
pub(super) fn decided(status: &NodeRepairStatus) -> Option<RepairAction> {
    let decided = match status.phase {
        Phase::Rebooting | Phase::Replacing | Phase::Verifying | Phase::Uncordoning => true,
        Phase::Watching | Phase::Cordoning | Phase::Waiting | Phase::Draining | Phase::Finished => {
            !status.attempts.is_empty()
        }
    };
    status.action.filter(|_| decided)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::api::duration::Wait;
    use crate::decide::fixture;

    /// Admitted under `then`, and then the policy was edited to `now`.
    fn edited(
        then: impl FnOnce(&mut RepairPolicy),
        now: impl FnOnce(&mut RepairPolicy),
    ) -> (RepairPolicy, NodeRepair) {
        let mut policy = fixture::policy("workers");
        then(&mut policy);
        let mut repair = NodeRepair::new("r", fixture::spec("node-0"));
        let status = NodeRepairStatus {
            policy: Some(PolicySnapshot::of(&policy)),
            ..NodeRepairStatus::default()
        };
        repair.status = Some(status);
        now(&mut policy);
        policy.metadata.generation = Some(2);
        (policy, repair)
    }

    #[test]
    fn the_gentler_setting_of_a_drain_counts_whichever_way_it_was_edited() {
        let gentle = |policy: &mut RepairPolicy| {
            policy.spec.drain = Drain {
                timeout: Wait::minutes(60),
                on_timeout: OnTimeout::Hold,
                local_volumes: LocalVolumes::Hold,
                local_volumes_at_reboot: LocalVolumesAtReboot::Leave,
                unmanaged_pods: UnmanagedPods::Hold,
            };
            policy.spec.replace.protected = Protected::Hold;
        };
        let rough = |policy: &mut RepairPolicy| {
            policy.spec.drain = Drain {
                timeout: Wait::minutes(1),
                on_timeout: OnTimeout::Force,
                local_volumes: LocalVolumes::Discard,
                local_volumes_at_reboot: LocalVolumesAtReboot::Discard,
                unmanaged_pods: UnmanagedPods::Evict,
            };
            policy.spec.replace.protected = Protected::Replace;
        };
        let mut wanted = fixture::policy("workers");
        gentle(&mut wanted);
        for (policy, repair) in [edited(gentle, rough), edited(rough, gentle)] {
            assert_eq!(drain(&policy, &repair), wanted.spec.drain);
            assert_eq!(replace(&policy, Some(&repair)), wanted.spec.replace);
        }
        let (policy, repair) = edited(rough, rough);
        assert_eq!(drain(&policy, &repair), policy.spec.drain);
    }

    #[test]
    fn a_node_may_be_given_back_earlier_and_is_not_forced_instead() {
        let set =
            |to: OnTimeout| move |policy: &mut RepairPolicy| policy.spec.drain.on_timeout = to;
        for (then, now, counts) in [
            (OnTimeout::Hold, OnTimeout::Release, OnTimeout::Release),
            (OnTimeout::Force, OnTimeout::Release, OnTimeout::Release),
            (OnTimeout::Release, OnTimeout::Force, OnTimeout::Release),
            (OnTimeout::Hold, OnTimeout::Force, OnTimeout::Hold),
        ] {
            let (policy, repair) = edited(set(then), set(now));
            assert_eq!(
                drain(&policy, &repair).on_timeout,
                counts,
                "{then:?} {now:?}"
            );
        }
    }

    #[test]
    fn only_a_reason_strengthens_the_action() {
        use RepairAction::{Reboot, Replace};
        let (mut policy, repair) = edited(|_| {}, |_| {});
        let mut status = repair.status.unwrap();
        status.action = Some(Reboot);
        assert_eq!(action(&policy, &status, Replace), Reboot, "edited");
        policy.metadata.generation = Some(1);
        assert_eq!(action(&policy, &status, Replace), Replace, "not edited");
        policy.metadata.generation = Some(2);
        status.action = Some(Replace);
        assert_eq!(action(&policy, &status, Reboot), Reboot, "tightened");
    }
}
