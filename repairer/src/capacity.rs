//! PURE. What stands against the destruction of an instance: its group could not replace it, or a
//! person wants it to stay. Each cause has a name and says what would clear it.

use crate::api::policy::{Protected, Replace, ReplaceBy};
use crate::cluster::{InstanceView, Launches};

/// Launches in a row that have failed: the next one will, too.
const FAILED_LAUNCHES: u32 = 3;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cause {
    pub name: &'static str,
    pub message: String,
    pub clears: String,
}

fn cause(name: &'static str, message: impl Into<String>, clears: impl Into<String>) -> Cause {
    Cause {
        name,
        message: message.into(),
        clears: clears.into(),
    }
}

/// What AWS says of the instance itself.
pub fn of_instance(view: &InstanceView, wish: &Replace) -> Vec<Cause> {
    let facts = &view.facts;
    let mut causes: Vec<_> = lifecycle(view).into_iter().collect();
    if wish.protected == Protected::Hold {
        if facts.protected_from_scale_in {
            causes.push(cause(
                "ScaleInProtection",
                "the instance is protected from scale-in",
                "take the protection off, or replace.protected: Replace",
            ));
        }
        if facts
            .last
            .as_ref()
            .is_some_and(|last| last.termination_protection)
        {
            causes.push(cause(
                "TerminationProtection",
                "the instance is protected from termination",
                "take the protection off, or replace.protected: Replace",
            ));
        }
    }
    let request = facts
        .last
        .as_ref()
        .and_then(|last| last.spot_request.as_deref());
    if let Some(code) = request.filter(|code| *code != "fulfilled") {
        causes.push(cause(
            "SpotInterruption",
            format!("its Spot request says `{code}`: EC2 takes the instance back itself"),
            "nothing: the group replaces it by itself",
        ));
    }
    let reservation = facts
        .last
        .as_ref()
        .and_then(|last| last.reservation.as_ref());
    if let Some((state, free)) = reservation {
        if state != "active" {
            causes.push(cause(
                "CapacityReservation",
                format!("its capacity reservation is {state}: what is destroyed may not come back"),
                "a capacity reservation that is active",
            ));
        } else if *free == 0 && wish.by == ReplaceBy::InstanceHealth {
            causes.push(cause(
                "CapacityReservation",
                "its capacity reservation is full, and the group would launch before it terminates",
                "a free place in the reservation, or replace.by: Terminate",
            ));
        }
    }
    causes
}

/// Only an instance that serves is touched.
pub fn lifecycle(view: &InstanceView) -> Option<Cause> {
    let state = view.lifecycle.as_deref().unwrap_or("unknown");
    let (name, clears) = match state.split(':').next().unwrap_or_default() {
        "InService" => return None,
        "Pending" | "EnteringStandby" | "ReplacingRootVolume" | "RootVolumeReplaced" => {
            ("NotInService", "the instance is InService")
        }
        "Standby" => (
            "Standby",
            "whoever put the instance into Standby takes it out",
        ),
        "Warmed" => ("WarmPool", "nothing: an instance of a warm pool is no node"),
        "Detaching" | "Detached" => ("Detached", "nothing: the instance leaves its group"),
        "Terminating" | "Terminated" => (
            "Terminating",
            "nothing: somebody else has ended the instance",
        ),
        _ => ("NotInService", "the instance is InService"),
    };
    let message = format!("the instance is {state} in its Auto Scaling group, not InService");
    Some(cause(name, message, clears))
}

