//! The `NodeRepair` CRD: one object for each episode of a node. It is the state machine, the audit
//! record and the memory of the repairer.

#![expect(
    clippy::duplicated_attributes,
    reason = "the keys of one printcolumn are not those of another"
)]

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use jiff::Timestamp;
use jiff::tz::TimeZone;
use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, MicroTime};
use kube::core::Rule as Cel;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::policy::{
    Drain, LastNode, RepairAction, RepairPolicy, Replace, UnhealthyThreshold, Verify,
};

/// Label with the UID of the Node, for `kubectl get noderepairs -l`.
pub const NODE_UID_LABEL: &str = "nodemend.dev/node-uid";
/// Entries of the timeline; the first one is kept, older ones after it go.
const MOST_ENTRIES: usize = 50;
/// The API server's limit of a condition's message is 32768; people read less.
const MESSAGE_LIMIT: usize = 1024;
/// Of times that can be meant.
const YEARS: RangeInclusive<i16> = 1970..=2970;

/// The repair of one sick node, from the first sight of the fault to its outcome.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Deserialize, Serialize)]
#[kube(
    group = "nodemend.dev",
    version = "v1alpha1",
    kind = "NodeRepair",
    plural = "noderepairs",
    shortname = "nrep",
    category = "nodemend",
    status = "NodeRepairStatus",
    doc = "The repair of one sick node, from the first sight of the fault to its outcome.",
    derive = "PartialEq",
    printcolumn(name = "Node", type_ = "string", json_path = ".spec.nodeRef.name"),
    printcolumn(
        name = "Reason",
        type_ = "string",
        json_path = ".status.reasons[0].reason"
    ),
    printcolumn(name = "Action", type_ = "string", json_path = ".status.action"),
    printcolumn(name = "Phase", type_ = "string", json_path = ".status.phase"),
    printcolumn(name = "Gate", type_ = "string", json_path = ".status.hold.gate"),
    printcolumn(name = "Outcome", type_ = "string", json_path = ".status.outcome"),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    ),
    printcolumn(
        name = "Policy",
        type_ = "string",
        json_path = ".spec.policyRef.name",
        priority = 1
    ),
    printcolumn(
        name = "Group",
        type_ = "string",
        json_path = ".status.group",
        priority = 1
    ),
    printcolumn(
        name = "Instance",
        type_ = "string",
        json_path = ".status.instanceId",
        priority = 1
    ),
    printcolumn(
        name = "Trigger",
        type_ = "string",
        json_path = ".spec.trigger",
        priority = 1
    ),
    printcolumn(
        name = "Replacement",
        type_ = "string",
        json_path = ".status.replacement.nodeName",
        priority = 1
    )
)]
#[x_kube(
    validation = Cel::new("self == oldSelf").message("the spec of a NodeRepair cannot be changed"),
    validation = Cel::new("self.trigger == 'Manual' || !has(self.overrideGates) || size(self.overrideGates) == 0")
        .message("only a repair that a person asks for (trigger: Manual) may override gates"),
    validation = Cel::new("self.trigger == 'Auto' || has(self.requestedBy)")
        .message("say who asks for it (requestedBy)"),
    validation = Cel::new("self.action != 'NoAction'").message("a repair needs an action: Reboot or Replace")
)]
#[serde(rename_all = "camelCase")]
pub struct NodeRepairSpec {
    /// The Node that is repaired.
    pub node_ref: NodeRef,
    /// Of the Node when the repair began; its instance is the only one that is ever touched.
    #[serde(rename = "providerID")]
    #[serde(default)]
    #[schemars(length(max = 512))]
    pub provider_id: String,
    /// The policy whose rules and gates hold; without one the policy that selects the node.
    #[serde(default)]
    pub policy_ref: PolicyRef,
    #[serde(default)]
    pub trigger: Trigger,
    pub action: RepairAction,
    /// Gates that do not hold this repair. Only a person may say so.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16), extend("x-kubernetes-list-type" = "set"))]
    pub override_gates: Vec<Overridable>,
    /// Who asks for it, in their own words; the API server's audit log knows for sure.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 253))]
    pub requested_by: Option<String>,
}

