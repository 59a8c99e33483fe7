//! Every gate, closed alone, at every stage: what is held and what is said.

use std::fmt::Write as _;

use super::super::gate::{GATES, Held};
use super::*;
use crate::api::policy::{LastNode, Mode, RepairAction};
use crate::cluster::Asked;
use crate::drain;

/// A repair of `node-0` for which all gates are open but this one, and when.
fn closed(gate: Gate) -> (Cluster, i64) {
    let mut cluster = in_phase(Phase::Waiting);
    let mut now = RIPE;
    match gate {
        Gate::Unreadable => cluster
            .unreadable
            .push("NodeRepair x cannot be read: missing field".to_owned()),
        Gate::PolicyConflict => cluster.policies.push(fixture::policy("another")),
        Gate::Disabled => cluster.policies[0].spec.mode = Mode::Disabled,
        Gate::Paused => cluster.policies[0].spec.paused = true,
        Gate::Excluded => {
            node(&mut cluster)
                .labels
                .insert("nodemend.dev/exclude".to_owned(), "true".to_owned());
        }
        Gate::ControlPlane => {
            node(&mut cluster).labels.insert(
                "node-role.kubernetes.io/control-plane".to_owned(),
                String::new(),
            );
        }
        Gate::NotOurs => node(&mut cluster).provider_id = "gce://project/zone/name".to_owned(),
        Gate::SignalStale => {
            for condition in &mut node(&mut cluster).conditions {
                condition.heartbeat = Some(at(RIPE - 400));
            }
        }
        Gate::Partition => {
            for name in ["node-1", "node-2", "node-3", "node-4"] {
                fixture::set_condition(&mut cluster, name, "Ready", "Unknown");
            }
        }
        Gate::UnhealthyThreshold => fixture::make_sick(&mut cluster, "node-1"),
        Gate::WaitTime => now = RIPE - 1,
        Gate::OtherRepairer => {
            let mark = "Karpenter removes it (karpenter.sh/disrupted)";
            node(&mut cluster).others.push(mark.to_owned());
        }
        Gate::Unsupported => {
            cluster.policies[0].spec.rules[0].repair_actions = vec![RepairAction::Reboot];
            node(&mut cluster).boot_id.clear();
        }
        Gate::Denied => {
            let other = fixture::add_repair(&mut cluster, "node-1", Phase::Finished, SICK_SINCE);
            let status = cluster.repairs.get_mut(&other).unwrap().status.as_mut();
            let time = k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime(at(RIPE));
            status.unwrap().hold = Some(Hold {
                gate: Gate::Denied,
                since: time.clone(),
                message: "the repairer may not evict pods".to_owned(),
                told: Some(time),
                values: BTreeMap::new(),
                opens: String::new(),
                behind: Vec::new(),
            });
        }
        Gate::SignalLatched => {
            let storage = node(&mut cluster).conditions.last_mut().unwrap();
            storage.writer = Some("eks-node-monitoring-agent".to_owned());
            storage.transition = Some(at(RIPE - 7200));
        }
        Gate::Correlated => {
            // Of other groups and zones, so that only their reason is too much.
            for (index, name) in ["node-1", "node-2"].iter().enumerate() {
                fixture::make_sick(&mut cluster, name);
                let other = cluster.nodes.get_mut(*name).unwrap();
                let zone = format!("us-west-2{}", ["b", "c"][index]);
                let key = "topology.kubernetes.io/zone".to_owned();
                other.labels.insert(key, zone);
                let id = other.instance().unwrap();
                let group = Some(format!("other-asg-{index}"));
                cluster.instances.get_mut(id.as_str()).unwrap().group = group;
            }
            // It is further than the subject.
            fixture::add_repair(&mut cluster, "node-1", Phase::Waiting, SICK_SINCE);
            cluster.repairs.get_mut("node-0-repair").unwrap().status = Some(NodeRepairStatus {
                phase: Phase::Cordoning,
                ..repair(&mut cluster).clone()
            });
            group_of_repair(&mut cluster, "node-1-repair", "other-asg-0");
        }
        Gate::ZonalShift => {
            let zones = ["usw2-az1".to_owned()].into();
            cluster.shifted = Asked::Yes(Ok(zones));
        }
        Gate::ZoneShare => {
            // Five of nine nodes of the zone, each of another group, each with another reason.
            for index in 1..5 {
                let name = format!("node-{index}");
                fixture::make_sick(&mut cluster, &name);
                let sick = cluster.nodes.get_mut(&name).unwrap();
                sick.conditions.last_mut().unwrap().reason = format!("Reason{index}");
                let id = sick.instance().unwrap();
                let group = Some(format!("other-asg-{index}"));
                cluster.instances.get_mut(id.as_str()).unwrap().group = group;
            }
            cluster.nodes.remove("node-9");
        }
        Gate::OutsideWindow => {
            // 22:13:20 and half an hour.
            let window = serde_json::json!({"schedule": "0 2 * * *", "duration": "1h"});
            let window = serde_json::from_value(window).unwrap();
            cluster.policies[0].spec.maintenance_windows.push(window);
        }
        Gate::AttemptsSpent => {
            cluster.policies[0].spec.attempts.count = 1;
            let before = fixture::add_repair(&mut cluster, "node-1", Phase::Verifying, 0);
            let before = cluster.repairs.get_mut(&before).unwrap();
            before.spec.node_ref.uid = "uid-of-old".to_owned();
            let status = before.status.as_mut().unwrap();
            status.phase = Phase::Finished;
            status.outcome = Some(Outcome::Succeeded);
            status.attempts[0].started.0 = at(SICK_SINCE - 3600);
            status.replacement = Some(crate::api::repair::Replacement {
                node_name: "node-0".to_owned(),
                node_uid: "uid-node-0".to_owned(),
                instance_id: "i-00000000000000000".to_owned(),
                since: k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime(at(0)),
            });
            fixture::uncordon(cluster.nodes.get_mut("node-1").unwrap());
        }
        Gate::Capacity => {
            let launches = crate::cluster::Launches {
                suspended: vec!["Launch".to_owned()],
                ..Default::default()
            };
            cluster.launches = Asked::Yes([(GROUP.to_owned(), launches)].into());
        }
        Gate::RepairBudget => {
            cluster.policies[0].spec.repair_budget.count = 1;
            let before = fixture::add_repair(&mut cluster, "node-1", Phase::Verifying, 0);
            let before = cluster.repairs.get_mut(&before).unwrap();
            before.spec.node_ref.uid = "uid-of-old".to_owned();
            let status = before.status.as_mut().unwrap();
            status.phase = Phase::Finished;
            status.outcome = Some(Outcome::Succeeded);
            status.attempts[0].started.0 = at(RIPE - 600);
            fixture::uncordon(cluster.nodes.get_mut("node-1").unwrap());
        }
        Gate::Shadow => cluster.policies[0].spec.mode = Mode::Shadow,
        Gate::LastNode => {
            cluster.policies[0].spec.last_node = LastNode::Hold;
            for other in cluster
                .nodes
                .values_mut()
                .filter(|node| node.name != "node-0")
            {
                other.unschedulable = true;
            }
        }
        Gate::ParallelLimit => {
            // Of another group, so that this one has only one unhealthy node.
            let other = fixture::add_repair(&mut cluster, "node-1", Phase::Draining, SICK_SINCE);
            let id = cluster.nodes["node-1"].instance().unwrap();
            cluster.instances.get_mut(id.as_str()).unwrap().group = Some("other-asg".to_owned());
            group_of_repair(&mut cluster, &other, "other-asg");
        }
        // Asked by the drain itself, not before it.
        Gate::Drain | Gate::Preserve => {}
    }
    (cluster, now)
}

