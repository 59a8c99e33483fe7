//! The decision to start, once more: written from the policy's words alone, by brute force, and
//! compared on random clusters. It shares no line with the gates.

use proptest::prelude::*;

use super::*;
use crate::api::duration::Wait;
use crate::api::policy::{Comparison, LastNode, Mode};

/// One node, and what became of it so far.
#[derive(Debug, Clone)]
struct Machine {
    group: usize,
    zone: usize,
    ready: bool,
    excluded: bool,
    /// Which fault, and since when.
    fault: Option<(usize, i64)>,
    repair: Option<Phase>,
    /// When AWS was called, where it was.
    called: i64,
}

#[derive(Debug, Clone)]
struct Question {
    machines: Vec<Machine>,
    enforce: bool,
    paused: bool,
    parallel: u32,
    percentage: u32,
    above: bool,
    min_nodes: u32,
    zone_percentage: u32,
    correlation: (u32, u32, i64),
    budget: (u32, i64),
    last_node_may_go: bool,
    /// From the first fault.
    now: i64,
    most_in_all: u32,
}

fn machine() -> impl Strategy<Value = Machine> {
    let phases = prop::option::weighted(
        0.8,
        prop::sample::select(vec![
            Phase::Waiting,
            Phase::Waiting,
            Phase::Waiting,
            Phase::Draining,
            Phase::Verifying,
        ]),
    );
    let fault = prop::option::weighted(0.5, (0..3usize, 0..3000i64));
    (
        (0..2usize, 0..2usize),
        prop::bool::weighted(0.8),
        prop::bool::weighted(0.1),
        fault,
        phases,
        -4000..3000i64,
    )
        .prop_map(
            |((group, zone), ready, excluded, fault, repair, called)| Machine {
                group,
                zone,
                ready,
                excluded,
                fault,
                repair: repair.filter(|_| fault.is_some()),
                called,
            },
        )
}

prop_compose! {
    fn questions()(
        machines in prop::collection::vec(machine(), 1..16),
        enforce in prop::bool::weighted(0.95),
        paused in prop::bool::weighted(0.05),
        parallel in 1..5u32,
        percentage in prop::sample::select(vec![20u32, 40, 60, 100]),
        above in any::<bool>(),
        min_nodes in 1..8u32,
        zone_percentage in prop::sample::select(vec![40u32, 55, 100]),
        correlation in (2..6u32, prop::sample::select(vec![5u32, 30, 60]), 60..3000i64),
        budget in (1..6u32, 600..5000i64),
        last_node_may_go in any::<bool>(),
        now in 3000..6000i64,
        most_in_all in 1..8u32,
    ) -> Question {
        Question {
            machines, enforce, paused, parallel, percentage, above, min_nodes, zone_percentage,
            correlation, budget, last_node_may_go, now, most_in_all,
        }
    }
}

fn name(index: usize) -> String {
    format!("node-{index:02}")
}

fn seconds(seconds: i64) -> Wait {
    Wait::seconds(u64::try_from(seconds).unwrap())
}