/// `Manual`: a person created it. It does not wait for a condition, and a recovery does not end it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Trigger {
    #[default]
    Auto,
    Manual,
}

/// The gates that a person may override: those that guess. None that says that a node is not ours.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Overridable {
    SignalStale,
    SignalLatched,
    Correlated,
    UnhealthyThreshold,
    ZonalShift,
    ZoneShare,
    OutsideWindow,
    LastNode,
    AttemptsSpent,
    RepairBudget,
}

impl Overridable {
    pub fn gate(self) -> Gate {
        match self {
            Self::SignalStale => Gate::SignalStale,
            Self::SignalLatched => Gate::SignalLatched,
            Self::Correlated => Gate::Correlated,
            Self::UnhealthyThreshold => Gate::UnhealthyThreshold,
            Self::ZonalShift => Gate::ZonalShift,
            Self::ZoneShare => Gate::ZoneShare,
            Self::OutsideWindow => Gate::OutsideWindow,
            Self::LastNode => Gate::LastNode,
            Self::AttemptsSpent => Gate::AttemptsSpent,
            Self::RepairBudget => Gate::RepairBudget,
        }
    }
}

impl Gate {
    /// Whether its numbers change with every change of other nodes.
    pub fn counts_others(self) -> bool {
        match self {
            Self::Partition
            | Self::Correlated
            | Self::UnhealthyThreshold
            | Self::ZoneShare
            | Self::LastNode
            | Self::AttemptsSpent
            | Self::Capacity
            | Self::RepairBudget
            | Self::ParallelLimit => true,
            Self::Unreadable
            | Self::PolicyConflict
            | Self::Disabled
            | Self::Paused
            | Self::Excluded
            | Self::ControlPlane
            | Self::NotOurs
            | Self::OtherRepairer
            | Self::Denied
            | Self::Unsupported
            | Self::SignalStale
            | Self::SignalLatched
            | Self::ZonalShift
            | Self::WaitTime
            | Self::OutsideWindow
            | Self::Shadow
            | Self::Drain
            | Self::Preserve => false,
        }
    }