fn group_of_repair(cluster: &mut Cluster, repair: &str, group: &str) {
    let repair = cluster.repairs.get_mut(repair).unwrap();
    repair.status.as_mut().unwrap().group = Some(group.to_owned());
}

fn ask(cluster: &Cluster, stage: Stage, second: i64) -> Result<(), Held> {
    let episodes = episodes_since(cluster, SICK_SINCE);
    let assigned = Assigned::of(cluster);
    let mut planner = Planner::new(cluster, &assigned, &episodes, at(second));
    planner.gates(stage, &subject(cluster, &episodes))
}

fn subject<'a>(cluster: &'a Cluster, episodes: &'a Episodes) -> Subject<'a> {
    let node = &cluster.nodes["node-0"];
    Subject {
        node,
        name: "node-0-repair",
        repair: cluster.repairs.get("node-0-repair"),
        episodes: episodes.of(&node.uid),
    }
}

#[test]
fn every_gate_at_every_stage() {
    let mut table = String::new();
    for gate in GATES {
        let (cluster, now) = closed(gate);
        let answers = [Stage::Cordon, Stage::Start, Stage::Continue, Stage::Destroy].map(|stage| {
            let held = ask(&cluster, stage, now).err();
            let word = match &held {
                None => "open".to_owned(),
                Some(held) if held.behind.is_empty() => format!("{:?}", held.gate),
                Some(held) => format!("{:?}+{:?}", held.gate, held.behind),
            };
            (word, held)
        });
        let [(cordon, _), (start, held), (go_on, _), (destroy, _)] = answers;
        let message = held.map(|held| held.message).unwrap_or_default();
        writeln!(
            table,
            "{:<19} cordon: {cordon:<19} start: {start:<19} continue: {go_on:<19} destroy: {destroy:<19} {message}",
            format!("{gate:?}")
        )
        .unwrap();
    }
    insta::assert_snapshot!(table);
}