/// What AWS says of the group.
pub fn of_group(name: &str, group: &Launches, wish: &Replace) -> Vec<Cause> {
    let mut causes = Vec::new();
    if let Some(error) = &group.unknown {
        causes.push(cause(
            "Unknown",
            format!("whether {name} can launch instances is not known: {error}"),
            "AWS describes the group",
        ));
        return causes;
    }
    let needed: &[&str] = match wish.by {
        ReplaceBy::Terminate => &["Launch", "Terminate"],
        ReplaceBy::InstanceHealth => &["Launch", "Terminate", "HealthCheck", "ReplaceUnhealthy"],
    };
    let suspended = needed
        .iter()
        .filter(|p| group.suspended.iter().any(|s| s == *p));
    for process in suspended {
        causes.push(match group.suspended_by_aws.get(*process) {
            Some(why) => cause(
                "SuspendedByAws",
                format!("AWS has suspended {process} of {name}: {why}"),
                format!("mend what the launches of {name} fail with, and resume {process}"),
            ),
            None => cause(
                "SuspendedProcess",
                format!(
                    "{process} of {name} is suspended: what is destroyed would not be replaced"
                ),
                format!("resume {process} of {name}"),
            ),
        });
    }
    if let Some(status) = &group.status {
        causes.push(cause(
            "GroupDeleting",
            format!("{name}: {status}"),
            "nothing",
        ));
    }
    if let Some(sizes) = group.sizes
        && !(sizes.min..=sizes.max).contains(&sizes.desired)
    {
        let (min, desired, max) = (sizes.min, sizes.desired, sizes.max);
        causes.push(cause(
            "Sizes",
            format!("{name} wants {desired} instances and may have {min} to {max}"),
            "a desired capacity between the minimum and the maximum",
        ));
    }
    causes.extend(failed_launches(name, group));
    if let Some(status) = &group.refresh {
        causes.push(cause(
            "InstanceRefresh",
            format!("an instance refresh of {name} is {status}"),
            "the instance refresh ends",
        ));
    }
    if group.reuses_instances {
        causes.push(cause(
            "WarmPoolReuse",
            format!("{name} would put the broken instance into its warm pool and use it again"),
            "switch ReuseOnScaleIn of the warm pool off",
        ));
    }
    if wish.by == ReplaceBy::InstanceHealth && !group.launches_first {
        causes.push(cause(
            "MaintenancePolicy",
            format!("{name} has no maintenance policy that launches before it terminates (replace.by: InstanceHealth)"),
            "a maximum healthy percentage above 100, or replace.by: Terminate",
        ));
    }
    if let Some(node_group) = &group.node_group
        && node_group.status != "ACTIVE"
    {
        let (eks, status) = (&node_group.name, &node_group.status);
        let issues = match node_group.issues.join("; ") {
            issues if issues.is_empty() => String::new(),
            issues => format!(": {issues}"),
        };
        causes.push(cause(
            "NodeGroup",
            format!("the managed node group {eks} is {status}{issues}"),
            format!("{eks} is ACTIVE"),
        ));
    }
    causes
}

/// What a failed launch says, and the cause by the name of which it is told.
const FAILURES: [(&str, &[&str]); 5] = [
    (
        "InsufficientCapacity",
        &[
            "InsufficientInstanceCapacity",
            "do not have sufficient",
            "UnfulfillableCapacity",
        ],
    ),
    (
        "NoAddresses",
        &[
            "InsufficientFreeAddressesInSubnet",
            "not enough free addresses",
        ],
    ),
    (
        "Quota",
        &[
            "VcpuLimitExceeded",
            "InstanceLimitExceeded",
            "vCPU limit",
            "quota",
            "more instances",
        ],
    ),
    (
        "SpotCapacity",
        &["MaxSpotInstanceCountExceeded", "SpotMaxPriceTooLow", "Spot"],
    ),
    (
        "LaunchTemplate",
        &[
            "InvalidAMIID",
            "image id",
            "LaunchTemplate",
            "launch template",
            "Client.Invalid",
        ],
    ),
];