    pub fn overridable(self) -> bool {
        match self {
            Self::SignalStale
            | Self::SignalLatched
            | Self::Correlated
            | Self::UnhealthyThreshold
            | Self::ZonalShift
            | Self::ZoneShare
            | Self::OutsideWindow
            | Self::LastNode
            | Self::AttemptsSpent
            | Self::RepairBudget => true,
            Self::Unreadable
            | Self::PolicyConflict
            | Self::Disabled
            | Self::Paused
            | Self::Excluded
            | Self::ControlPlane
            | Self::NotOurs
            | Self::OtherRepairer
            | Self::Denied
            | Self::Unsupported
            | Self::Partition
            | Self::WaitTime
            | Self::Capacity
            | Self::ParallelLimit
            | Self::Shadow
            | Self::Drain
            | Self::Preserve => false,
        }
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct NodeRef {
    /// Of the object.
    #[schemars(length(max = 253))]
    pub name: String,
    /// A new node with an old name is another node.
    #[schemars(length(max = 64))]
    pub uid: String,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct PolicyRef {
    /// Of the RepairPolicy.
    #[schemars(length(max = 253))]
    pub name: String,
    /// Of the RepairPolicy, when the repair began.
    #[serde(default)]
    #[schemars(length(max = 64))]
    pub uid: String,
    /// Of its spec, when the repair began.
    #[serde(default)]
    pub generation: i64,
}

/// What the repairer has seen and done; nobody else writes it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct NodeRepairStatus {
    #[serde(default)]
    pub phase: Phase,
    /// How it ended; absent while it goes on.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub outcome: Option<Outcome>,
    /// Cordoned, Drained, ActionTaken, Verified and Finished, for `kubectl wait`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Why it does not go on, with the numbers.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub hold: Option<Hold>,
    /// What is due, by the strongest reason of the episode.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub action: Option<RepairAction>,
    /// What is and was unhealthy in this episode, the reason that decides first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub reasons: Vec<EpisodeReason>,
    /// The Auto Scaling group, or `nodepool/` and the NodePool of Karpenter's.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub group: Option<String>,
    /// What the node counts in, where that is not its group (`groupBy`).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub count_group: Option<String>,
    /// The availability zone of the instance.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub zone: Option<String>,
    /// The instance that is rebooted or terminated; no other one is.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub instance_id: Option<String>,
    /// The NodeClaim of a node of Karpenter's: what is deleted in order to replace it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub node_claim: Option<NodeRef>,
    /// The node was unschedulable before we came, and stays so after us.
    #[serde(default)]
    pub found_cordoned: bool,
    /// What is done if `action` does not help.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next_action: Option<RepairAction>,
    /// What was known of the node before anything was destroyed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub evidence: Option<Evidence>,
    /// How far the drain is, and what blocks it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub drain: Option<DrainStatus>,
    /// Each destructive call, recorded before it is made.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub attempts: Vec<Attempt>,
    /// The node that took its place.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub replacement: Option<Replacement>,
    /// Since when the node is well after its reboot.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub well_since: Option<MicroTime>,
    /// What the repair ends with once the node is un-cordoned; without it with `Recovered`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub ending: Option<Ending>,
    /// What the policy said when the drain started. What was loosened since is for the next repair.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub policy: Option<PolicySnapshot>,
    /// In mode `Shadow`: what would have been done, and when.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<Shadow>,
    /// What was done and decided, the oldest first; at most 50 entries.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub timeline: Vec<Entry>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct PolicySnapshot {
    /// Of the RepairPolicy.
    pub name: String,
    /// Of its spec at that time.
    pub generation: i64,
    pub unhealthy_threshold: UnhealthyThreshold,
    /// As the policy said it then.
    pub last_node: LastNode,
    pub drain: Drain,
    #[serde(default)]
    pub replace: Replace,
    /// As the policy said it then.
    pub verify: Verify,
}

impl PolicySnapshot {
    pub fn of(policy: &RepairPolicy) -> Self {
        let spec = &policy.spec;
        Self {
            name: policy.metadata.name.clone().unwrap_or_default(),
            generation: policy.metadata.generation.unwrap_or_default(),
            unhealthy_threshold: spec.unhealthy_threshold.clone(),
            last_node: spec.last_node,
            drain: spec.drain.clone(),
            replace: spec.replace.clone(),
            verify: spec.verify.clone(),
        }
    }
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Shadow {
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cordoned: Option<MicroTime>,
    /// Drained, and then replaced.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub started: Option<MicroTime>,
}

/// Where the repair is. Each phase is an intent: it is stored before what it names is done.
#[derive(
    Clone,
    Copy,
    Debug,
    Default,
    PartialEq,
    Eq,
    PartialOrd,
    Ord,
    Hash,
    Deserialize,
    Serialize,
    JsonSchema,
)]
pub enum Phase {
    /// Seen; nothing has been touched.
    #[default]
    Watching,
    Cordoning,
    /// Cordoned, until the wait is over and every gate is open.
    Waiting,
    Draining,
    Rebooting,
    Replacing,
    Verifying,
    Uncordoning,
    Finished,
}

#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema,
)]
pub enum Outcome {
    /// A verified replacement serves, or the node itself after a verified reboot.
    Succeeded,
    /// The conditions became healthy before anything was destroyed.
    Recovered,
    /// The node went away, a person un-cordoned it, or its drain was given up (`onTimeout: Release`).
    Cancelled,
    /// It could not be repaired; the node stays cordoned and a person must look.
    Failed,
    /// Another repair of the node has taken its place.
    Superseded,
    /// Repairing it again would bring the same; the node stays cordoned and a person must look.
    NeedsHuman,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct Hold {
    /// The first unmet gate.
    pub gate: Gate,
    pub since: MicroTime,
    /// Its numbers, as a sentence.
    pub message: String,
    /// When the numbers were taken. Those that depend on other nodes are not written at every change.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub told: Option<MicroTime>,
    /// Its numbers, one by one.
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub values: BTreeMap<String, String>,
    /// What would open it.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub opens: String,
    /// Further unmet gates behind it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub behind: Vec<Gate>,
}

/// In the order in which they are reported.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Deserialize, Serialize, JsonSchema,
)]
pub enum Gate {
    /// An object of ours cannot be read, so what it says is unknown.
    Unreadable,
    /// Two policies of one priority select the node, or none does any more.
    PolicyConflict,
    Disabled,
    /// The policy is paused, or the repairer as a whole.
    Paused,
    Excluded,
    ControlPlane,
    NotOurs,
    /// Somebody else is repairing, draining or removing the node.
    OtherRepairer,
    /// The API server does not let us do what a repair that is under way needs: until that is mended
    /// no other one is begun.
    Denied,
    /// The action that is due cannot be carried out for this node.
    Unsupported,
    /// Nobody has confirmed the condition for too long, or what is known contradicts it.
    SignalStale,
    /// Another agent wrote the condition and may have forgotten to take it back.
    SignalLatched,
    /// Many nodes fell silent together.
    Partition,
    /// Many nodes fail for one reason; one of them is repaired first.
    Correlated,
    UnhealthyThreshold,
    ZonalShift,
    /// Too much of the zone is unhealthy.
    ZoneShare,
    WaitTime,
    OutsideWindow,
    LastNode,
    /// Replacing it has not helped before.
    AttemptsSpent,
    /// What is destroyed could not be replaced.
    Capacity,
    RepairBudget,
    ParallelLimit,
    /// All gates are open, and the policy only watches.
    Shadow,
    /// The drain has passed its timeout, or holds for a pod that a person must decide about.
    Drain,
    /// The node is drained, and kept for a person to look at (label `nodemend.dev/preserve`).
    Preserve,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct EpisodeReason {
    /// Type of the NodeCondition.
    pub condition: String,
    /// Of the condition, as its writer says it.
    pub reason: String,
    /// From when the condition's wait is counted: nodemend's first sight of it, or of its return
    /// after a short recovery. Transition times of conditions are not to be trusted.
    pub since: MicroTime,
    /// When nodemend first saw this reason.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seen: Option<MicroTime>,
    /// How often the condition has recovered and come back.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub flaps: u32,
}

#[expect(
    clippy::trivially_copy_pass_by_ref,
    reason = "serde passes a reference"
)]
fn is_zero(number: &u32) -> bool {
    *number == 0
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct DrainStatus {
    pub since: MicroTime,
    /// Pods that still have to go.
    pub remaining: u32,
    /// Pods that may not go yet, and what is against it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub blocked: Vec<Blocked>,
    /// Pods that stay where they are, for a reason of their own.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub left: Vec<Blocked>,
    /// Since when no pod is left that has to leave.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub emptied: Option<MicroTime>,
    /// Volumes of pods that have left, which are still attached.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub detaching: Vec<String>,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct Blocked {
    /// Namespace and name.
    pub pod: String,
    /// In words.
    pub why: String,
    /// The PodDisruptionBudget that says so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub budget: Option<String>,
    /// It never will let go by itself.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub never: bool,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct Ending {
    /// How it will end.
    pub outcome: Outcome,
    /// Why.
    pub message: String,
}

/// What a person would want to have seen of a node that is gone.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Evidence {
    /// Of the boot in which it was unhealthy.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub boot_id: String,
    /// Kernel, operating system, kubelet, instance type.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub machine: Vec<String>,
    /// Type, status, reason and message of each condition of the node.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub conditions: Vec<String>,
    /// The last Events about the node, newest first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub events: Vec<String>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Attempt {
    #[serde(default = "replace")]
    pub action: RepairAction,
    pub started: MicroTime,
    /// Of the node before a reboot: another one proves it.
    #[serde(default, rename = "bootID", skip_serializing_if = "Option::is_none")]
    pub boot_id: Option<String>,
    /// Absent while the call is under way, and when its end was never learned.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub result: Option<AttemptResult>,
    /// As AWS names the call in CloudTrail.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub request_id: Option<String>,
    /// What AWS answered.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub message: Option<String>,
}