/// Who is to do something, or what it waits for: a hold that says neither is a dead end.
#[test]
fn every_hold_says_who_can_do_what() {
    let says = |gate: Gate, opens: &str| {
        let known = opens.contains("a person ")
            || opens.contains("by itself")
            || opens.starts_with("nothing: ");
        assert!(known, "{gate:?} does not say how it opens: {opens:?}");
    };
    for gate in GATES {
        let (cluster, now) = closed(gate);
        let held = ask(&cluster, Stage::Start, now).unwrap_err();
        assert_eq!(held.gate, gate);
        says(gate, &held.opens);
        let way_out = "overrideGates: [";
        assert_eq!(held.opens.contains(way_out), gate.overridable(), "{gate:?}");
    }
    // Those that the drain asks itself.
    let mut scene = drained(vec![fixture::pod("web")]);
    scene.policies[0].spec.drain.timeout = crate::api::duration::Wait::seconds(1);
    says(Gate::Drain, &hold_of(&scene, RIPE + 60, Gate::Drain));
    let local = PodView {
        local_volume: true,
        ..fixture::pod("db")
    };
    says(
        Gate::Drain,
        &hold_of(&drained(vec![local]), RIPE, Gate::Drain),
    );
    let mut scene = drained(vec![fixture::pod("web")]);
    let answer = drain::Answer::Forbidden("pods/eviction is forbidden".to_owned());
    scene.tries.note("uid-web", answer, at(RIPE - 60));
    says(Gate::Denied, &hold_of(&scene, RIPE, Gate::Denied));
    let mut scene = in_phase(Phase::Replacing);
    scene.pods.insert("node-0".to_owned(), Vec::new());
    let drained = at(RIPE - 60);
    repair(&mut scene).set_condition("Drained", true, "Drained", "", drained);
    let label = ("nodemend.dev/preserve".to_owned(), "true".to_owned());
    node(&mut scene).labels.extend([label]);
    says(Gate::Preserve, &hold_of(&scene, RIPE, Gate::Preserve));
}

/// In its drain, with these pods left.
fn drained(pods: Vec<PodView>) -> Cluster {
    let mut cluster = in_phase(Phase::Draining);
    cluster.pods.insert("node-0".to_owned(), pods);
    cluster
}

/// How the hold of the next step says that it opens.
fn hold_of(cluster: &Cluster, second: i64, gate: Gate) -> String {
    let episodes = episodes_since(cluster, SICK_SINCE);
    let plan = decided(cluster, &episodes, second);
    let hold = plan.steps.into_iter().find_map(|step| match step {
        Step::Record { status, .. } => status.hold,
        _ => None,
    });
    let hold = hold.unwrap_or_else(|| panic!("nothing is held by {gate:?}"));
    assert_eq!(hold.gate, gate, "{}", hold.message);
    hold.opens
}

