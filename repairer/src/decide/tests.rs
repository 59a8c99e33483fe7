//! What the decision does, case by case; the gates as one table; limits as properties; and whole
//! repairs in a simulated world.

use super::fixture::{self, GROUP, SICK_SINCE, at, episodes_since, sick_cluster};
use super::*;
use crate::api::repair::{AttemptResult, Gate};

mod gates;
mod karpenter;
mod limits;
mod model;
mod mutation;
mod oracle;
mod reboot;
mod scale;
mod world;

/// When the repair of `node-0` in [`sick_cluster`] is ripe.
const RIPE: i64 = SICK_SINCE + 1800;

fn plan(cluster: &Cluster, second: i64) -> Plan {
    // Its agents live: each confirms its word at every moment.
    let mut cluster = cluster.clone();
    for node in cluster.nodes.values_mut() {
        for condition in &mut node.conditions {
            condition.heartbeat = Some(at(second));
        }
    }
    decided(&cluster, &episodes_since(&cluster, SICK_SINCE), second)
}

fn decided(cluster: &Cluster, episodes: &Episodes, second: i64) -> Plan {
    decide(cluster, episodes, Retention::default(), at(second))
}

fn recorded(plan: &Plan) -> &NodeRepairStatus {
    match plan.steps.as_slice() {
        [Step::Record { status, .. }] => status,
        steps => panic!("expected one record: {steps:?}"),
    }
}

fn acted(plan: &Plan) -> &Act {
    match plan.steps.as_slice() {
        [Step::Act { act, .. }] => act,
        steps => panic!("expected one act: {steps:?}"),
    }
}

/// A cluster with a repair of `node-0` in `phase`.
fn in_phase(phase: Phase) -> Cluster {
    let mut cluster = sick_cluster();
    fixture::add_repair(&mut cluster, "node-0", phase, SICK_SINCE);
    cluster
}

fn repair(cluster: &mut Cluster) -> &mut NodeRepairStatus {
    cluster
        .repairs
        .get_mut("node-0-repair")
        .unwrap()
        .status
        .as_mut()
        .unwrap()
}

fn node(cluster: &mut Cluster) -> &mut NodeView {
    cluster.nodes.get_mut("node-0").unwrap()
}

fn instance(cluster: &mut Cluster) -> &mut crate::cluster::InstanceView {
    let id = node(cluster).instance().unwrap();
    cluster.instances.get_mut(id.as_str()).unwrap()
}

#[test]
fn a_healthy_cluster_needs_nothing() {
    let plan = plan(&fixture::cluster(5), RIPE);
    assert_eq!((plan.steps.len(), plan.wake_at), (0, None));
}

#[test]
fn a_young_episode_is_waited_for_exactly() {
    let plan = plan(&sick_cluster(), SICK_SINCE + 10);
    assert_eq!(
        (plan.steps.len(), plan.wake_at),
        (0, Some(at(SICK_SINCE + 30)))
    );
}

#[test]
fn an_episode_as_old_as_its_cordon_is_recorded() {
    let cluster = sick_cluster();
    let plan = plan(&cluster, SICK_SINCE + 30);
    let [Step::Open(repair)] = plan.steps.as_slice() else {
        panic!("{:?}", plan.steps)
    };
    assert_eq!(repair.spec.node_ref.uid, "uid-node-0");
    assert_eq!(repair.spec.provider_id, fixture::provider_id(0));
}

#[test]
fn the_same_episode_gets_the_same_name_from_every_process() {
    let cluster = sick_cluster();
    let (first, second) = (
        plan(&cluster, SICK_SINCE + 30),
        plan(&cluster, SICK_SINCE + 45),
    );
    assert_eq!(first.steps, second.steps);
}

#[test]
fn a_rule_that_does_nothing_opens_nothing() {
    let mut cluster = sick_cluster();
    cluster.policies[0].spec.rules[0].repair_actions = vec![RepairAction::NoAction];
    assert_eq!(plan(&cluster, RIPE).steps, []);
}

#[test]
fn a_node_is_cordoned_long_before_it_is_repaired() {
    let cluster = in_phase(Phase::Watching);
    let plan = plan(&cluster, SICK_SINCE + 30);
    assert_eq!(recorded(&plan).phase, Phase::Cordoning);
}