const fn replace() -> RepairAction {
    RepairAction::Replace
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum AttemptResult {
    /// AWS took it, by its answer or by the state of the instance.
    Accepted,
    /// AWS said no.
    Refused,
    /// AWS was asked but the instance shows no sign of it.
    NotApplied,
    /// A gate had closed between the record and the call: it was not made.
    Withheld,
    /// AWS threw the call away because there were too many in all. The next one takes its place.
    Throttled,
    /// The account may not make the call. Nothing else of the group is tried for an hour.
    Denied,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Replacement {
    /// Of the new Node.
    pub node_name: String,
    /// Of the new Node.
    pub node_uid: String,
    /// Of the new Node.
    pub instance_id: String,
    /// Since when it is Ready and healthy.
    pub since: MicroTime,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub struct Entry {
    pub at: MicroTime,
    /// What was done, seen or decided.
    pub event: String,
}

impl DrainStatus {
    pub fn begin(now: Timestamp) -> Self {
        Self {
            since: MicroTime(now),
            remaining: 0,
            blocked: Vec::new(),
            left: Vec::new(),
            emptied: None,
            detaching: Vec::new(),
        }
    }
}

impl NodeRepair {
    /// The name of the policy that it started under, or was opened by.
    pub fn policy(&self) -> &str {
        let started = self.status.as_ref().and_then(|s| s.policy.as_ref());
        started.map_or(&self.spec.policy_ref.name, |policy| &policy.name)
    }

    /// A time in its status that no clock has shown yet: to wait from then on would leave what a
    /// timestamp can be.
    pub fn impossible_time(&self) -> Option<Timestamp> {
        let status = self.status.as_ref()?;
        let mut times = status.times();
        times.find(|at| !YEARS.contains(&at.to_zoned(TimeZone::UTC).year()))
    }
}

impl NodeRepairStatus {
    fn times(&self) -> impl Iterator<Item = Timestamp> {
        let conditions = self.conditions.iter().map(|it| it.last_transition_time.0);
        let held = self.hold.iter();
        let held = held.flat_map(|hold| [Some(&hold.since), hold.told.as_ref()]);
        let reasons = self.reasons.iter();
        let reasons = reasons.flat_map(|reason| [Some(&reason.since), reason.seen.as_ref()]);
        let drain = self.drain.iter();
        let drain = drain.flat_map(|drain| [Some(&drain.since), drain.emptied.as_ref()]);
        let shadow = self.shadow.iter();
        let shadow = shadow.flat_map(|it| [it.cordoned.as_ref(), it.started.as_ref()]);
        let others = [
            self.replacement.as_ref().map(|it| &it.since),
            self.well_since.as_ref(),
        ];
        let attempts = self.attempts.iter().map(|attempt| attempt.started.0);
        let micro = held.chain(reasons).chain(drain).chain(shadow).chain(others);
        conditions
            .chain(attempts)
            .chain(micro.flatten().map(|at| at.0))
    }

    pub fn is_finished(&self) -> bool {
        self.phase == Phase::Finished
    }

    /// The group that the repair counts in.
    pub fn counted_in(&self) -> Option<&str> {
        self.count_group.as_deref().or(self.group.as_deref())
    }

    pub fn note(&mut self, now: Timestamp, event: impl Into<String>) {
        let event: String = event.into().chars().take(MESSAGE_LIMIT).collect();
        self.timeline.push(Entry {
            at: MicroTime(now),
            event,
        });
        if self.timeline.len() > MOST_ENTRIES {
            self.timeline.remove(1);
        }
    }

    /// Sets one of the conditions `Cordoned`, `Drained`, `ActionTaken`, `Verified`, `Finished`.
    pub fn set_condition(
        &mut self,
        kind: &str,
        status: bool,
        reason: &str,
        message: &str,
        now: Timestamp,
    ) {
        let status = if status { "True" } else { "False" };
        let unchanged = self
            .conditions
            .iter()
            .find(|c| c.type_ == kind && c.status == status);
        let since = unchanged.map_or(now, |condition| condition.last_transition_time.0);
        self.conditions.retain(|condition| condition.type_ != kind);
        self.conditions.push(Condition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: message.chars().take(MESSAGE_LIMIT).collect(),
            last_transition_time: k8s_openapi::apimachinery::pkg::apis::meta::v1::Time(since),
            observed_generation: None,
        });
    }
}
