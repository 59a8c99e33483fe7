//! The `RepairPolicy` CRD: which nodes may be repaired, when, and how many.

#![expect(
    clippy::duplicated_attributes,
    reason = "the keys of one printcolumn are not those of another"
)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, LabelSelector, MicroTime};
use kube::core::Rule as Cel;
use kube::{CustomResource, KubeSchema};
use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

use super::duration::Wait;
use super::repair::Gate;
use super::validate::{
    GROUP_BY, NO_ACTION_ALONE, ONE_PARALLEL, ONE_THRESHOLD, SELECTOR_VALUES, STATUS_REQUIRED,
    WINDOW_DURATION,
};

/// Which nodes may be repaired, for which conditions, after which wait and within which limits.
/// The rules are named as in EKS `nodeRepairConfig`. Nothing is repaired until `mode: Enforce`.
#[derive(CustomResource, KubeSchema, Clone, Debug, PartialEq, Deserialize, Serialize)]
#[kube(
    group = "nodemend.dev",
    version = "v1alpha1",
    kind = "RepairPolicy",
    plural = "repairpolicies",
    shortname = "rpol",
    category = "nodemend",
    status = "RepairPolicyStatus",
    doc = "Which nodes may be repaired, for which conditions, after which wait and within which limits.",
    derive = "PartialEq",
    printcolumn(name = "Mode", type_ = "string", json_path = ".spec.mode"),
    printcolumn(name = "Paused", type_ = "boolean", json_path = ".spec.paused"),
    printcolumn(name = "Nodes", type_ = "integer", json_path = ".status.nodes"),
    printcolumn(name = "Unhealthy", type_ = "integer", json_path = ".status.unhealthy"),
    printcolumn(name = "InRepair", type_ = "integer", json_path = ".status.inRepair"),
    printcolumn(
        name = "Allowed",
        type_ = "string",
        json_path = ".status.conditions[?(@.type==\"RepairAllowed\")].reason"
    ),
    printcolumn(
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct RepairPolicySpec {
    /// `Disabled` (the default) watches and records what it would have to wait for; `Shadow` decides
    /// everything and records what it would have done; `Enforce` repairs.
    #[serde(default)]
    pub mode: Mode,
    /// Starts nothing and makes no further destructive call; verifying and un-cordoning go on.
    #[serde(default)]
    pub paused: bool,
    /// The nodes that this policy is for; `matchLabels: {}` is all of them.
    #[schemars(schema_with = "selector")]
    pub selector: LabelSelector,
    /// Where two policies select a node the higher one wins. Of two equal ones neither does.
    /// A `Disabled` policy never competes with an enabled one.
    #[serde(default)]
    pub priority: i32,
    #[serde(default)]
    pub group_by: GroupBy,
    #[serde(default)]
    pub cordon: Cordon,
    #[serde(default)]
    pub unhealthy_threshold: UnhealthyThreshold,
    #[serde(default)]
    pub parallel: Parallel,
    #[serde(default)]
    pub repair_budget: RepairBudget,
    #[serde(default)]
    pub attempts: Attempts,
    /// What to do with the last node of a group that still serves: `Hold` or `Allow`.
    #[serde(default)]
    pub last_node: LastNode,
    #[serde(default)]
    pub partition: Partition,
    #[serde(default)]
    pub correlation: Correlation,
    #[serde(default)]
    pub zones: Zones,
    /// What a zonal shift of the cluster (AWS ARC) stops: `PauseAll` (as EKS), `PauseZone` (elsewhere
    /// one repair at a time goes on) or `Ignore`.
    #[serde(default)]
    pub zonal_shift: ZonalShift,
    #[serde(default)]
    pub drain: Drain,
    #[serde(default)]
    pub replace: Replace,
    #[serde(default)]
    pub preserve: Preserve,
    /// How a repair is proven before the node counts as well.
    #[serde(default)]
    pub verify: Verify,
    /// A node that is not Ready for so long after its creation is no longer "still joining", and counts.
    #[serde(default = "twenty_minutes")]
    pub startup_timeout: Wait,
    /// Repairs start only within these; without any, always.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(length(max = 16))]
    pub maintenance_windows: Vec<MaintenanceWindow>,
    /// The most specific rule for a condition wins; their order does not matter. A condition
    /// without a rule is left alone.
    #[schemars(length(min = 1, max = 64))]
    pub rules: Vec<RepairRule>,
}

/// Kubernetes' own, with bounds: without them no rule about its parts would be cheap enough.
fn selector(_: &mut SchemaGenerator) -> Schema {
    json_schema!({
        "type": "object",
        "properties": {
            "matchLabels": {
                "description": "Labels that the Node has, all of them; `{}` fits every node.",
                "type": "object",
                "maxProperties": 64,
                "additionalProperties": {"type": "string", "maxLength": 63},
            },
            "matchExpressions": {
                "description": "Rules about labels, all of which fit.",
                "type": "array",
                "maxItems": 16,
                "items": {
                    "type": "object",
                    "required": ["key", "operator"],
                    "properties": {
                        "key": {
                            "description": "Of the label.",
                            "type": "string",
                            "minLength": 1,
                            "maxLength": 317,
                        },
                        "operator": {
                            "description": "`In` and `NotIn` want `values`, the others none.",
                            "type": "string",
                            "enum": ["In", "NotIn", "Exists", "DoesNotExist"],
                        },
                        "values": {
                            "description": "Of the label, any of them.",
                            "type": "array",
                            "maxItems": 64,
                            "items": {"type": "string", "maxLength": 63},
                        },
                    },
                    "x-kubernetes-validations": [{
                        "rule": "(self.operator in ['In', 'NotIn']) == (has(self.values) && size(self.values) > 0)",
                        "message": SELECTOR_VALUES,
                    }],
                },
            },
        },
    })
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Mode {
    #[default]
    Disabled,
    Shadow,
    Enforce,
}

/// What percentages are of, and which nodes are each other's reserve.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[x_kube(validation = Cel::new("(self.type == 'Label') == has(self.label)").message(GROUP_BY))]
#[serde(rename_all = "camelCase")]
pub struct GroupBy {
    /// `Auto`: the Auto Scaling group. `Label`: the value of the node's label `label`.
    #[serde(default, rename = "type")]
    pub kind: GroupKind,
    /// The Node label whose value names the group; with type `Label` alone.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 317))]
    pub label: Option<String>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum GroupKind {
    #[default]
    Auto,
    Label,
}

/// New pods are kept off a sick node long before it is repaired.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Cordon {
    /// `Immediately`: `after` the condition was first seen; `AtRepair`: only when the repair starts.
    #[serde(default)]
    pub when: CordonWhen,
    /// From first seen to cordon.
    #[serde(default = "thirty_seconds")]
    pub after: Wait,
    /// How long a condition must be healthy again for its episode to be over.
    #[serde(default = "five_minutes")]
    pub recovery_soak: Wait,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum CordonWhen {
    #[default]
    Immediately,
    AtRepair,
}

/// Stops all repair in a group of which too much is unhealthy: then it is not the nodes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[x_kube(
    validation = Cel::new("!(has(self.percentage) && has(self.count))").message(ONE_THRESHOLD)
)]
#[serde(rename_all = "camelCase")]
pub struct UnhealthyThreshold {
    /// Percent of the group; 20 when neither this nor `count` is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub percentage: Option<u32>,
    /// Nodes of the group.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 10000))]
    pub count: Option<u32>,
    /// Smaller groups have no threshold.
    #[serde(default = "five")]
    #[schemars(range(min = 1, max = 10000))]
    pub min_nodes: u32,
    /// `AtLeast` stops at the threshold (EKS launch text), `Above` beyond it (EKS user guide).
    #[serde(default)]
    pub comparison: Comparison,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Comparison {
    #[default]
    AtLeast,
    Above,
}

/// How many nodes of the policy may be drained, replaced or verified at a time.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[x_kube(
    validation = Cel::new("!(has(self.count) && has(self.percentageOfUnhealthy))").message(ONE_PARALLEL)
)]
#[serde(rename_all = "camelCase")]
pub struct Parallel {
    /// 1 when neither this nor `percentageOfUnhealthy` is set.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 1000))]
    pub count: Option<u32>,
    /// Of the policy's nodes that are unhealthy or in repair; rounded down, and never below one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(range(min = 1, max = 100))]
    pub percentage_of_unhealthy: Option<u32>,
}