#[test]
fn a_node_that_is_not_ready_is_not_cordoned_before_its_repair() {
    let mut cluster = fixture::cluster(10);
    cluster.policies[0]
        .spec
        .rules
        .push(fixture::ready_rule(1800));
    fixture::set_condition(&mut cluster, "node-0", "Ready", "Unknown");
    fixture::add_repair(&mut cluster, "node-0", Phase::Watching, SICK_SINCE);
    repair(&mut cluster).reasons[0].condition = "Ready".to_owned();
    assert_eq!(recorded(&plan(&cluster, RIPE - 1)).phase, Phase::Watching);
    assert_eq!(recorded(&plan(&cluster, RIPE)).phase, Phase::Cordoning);
}

#[test]
fn the_cordon_is_done_after_it_was_stored_and_until_it_is_seen() {
    let mut cluster = in_phase(Phase::Cordoning);
    assert_eq!(*acted(&plan(&cluster, SICK_SINCE + 31)), Act::Cordon);
    fixture::cordon(node(&mut cluster));
    assert_eq!(
        recorded(&plan(&cluster, SICK_SINCE + 32)).phase,
        Phase::Waiting
    );
}

#[test]
fn a_cordon_that_was_there_before_us_is_remembered() {
    let mut cluster = in_phase(Phase::Watching);
    node(&mut cluster).unschedulable = true;
    assert!(recorded(&plan(&cluster, SICK_SINCE + 30)).found_cordoned);
}

#[test]
fn the_drain_starts_when_the_wait_is_over() {
    let cluster = in_phase(Phase::Waiting);
    let early = plan(&cluster, RIPE - 1);
    assert_eq!(recorded(&early).hold.as_ref().unwrap().gate, Gate::WaitTime);
    assert_eq!(early.wake_at, Some(at(RIPE)));
    assert_eq!(recorded(&plan(&cluster, RIPE)).phase, Phase::Draining);
}

#[test]
fn pods_that_have_to_leave_are_evicted() {
    let mut cluster = in_phase(Phase::Draining);
    cluster
        .pods
        .insert("node-0".to_owned(), vec![fixture::pod("web")]);
    assert_eq!(
        *acted(&plan(&cluster, RIPE)),
        Act::Evict(vec![fixture::pod("web")])
    );
}

#[test]
fn pods_that_were_not_listed_are_not_gone() {
    let cluster = in_phase(Phase::Draining);
    assert_eq!(plan(&cluster, RIPE).steps, []);
}

#[test]
fn an_empty_node_is_drained() {
    let mut cluster = in_phase(Phase::Draining);
    cluster.pods.insert("node-0".to_owned(), Vec::new());
    assert_eq!(recorded(&plan(&cluster, RIPE)).phase, Phase::Replacing);
}

#[test]
fn a_drain_past_its_timeout_is_held_and_goes_on_trying() {
    let mut cluster = in_phase(Phase::Draining);
    cluster
        .pods
        .insert("node-0".to_owned(), vec![fixture::pod("web")]);
    let late = RIPE + 15 * 60;
    let held = recorded(&plan(&cluster, late)).clone();
    assert_eq!(held.hold.as_ref().unwrap().gate, Gate::Drain);
    *repair(&mut cluster) = held;
    assert!(matches!(acted(&plan(&cluster, late + 1)), Act::Evict(_)));
}

#[test]
fn local_data_holds_the_drain() {
    let mut cluster = in_phase(Phase::Draining);
    let pod = PodView {
        local_volume: true,
        ..fixture::pod("db")
    };
    cluster.pods.insert("node-0".to_owned(), vec![pod]);
    let hold = recorded(&plan(&cluster, RIPE)).hold.clone().unwrap();
    assert_eq!(hold.gate, Gate::Drain);
    assert!(hold.message.contains("default/db"), "{}", hold.message);
}

#[test]
fn a_drained_node_is_replaced_with_a_clearance_for_its_instance() {
    let mut cluster = in_phase(Phase::Replacing);
    cluster.pods.insert("node-0".to_owned(), Vec::new());
    let plan = plan(&cluster, RIPE);
    let Act::Replace(clearance) = acted(&plan) else {
        panic!("{:?}", plan.steps)
    };
    assert_eq!(
        (clearance.instance().as_str(), clearance.group()),
        ("i-00000000000000000", GROUP)
    );
}

#[test]
fn a_pod_that_came_after_the_drain_is_drained_too() {
    let mut cluster = in_phase(Phase::Replacing);
    cluster
        .pods
        .insert("node-0".to_owned(), vec![fixture::pod("late")]);
    assert_eq!(recorded(&plan(&cluster, RIPE)).phase, Phase::Draining);
}