/// The question as the repairer sees it.
fn cluster_of(question: &Question) -> (Cluster, Episodes) {
    let mut cluster = Cluster {
        policies: vec![fixture::policy("workers")],
        ..Cluster::default()
    };
    cluster.limits.max_parallel = question.most_in_all;
    let spec = &mut cluster.policies[0].spec;
    spec.mode = if question.enforce {
        Mode::Enforce
    } else {
        Mode::Disabled
    };
    spec.paused = question.paused;
    spec.parallel.count = Some(question.parallel);
    let threshold = &mut spec.unhealthy_threshold;
    threshold.percentage = Some(question.percentage);
    threshold.min_nodes = question.min_nodes;
    threshold.comparison = if question.above {
        Comparison::Above
    } else {
        Comparison::AtLeast
    };
    spec.zones.max_unhealthy_percentage = question.zone_percentage;
    spec.correlation.min_nodes = question.correlation.0;
    spec.correlation.percentage = question.correlation.1;
    spec.correlation.window = seconds(question.correlation.2);
    spec.repair_budget.count = question.budget.0;
    spec.repair_budget.window = seconds(question.budget.1);
    if question.last_node_may_go {
        spec.last_node = LastNode::Allow;
    }
    let mut episodes = Episodes::default();
    for (index, machine) in question.machines.iter().enumerate() {
        let mut node = fixture::node(&name(index), index);
        node.provider_id = format!("aws:///zone-{}/i-{index:017x}", machine.zone);
        if !machine.ready {
            node.conditions = vec![fixture::condition("Ready", "False", -3600)];
        }
        if machine.excluded {
            node.labels
                .insert("nodemend.dev/exclude".to_owned(), "true".to_owned());
        }
        let instance = crate::cluster::InstanceView {
            group: Some(format!("group-{}", machine.group)),
            ..fixture::in_service()
        };
        cluster
            .instances
            .insert(node.instance().unwrap().to_string(), instance);
        cluster.nodes.insert(node.name.clone(), node);
    }
    // Each fault is seen when it begins.
    let mut faults: Vec<_> = question
        .machines
        .iter()
        .enumerate()
        .filter_map(|(index, machine)| Some((machine.fault?, index)))
        .collect();
    faults.sort_by_key(|((_, since), _)| *since);
    for ((reason, since), index) in faults {
        let storage = crate::cluster::ConditionView {
            reason: format!("Fault{reason}"),
            ..fixture::condition("StorageReady", "False", since)
        };
        cluster
            .nodes
            .get_mut(&name(index))
            .unwrap()
            .conditions
            .push(storage);
        episodes.observe(&cluster, at(since));
    }
    for (index, machine) in question.machines.iter().enumerate() {
        let (Some(phase), Some((reason, since))) = (machine.repair, machine.fault) else {
            continue;
        };
        let repair = fixture::add_repair(&mut cluster, &name(index), phase, since);
        let status = cluster
            .repairs
            .get_mut(&repair)
            .unwrap()
            .status
            .as_mut()
            .unwrap();
        status.group = Some(format!("group-{}", machine.group));
        status.zone = Some(format!("zone-{}", machine.zone));
        status.reasons[0].reason = format!("Fault{reason}");
        for attempt in &mut status.attempts {
            attempt.started.0 = at(machine.called);
        }
    }
    for node in cluster.nodes.values_mut() {
        for condition in &mut node.conditions {
            condition.heartbeat = Some(at(question.now));
        }
    }
    (cluster, episodes)
}

