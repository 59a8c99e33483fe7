//! PURE. What a new status says that the stored one did not: in one line for the log and for an Event.

use crate::api::policy::{RepairPolicy, RepairPolicyStatus};
use crate::api::repair::{Gate, Hold, NodeRepairStatus, Outcome, Phase};

/// One change of a decision.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Of the Event; from a closed set.
    pub reason: &'static str,
    pub warning: bool,
    pub note: String,
    /// What tells it apart from another one of the same reason about the same object.
    pub detail: String,
}

/// Of a NodeRepair.
pub fn of_repair(before: &NodeRepairStatus, status: &NodeRepairStatus) -> Option<Change> {
    let last = status.timeline.last().map(|entry| entry.event.clone());
    let last = last.unwrap_or_default();
    if let Some(outcome) = status.outcome.filter(|_| before.outcome.is_none()) {
        let (reason, warning) = ended(outcome);
        return Some(change(reason, warning, last, String::new()));
    }
    if before.shadow != status.shadow && status.shadow.is_some() {
        return Some(change("RepairShadowed", false, last.clone(), last));
    }
    let gate = |status: &NodeRepairStatus| status.hold.as_ref().map(|hold| hold.gate);
    if let Some(hold) = status
        .hold
        .as_ref()
        .filter(|_| gate(before) != gate(status))
    {
        return Some(held(hold));
    }
    if before.phase != status.phase || before.timeline.is_empty() {
        let reason = reached(status.phase);
        let detail = status.attempts.len().to_string();
        return Some(change(reason, false, last, detail));
    }
    if before.action != status.action {
        let reason = status.reasons.first().map(|reason| reason.reason.as_str());
        let (action, reason) = (status.action, reason.unwrap_or_default());
        let note = action.map_or_else(String::new, |action| {
            format!("the action that is due is now {action:?}, by {reason}")
        });
        return Some(change("RepairActionChanged", false, note.clone(), note));
    }
    gate(before).filter(|_| status.hold.is_none()).map(|gate| {
        change(
            "RepairGoesOn",
            false,
            format!("{gate:?} has opened"),
            format!("{gate:?}"),
        )
    })
}

/// Of a RepairPolicy: whether anything stops all of it, or a whole group.
pub fn of_policy(policy: &RepairPolicy, status: &RepairPolicyStatus) -> Option<Change> {
    let of = |status: &RepairPolicyStatus, kind: &str| {
        let condition = status.conditions.iter().find(|c| c.type_ == kind)?;
        Some((
            condition.status.clone(),
            condition.reason.clone(),
            condition.message.clone(),
        ))
    };
    let differs = |kind: &str| {
        let before = policy.status.as_ref().and_then(|status| of(status, kind));
        let now = of(status, kind)?;
        let same = before
            .as_ref()
            .is_some_and(|b| (&b.0, &b.1) == (&now.0, &now.1));
        (!same).then_some((before.is_some(), now))
    };
    if let Some((_, (accepted, _, message))) = differs("Accepted")
        && accepted == "False"
    {
        return Some(change("PolicyInvalid", true, message.clone(), message));
    }
    let (known, (allowed, gate, message)) = differs("RepairAllowed")?;
    if allowed == "True" {
        let note = "nothing stops the repair of a whole group any more".to_owned();
        return known.then(|| change("RepairAllowed", false, note, String::new()));
    }
    let asked_for = ["Disabled", "Shadow", "Paused"].contains(&gate.as_str());
    let note = format!("{gate}: {message}");
    Some(change("RepairStopped", !asked_for, note, gate))
}

fn change(reason: &'static str, warning: bool, note: String, detail: String) -> Change {
    Change {
        reason,
        warning,
        note,
        detail,
    }
}

fn held(hold: &Hold) -> Change {
    let gate = hold.gate;
    let (reason, warning) = match gate {
        Gate::WaitTime => ("RepairWaiting", false),
        // As somebody has said.
        Gate::Disabled
        | Gate::Paused
        | Gate::Excluded
        | Gate::ControlPlane
        | Gate::OutsideWindow
        | Gate::ParallelLimit
        | Gate::Preserve
        | Gate::Shadow => ("RepairHeld", false),
        Gate::Unreadable
        | Gate::PolicyConflict
        | Gate::NotOurs
        | Gate::OtherRepairer
        | Gate::Denied
        | Gate::Unsupported
        | Gate::SignalStale
        | Gate::SignalLatched
        | Gate::Partition
        | Gate::Correlated
        | Gate::UnhealthyThreshold
        | Gate::ZonalShift
        | Gate::ZoneShare
        | Gate::LastNode
        | Gate::AttemptsSpent
        | Gate::Capacity
        | Gate::RepairBudget
        | Gate::Drain => ("RepairHeld", true),
    };
    let opens = match hold.opens.as_str() {
        "" => String::new(),
        opens => format!("; opens: {opens}"),
    };
    let note = format!("{gate:?}: {}{opens}", hold.message);
    change(reason, warning, note, format!("{gate:?}"))
}