#[test]
fn an_attempt_whose_end_is_unknown_is_settled_by_looking() {
    let mut cluster = in_phase(Phase::Replacing);
    cluster.pods.insert("node-0".to_owned(), Vec::new());
    let clearance = clearance(
        &cluster,
        &episodes_since(&cluster, SICK_SINCE),
        "node-0-repair",
        at(RIPE),
    )
    .unwrap();
    repair(&mut cluster).begin_attempt(&clearance, at(RIPE));

    assert_eq!(
        plan(&cluster, RIPE + 19).steps,
        [],
        "not repeated, not given up"
    );
    let status = plan(&cluster, RIPE + 20);
    assert_eq!(
        recorded(&status).attempts[0].result,
        Some(AttemptResult::NotApplied)
    );

    instance(&mut cluster).lifecycle = Some("Terminating:Wait".to_owned());
    let status = plan(&cluster, RIPE + 5);
    assert_eq!(
        recorded(&status).attempts[0].result,
        Some(AttemptResult::Accepted)
    );
    assert_eq!(recorded(&status).phase, Phase::Verifying);

    let id = node(&mut cluster).instance().unwrap();
    cluster.instances.remove(id.as_str());
    assert_eq!(
        plan(&cluster, RIPE + 60).steps,
        [],
        "AWS says nothing: nothing is known"
    );
}

#[test]
fn three_refusals_are_enough() {
    let mut cluster = in_phase(Phase::Replacing);
    cluster.pods.insert("node-0".to_owned(), Vec::new());
    let episodes = episodes_since(&cluster, SICK_SINCE);
    for attempt in 0..3 {
        let now = at(RIPE + 40 * attempt);
        let clearance = clearance(&cluster, &episodes, "node-0-repair", now).unwrap();
        repair(&mut cluster).begin_attempt(&clearance, now);
        let denied = Some("AccessDenied: no".to_owned());
        repair(&mut cluster).end_attempt(AttemptResult::Refused, None, denied, now);
    }
    let status = recorded(&plan(&cluster, RIPE + 200)).clone();
    assert_eq!(status.outcome, Some(Outcome::Failed));
    assert!(
        status
            .timeline
            .last()
            .unwrap()
            .event
            .contains("AccessDenied"),
        "{:?}",
        status.timeline
    );
}

/// `node-0` is terminated; `node-new` of the group is Ready.
fn replaced() -> Cluster {
    let mut cluster = in_phase(Phase::Verifying);
    instance(&mut cluster).state = crate::cluster::InstanceState::Gone;
    cluster.nodes.remove("node-0");
    let new = NodeView {
        created: at(RIPE + 60),
        ..fixture::node("node-new", 99)
    };
    cluster
        .instances
        .insert(new.instance().unwrap().to_string(), fixture::in_service());
    cluster.nodes.insert("node-new".to_owned(), new);
    cluster
}

#[test]
fn a_replacement_is_verified_by_its_soak() {
    let mut cluster = replaced();
    let status = recorded(&plan(&cluster, RIPE + 100)).clone();
    assert_eq!(status.replacement.as_ref().unwrap().node_name, "node-new");
    *repair(&mut cluster) = status;
    let waiting = plan(&cluster, RIPE + 101);
    assert_eq!(waiting.steps, []);
    assert_eq!(
        recorded(&plan(&cluster, RIPE + 400)).outcome,
        Some(Outcome::Succeeded)
    );
}

#[test]
fn a_node_of_before_the_call_is_no_replacement() {
    let mut cluster = replaced();
    cluster.nodes.get_mut("node-new").unwrap().created = at(RIPE - 1);
    assert_eq!(plan(&cluster, RIPE + 100).steps, []);
}

#[test]
fn one_replacement_serves_one_repair() {
    let mut cluster = replaced();
    let other = fixture::add_repair(&mut cluster, "node-1", Phase::Verifying, SICK_SINCE);
    let claim = crate::api::repair::Replacement {
        node_name: "node-new".to_owned(),
        node_uid: "uid-node-new".to_owned(),
        instance_id: "i-00000000000000063".to_owned(),
        since: k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime(at(RIPE + 70)),
    };
    cluster
        .repairs
        .get_mut(&other)
        .unwrap()
        .status
        .as_mut()
        .unwrap()
        .replacement = Some(claim);
    let plan = plan(&cluster, RIPE + 100);
    let ours = plan
        .steps
        .iter()
        .find(|s| matches!(s, Step::Record { repair, .. } if repair == "node-0-repair"));
    assert!(ours.is_none(), "{ours:?}");
}