/// How many nodes of a group may be destroyed within a rolling window, by whatever repairs.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RepairBudget {
    /// Nodes of a group that may be destroyed within `window`; it survives restarts.
    #[serde(default = "four")]
    #[schemars(range(min = 1, max = 1000))]
    pub count: u32,
    /// Rolling: a duration like `1h`.
    #[serde(default = "one_hour")]
    pub window: Wait,
}

/// How often a node may be replaced by one that fails again: then a person must look.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Attempts {
    /// Of a node, the node that it replaced and so on; and failed repairs of its group.
    #[serde(default = "three")]
    #[schemars(range(min = 1, max = 100))]
    pub count: u32,
    /// Rolling: older attempts do not count; a duration like `24h`.
    #[serde(default = "one_day")]
    pub window: Wait,
}

/// Many nodes that fail for one reason are broken by what they share. One of them is repaired to
/// find out; the others wait for how that ends.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Correlation {
    /// Fewer nodes than this are no pattern.
    #[serde(default = "three")]
    #[schemars(range(min = 2, max = 10000))]
    pub min_nodes: u32,
    /// Of the policy's nodes.
    #[serde(default = "five")]
    #[schemars(range(min = 1, max = 100))]
    pub percentage: u32,
    /// They failed within this time of each other.
    #[serde(default = "thirty_minutes")]
    pub window: Wait,
}