#[test]
fn without_a_closed_gate_all_stages_are_open() {
    let cluster = in_phase(Phase::Waiting);
    for stage in [Stage::Cordon, Stage::Start, Stage::Continue, Stage::Destroy] {
        assert_eq!(ask(&cluster, stage, RIPE), Ok(()));
    }
}

#[test]
fn the_first_closed_gate_is_told_with_those_behind_it() {
    let mut cluster = in_phase(Phase::Waiting);
    cluster.policies[0].spec.mode = Mode::Disabled;
    cluster.policies[0].spec.paused = true;
    fixture::make_sick(&mut cluster, "node-1");
    let held = ask(&cluster, Stage::Start, RIPE - 1).unwrap_err();
    assert_eq!(held.gate, Gate::Disabled);
    assert_eq!(
        held.behind,
        [Gate::Paused, Gate::UnhealthyThreshold, Gate::WaitTime]
    );
}

#[test]
fn the_threshold_counts_exactly() {
    let unhealthy = |sick: usize, nodes: usize, threshold: serde_json::Value| {
        let mut cluster = fixture::cluster(nodes);
        cluster.policies[0].spec.unhealthy_threshold = serde_json::from_value(threshold).unwrap();
        for index in 0..sick {
            fixture::make_sick(&mut cluster, &format!("node-{index}"));
        }
        matches!(ask(&cluster, Stage::Cordon, RIPE), Err(held) if held.gate == Gate::UnhealthyThreshold)
    };
    let at_least = || serde_json::json!({});
    let above = || serde_json::json!({"comparison": "Above"});
    assert!(unhealthy(2, 10, at_least()), "20 % is at least 20 %");
    assert!(!unhealthy(2, 10, above()), "20 % is not above 20 %");
    assert!(!unhealthy(2, 11, at_least()), "18.2 %");
    assert!(unhealthy(3, 14, above()), "21.4 %");
    assert!(!unhealthy(1, 5, at_least()), "one alone never trips it");
    assert!(!unhealthy(2, 4, at_least()), "too small a group");
    assert!(unhealthy(2, 10, serde_json::json!({"count": 2})));
    assert!(!unhealthy(2, 10, serde_json::json!({"count": 3})));
    assert!(!unhealthy(
        2,
        10,
        serde_json::json!({"count": 2, "comparison": "Above"})
    ));
}

#[test]
fn nodes_that_join_and_nodes_that_others_delete_are_in_no_count() {
    let mut cluster = fixture::cluster(11);
    fixture::make_sick(&mut cluster, "node-0");
    fixture::make_sick(&mut cluster, "node-1");
    let held = |cluster: &Cluster| {
        ask(cluster, Stage::Cordon, RIPE).is_err_and(|h| h.gate == Gate::UnhealthyThreshold)
    };
    assert!(!held(&cluster), "2 of 11");
    let deleted = cluster.nodes.get_mut("node-10").unwrap();
    deleted.deleting = true;
    assert!(
        held(&cluster),
        "2 of 10: the one that is being deleted is out of the denominator"
    );
    let joining = cluster.nodes.get_mut("node-10").unwrap();
    joining.deleting = false;
    joining.created = at(RIPE - 60);
    fixture::set_condition(&mut cluster, "node-10", "Ready", "False");
    assert!(
        held(&cluster),
        "2 of 10: so is the one that is still joining"
    );
}

#[test]
fn a_repair_whose_node_is_gone_still_counts() {
    let mut cluster = in_phase(Phase::Waiting);
    fixture::add_repair(&mut cluster, "node-9", Phase::Verifying, SICK_SINCE);
    cluster.nodes.remove("node-9");
    let held = ask(&cluster, Stage::Cordon, RIPE).unwrap_err();
    assert_eq!(held.gate, Gate::UnhealthyThreshold);
    assert!(
        held.message.starts_with("2 of 10 nodes"),
        "{}",
        held.message
    );
}

