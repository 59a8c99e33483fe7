//! PURE. What a simulation is written in; docs/simulate.md explains it field by field. Nothing is
//! implied but what the policy's own schema implies.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::RangeInclusive;
use std::time::Duration;

use anyhow::{Context, ensure};
use jiff::Timestamp;
use jiff::tz::TimeZone;
use serde::Deserialize;
use serde_json::Value;

use crate::api::duration::Wait;
use crate::api::policy::{RepairAction, RepairPolicySpec};
use crate::api::repair::{Gate, Outcome, Overridable, Phase};
use crate::api::validate;

/// More would not be read by anybody.
const MOST_NODES: u64 = 20_000;
const MOST_PODS: u64 = 1_000_000;
/// Far enough from the ends of what a timestamp can be.
const YEARS: RangeInclusive<i16> = 1970..=2970;
const MOST_EVENTS: usize = 100_000;

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct File {
    /// What the scenario is about, for people.
    #[serde(default)]
    pub about: String,
    #[serde(default = "beginning")]
    pub start: Timestamp,
    #[serde(rename = "for")]
    pub lasts: Wait,
    #[serde(default)]
    pub limits: LimitsFile,
    pub policies: Vec<PolicyFile>,
    pub nodes: Vec<NodeFile>,
    #[serde(default)]
    pub pods: Vec<PodFile>,
    #[serde(default)]
    pub pdbs: Vec<PdbFile>,
    #[serde(default)]
    pub cloud: CloudFile,
    #[serde(default)]
    pub timeline: Vec<Event>,
    #[serde(default)]
    pub expect: Vec<Expectation>,
}