fn failed_launches(name: &str, group: &Launches) -> Option<Cause> {
    let why = group.failure.as_deref().unwrap_or("no reason was given");
    let known = FAILURES
        .iter()
        .find(|(_, texts)| texts.iter().any(|text| why.contains(text)))
        .map_or("FailedLaunches", |(name, _)| *name);
    // What is missing does not come back by itself.
    let enough = if known == "LaunchTemplate" {
        1
    } else {
        FAILED_LAUNCHES
    };
    let failed = group.failed;
    (failed >= enough).then(|| {
        let message = format!("the last {failed} launches of {name} failed: {why}");
        cause(known, message, format!("{name} launches an instance"))
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::cluster::{LastFacts, NodeGroup, Sizes};
    use crate::decide::fixture;

    fn names(
        change: impl FnOnce(&mut InstanceView, &mut Launches, &mut Replace),
    ) -> Vec<&'static str> {
        let (mut view, mut group, mut wish) = (
            fixture::in_service(),
            Launches::default(),
            Replace::default(),
        );
        change(&mut view, &mut group, &mut wish);
        let causes = of_instance(&view, &wish)
            .into_iter()
            .chain(of_group("workers", &group, &wish));
        let told = |cause: Cause| {
            assert!(
                !cause.message.is_empty() && !cause.clears.is_empty(),
                "{cause:?}"
            );
            cause.name
        };
        causes.map(told).collect()
    }

    type Change = fn(&mut InstanceView, &mut Launches, &mut Replace);

    fn last(view: &mut InstanceView) -> &mut LastFacts {
        view.facts.last.get_or_insert_default()
    }

    fn fail(group: &mut Launches, times: u32, why: &str) {
        group.failed = times;
        group.failure = Some(why.to_owned());
    }

    #[test]
    fn each_cause_is_told_by_its_name_and_nothing_else_is() {
        let rows: [(&str, Change); 32] = [
            ("Unknown", |_, g, _| g.unknown = Some("no answer".into())),
            ("SuspendedProcess", |_, g, _| {
                g.suspended.push("Launch".into())
            }),
            ("SuspendedProcess", |_, g, _| {
                g.suspended.push("Terminate".into())
            }),
            ("SuspendedProcess", |_, g, w| {
                (w.by, g.launches_first) = (ReplaceBy::InstanceHealth, true);
                g.suspended.push("ReplaceUnhealthy".into());
            }),
            ("SuspendedProcess", |_, g, w| {
                (w.by, g.launches_first) = (ReplaceBy::InstanceHealth, true);
                g.suspended.push("HealthCheck".into());
            }),
            ("SuspendedByAws", |_, g, _| {
                g.suspended.push("Launch".into());
                g.suspended_by_aws = BTreeMap::from([("Launch".into(), "it fails".into())]);
            }),
            ("NotInService", |v, _, _| {
                v.lifecycle = Some("Pending:Wait".into())
            }),
            ("NotInService", |v, _, _| {
                v.lifecycle = Some("Quiesced".into())
            }),
            ("NotInService", |v, _, _| v.lifecycle = None),
            ("Standby", |v, _, _| v.lifecycle = Some("Standby".into())),
            ("WarmPool", |v, _, _| {
                v.lifecycle = Some("Warmed:Stopped".into())
            }),
            ("Detached", |v, _, _| v.lifecycle = Some("Detaching".into())),
            ("Terminating", |v, _, _| {
                v.lifecycle = Some("Terminating:Wait".into())
            }),
            ("ScaleInProtection", |v, _, _| {
                v.facts.protected_from_scale_in = true
            }),
            ("TerminationProtection", |v, _, _| {
                last(v).termination_protection = true
            }),
            ("SpotInterruption", |v, _, _| {
                last(v).spot_request = Some("marked-for-termination".into())
            }),
            ("CapacityReservation", |v, _, _| {
                last(v).reservation = Some(("expired".into(), 1))
            }),
            ("CapacityReservation", |v, g, w| {
                (w.by, g.launches_first) = (ReplaceBy::InstanceHealth, true);
                last(v).reservation = Some(("active".into(), 0));
            }),
            ("GroupDeleting", |_, g, _| {
                g.status = Some("Delete in progress".into())
            }),
            ("Sizes", |_, g, _| {
                g.sizes = Some(Sizes {
                    min: 3,
                    desired: 2,
                    max: 5,
                })
            }),
            ("Sizes", |_, g, _| {
                g.sizes = Some(Sizes {
                    min: 3,
                    desired: 6,
                    max: 5,
                })
            }),
            ("InsufficientCapacity", |_, g, _| {
                fail(
                    g,
                    3,
                    "We currently do not have sufficient p5 capacity (Service: EC2, Code: InsufficientInstanceCapacity)",
                )
            }),
            ("NoAddresses", |_, g, _| {
                fail(
                    g,
                    3,
                    "There are not enough free addresses in subnet subnet-1",
                )
            }),
            ("Quota", |_, g, _| {
                fail(
                    g,
                    3,
                    "You have requested more vCPU capacity than your current vCPU limit of 32 allows",
                )
            }),
            ("SpotCapacity", |_, g, _| {
                fail(
                    g,
                    3,
                    "Max spot instance count exceeded (MaxSpotInstanceCountExceeded)",
                )
            }),
            ("LaunchTemplate", |_, g, _| {
                fail(
                    g,
                    1,
                    "The image id '[ami-1]' does not exist (InvalidAMIID.NotFound)",
                )
            }),
            ("FailedLaunches", |_, g, _| fail(g, 3, "the moon is full")),
            ("InstanceRefresh", |_, g, _| {
                g.refresh = Some("InProgress".into())
            }),
            ("WarmPoolReuse", |_, g, _| g.reuses_instances = true),
            ("MaintenancePolicy", |_, _, w| {
                w.by = ReplaceBy::InstanceHealth
            }),
            ("NodeGroup", |_, g, _| {
                g.node_group = Some(NodeGroup {
                    status: "DEGRADED".into(),
                    issues: vec!["AccessDenied".into()],
                    ..NodeGroup::default()
                })
            }),
            ("NodeGroup", |_, g, _| {
                g.node_group = Some(NodeGroup {
                    status: "UPDATING".into(),
                    ..NodeGroup::default()
                })
            }),
        ];
        for (name, change) in rows {
            assert_eq!(names(change), [name]);
        }
    }

    #[test]
    fn what_does_not_stand_against_it_is_not_told() {
        let rows: [Change; 7] = [
            |_, _, _| {},
            |_, g, _| g.suspended.push("AZRebalance".into()),
            |_, g, _| g.suspended.push("ReplaceUnhealthy".into()),
            |_, g, _| fail(g, 2, "InsufficientInstanceCapacity"),
            |v, _, _| last(v).reservation = Some(("active".into(), 0)),
            |v, _, _| last(v).spot_request = Some("fulfilled".into()),
            |v, _, w| {
                w.protected = Protected::Replace;
                v.facts.protected_from_scale_in = true;
                last(v).termination_protection = true;
            },
        ];
        for change in rows {
            assert_eq!(names(change), [""; 0]);
        }
    }
}