#[test]
fn a_node_that_somebody_is_deleting_is_left_to_them() {
    let mut cluster = in_phase(Phase::Replacing);
    node(&mut cluster).deleting = true;
    let held = ask(&cluster, Stage::Destroy, RIPE).unwrap_err();
    assert_eq!(held.gate, Gate::NotOurs);
}

#[test]
fn a_word_from_the_future_is_no_word() {
    let mut cluster = in_phase(Phase::Waiting);
    for condition in &mut node(&mut cluster).conditions {
        condition.heartbeat = Some(at(RIPE + 3600));
    }
    let held = ask(&cluster, Stage::Start, RIPE).unwrap_err();
    assert_eq!(held.gate, Gate::SignalStale);
}

#[test]
fn the_last_node_may_go_when_it_does_not_serve() {
    let (mut cluster, now) = closed(Gate::LastNode);
    fixture::set_condition(&mut cluster, "node-0", "Ready", "False");
    assert_eq!(ask(&cluster, Stage::Start, now), Ok(()));
}

#[test]
fn an_instance_of_another_id_than_the_repair_began_with_is_never_cleared() {
    let mut cluster = in_phase(Phase::Replacing);
    node(&mut cluster).provider_id = fixture::provider_id(1);
    let held = clearance(
        &cluster,
        &episodes_since(&cluster, SICK_SINCE),
        "node-0-repair",
        at(RIPE),
    )
    .unwrap_err();
    assert_eq!(held.gate, Gate::NotOurs);
}

#[test]
fn a_node_with_pods_that_have_to_leave_is_never_cleared() {
    let mut cluster = in_phase(Phase::Replacing);
    let ask = |cluster: &Cluster| {
        let episodes = episodes_since(cluster, SICK_SINCE);
        clearance(cluster, &episodes, "node-0-repair", at(RIPE)).map_err(|held| held.gate)
    };
    assert_eq!(ask(&cluster), Err(Gate::Drain), "its pods are not known");
    let pods = vec![fixture::pod("late")];
    cluster.pods.insert("node-0".to_owned(), pods);
    assert_eq!(ask(&cluster), Err(Gate::Drain));
    cluster.pods.insert("node-0".to_owned(), Vec::new());
    assert!(ask(&cluster).is_ok());
}

#[test]
fn an_instance_that_is_not_in_service_is_not_destroyed() {
    for lifecycle in [
        None,
        Some("Standby"),
        Some("Pending:Wait"),
        Some("Terminating:Wait"),
    ] {
        let mut cluster = in_phase(Phase::Replacing);
        instance(&mut cluster).lifecycle = lifecycle.map(str::to_owned);
        let held = clearance(
            &cluster,
            &episodes_since(&cluster, SICK_SINCE),
            "node-0-repair",
            at(RIPE),
        )
        .unwrap_err();
        assert_eq!(held.gate, Gate::Capacity, "{lifecycle:?}");
    }
}

#[test]
fn an_instance_that_is_another_groups_now_is_not_touched() {
    let mut cluster = in_phase(Phase::Replacing);
    cluster.pods.insert("node-0".to_owned(), Vec::new());
    let started = cluster.repairs.values_mut().next().unwrap();
    let snapshot = crate::api::repair::PolicySnapshot::of(&cluster.policies[0]);
    started.status.as_mut().unwrap().policy = Some(snapshot);
    let ask = |cluster: &Cluster| {
        let episodes = episodes_since(cluster, SICK_SINCE);
        clearance(cluster, &episodes, "node-0-repair", at(RIPE)).map_err(|held| held.gate)
    };
    assert!(ask(&cluster).is_ok());
    instance(&mut cluster).group = Some("another".to_owned());
    assert_eq!(ask(&cluster), Err(Gate::NotOurs));
}

#[test]
fn an_instance_that_two_nodes_claim_is_nobodys() {
    let (mut cluster, now) = (in_phase(Phase::Waiting), RIPE);
    assert_eq!(ask(&cluster, Stage::Start, now), Ok(()));
    let other = cluster.nodes.get_mut("node-1").unwrap();
    other.provider_id = fixture::provider_id(0);
    let held = ask(&cluster, Stage::Start, now).unwrap_err();
    assert_eq!(held.gate, Gate::NotOurs);
    assert!(held.message.contains("node-1"), "{}", held.message);
}