fn ended(outcome: Outcome) -> (&'static str, bool) {
    match outcome {
        Outcome::Succeeded => ("RepairSucceeded", false),
        Outcome::Recovered => ("RepairRecovered", false),
        Outcome::Cancelled => ("RepairCancelled", false),
        Outcome::Superseded => ("RepairSuperseded", false),
        Outcome::Failed => ("RepairFailed", true),
        Outcome::NeedsHuman => ("RepairNeedsHuman", true),
    }
}

fn reached(phase: Phase) -> &'static str {
    match phase {
        Phase::Watching => "NodeUnhealthy",
        Phase::Cordoning => "NodeCordoning",
        Phase::Waiting => "NodeCordoned",
        Phase::Draining => "NodeDraining",
        Phase::Rebooting | Phase::Replacing => "NodeDrained",
        Phase::Verifying => "NodeReplacing",
        Phase::Uncordoning => "NodeUncordoning",
        // With its outcome, which goes first.
        Phase::Finished => "RepairFinished",
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

    use super::*;
    use crate::decide::fixture::{self, at};

    fn hold(gate: Gate) -> Hold {
        Hold {
            gate,
            since: MicroTime(at(0)),
            message: "3 of 10".to_owned(),
            told: None,
            values: Default::default(),
            opens: "fewer".to_owned(),
            behind: Vec::new(),
        }
    }

    #[test]
    fn each_change_is_told_once_and_what_stays_is_not() {
        let mut before = NodeRepairStatus::default();
        before.note(at(0), "unhealthy");
        let reason = |before: &NodeRepairStatus, status: &NodeRepairStatus| {
            of_repair(before, status).map(|change| (change.reason, change.warning))
        };
        assert_eq!(reason(&before, &before), None);
        let mut held = before.clone();
        held.hold = Some(hold(Gate::UnhealthyThreshold));
        assert_eq!(reason(&before, &held), Some(("RepairHeld", true)));
        let told = of_repair(&before, &held).unwrap();
        assert_eq!(told.note, "UnhealthyThreshold: 3 of 10; opens: fewer");
        // Other numbers of the same gate are in the record, and no news.
        let mut other = held.clone();
        other.hold.as_mut().unwrap().message = "4 of 10".to_owned();
        assert_eq!(reason(&held, &other), None);
        assert_eq!(reason(&held, &before), Some(("RepairGoesOn", false)));
        let mut next = before.clone();
        next.phase = Phase::Draining;
        assert_eq!(reason(&before, &next), Some(("NodeDraining", false)));
        let mut failed = next.clone();
        (failed.phase, failed.outcome) = (Phase::Finished, Some(Outcome::NeedsHuman));
        assert_eq!(reason(&next, &failed), Some(("RepairNeedsHuman", true)));
    }

    #[test]
    fn a_policy_tells_what_stops_it_and_that_it_does_no_more() {
        let mut cluster = fixture::cluster(10);
        let statuses = |cluster: &crate::cluster::Cluster| {
            let episodes = fixture::episodes_since(cluster, 0);
            let retention = crate::decide::Retention::default();
            let plan = crate::decide::decide(cluster, &episodes, retention, at(100));
            plan.policies["workers"].clone()
        };
        let well = statuses(&cluster);
        assert_eq!(of_policy(&cluster.policies[0], &well), None, "nothing new");
        cluster.policies[0].status = Some(well);
        cluster.limits.paused = true;
        let paused = statuses(&cluster);
        let told = of_policy(&cluster.policies[0], &paused).unwrap();
        assert_eq!((told.reason, told.warning), ("RepairStopped", false));
        assert_eq!(told.note, "Paused: paused by a person");
        cluster.policies[0].status = Some(paused);
        cluster.limits.paused = false;
        let told = of_policy(&cluster.policies[0], &statuses(&cluster)).unwrap();
        assert_eq!(told.reason, "RepairAllowed");
    }
}
