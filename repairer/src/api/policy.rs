//! The `RepairPolicy` CRD: which nodes may be repaired, when, and how many.

#![expect(
    clippy::duplicated_attributes,
    reason = "the keys of one printcolumn are not those of another"
)]

use k8s_openapi::apimachinery::pkg::apis::meta::v1::LabelSelector;
use kube::core::Rule as Cel;
use kube::{CustomResource, KubeSchema};
use schemars::JsonSchema;
use serde::{Deserialize, Serialize};

use super::duration::Wait;

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
        name = "Age",
        type_ = "date",
        json_path = ".metadata.creationTimestamp"
    )
)]
#[serde(rename_all = "camelCase")]
pub struct RepairPolicySpec {
    /// `Disabled` (the default) watches and records what it would have to wait for; `Enforce` repairs.
    #[serde(default)]
    pub mode: Mode,
    /// Starts nothing and makes no further destructive call; verifying and un-cordoning go on.
    #[serde(default)]
    pub paused: bool,
    /// The nodes that this policy is for; `matchLabels: {}` is all of them.
    pub selector: LabelSelector,
    /// Where two policies select a node the higher one wins. Of two equal ones neither does.
    /// A `Disabled` policy never competes with an enabled one.
    #[serde(default)]
    pub priority: i32,
    #[serde(default)]
    pub cordon: Cordon,
    #[serde(default)]
    pub unhealthy_threshold: UnhealthyThreshold,
    #[serde(default)]
    pub parallel: Parallel,
    /// What to do with the last node of a group that still serves: `Hold` or `Allow`.
    #[serde(default)]
    pub last_node: LastNode,
    #[serde(default)]
    pub partition: Partition,
    #[serde(default)]
    pub drain: Drain,
    #[serde(default)]
    pub verify: Verify,
    /// The most specific rule for a condition wins; their order does not matter. A condition
    /// without a rule is left alone.
    #[schemars(length(min = 1, max = 64))]
    pub rules: Vec<RepairRule>,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum Mode {
    #[default]
    Disabled,
    Enforce,
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
    validation = Cel::new("!(has(self.percentage) && has(self.count))")
        .message("set percentage or count, not both")
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
#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Parallel {
    #[serde(default = "one")]
    #[schemars(range(min = 1, max = 1000))]
    pub count: u32,
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
    /// After this the drain is held: it goes on trying, says what blocks it, and no longer takes one
    /// of the `parallel` places.
    #[serde(default = "fifteen_minutes")]
    pub timeout: Wait,
    /// What to do with pods whose emptyDir volumes on disk would be lost: `Hold` waits for a person.
    #[serde(default)]
    pub local_volumes: LocalVolumes,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum LocalVolumes {
    #[default]
    Hold,
    Discard,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct Verify {
    /// From the terminate call to a Ready replacement; later than this the repair has failed.
    #[serde(default = "twenty_minutes")]
    pub replace_deadline: Wait,
    /// How long the replacement must stay healthy.
    #[serde(default = "five_minutes")]
    pub soak: Wait,
}

#[derive(Clone, Debug, PartialEq, Eq, Deserialize, Serialize, KubeSchema)]
#[x_kube(
    validation = Cel::new("self.nodeMonitoringCondition.endsWith('Ready') || has(self.status)")
        .message("status is required for a condition whose type does not end in Ready: is True good or bad?")
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
    #[schemars(length(min = 1, max = 3))]
    pub status: Option<Vec<ConditionStatus>>,
    /// From first seen to repair.
    pub min_repair_wait_time: Wait,
    #[schemars(length(min = 1, max = 1))]
    pub repair_actions: Vec<RepairAction>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum ConditionStatus {
    True,
    False,
    Unknown,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
pub enum RepairAction {
    /// Drain, terminate the instance through its Auto Scaling group, wait for the new node.
    Replace,
    /// Leave the node alone.
    NoAction,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Deserialize, Serialize, JsonSchema)]
#[serde(rename_all = "camelCase")]
pub struct RepairPolicyStatus {
    #[serde(default)]
    pub observed_generation: i64,
    /// Nodes that this policy is for.
    #[serde(default)]
    pub nodes: u32,
    /// Those with an open episode of a rule that acts.
    #[serde(default)]
    pub unhealthy: u32,
    /// Repairs from the cordon to the verified replacement.
    #[serde(default)]
    pub in_repair: u32,
}

const fn one() -> u32 {
    1
}

const fn three() -> u32 {
    3
}

const fn five() -> u32 {
    5
}

const fn thirty_three() -> u32 {
    33
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

const fn fifteen_minutes() -> Wait {
    Wait::minutes(15)
}

const fn twenty_minutes() -> Wait {
    Wait::minutes(20)
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
        Self { count: one() }
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
            local_volumes: LocalVolumes::default(),
        }
    }
}

impl Default for Verify {
    fn default() -> Self {
        Self {
            replace_deadline: twenty_minutes(),
            soak: five_minutes(),
        }
    }
}