/// Stops repair in an availability zone of which too much is unhealthy.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Zones {
    /// Repair stops at this.
    #[serde(default = "fifty_five")]
    #[schemars(range(min = 1, max = 100))]
    pub max_unhealthy_percentage: u32,
    /// Zones with fewer nodes of the policy have no limit.
    #[serde(default = "three")]
    #[schemars(range(min = 1, max = 10000))]
    pub min_nodes: u32,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum ZonalShift {
    #[default]
    PauseAll,
    PauseZone,
    Ignore,
}

/// A time in which repairs may start. One that has started goes on after its end.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[x_kube(
    validation = Cel::new(
        "duration(self.duration) > duration('0s') && duration(self.duration) <= duration('168h')"
    )
    .message(WINDOW_DURATION)
)]
#[serde(rename_all = "camelCase")]
pub struct MaintenanceWindow {
    /// When it begins, as cron has it: minute, hour, day of month, month, day of week.
    #[schemars(length(min = 9, max = 128), pattern(r"^[0-9*,/-]+( [0-9*,/-]+){4}$"))]
    pub schedule: String,
    /// How long it is open from each beginning: a duration like `4h`.
    pub duration: Wait,
    /// A place of the IANA time zone database, for example `Europe/Berlin`; or an offset from UTC, for
    /// example `+02:00`. A time that clocks leave out there opens no window.
    #[serde(default = "utc")]
    #[schemars(
        length(max = 64),
        pattern(r"^([A-Za-z][A-Za-z0-9_+/-]*|[+-][0-9]{2}:[0-9]{2})$")
    )]
    pub time_zone: String,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum LastNode {
    #[default]
    Hold,
    Allow,
}

/// Many nodes that become Unknown together are a broken control plane or network, not broken nodes.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Partition {
    /// Percent of the policy's nodes.
    #[serde(default = "thirty_three")]
    #[schemars(range(min = 1, max = 100))]
    pub percentage: u32,
    /// Fewer nodes than this are no partition.
    #[serde(default = "three")]
    #[schemars(range(min = 1, max = 10000))]
    pub min_nodes: u32,
    /// They became Unknown within this time of each other.
    #[serde(default = "one_minute")]
    pub window: Wait,
}

