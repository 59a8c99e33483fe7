//! A reboot: proven by another boot, never repeated, followed by what the rule says next.

use super::*;
use crate::api::repair::{Attempt, NodeRepairStatus};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

/// The rule of `sick_cluster` reboots first.
fn rebooting(phase: Phase) -> Cluster {
    let mut cluster = in_phase(phase);
    let ladder = vec![RepairAction::Reboot, RepairAction::Replace];
    cluster.policies[0].spec.rules[0].repair_actions = ladder;
    cluster.pods.insert("node-0".to_owned(), Vec::new());
    let status = repair(&mut cluster);
    status.action = Some(RepairAction::Reboot);
    status.next_action = Some(RepairAction::Replace);
    cluster
}

fn attempt(result: Option<AttemptResult>) -> Attempt {
    Attempt {
        action: RepairAction::Reboot,
        started: MicroTime(at(RIPE)),
        boot_id: Some("boot-1".to_owned()),
        result,
        request_id: None,
        message: None,
    }
}

/// The call was made at `RIPE`.
fn called(phase: Phase, result: Option<AttemptResult>) -> Cluster {
    let mut cluster = rebooting(phase);
    repair(&mut cluster).attempts.push(attempt(result));
    cluster
}

fn status_at(cluster: &Cluster, second: i64) -> NodeRepairStatus {
    recorded(&plan(cluster, second)).clone()
}

#[test]
fn the_drain_of_a_reboot_ends_in_a_reboot() {
    let cluster = rebooting(Phase::Draining);
    assert_eq!(status_at(&cluster, RIPE).phase, Phase::Rebooting);
    let cluster = rebooting(Phase::Rebooting);
    let planned = plan(&cluster, RIPE);
    let Act::Reboot(clearance) = acted(&planned) else {
        panic!("{:?}", planned.steps)
    };
    assert_eq!(clearance.boot_id(), Some("boot-1"));
}

#[test]
fn what_the_rule_says_next_is_kept_from_the_start() {
    let mut cluster = rebooting(Phase::Waiting);
    repair(&mut cluster).next_action = None;
    let status = status_at(&cluster, RIPE);
    assert_eq!(status.action, Some(RepairAction::Reboot));
    assert_eq!(status.next_action, Some(RepairAction::Replace));
}

#[test]
fn a_lost_answer_is_waited_out_and_not_called_again() {
    let mut cluster = called(Phase::Rebooting, None);
    assert_eq!(plan(&cluster, RIPE + 599).steps, []);
    let late = status_at(&cluster, RIPE + 600);
    assert_eq!(late.attempts[0].result, Some(AttemptResult::NotApplied));
    assert_eq!(
        (late.phase, late.action),
        (Phase::Draining, Some(RepairAction::Replace))
    );
    node(&mut cluster).boot_id = "boot-2".to_owned();
    let seen = status_at(&cluster, RIPE + 60);
    assert_eq!(seen.attempts[0].result, Some(AttemptResult::Accepted));
    assert_eq!(seen.phase, Phase::Verifying);
}

#[test]
fn only_another_boot_and_every_condition_well_is_a_success() {
    let mut cluster = called(Phase::Verifying, Some(AttemptResult::Accepted));
    let well =
        |cluster: &mut Cluster| fixture::set_condition(cluster, "node-0", "StorageReady", "True");
    let decide_at = |cluster: &Cluster, second| {
        let mut episodes = episodes_since(cluster, second);
        episodes.observe(cluster, at(second));
        decided(cluster, &episodes, second)
    };
    well(&mut cluster);
    assert_eq!(
        decide_at(&cluster, RIPE + 60).steps,
        [],
        "it is the same boot"
    );
    node(&mut cluster).boot_id = "boot-2".to_owned();
    node(&mut cluster)
        .conditions
        .retain(|c| c.kind != "StorageReady");
    assert_eq!(
        decide_at(&cluster, RIPE + 60).steps,
        [],
        "nobody says that it is well"
    );
    well(&mut cluster);
    let soaking = recorded(&decide_at(&cluster, RIPE + 60)).clone();
    assert!(soaking.well_since.is_some());
    *repair(&mut cluster) = soaking;
    assert_eq!(decide_at(&cluster, RIPE + 359).steps, []);
    let done = recorded(&decide_at(&cluster, RIPE + 360)).clone();
    assert_eq!(done.phase, Phase::Uncordoning);
    *repair(&mut cluster) = done;
    fixture::uncordon(node(&mut cluster));
    let end = recorded(&decide_at(&cluster, RIPE + 361)).clone();
    assert_eq!(end.outcome, Some(Outcome::Succeeded));
}

#[test]
fn a_reboot_that_does_not_help_is_followed_by_a_replacement_or_a_person() {
    let mut cluster = called(Phase::Verifying, Some(AttemptResult::Accepted));
    node(&mut cluster).boot_id = "boot-2".to_owned();
    let next = status_at(&cluster, RIPE + 600);
    assert_eq!(
        (next.phase, next.action),
        (Phase::Draining, Some(RepairAction::Replace))
    );
    repair(&mut cluster).next_action = None;
    let end = status_at(&cluster, RIPE + 600);
    assert_eq!(end.outcome, Some(Outcome::Failed));
}