#[test]
fn no_replacement_in_time_is_a_failure() {
    let mut cluster = replaced();
    cluster.nodes.remove("node-new");
    assert_eq!(
        recorded(&plan(&cluster, RIPE + 1200)).outcome,
        Some(Outcome::Failed)
    );
}

#[test]
fn a_recovered_node_is_given_back() {
    for phase in [
        Phase::Cordoning,
        Phase::Waiting,
        Phase::Draining,
        Phase::Replacing,
    ] {
        let mut cluster = in_phase(phase);
        fixture::set_condition(&mut cluster, "node-0", "StorageReady", "True");
        cluster.pods.insert("node-0".to_owned(), Vec::new());
        let mut episodes = episodes_since(&cluster, RIPE);
        episodes.observe(&cluster, at(RIPE + 300));
        let plan = decided(&cluster, &episodes, RIPE + 300);
        assert_eq!(recorded(&plan).phase, Phase::Uncordoning, "{phase:?}");
    }
}

#[test]
fn the_end_of_a_recovery_is_waited_for_exactly() {
    let mut cluster = in_phase(Phase::Waiting);
    fixture::set_condition(&mut cluster, "node-0", "StorageReady", "True");
    let episodes = episodes_since(&cluster, RIPE);
    assert_eq!(
        decided(&cluster, &episodes, RIPE + 1).wake_at,
        Some(at(RIPE + 300))
    );
}

#[test]
fn only_our_taint_is_undone() {
    let mut cluster = in_phase(Phase::Uncordoning);
    assert_eq!(*acted(&plan(&cluster, RIPE)), Act::Uncordon);
    node(&mut cluster).taints.clear();
    assert_eq!(
        recorded(&plan(&cluster, RIPE)).outcome,
        Some(Outcome::Recovered)
    );
}

#[test]
fn a_person_who_uncordons_a_node_has_it_back() {
    for phase in [Phase::Waiting, Phase::Draining, Phase::Replacing] {
        let mut cluster = in_phase(phase);
        node(&mut cluster).unschedulable = false;
        let theirs = recorded(&plan(&cluster, RIPE)).clone();
        assert_eq!(theirs.phase, Phase::Uncordoning, "{phase:?}");
        *repair(&mut cluster) = theirs;
        assert_eq!(*acted(&plan(&cluster, RIPE)), Act::Uncordon, "our taint");
        node(&mut cluster).taints.clear();
        let cancelled = recorded(&plan(&cluster, RIPE)).clone();
        assert_eq!(cancelled.outcome, Some(Outcome::Cancelled), "{phase:?}");
        *repair(&mut cluster) = cancelled;
        assert_eq!(plan(&cluster, RIPE + 600).steps, [], "not begun again");
    }
}

#[test]
fn a_node_that_went_away_by_itself_cancels_its_repair() {
    for phase in [
        Phase::Watching,
        Phase::Cordoning,
        Phase::Waiting,
        Phase::Draining,
        Phase::Replacing,
    ] {
        let mut cluster = in_phase(phase);
        cluster.nodes.remove("node-0");
        assert_eq!(
            recorded(&plan(&cluster, RIPE)).outcome,
            Some(Outcome::Cancelled),
            "{phase:?}"
        );
    }
}

#[test]
fn a_new_node_with_the_old_name_is_not_the_node_of_the_repair() {
    let mut cluster = in_phase(Phase::Draining);
    node(&mut cluster).uid = "uid-of-another".to_owned();
    fixture::uncordon(node(&mut cluster));
    cluster
        .pods
        .insert("node-0".to_owned(), vec![fixture::pod("web")]);
    let plan = decided(&cluster, &Episodes::default(), RIPE);
    assert_eq!(recorded(&plan).outcome, Some(Outcome::Cancelled));
}

#[test]
fn a_repair_without_a_status_is_begun_and_nothing_more() {
    let mut cluster = in_phase(Phase::Draining);
    cluster.repairs.get_mut("node-0-repair").unwrap().status = None;
    assert_eq!(recorded(&plan(&cluster, RIPE)).phase, Phase::Cordoning);
}

#[test]
fn the_policy_says_how_many_nodes_it_has_and_how_they_are() {
    let cluster = in_phase(Phase::Waiting);
    let status = plan(&cluster, RIPE).policies["workers"].clone();
    assert_eq!(
        (
            status.nodes,
            status.unhealthy,
            status.in_repair,
            status.observed_generation
        ),
        (10, 1, 1, 1)
    );
}
