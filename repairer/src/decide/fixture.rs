//! Small clusters for tests: five nodes of one Auto Scaling group under one policy, times in
//! seconds since an arbitrary beginning.

use std::collections::{BTreeMap, BTreeSet};

use jiff::Timestamp;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

use crate::api::TAINT;
use crate::api::duration::Wait;
use crate::api::policy::{
    ConditionStatus, Mode, RepairAction, RepairPolicy, RepairPolicySpec, RepairRule,
};
use crate::api::repair::{
    Attempt, AttemptResult, DrainStatus, EpisodeReason, NodeRef, NodeRepair, NodeRepairSpec,
    NodeRepairStatus, Phase, PolicyRef, Trigger,
};
use crate::cluster::{Cluster, ConditionView, InstanceState, InstanceView, NodeView};
use crate::drain::{Owner, PodView};
use crate::episode::Episodes;

pub const GROUP: &str = "workers-asg";
/// When `node-0` of [`sick_cluster`] became unhealthy.
pub const SICK_SINCE: i64 = 1000;

pub fn at(second: i64) -> Timestamp {
    Timestamp::from_second(1_700_000_000 + second).unwrap()
}

pub fn condition(kind: &str, status: &str, second: i64) -> ConditionView {
    ConditionView {
        kind: kind.to_owned(),
        status: status.to_owned(),
        reason: "SomeReason".to_owned(),
        heartbeat: Some(at(second)),
        transition: Some(at(second)),
        writer: None,
    }
}

pub fn provider_id(index: usize) -> String {
    format!("aws:///us-west-2a/i-{index:017x}")
}

/// Ready for an hour.
pub fn node(name: &str, index: usize) -> NodeView {
    NodeView {
        name: name.to_owned(),
        uid: format!("uid-{name}"),
        resource_version: "1".to_owned(),
        labels: BTreeMap::new(),
        provider_id: provider_id(index),
        joined: true,
        unschedulable: false,
        taints: Vec::new(),
        conditions: vec![condition("Ready", "True", -3600)],
        created: at(-3600),
        deleting: false,
        others: Vec::new(),
        devices: BTreeMap::new(),
        boot_id: "boot-1".to_owned(),
        marks: None,
        kept_off: BTreeSet::new(),
        dismissed: None,
        traits: BTreeMap::new(),
    }
}

pub fn rule(kind: &str, wait: u64) -> RepairRule {
    RepairRule {
        node_monitoring_condition: kind.to_owned(),
        node_unhealthy_reason: None,
        status: None,
        min_repair_wait_time: Wait::seconds(wait),
        repair_actions: vec![RepairAction::Replace],
    }
}

pub fn ready_rule(wait: u64) -> RepairRule {
    RepairRule {
        status: Some(vec![ConditionStatus::False, ConditionStatus::Unknown]),
        ..rule("Ready", wait)
    }
}

/// Every node; storage faults are repaired after 30 minutes; all other fields as the schema has them.
pub fn policy(name: &str) -> RepairPolicy {
    let spec: RepairPolicySpec = serde_json::from_value(serde_json::json!({
        "mode": "Enforce",
        "selector": {},
        "rules": [{"nodeMonitoringCondition": "StorageReady", "minRepairWaitTime": "30m", "repairActions": ["Replace"]}],
    }))
    .unwrap();
    assert_eq!(spec.mode, Mode::Enforce);
    let mut policy = RepairPolicy::new(name, spec);
    policy.metadata.uid = Some(format!("uid-{name}"));
    policy.metadata.generation = Some(1);
    policy
}

pub fn pod(name: &str) -> PodView {
    PodView {
        namespace: "default".to_owned(),
        name: name.to_owned(),
        uid: format!("uid-{name}"),
        labels: BTreeMap::new(),
        created: at(-3600),
        ends: None,
        finalizers: Vec::new(),
        ended: false,
        owner: Owner::Controller,
        local_volume: false,
        claims: Vec::new(),
        critical: false,
        grace: std::time::Duration::from_secs(30),
        tolerates_cordon: false,
        asks_to_stay: None,
        wish: None,
    }
}

/// `node-0` ... `node-{count - 1}`, all well.
pub fn cluster(count: usize) -> Cluster {
    let mut cluster = Cluster {
        policies: vec![policy("workers")],
        attachments: Some(Vec::new()),
        ..Cluster::default()
    };
    for index in 0..count {
        let node = node(&format!("node-{index}"), index);
        let id = node.instance().unwrap().to_string();
        cluster.instances.insert(id, in_service());
        cluster.nodes.insert(node.name.clone(), node);
    }
    cluster
}