#[test]
fn a_node_is_rebooted_once_within_the_window() {
    let mut cluster = rebooting(Phase::Waiting);
    let before = fixture::add_repair(&mut cluster, "node-0", Phase::Finished, SICK_SINCE);
    let mut before = cluster.repairs.remove(&before).unwrap();
    let status = before.status.as_mut().unwrap();
    status.outcome = Some(Outcome::Succeeded);
    status.attempts = vec![attempt(Some(AttemptResult::Accepted))];
    status.attempts[0].started = MicroTime(at(RIPE - 3600));
    let mut cluster = Cluster {
        repairs: BTreeMap::new(),
        ..cluster
    };
    fixture::add_repair(&mut cluster, "node-0", Phase::Waiting, SICK_SINCE);
    cluster.repairs.insert("before".to_owned(), before);
    let status = status_at(&cluster, RIPE);
    assert_eq!(
        (status.phase, status.action),
        (Phase::Draining, Some(RepairAction::Replace))
    );

    let only = vec![RepairAction::Reboot];
    cluster.policies[0].spec.rules[0].repair_actions = only;
    let status = status_at(&cluster, RIPE);
    assert_eq!(status.outcome, Some(Outcome::NeedsHuman), "{status:?}");
}

#[test]
fn a_stronger_reason_makes_a_replacement_of_it() {
    let mut cluster = rebooting(Phase::Rebooting);
    cluster.policies[0].spec.rules[0].repair_actions = vec![RepairAction::Replace];
    let status = status_at(&cluster, RIPE);
    assert_eq!(
        (status.phase, status.action),
        (Phase::Draining, Some(RepairAction::Replace))
    );
}

fn preserve(cluster: &mut Cluster, name: &str) {
    let node = cluster.nodes.get_mut(name).unwrap();
    node.labels
        .insert("nodemend.dev/preserve".to_owned(), "true".to_owned());
    cluster.pods.insert(name.to_owned(), Vec::new());
    let status = cluster.repairs.get_mut(&format!("{name}-repair")).unwrap();
    let status = status.status.as_mut().unwrap();
    status.set_condition("Drained", true, "Drained", "", at(RIPE));
}

#[test]
fn a_node_is_kept_for_a_person_within_quota_and_age() {
    let mut cluster = in_phase(Phase::Replacing);
    preserve(&mut cluster, "node-0");
    let held = status_at(&cluster, RIPE + 1);
    assert_eq!(held.hold.as_ref().unwrap().gate, Gate::Preserve);
    *repair(&mut cluster) = held;
    let over = status_at(&cluster, RIPE + 24 * 3600);
    assert_eq!(over.hold, None, "its age");

    // The quota is one: the next one's label is passed over.
    fixture::make_sick(&mut cluster, "node-1");
    fixture::add_repair(&mut cluster, "node-1", Phase::Replacing, SICK_SINCE);
    preserve(&mut cluster, "node-1");
    cluster.policies[0].spec.unhealthy_threshold.percentage = Some(50);
    let plan = plan(&cluster, RIPE + 2);
    let of = |step: &Step| matches!(step, Step::Act { repair, act: Act::Replace(_) } if repair == "node-1-repair");
    assert!(plan.steps.iter().any(of), "{:?}", plan.steps);
}

#[test]
fn the_node_of_a_record_that_a_person_deleted_is_given_back_and_left_alone() {
    let mut cluster = in_phase(Phase::Waiting);
    cluster.repairs.clear();
    let dismissed = plan(&cluster, RIPE);
    let is_dismissed = |step: &Step| matches!(step, Step::Dismiss { node } if node == "node-0");
    assert!(
        dismissed.steps.iter().any(is_dismissed),
        "{:?}",
        dismissed.steps
    );
    fixture::uncordon(node(&mut cluster));
    node(&mut cluster).dismissed = Some(at(RIPE));
    assert_eq!(plan(&cluster, RIPE + 60).steps, []);
    // A new fault is another matter.
    node(&mut cluster).conditions.last_mut().unwrap().transition = Some(at(RIPE + 10));
    let late = episodes_since(&cluster, RIPE + 10);
    assert!(!decided(&cluster, &late, RIPE + 60).steps.is_empty());
}

#[test]
fn a_machine_is_declared_dead_only_when_it_is_off() {
    let mut cluster = in_phase(Phase::Verifying);
    let mut pod = fixture::pod("db");
    pod.claims = vec!["default/data".to_owned()];
    cluster.pods.insert("node-0".to_owned(), vec![pod]);
    fixture::set_condition(&mut cluster, "node-0", "Ready", "Unknown");
    assert_eq!(plan(&cluster, RIPE + 5).steps, [], "it may be running");
    instance(&mut cluster).state = crate::cluster::InstanceState::Gone;
    assert_eq!(*acted(&plan(&cluster, RIPE + 5)), Act::OutOfService);
    let (key, value) = crate::api::OUT_OF_SERVICE;
    node(&mut cluster)
        .taints
        .push(k8s_openapi::api::core::v1::Taint {
            key: key.to_owned(),
            value: Some(value.to_owned()),
            effect: "NoExecute".to_owned(),
            time_added: None,
        });
    assert_eq!(plan(&cluster, RIPE + 6).steps, []);
    fixture::set_condition(&mut cluster, "node-0", "Ready", "True");
    assert_eq!(*acted(&plan(&cluster, RIPE + 7)), Act::BackInService);
}

#[test]
fn a_drain_that_is_given_up_gives_the_node_back() {
    let mut cluster = in_phase(Phase::Draining);
    cluster.policies[0].spec.drain.on_timeout = crate::api::policy::OnTimeout::Release;
    cluster
        .pods
        .insert("node-0".to_owned(), vec![fixture::pod("web")]);
    let late = status_at(&cluster, RIPE + 900);
    assert_eq!(late.phase, Phase::Uncordoning);
    *repair(&mut cluster) = late;
    assert_eq!(*acted(&plan(&cluster, RIPE + 901)), Act::Uncordon);
    fixture::uncordon(node(&mut cluster));
    let end = status_at(&cluster, RIPE + 902);
    assert_eq!(end.outcome, Some(Outcome::Cancelled));
}