/// Evictions respect PodDisruptionBudgets, always.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Drain {
    /// From the start of the drain to `onTimeout`; a pod that was let go has its own grace beyond it.
    #[serde(default = "fifteen_minutes")]
    pub timeout: Wait,
    /// What to do then. `Hold` waits for a person: the drain goes on trying, says what blocks it, and no
    /// longer takes one of the `parallel` places. `Release` un-cordons the node and ends the repair. `Force`
    /// deletes what is left past its budget, with the pod's own grace and never with none.
    #[serde(default)]
    pub on_timeout: OnTimeout,
    /// What to do with pods whose emptyDir volumes on disk would be lost: `Hold` waits for a person.
    #[serde(default)]
    pub local_volumes: LocalVolumes,
    /// The same before a reboot, which such volumes outlive: `Leave` leaves the pods where they are.
    #[serde(default)]
    pub local_volumes_at_reboot: LocalVolumesAtReboot,
    /// What to do with pods that no controller would make again: `Hold` waits for a person.
    #[serde(default)]
    pub unmanaged_pods: UnmanagedPods,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum OnTimeout {
    #[default]
    Hold,
    Release,
    Force,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum LocalVolumes {
    #[default]
    Hold,
    Discard,
}

/// How an instance of an Auto Scaling group is replaced.
#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Replace {
    /// `Terminate` ends it at once, and the group launches another; `InstanceHealth` tells the group
    /// that it is unhealthy, for groups whose maintenance policy launches before it terminates.
    #[serde(default)]
    pub by: ReplaceBy,
    /// What to do with an instance that is protected from scale-in or from termination: `Hold`
    /// takes that as the wish of a person, `Replace` does not.
    #[serde(default)]
    pub protected: Protected,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum ReplaceBy {
    #[default]
    Terminate,
    InstanceHealth,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Protected {
    #[default]
    Hold,
    Replace,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum LocalVolumesAtReboot {
    #[default]
    Leave,
    Hold,
    Discard,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum UnmanagedPods {
    #[default]
    Hold,
    Evict,
}

/// Nodes with the label `nodemend.dev/preserve` are kept after their drain, for a person to look at.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Preserve {
    /// Nodes of the policy that are kept at a time; the label of a further one is passed over.
    #[serde(default = "one")]
    #[schemars(range(min = 0, max = 1000))]
    pub count: u32,
    /// From the end of the drain; then the repair goes on.
    #[serde(default = "one_day")]
    pub age: Wait,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Verify {
    /// From the reboot to a node that is well, with another boot id; later than this the reboot has
    /// failed, and the next of the rule's `repairActions` is due.
    #[serde(default = "ten_minutes")]
    pub reboot_deadline: Wait,
    /// From the terminate call to a Ready replacement; later than this the repair has failed.
    #[serde(default = "twenty_minutes")]
    pub replace_deadline: Wait,
    /// How long the replacement, or the rebooted node, must stay healthy.
    #[serde(default = "five_minutes")]
    pub soak: Wait,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[x_kube(
    validation = Cel::new("!('NoAction' in self.repairActions) || size(self.repairActions) == 1")
        .message(NO_ACTION_ALONE),
    validation = Cel::new("self.nodeMonitoringCondition.endsWith('Ready') || has(self.status)")
        .message(STATUS_REQUIRED)
)]
#[serde(rename_all = "camelCase")]
pub struct RepairRule {
    /// Type of the NodeCondition, for example `StorageReady`.
    #[schemars(
        length(min = 1, max = 316),
        pattern(r"^[A-Za-z0-9]([-A-Za-z0-9_./]*[A-Za-z0-9])?$")
    )]
    pub node_monitoring_condition: String,
    /// Only for this reason of the condition; a `*` at the end matches any continuation.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 256), pattern(r"^[A-Za-z0-9_,:]+\*?$"))]
    pub node_unhealthy_reason: Option<String>,
    /// The statuses that are unhealthy; by default `["False"]`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schemars(length(min = 1, max = 3), extend("x-kubernetes-list-type" = "set"))]
    pub status: Option<Vec<ConditionStatus>>,
    /// From first seen to repair.
    pub min_repair_wait_time: Wait,
    /// Tried in this order.
    #[schemars(length(min = 1, max = 2), extend("x-kubernetes-list-type" = "set"))]
    pub repair_actions: Vec<RepairAction>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum ConditionStatus {
    True,
    False,
    Unknown,
}

/// From the one that does least to the one that does most.
#[derive(
    Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize, JsonSchema,
)]
pub enum RepairAction {
    /// Leave the node alone.
    NoAction,
    /// Drain, restart the instance in place, wait for the node with another boot id.
    Reboot,
    /// Drain, terminate the instance through its Auto Scaling group, wait for the new node.
    Replace,
}

/// What the policy comes to now; nobody but the repairer writes it.
#[derive(Clone, Debug, Default, PartialEq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RepairPolicyStatus {
    /// The generation of the spec that this status is about.
    #[serde(default)]
    pub observed_generation: i64,
    /// `Accepted`, and `RepairAllowed` whose reason is the gate that holds a whole group, or all.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    #[schemars(extend("x-kubernetes-list-type" = "map", "x-kubernetes-list-map-keys" = ["type"]))]
    pub conditions: Vec<Condition>,
    /// Nodes that this policy is for.
    #[serde(default)]
    pub nodes: u32,
    /// Those with an open episode of a rule that acts.
    #[serde(default)]
    pub unhealthy: u32,
    /// Repairs from the first sight to the verified replacement.
    #[serde(default)]
    pub in_repair: u32,
    /// Repairs that ended with the need for a person, of nodes that still are there.
    #[serde(default)]
    pub needs_human: u32,
    /// The worst groups; the rest is in the numbers above.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub groups: Vec<GroupStatus>,
    /// Breakers that are closed, or that re-open one repair at a time.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub breakers: Vec<Breaker>,
    /// In mode `Shadow`: what would have been done.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub shadow: Option<ShadowSummary>,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct GroupStatus {
    /// As `groupBy` finds it: the Auto Scaling group, the NodePool, or the value of the label.
    pub name: String,
    /// All of them, also those that are excluded.
    pub nodes: u32,
    /// Unhealthy or in repair.
    pub unhealthy: u32,
}

/// A gate that has stopped a group, and how far it has opened since.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Breaker {
    /// The group whose repair was stopped.
    pub group: String,
    pub gate: Gate,
    pub closed_since: MicroTime,
    /// Absent while it is closed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub reopened: Option<MicroTime>,
    /// Repairs of the group that may be under way: one, doubled by each success, one again after a failure.
    pub width: u32,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct ShadowSummary {
    /// Nodes that would have been cordoned, as far as their records are kept.
    pub cordoned: u32,
    /// Nodes that would have been drained and replaced.
    pub replaced: u32,
}

const fn one() -> u32 {
    1
}

const fn three() -> u32 {
    3
}

const fn four() -> u32 {
    4
}

const fn five() -> u32 {
    5
}

const fn thirty_three() -> u32 {
    33
}

const fn fifty_five() -> u32 {
    55
}

const fn thirty_seconds() -> Wait {
    Wait::seconds(30)
}

const fn one_minute() -> Wait {
    Wait::minutes(1)
}

const fn five_minutes() -> Wait {
    Wait::minutes(5)
}

const fn ten_minutes() -> Wait {
    Wait::minutes(10)
}

const fn fifteen_minutes() -> Wait {
    Wait::minutes(15)
}

const fn twenty_minutes() -> Wait {
    Wait::minutes(20)
}

const fn thirty_minutes() -> Wait {
    Wait::minutes(30)
}

const fn one_hour() -> Wait {
    Wait::minutes(60)
}

const fn one_day() -> Wait {
    Wait::minutes(24 * 60)
}

fn utc() -> String {
    "UTC".to_owned()
}

impl Default for Cordon {
    fn default() -> Self {
        Self {
            when: CordonWhen::default(),
            after: thirty_seconds(),
            recovery_soak: five_minutes(),
        }
    }
}

impl Default for UnhealthyThreshold {
    fn default() -> Self {
        Self {
            percentage: Some(20),
            count: None,
            min_nodes: five(),
            comparison: Comparison::default(),
        }
    }
}

impl Default for Parallel {
    fn default() -> Self {
        Self {
            count: Some(1),
            percentage_of_unhealthy: None,
        }
    }
}

impl Default for RepairBudget {
    fn default() -> Self {
        Self {
            count: four(),
            window: one_hour(),
        }
    }
}

impl Default for Attempts {
    fn default() -> Self {
        Self {
            count: three(),
            window: one_day(),
        }
    }
}

impl Default for Correlation {
    fn default() -> Self {
        Self {
            min_nodes: three(),
            percentage: five(),
            window: thirty_minutes(),
        }
    }
}

impl Default for Zones {
    fn default() -> Self {
        Self {
            max_unhealthy_percentage: fifty_five(),
            min_nodes: three(),
        }
    }
}

impl Default for Partition {
    fn default() -> Self {
        Self {
            percentage: thirty_three(),
            min_nodes: three(),
            window: one_minute(),
        }
    }
}

impl Default for Drain {
    fn default() -> Self {
        Self {
            timeout: fifteen_minutes(),
            on_timeout: OnTimeout::default(),
            local_volumes: LocalVolumes::default(),
            local_volumes_at_reboot: LocalVolumesAtReboot::default(),
            unmanaged_pods: UnmanagedPods::default(),
        }
    }
}

impl Default for Preserve {
    fn default() -> Self {
        Self {
            count: one(),
            age: one_day(),
        }
    }
}

impl Default for Verify {
    fn default() -> Self {
        Self {
            reboot_deadline: ten_minutes(),
            replace_deadline: twenty_minutes(),
            soak: five_minutes(),
        }
    }
}