pub fn in_service() -> InstanceView {
    InstanceView {
        group: Some(GROUP.to_owned()),
        lifecycle: Some("InService".to_owned()),
        state: InstanceState::There,
        checks_pass: None,
        facts: crate::cluster::Facts::default(),
    }
}

/// Ten nodes; the storage of `node-0` is bad and was confirmed just before `at(SICK_SINCE + 1800)`.
pub fn sick_cluster() -> Cluster {
    let mut cluster = cluster(10);
    make_sick(&mut cluster, "node-0");
    cluster
}

pub fn make_sick(cluster: &mut Cluster, name: &str) {
    let storage = ConditionView {
        heartbeat: Some(at(SICK_SINCE + 1800)),
        reason: "FilesystemReadOnly".to_owned(),
        ..condition("StorageReady", "False", SICK_SINCE)
    };
    cluster
        .nodes
        .get_mut(name)
        .unwrap()
        .conditions
        .push(storage);
}

pub fn set_condition(cluster: &mut Cluster, name: &str, kind: &str, status: &str) {
    let node = cluster.nodes.get_mut(name).unwrap();
    node.conditions.retain(|condition| condition.kind != kind);
    node.conditions.push(condition(kind, status, SICK_SINCE));
}

/// What a process knows that has run since before the fault.
pub fn episodes_since(cluster: &Cluster, second: i64) -> Episodes {
    let mut episodes = Episodes::default();
    episodes.observe(cluster, at(second));
    episodes
}

/// Of a repair of a node by the policy `workers`.
pub fn spec(node: &str) -> NodeRepairSpec {
    NodeRepairSpec {
        node_ref: NodeRef {
            name: node.to_owned(),
            uid: format!("uid-{node}"),
        },
        provider_id: String::new(),
        policy_ref: PolicyRef {
            name: "workers".to_owned(),
            uid: "uid-workers".to_owned(),
            generation: 1,
        },
        trigger: Trigger::Auto,
        action: RepairAction::Replace,
        override_gates: Vec::new(),
        requested_by: None,
    }
}

/// A repair in a phase, with the node and the record as that phase leaves them.
pub fn add_repair(cluster: &mut Cluster, node: &str, phase: Phase, since: i64) -> String {
    let view = cluster.nodes.get_mut(node).unwrap();
    if matches!(
        phase,
        Phase::Waiting
            | Phase::Draining
            | Phase::Rebooting
            | Phase::Replacing
            | Phase::Verifying
            | Phase::Uncordoning
    ) {
        cordon(view);
    }
    let spec = NodeRepairSpec {
        provider_id: view.provider_id.clone(),
        ..spec(node)
    };
    let mut status = NodeRepairStatus {
        phase,
        reasons: vec![EpisodeReason {
            condition: "StorageReady".to_owned(),
            reason: "FilesystemReadOnly".to_owned(),
            since: MicroTime(at(since)),
            seen: Some(MicroTime(at(since))),
            flaps: 0,
        }],
        action: Some(RepairAction::Replace),
        next_action: None,
        zone: Some("us-west-2a".to_owned()),
        group: Some(GROUP.to_owned()),
        instance_id: Some(view.instance().unwrap().to_string()),
        ..NodeRepairStatus::default()
    };
    status.note(at(since), "unhealthy");
    if phase == Phase::Draining {
        status.drain = Some(DrainStatus {
            remaining: 1,
            ..DrainStatus::begin(at(since + 1800))
        });
    }
    if phase == Phase::Verifying {
        status.attempts.push(Attempt {
            action: RepairAction::Replace,
            boot_id: None,
            started: MicroTime(at(since + 1800)),
            result: Some(AttemptResult::Accepted),
            request_id: None,
            message: None,
        });
    }
    let name = format!("{node}-repair");
    let mut repair = NodeRepair::new(&name, spec);
    repair.status = Some(status);
    cluster.repairs.insert(name.clone(), repair);
    name
}

pub fn cordon(node: &mut NodeView) {
    node.unschedulable = true;
    node.taints.push(k8s_openapi::api::core::v1::Taint {
        key: TAINT.to_owned(),
        effect: "NoSchedule".to_owned(),
        ..Default::default()
    });
}

pub fn uncordon(node: &mut NodeView) {
    node.unschedulable = false;
    node.taints.clear();
}