fn beginning() -> Timestamp {
    // A Monday.
    Timestamp::from_second(1_767_571_200).unwrap_or(Timestamp::UNIX_EPOCH)
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct LimitsFile {
    #[serde(default)]
    pub paused: Option<bool>,
    #[serde(default)]
    pub max_parallel: Option<u32>,
    #[serde(default)]
    pub max_repairs_per_hour: Option<u32>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PolicyFile {
    pub name: String,
    /// As in a RepairPolicy.
    pub spec: Spec,
}

/// A policy's spec without a mistake.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "Value")]
pub struct Spec(pub RepairPolicySpec);

impl TryFrom<Value> for Spec {
    type Error = String;

    fn try_from(written: Value) -> Result<Self, String> {
        match validate::read(&written) {
            (Some(spec), found) if validate::first_error(&found).is_none() => Ok(Self(spec)),
            (_, found) => {
                Err(validate::first_error(&found)
                    .map_or_else(String::new, |error| error.to_string()))
            }
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct NodeFile {
    /// With `count`, the beginning of the names: `n` makes `n-0`, `n-1` and so on.
    pub name: String,
    #[serde(default)]
    pub count: Option<u32>,
    /// The Auto Scaling group; without one nobody would replace the node.
    #[serde(default)]
    pub group: Option<String>,
    /// The NodePool of a node of Karpenter's, in place of a group: it gets a NodeClaim.
    #[serde(default)]
    pub node_pool: Option<String>,
    /// An instance of the group that never became a Node: `InstanceWithoutNode` is True.
    #[serde(default)]
    pub never_joined: bool,
    /// Set by somebody: it asks Karpenter, and us, to leave the node alone.
    #[serde(default)]
    pub asks_to_stay: bool,
    #[serde(default = "zone")]
    pub zone: String,
    #[serde(default)]
    pub zone_id: Option<String>,
    #[serde(default = "a_day")]
    pub age: Wait,
    #[serde(default)]
    pub labels: BTreeMap<String, String>,
    /// What it shares with others: `instance type`, `image`, `kubelet` ...
    #[serde(default)]
    pub traits: BTreeMap<String, String>,
    /// Device plugins' resources, as `allocatable/capacity`.
    #[serde(default)]
    pub devices: BTreeMap<String, String>,
    #[serde(default)]
    pub cordoned: bool,
    #[serde(default)]
    pub conditions: Vec<ConditionFile>,
    /// Whatever a cloud may say in its place.
    #[serde(default)]
    pub provider_id: Option<String>,
    /// How far its clock is wrong, with which its agents write.
    #[serde(default)]
    pub clock_ahead: Option<Wait>,
    #[serde(default)]
    pub clock_behind: Option<Wait>,
}

impl NodeFile {
    /// What its clock shows.
    pub fn clock(&self, now: Timestamp) -> Timestamp {
        let by = |wait: Option<Wait>| wait.map_or(Duration::ZERO, |wait| wait.0);
        now + by(self.clock_ahead) - by(self.clock_behind)
    }
}

fn zone() -> String {
    "us-west-2a".to_owned()
}

fn a_day() -> Wait {
    Wait::minutes(24 * 60)
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct ConditionFile {
    #[serde(rename = "type")]
    pub kind: String,
    pub status: Status,
    #[serde(default)]
    pub reason: String,
    /// The agent that writes it; nodemend's own when absent.
    #[serde(default)]
    pub writer: Option<String>,
    /// How long before now its status changed.
    #[serde(default)]
    pub age: Option<Wait>,
}

/// YAML reads a bare `True` as a truth value; both are meant.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(untagged)]
pub enum Status {
    Bool(bool),
    Text(String),
}

impl Status {
    pub fn text(&self) -> &str {
        match self {
            Self::Bool(true) => "True",
            Self::Bool(false) => "False",
            Self::Text(text) => text,
        }
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PodFile {
    pub name: String,
    pub node: String,
    #[serde(default = "default_namespace")]
    pub namespace: String,
    #[serde(default)]
    pub count: Option<u32>,
    /// The PodDisruptionBudget that selects it.
    #[serde(default)]
    pub pdb: Option<String>,
    #[serde(default)]
    pub local_volume: bool,
    #[serde(default)]
    pub daemon_set: bool,
    /// Of a DaemonSet that is gone.
    #[serde(default)]
    pub orphan: bool,
    /// It crashes again and again.
    #[serde(default)]
    pub not_ready: bool,
    /// No controller would make it again.
    #[serde(default)]
    pub unmanaged: bool,
    #[serde(default)]
    pub static_pod: bool,
    #[serde(default)]
    pub ended: bool,
    #[serde(default)]
    pub critical: bool,
    /// The cordon does not keep it off: evicted, it comes straight back.
    #[serde(default)]
    pub tolerates: bool,
    /// Of its object, which outlives it.
    #[serde(default)]
    pub finalizer: bool,
    #[serde(default = "half_a_minute")]
    pub grace: Wait,
    /// From the eviction until it has ended; absent: at once.
    #[serde(default)]
    pub ends_in: Option<Wait>,
    /// It never ends by itself.
    #[serde(default)]
    pub never_ends: bool,
    /// It has a volume, which is detached so long after its end.
    #[serde(default)]
    pub detaches_in: Option<Wait>,
    /// By another program's annotation.
    #[serde(default)]
    pub asks_to_stay: bool,
    /// The label `nodemend.dev/drain`.
    #[serde(default)]
    pub drain: Option<DrainLabel>,
    /// From the eviction until it runs elsewhere, and its budget has recovered.
    #[serde(default = "half_a_minute")]
    pub moves_in: Wait,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "camelCase")]
pub enum DrainLabel {
    Skip,
    Wait,
}

fn default_namespace() -> String {
    "default".to_owned()
}

fn half_a_minute() -> Wait {
    Wait::seconds(30)
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct PdbFile {
    pub name: String,
    /// `status.disruptionsAllowed` while nothing of it is moving.
    pub allowed: u32,
    #[serde(default)]
    pub unhealthy_pod_eviction_policy: UnhealthyPods,
}

/// Whether pods that are not ready may go where a budget allows no disruption.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum UnhealthyPods {
    /// Its application is short of healthy pods already, so they may not.
    #[default]
    IfHealthyBudget,
    AlwaysAllow,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct CloudFile {
    #[serde(default = "half_a_minute")]
    pub terminates_in: Wait,
    /// From the accepted call to a Ready replacement.
    #[serde(default = "two_minutes")]
    pub replaces_in: Wait,
    #[serde(default)]
    pub terminate: Terminate,
    #[serde(default)]
    pub reboot: Terminate,
    /// From the call to the node with another boot.
    #[serde(default = "two_minutes")]
    pub reboots_in: Wait,
    #[serde(default)]
    pub rebooted: Rebooted,
    /// From a reboot to the relapse.
    #[serde(default = "five_minutes")]
    pub relapses_in: Wait,
    /// What AWS says about the launches of groups; absent: it is not asked.
    #[serde(default)]
    pub launches: Option<BTreeMap<String, LaunchesFile>>,
    /// Zones, by id, that traffic is shifted away from; absent: nobody asks.
    #[serde(default)]
    pub shifted: Option<BTreeSet<String>>,
    /// Every replacement turns bad.
    #[serde(default)]
    pub replacements_turn_bad: Option<TurnBad>,
    /// No pod needs a node in place of one of Karpenter's.
    #[serde(default)]
    pub karpenter_launches_none: bool,
}

impl Default for CloudFile {
    fn default() -> Self {
        Self {
            terminates_in: half_a_minute(),
            replaces_in: two_minutes(),
            terminate: Terminate::default(),
            reboot: Terminate::default(),
            reboots_in: two_minutes(),
            rebooted: Rebooted::default(),
            relapses_in: five_minutes(),
            launches: None,
            shifted: None,
            replacements_turn_bad: None,
            karpenter_launches_none: false,
        }
    }
}

fn five_minutes() -> Wait {
    Wait::minutes(5)
}

fn two_minutes() -> Wait {
    Wait::minutes(2)
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Terminate {
    #[default]
    Accept,
    /// AWS says no.
    Refuse,
    /// AWS acts, and its answer is lost.
    LoseAnswer,
    /// Neither.
    Hang,
    /// AWS wants fewer calls.
    Throttle,
}

/// What a reboot comes to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize)]
pub enum Rebooted {
    #[default]
    Well,
    /// Well for as long as `relapsesIn`, and then as before.
    Relapses,
    StillSick,
    /// It does not come back.
    Lost,
}

#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct LaunchesFile {
    #[serde(default)]
    pub suspended: Vec<String>,
    /// The last launches in a row that failed.
    #[serde(default)]
    pub failed: u32,
    #[serde(default)]
    pub failure: Option<String>,
}

#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct TurnBad {
    pub after: Wait,
    pub condition: ConditionFile,
}

/// One thing that happens; exactly one of the fields beside `at`.
#[derive(Clone, Debug, Deserialize)]
#[serde(try_from = "BTreeMap<String, Value>")]
pub struct Event {
    pub at: Wait,
    pub what: What,
    /// As it was written, for an order that does not depend on the file's.
    pub text: String,
}

impl TryFrom<BTreeMap<String, Value>> for Event {
    type Error = String;

    fn try_from(mut fields: BTreeMap<String, Value>) -> Result<Self, String> {
        let at = fields.remove("at").ok_or("an event without `at`")?;
        let at =
            serde_json::from_value(at).map_err(|error| format!("`at` of an event: {error}"))?;
        if fields.len() != 1 {
            let names: Vec<_> = fields.keys().map(String::as_str).collect();
            return Err(format!(
                "the event at {at} has {} things that happen ({}), not one",
                fields.len(),
                names.join(", ")
            ));
        }
        let text = serde_json::to_string(&fields).unwrap_or_default();
        let what = Value::Object(fields.into_iter().collect());
        let what =
            serde_json::from_value(what).map_err(|error| format!("the event at {at}: {error}"))?;
        Ok(Self { at, what, text })
    }
}

#[derive(Clone, Debug, Deserialize)]
#[serde(
    deny_unknown_fields,
    rename_all = "camelCase",
    rename_all_fields = "camelCase"
)]
pub enum What {
    /// A condition is written, with a new transition time where its status changes.
    Condition {
        nodes: Vec<String>,
        #[serde(rename = "type")]
        kind: String,
        status: Status,
        #[serde(default)]
        reason: String,
        #[serde(default)]
        writer: Option<String>,
    },
    /// The transition time is reset, and nothing else.
    ResetTransition {
        nodes: Vec<String>,
        #[serde(rename = "type")]
        kind: String,
    },
    /// Its agent no longer confirms it.
    StopHeartbeat {
        nodes: Vec<String>,
        #[serde(rename = "type")]
        kind: String,
    },
    /// Kubelets fall silent: Ready becomes Unknown and the Leases grow old.
    Silent {
        nodes: Vec<String>,
    },
    /// Kubelets report again.
    Reports {
        nodes: Vec<String>,
    },
    Label {
        nodes: Vec<String>,
        label: String,
        #[serde(default)]
        value: Option<String>,
    },
    /// Another program marks nodes as its own.
    Mark {
        nodes: Vec<String>,
        by: String,
    },
    Unmark {
        nodes: Vec<String>,
    },
    /// A person does.
    Cordon {
        nodes: Vec<String>,
    },
    Uncordon {
        nodes: Vec<String>,
    },
    /// The Node goes, with its instance.
    Delete {
        nodes: Vec<String>,
    },
    /// Another instance joins under the old name.
    Recreate {
        nodes: Vec<String>,
    },
    Pdb(PdbFile),
    /// It comes to a node, cordoned or not.
    Pod(Box<PodFile>),
    /// Laid over the policy's spec.
    Policy {
        name: String,
        merge: Value,
    },
    DeletePolicy {
        name: String,
    },
    Limits(LimitsFile),
    /// A person asks for a repair.
    Repair {
        node: String,
        requested_by: String,
        #[serde(default)]
        override_gates: Vec<Overridable>,
        #[serde(default = "replace")]
        action: RepairAction,
    },
    /// A person deletes the records of a node.
    DeleteRepairs {
        node: String,
    },
    /// A person stops an instance, or starts it.
    Stop {
        nodes: Vec<String>,
    },
    Start {
        nodes: Vec<String>,
    },
    /// Laid over the cloud.
    Cloud {
        #[serde(default)]
        terminate: Option<Terminate>,
        #[serde(default)]
        reboot: Option<Terminate>,
        #[serde(default)]
        rebooted: Option<Rebooted>,
        #[serde(default)]
        launches: Option<BTreeMap<String, LaunchesFile>>,
        #[serde(default)]
        shifted: Option<BTreeSet<String>>,
        #[serde(default)]
        replaces_in: Option<Wait>,
    },
    /// Another process takes over: what was in memory is gone.
    Restart {},
    /// The repairer cannot reach the API server from now on, or can again.
    Api {
        reachable: bool,
    },
}

fn replace() -> RepairAction {
    RepairAction::Replace
}

/// What must be true; at `at`, after all that happens then, or at the end.
#[derive(Clone, Debug, Default, Deserialize)]
#[serde(deny_unknown_fields, rename_all = "camelCase")]
pub struct Expectation {
    #[serde(default)]
    pub at: Option<Wait>,
    #[serde(default)]
    pub node: Option<String>,
    /// Of the node's last repair.
    #[serde(default)]
    pub phase: Option<Phase>,
    #[serde(default)]
    pub outcome: Option<Outcome>,
    /// The first closed gate.
    #[serde(default)]
    pub gate: Option<Gate>,
    /// Gates behind it, among others.
    #[serde(default)]
    pub behind: Option<Vec<Gate>>,
    /// Gates that are open when the node is asked about as `explain` does.
    #[serde(default)]
    pub open: Option<Vec<Gate>>,
    /// In the hold's message or its way out, or in the timeline.
    #[serde(default)]
    pub says: Option<String>,
    #[serde(default)]
    pub action: Option<RepairAction>,
    /// Reasons of the episode, the one that decides first.
    #[serde(default)]
    pub reasons: Option<Vec<String>>,
    /// Whether the node has a repair at all.
    #[serde(default)]
    pub repair: Option<bool>,
    #[serde(default)]
    pub cordoned: Option<bool>,
    #[serde(default)]
    pub flaps: Option<u32>,
    /// Nodes whose drain has started, in this order.
    #[serde(default)]
    pub started: Option<Vec<String>>,
    /// Nodes whose instance has been terminated, in this order.
    #[serde(default)]
    pub destroyed: Option<Vec<String>>,
    #[serde(default)]
    pub destroyed_count: Option<usize>,
    /// Terminate calls, whatever became of them.
    #[serde(default)]
    pub calls: Option<usize>,
    /// Reboot calls, whatever became of them.
    #[serde(default)]
    pub reboots: Option<usize>,
    /// Pods that are on the node, but for those of DaemonSets and static ones.
    #[serde(default)]
    pub pods: Option<Vec<String>>,
    /// Whether the node has our out-of-service taint.
    #[serde(default)]
    pub out_of_service: Option<bool>,
    #[serde(default)]
    pub policy: Option<String>,
    /// Reason of the policy's condition RepairAllowed.
    #[serde(default)]
    pub allowed: Option<String>,
    /// In mode Shadow: nodes that would have been replaced.
    #[serde(default)]
    pub shadow_replaced: Option<u32>,
}

impl File {
    pub fn read(text: &str) -> anyhow::Result<Self> {
        let file: Self = serde_saphyr::from_str(text).context("read the YAML")?;
        file.check()?;
        Ok(file)
    }

    fn check(&self) -> anyhow::Result<()> {
        // Before any of them is named.
        let sum = |counts: &mut dyn Iterator<Item = Option<u32>>| -> u64 {
            counts.map(|count| u64::from(count.unwrap_or(1))).sum()
        };
        let nodes = sum(&mut self.nodes.iter().map(|node| node.count));
        ensure!(nodes <= MOST_NODES, "{nodes} nodes; at most {MOST_NODES}");
        let pods = sum(&mut self.pods.iter().map(|pod| pod.count));
        ensure!(pods <= MOST_PODS, "{pods} pods; at most {MOST_PODS}");
        let year = self.start.to_zoned(TimeZone::UTC).year();
        ensure!(
            YEARS.contains(&year),
            "start is in the year {year}, not between {} and {}",
            YEARS.start(),
            YEARS.end()
        );
        let events = self.timeline.len();
        ensure!(
            events <= MOST_EVENTS,
            "{events} events; at most {MOST_EVENTS}"
        );
        let mut names = BTreeSet::new();
        for name in self.node_names() {
            ensure!(names.insert(name.clone()), "node {name} is there twice");
        }
        for node in &self.nodes {
            ensure!(
                node.group.is_none() || node.node_pool.is_none(),
                "node {} has a group and a nodePool: give it one of them",
                node.name
            );
        }
        for pod in &self.pods {
            ensure!(
                names.contains(&pod.node),
                "pod {} is on the node {}, which is not there",
                pod.name,
                pod.node
            );
        }
        self.check_order()
    }

    /// Events of one moment happen together, so none may undo another.
    fn check_order(&self) -> anyhow::Result<()> {
        let mut seen: BTreeMap<Wait, BTreeSet<String>> = BTreeMap::new();
        for event in &self.timeline {
            let moment = seen.entry(event.at).or_default();
            for target in event.targets() {
                ensure!(
                    moment.insert(target.clone()),
                    "two events at {} are about {target}: which comes first?",
                    event.at
                );
            }
        }
        Ok(())
    }

    pub fn node_names(&self) -> Vec<String> {
        self.nodes.iter().flat_map(NodeFile::names).collect()
    }
}

impl NodeFile {
    pub fn names(&self) -> Vec<String> {
        match self.count {
            None => vec![self.name.clone()],
            Some(count) => (0..count).map(|i| format!("{}-{i}", self.name)).collect(),
        }
    }
}

impl Event {
    /// What it is about, for telling whether another one is about the same.
    fn targets(&self) -> Vec<String> {
        let each = |nodes: &[String], what: &str| -> Vec<String> {
            nodes
                .iter()
                .map(|node| format!("{what} of {node}"))
                .collect()
        };
        match &self.what {
            What::Condition { nodes, kind, .. }
            | What::ResetTransition { nodes, kind }
            | What::StopHeartbeat { nodes, kind } => each(nodes, kind),
            What::Silent { nodes } | What::Reports { nodes } => each(nodes, "Ready"),
            What::Label { nodes, label, .. } => each(nodes, &format!("label {label}")),
            What::Mark { nodes, .. } | What::Unmark { nodes } => each(nodes, "the mark"),
            What::Cordon { nodes } | What::Uncordon { nodes } => each(nodes, "the cordon"),
            What::Delete { nodes } | What::Recreate { nodes } => each(nodes, "the existence"),
            What::Pdb(pdb) => vec![format!("the budget {}", pdb.name)],
            What::Pod(pod) => vec![format!("the pod {}/{}", pod.namespace, pod.name)],
            What::Policy { name, .. } | What::DeletePolicy { name } => {
                vec![format!("the policy {name}")]
            }
            What::Limits(_) => vec!["the limits".to_owned()],
            What::DeleteRepairs { node } => vec![format!("the repairs of {node}")],
            What::Stop { nodes } | What::Start { nodes } => each(nodes, "the instance"),
            What::Repair { node, .. } => vec![format!("a repair of {node}")],
            What::Cloud { .. } => vec!["the cloud".to_owned()],
            What::Restart {} => vec!["the process".to_owned()],
            What::Api { .. } => vec!["the API server".to_owned()],
        }
    }
}