#[test]
fn what_is_denied_for_one_instance_is_not_tried_for_the_next_of_its_group() {
    use crate::api::repair::{Attempt, AttemptResult};
    let mut cluster = in_phase(Phase::Waiting);
    let before = fixture::add_repair(&mut cluster, "node-1", Phase::Verifying, 0);
    fixture::uncordon(cluster.nodes.get_mut("node-1").unwrap());
    let status = cluster
        .repairs
        .get_mut(&before)
        .unwrap()
        .status
        .as_mut()
        .unwrap();
    (status.phase, status.outcome) = (Phase::Finished, Some(Outcome::Failed));
    status.attempts = vec![Attempt {
        action: RepairAction::Replace,
        boot_id: None,
        started: k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime(at(RIPE - 60)),
        result: Some(AttemptResult::Denied),
        request_id: None,
        message: Some("AccessDenied: no".to_owned()),
    }];
    for stage in [Stage::Cordon, Stage::Start] {
        let held = ask(&cluster, stage, RIPE).unwrap_err();
        assert_eq!(
            (held.gate, held.values["causes"].as_str()),
            (Gate::Capacity, "Denied")
        );
    }
    let denied = |held: Held| held.values.get("causes").cloned();
    let later = ask(&cluster, Stage::Start, RIPE + 3600).map_err(denied);
    assert_ne!(
        later,
        Err(Some("Denied".to_owned())),
        "it is tried again after an hour"
    );
}

#[test]
fn a_node_group_that_eks_repairs_is_left_to_it() {
    let mut cluster = in_phase(Phase::Waiting);
    let node_group = crate::cluster::NodeGroup {
        name: "blue".to_owned(),
        status: "ACTIVE".to_owned(),
        repairs_itself: true,
        ..Default::default()
    };
    let launches = crate::cluster::Launches {
        node_group: Some(node_group),
        ..Default::default()
    };
    cluster.launches = Asked::Yes([(GROUP.to_owned(), launches)].into());
    let held = ask(&cluster, Stage::Start, RIPE).unwrap_err();
    assert_eq!(held.gate, Gate::OtherRepairer);
    assert!(
        held.opens.contains("enabled=false on blue"),
        "{}",
        held.opens
    );
}

#[test]
fn a_zone_is_known_by_its_label_or_by_its_instance() {
    let mut cluster = in_phase(Phase::Waiting);
    cluster.policies[0].spec.zonal_shift = ZonalShift::PauseZone;
    cluster.shifted = Asked::Yes(Ok(["usw2-az1".to_owned()].into()));
    let closed = |cluster: &Cluster| ask(cluster, Stage::Start, RIPE).map_err(|held| held.gate);
    assert_eq!(
        closed(&cluster),
        Err(Gate::ZonalShift),
        "it is in no zone that is known"
    );
    instance(&mut cluster).facts.zone_id = Some("usw2-az2".to_owned());
    assert_eq!(closed(&cluster), Ok(()));
    let label = ("topology.k8s.aws/zone-id".to_owned(), "usw2-az1".to_owned());
    node(&mut cluster).labels.extend([label]);
    assert_eq!(closed(&cluster), Err(Gate::ZonalShift));
}

#[test]
fn a_recovering_node_is_neither_drained_nor_destroyed() {
    let mut cluster = in_phase(Phase::Waiting);
    let mut episodes = episodes_since(&cluster, SICK_SINCE);
    fixture::set_condition(&mut cluster, "node-0", "StorageReady", "True");
    episodes.observe(&cluster, at(RIPE));
    let assigned = Assigned::of(&cluster);
    let mut planner = Planner::new(&cluster, &assigned, &episodes, at(RIPE));
    for stage in [Stage::Start, Stage::Continue, Stage::Destroy] {
        let subject = subject(&cluster, &episodes);
        let held = planner.gates(stage, &subject).unwrap_err();
        assert_eq!(held.gate, Gate::WaitTime);
        assert!(
            held.message.contains("healthy again since"),
            "{}",
            held.message
        );
    }
}