/// What the policy's words come to: the repairs that start, and what holds each of the others.
fn answer(question: &Question) -> Vec<(String, Option<Gate>)> {
    let all = &question.machines;
    let now = question.now;
    let is_bad =
        |m: &Machine| m.repair.is_some() || m.fault.is_some_and(|(_, since)| now - since >= 30);
    let busy = |m: &Machine| matches!(m.repair, Some(Phase::Draining | Phase::Verifying));
    let mut waiting: Vec<usize> = (0..all.len())
        .filter(|&index| all[index].repair == Some(Phase::Waiting))
        .collect();
    waiting.sort_by_key(|&index| (all[index].fault.unwrap().1, index));
    let mut started: Vec<usize> = Vec::new();
    let mut answers = Vec::new();
    for index in waiting {
        let machine = &all[index];
        let (reason, since) = machine.fault.unwrap();
        let mut closed: Vec<Gate> = Vec::new();
        if !question.enforce {
            closed.push(Gate::Disabled);
        }
        if question.paused {
            closed.push(Gate::Paused);
        }
        if machine.excluded {
            closed.push(Gate::Excluded);
        }
        if is_correlated(question, index, reason) {
            closed.push(Gate::Correlated);
        }
        let group: Vec<_> = all.iter().filter(|m| m.group == machine.group).collect();
        let bad = group.iter().filter(|m| is_bad(m)).count();
        // As a fraction, in floating point with a margin that no such share comes near to.
        let share = bad as f64 / group.len() as f64 * 100.0 - f64::from(question.percentage);
        let over = if question.above {
            share > 1e-6
        } else {
            share > -1e-6
        };
        if bad > 1 && group.len() >= question.min_nodes as usize && over {
            closed.push(Gate::UnhealthyThreshold);
        }
        let zone: Vec<_> = all.iter().filter(|m| m.zone == machine.zone).collect();
        let bad = zone.iter().filter(|m| is_bad(m)).count();
        let share = bad as f64 / zone.len() as f64 * 100.0;
        if bad > 1 && zone.len() >= 3 && share > f64::from(question.zone_percentage) - 1e-6 {
            closed.push(Gate::ZoneShare);
        }
        if now < since + 1800 {
            closed.push(Gate::WaitTime);
        }
        let serves = |m: &Machine| m.ready && m.fault.is_none() && m.repair.is_none();
        let others_serve = group.iter().any(|m| serves(m));
        if !question.last_node_may_go && machine.ready && !others_serve {
            closed.push(Gate::LastNode);
        }
        let under_way = |m: &Machine| m.repair == Some(Phase::Draining);
        let called =
            |m: &Machine| m.repair == Some(Phase::Verifying) && m.called > now - question.budget.1;
        let coming = started
            .iter()
            .filter(|&&s| all[s].group == machine.group)
            .count();
        let used = group.iter().filter(|m| under_way(m) || called(m)).count() + coming;
        if used >= question.budget.0 as usize {
            closed.push(Gate::RepairBudget);
        }
        let taken = all.iter().filter(|m| busy(m)).count() + started.len();
        if taken >= question.parallel.min(question.most_in_all) as usize {
            closed.push(Gate::ParallelLimit);
        }
        if closed.is_empty() {
            started.push(index);
        }
        answers.push((format!("{}-repair", name(index)), closed.first().copied()));
    }
    answers.sort();
    answers
}

/// Whether it has a fault of many, and another one of those goes first.
fn is_correlated(question: &Question, index: usize, reason: usize) -> bool {
    let (min_nodes, percentage, window) = question.correlation;
    let all = &question.machines;
    let with_it: Vec<usize> = (0..all.len())
        .filter(|&other| all[other].fault.is_some_and(|(r, _)| r == reason))
        .collect();
    let since = |index: usize| all[index].fault.unwrap().1;
    let mut members: Vec<usize> = Vec::new();
    for &first in &with_it {
        let after = |&other: &usize| (0..=window).contains(&(since(other) - since(first)));
        let together: Vec<_> = with_it.iter().copied().filter(after).collect();
        let share = together.len() as f64 / all.len() as f64 * 100.0;
        if together.len() >= min_nodes as usize && share > f64::from(percentage) - 1e-6 {
            members.extend(together);
        }
    }
    if !members.contains(&index) {
        return false;
    }
    let furthest = |index: usize| match all[index].repair {
        Some(Phase::Verifying) => 0,
        Some(Phase::Draining) => 1,
        Some(Phase::Waiting) => 2,
        _ => 3,
    };
    let candidates = members.into_iter().filter(|&other| !all[other].excluded);
    let first = candidates.min_by_key(|&other| (furthest(other), since(other), other));
    first != Some(index)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2048))]

    #[test]
    fn what_starts_and_what_holds_is_what_the_policy_says(question in questions()) {
        let (cluster, episodes) = cluster_of(&question);
        let plan = decided(&cluster, &episodes, question.now);
        let mut found: Vec<_> = plan
            .steps
            .iter()
            .filter_map(|step| match step {
                Step::Record { repair, status } => {
                    let before = phase(&cluster.repairs[repair]);
                    let hold = status.hold.as_ref().map(|hold| hold.gate);
                    (before == Phase::Waiting).then(|| (repair.clone(), hold))
                }
                Step::Open(_) | Step::Act { .. } | Step::Forget { .. } | Step::Dismiss { .. } => None,
            })
            .collect();
        found.sort();
        prop_assert_eq!(found, answer(&question));
    }
}
