//! PURE. Whether what was expected is so.

use std::fmt::Debug;

use jiff::Timestamp;

use super::file::Expectation;
use super::world::World;
use crate::api::repair::{Gate, NodeRepair};
use crate::decide::{self, State};
use crate::episode::Episodes;

pub struct Seen<'a> {
    pub world: &'a World,
    pub episodes: &'a Episodes,
    pub started: &'a [String],
    pub now: Timestamp,
}

/// What is not as expected, in words.
pub fn check(expected: &Expectation, seen: &Seen<'_>) -> Vec<String> {
    let mut failures = Vec::new();
    if let Some(node) = &expected.node {
        of_node(expected, node, seen, &mut failures);
    }
    let world = seen.world;
    compare(
        &mut failures,
        "started",
        &expected.started,
        &seen.started.to_vec(),
    );
    compare(
        &mut failures,
        "destroyed",
        &expected.destroyed,
        &world.destroyed,
    );
    let count = world.destroyed.len();
    compare(
        &mut failures,
        "the number of destroyed nodes",
        &expected.destroyed_count,
        &count,
    );
    compare(
        &mut failures,
        "the number of calls",
        &expected.calls,
        &world.calls,
    );
    compare(
        &mut failures,
        "the number of reboot calls",
        &expected.reboots,
        &world.reboots,
    );
    if let Some(name) = &expected.policy {
        of_policy(expected, name, world, &mut failures);
    }
    failures
}

fn compare<T: PartialEq + Debug>(
    failures: &mut Vec<String>,
    what: &str,
    expected: &Option<T>,
    found: &T,
) {
    if let Some(expected) = expected
        && expected != found
    {
        failures.push(format!("{what} is {found:?}, not {expected:?}"));
    }
}

fn compare_found<T: PartialEq + Debug>(
    failures: &mut Vec<String>,
    what: &str,
    expected: &Option<T>,
    found: &Option<T>,
) {
    match (expected, found) {
        (Some(expected), Some(found)) if expected == found => {}
        (Some(expected), Some(found)) => {
            failures.push(format!("{what} is {found:?}, not {expected:?}"));
        }
        (Some(expected), None) => failures.push(format!("there is no {what}, not {expected:?}")),
        (None, _) => {}
    }
}

/// The one that is under way, else the one that ended last.
fn last_repair<'a>(world: &'a World, node: &str) -> Option<&'a NodeRepair> {
    let of_node = world
        .cluster
        .repairs
        .values()
        .filter(|repair| repair.spec.node_ref.name == node);
    of_node.max_by_key(|repair| {
        let status = repair.status.as_ref();
        (
            !status.is_some_and(|status| status.is_finished()),
            status
                .and_then(|status| status.timeline.last())
                .map(|entry| entry.at.0),
            repair.metadata.name.clone(),
        )
    })
}

fn of_node(expected: &Expectation, node: &str, seen: &Seen<'_>, failures: &mut Vec<String>) {
    let repair = last_repair(seen.world, node);
    compare(
        failures,
        "whether it has a repair",
        &expected.repair,
        &repair.is_some(),
    );
    let status = repair
        .and_then(|repair| repair.status.clone())
        .unwrap_or_default();
    let phase = repair.map(|_| status.phase);
    compare_found(failures, "phase", &expected.phase, &phase);
    compare_found(failures, "outcome", &expected.outcome, &status.outcome);
    compare_found(failures, "action", &expected.action, &status.action);
    let hold = status.hold.as_ref();
    compare_found(
        failures,
        "gate",
        &expected.gate,
        &hold.map(|hold| hold.gate),
    );
    if let Some(behind) = &expected.behind {
        let held = hold.map(|hold| hold.behind.clone()).unwrap_or_default();
        for gate in behind.iter().filter(|gate| !held.contains(gate)) {
            failures.push(format!("{gate:?} is not among those behind: {held:?}"));
        }
    }
    if let Some(says) = &expected.says {
        let told = hold.map(|hold| format!("{} {}", hold.message, hold.opens));
        let timeline = status.timeline.iter().map(|entry| entry.event.as_str());
        let all = told.as_deref().into_iter().chain(timeline);
        let all = all.collect::<Vec<_>>().join("\n");
        if !all.contains(says.as_str()) {
            failures.push(format!("nothing says `{says}`:\n{all}"));
        }
    }
    let reasons: Vec<_> = status
        .reasons
        .iter()
        .map(|reason| reason.reason.clone())
        .collect();
    compare(failures, "reasons", &expected.reasons, &reasons);
    let flaps = status.reasons.iter().map(|reason| reason.flaps).max();
    compare(
        failures,
        "flaps",
        &expected.flaps,
        &flaps.unwrap_or_default(),
    );
    let view = seen.world.cluster.nodes.get(node);
    let cordoned = view.is_some_and(|node| node.has_our_cordon());
    compare(
        failures,
        "whether it has our cordon",
        &expected.cordoned,
        &cordoned,
    );
    let marked = view.is_some_and(|node| node.is_out_of_service());
    compare(
        failures,
        "whether it is out of service",
        &expected.out_of_service,
        &marked,
    );
    let pods = seen.world.pods_on(node);
    compare(failures, "the pods on it", &expected.pods, &pods);
    if let Some(open) = &expected.open {
        let verdicts =
            view.map(|node| decide::explain(&seen.world.cluster, seen.episodes, node, seen.now));
        let closed: Vec<Gate> = verdicts
            .into_iter()
            .flatten()
            .filter(|verdict| verdict.state == State::Closed)
            .map(|verdict| verdict.gate)
            .collect();
        for gate in open.iter().filter(|gate| closed.contains(gate)) {
            failures.push(format!("{gate:?} is closed"));
        }
    }
}

fn of_policy(expected: &Expectation, name: &str, world: &World, failures: &mut Vec<String>) {
    let mut policies = world.cluster.policies.iter();
    let policy = policies.find(|policy| policy.metadata.name.as_deref() == Some(name));
    let Some(status) = policy.and_then(|policy| policy.status.as_ref()) else {
        failures.push("there is no such policy, or it has no status".to_owned());
        return;
    };
    let allowed = status
        .conditions
        .iter()
        .find(|c| c.type_ == "RepairAllowed");
    let allowed = allowed.map(|condition| condition.reason.clone());
    compare_found(failures, "RepairAllowed", &expected.allowed, &allowed);
    let shadow = status.shadow.as_ref().map(|shadow| shadow.replaced);
    let what = "number of nodes that would have been replaced";
    compare_found(failures, what, &expected.shadow_replaced, &shadow);
}
