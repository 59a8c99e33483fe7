//! PURE. What the repairer knows at one moment: a snapshot that decisions are made on.

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;

use crate::api::policy::RepairPolicy;
use crate::api::repair::NodeRepair;
use crate::api::{DISMISSED, KEEP_OFF, MARKS, OUT_OF_SERVICE, TAINT};
use crate::claim::Claims;
use crate::drain::{Attachment, Budget, PodView, Tries};
use crate::unjoined::Members;

#[derive(Clone, Debug, Default)]
pub struct Cluster {
    /// Above all policies.
    pub limits: Limits,
    pub nodes: BTreeMap<String, NodeView>,
    pub policies: Vec<RepairPolicy>,
    pub repairs: BTreeMap<String, NodeRepair>,
    /// What AWS says of instances, by id; what is not here is unknown.
    pub instances: BTreeMap<String, InstanceView>,
    /// Pods of nodes that are being drained, listed in this pass; what is not here is unknown.
    pub pods: BTreeMap<String, Vec<PodView>>,
    /// What drains need beside the pods, asked for while there is one; `None` is unknown.
    pub budgets: Option<Vec<Budget>>,
    /// Namespace and name of the DaemonSets that exist.
    pub daemon_sets: Option<BTreeSet<String>>,
    pub attachments: Option<Vec<Attachment>>,
    /// What was answered last to evictions.
    pub tries: Tries,
    /// Namespace and name of the pod that this process runs in.
    pub own_pod: Option<String>,
    /// Objects of ours that are there but cannot be read, with the error.
    pub unreadable: Vec<String>,
    /// Leases of kubelets that are said to be silent, by the node's name: `None` where there is none;
    /// what is not here is unknown.
    pub leases: Asked<BTreeMap<String, Option<LeaseView>>>,
    /// Since when the API server does not answer us: what is here is as old.
    pub unreachable_since: Option<Timestamp>,
    /// Whether groups can launch what replaces an instance, by their name; what is not here is unknown.
    pub launches: Asked<BTreeMap<String, Launches>>,
    /// Karpenter's NodeClaims, or why they are not known; not asked where the cluster has no such API.
    pub claims: Asked<Result<Claims, String>>,
    /// Zones (by id) that traffic has been shifted away from.
    pub shifted: Asked<Result<BTreeSet<String>, String>>,
    /// The members of the groups of Nodes, where a policy has a rule about those that never joined.
    pub members: Option<Members>,
    /// What EC2 says of its instances by itself, as far as it has been asked.
    pub checks: Option<Checks>,
    /// The EKS cluster that this is, where that is known.
    pub eks_cluster: Option<String>,
}

/// One whole look at the status checks and scheduled events of all instances.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Checks {
    pub at: Timestamp,
    /// By the instance's id.
    pub impaired: BTreeMap<String, Impaired>,
    pub events: BTreeMap<String, Event>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Impaired {
    /// `InstanceUnreachable` or `SystemUnreachable`.
    pub reason: &'static str,
    pub since: Option<Timestamp>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Event {
    /// `InstanceRetirement` and so on, in the style of reasons.
    pub reason: &'static str,
    pub not_before: Option<Timestamp>,
}

/// What EC2 says, in the form of conditions: `True` is bad.
pub const EC2_CONDITIONS: [&str; 2] = ["EC2StatusImpaired", "EC2ScheduledEvent"];

/// Whether the shell looks at something at all. What it does not look at closes no gate, and every
/// gate that would need it says so.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Asked<T> {
    #[default]
    No,
    Yes(T),
}

/// The process-wide limits.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Limits {
    pub paused: bool,
    pub max_parallel: u32,
    pub max_repairs_per_hour: u32,
}

impl Limits {
    pub const MAX_PARALLEL: u32 = 10;
    pub const MAX_REPAIRS_PER_HOUR: u32 = 30;
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            paused: false,
            max_parallel: Self::MAX_PARALLEL,
            max_repairs_per_hour: Self::MAX_REPAIRS_PER_HOUR,
        }
    }
}

/// The Lease that a kubelet keeps renewing while it reaches the API server.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct LeaseView {
    /// When it was last seen to change, or first seen, by our own clock: kubelets' clocks differ.
    pub renewed: Timestamp,
    /// The kubelet's own promise: unchanged for so long, it is silent.
    pub lasts: Duration,
}

impl LeaseView {
    pub fn expires(&self) -> Timestamp {
        self.renewed + self.lasts
    }
}

/// What stands against new instances of a group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Launches {
    /// Suspended processes, as Auto Scaling names them.
    pub suspended: Vec<String>,
    /// Those among them that AWS suspended, with its reason.
    pub suspended_by_aws: BTreeMap<String, String>,
    /// How many of the last launches in a row have failed, and why the last one did.
    pub failed: u32,
    pub failure: Option<String>,
    pub sizes: Option<Sizes>,
    /// What Auto Scaling says of a group that is being deleted.
    pub status: Option<String>,
    /// The status of an instance refresh that has not ended.
    pub refresh: Option<String>,
    /// Its warm pool takes back what is terminated, and hands it out again.
    pub reuses_instances: bool,
    /// Its maintenance policy launches before it terminates.
    pub launches_first: bool,
    pub node_group: Option<NodeGroup>,
    /// Why none of this is known.
    pub unknown: Option<String>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Sizes {
    pub min: i32,
    pub desired: i32,
    pub max: i32,
}

/// An EKS managed node group, above its Auto Scaling group.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NodeGroup {
    pub name: String,
    /// `ACTIVE`, `UPDATING`, `DEGRADED` ...
    pub status: String,
    /// What EKS finds wrong with it.
    pub issues: Vec<String>,
    /// EKS repairs its nodes itself.
    pub repairs_itself: bool,
}

#[derive(Clone, Debug, PartialEq)]
pub struct NodeView {
    pub name: String,
    pub uid: String,
    pub resource_version: String,
    pub labels: BTreeMap<String, String>,
    pub provider_id: String,
    /// False: there is only an instance, and no Node.
    pub joined: bool,
    pub unschedulable: bool,
    pub taints: Vec<core::Taint>,
    pub conditions: Vec<ConditionView>,
    pub created: Timestamp,
    /// Somebody has asked for its deletion.
    pub deleting: bool,
    /// What other programs have marked it with that repair, drain or remove nodes.
    pub others: Vec<String>,
    /// Resources of device plugins: what the kubelet may give out, and what is there.
    pub devices: BTreeMap<String, (String, String)>,
    /// Another one is another boot; empty where the kubelet has not said.
    pub boot_id: String,
    /// What nodemend has set on it, as its annotation says.
    pub marks: Option<BTreeSet<String>>,
    /// Which of the marks that keep other programs off it has, whoever set them.
    pub kept_off: BTreeSet<String>,
    /// When a person deleted its NodeRepair.
    pub dismissed: Option<Timestamp>,
    /// What nodes share that fail together: instance type, image, versions.
    pub traits: BTreeMap<String, String>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConditionView {
    pub kind: String,
    /// As written: `True`, `False` or `Unknown`.
    pub status: String,
    pub reason: String,
    pub heartbeat: Option<Timestamp>,
    pub transition: Option<Timestamp>,
    /// Who wrote it, where the API server tells.
    pub writer: Option<String>,
}

/// The field manager of nodemend's own detector.
pub const DETECTOR: &str = "nodemend-detector";
/// By taint or annotation, exactly or up to a `/` at the end.
const OTHERS: [(&str, &str); 11] = [
    ("karpenter.sh/disrupted", "Karpenter removes it"),
    ("karpenter.sh/disruption", "Karpenter removes it"),
    (
        "ToBeDeletedByClusterAutoscaler",
        "the cluster autoscaler removes it",
    ),
    (
        "aws-node-termination-handler/",
        "the node termination handler drains it",
    ),
    ("medik8s.io/remediation", "medik8s repairs it"),
    ("remediation.medik8s.io/", "medik8s repairs it"),
    ("weave.works/kured-reboot-in-progress", "kured reboots it"),
    ("kured.dev/reboot-in-progress", "kured reboots it"),
    ("nvsentinel.nvidia.com/", "NVSentinel repairs it"),
    (
        "node.gardener.cloud/critical-components-not-ready",
        "Gardener prepares it",
    ),
    ("cluster.x-k8s.io/delete-machine", "Cluster API removes it"),
];

impl NodeView {
    /// `None`: an object without a name or UID did not come from an API server.
    pub fn read(node: &core::Node) -> Option<Self> {
        let spec = node.spec.as_ref();
        let status = node.status.as_ref();
        let conditions = status
            .and_then(|status| status.conditions.as_deref())
            .unwrap_or_default();
        let writers = writers(node);
        let annotation = |key: &str| node.metadata.annotations.as_ref()?.get(key);
        let info = status.and_then(|status| status.node_info.as_ref());
        let condition = |condition: &core::NodeCondition| ConditionView {
            writer: writers.get(&condition.type_).cloned(),
            ..ConditionView::read(condition)
        };
        Some(Self {
            name: node.metadata.name.clone()?,
            uid: node.metadata.uid.clone()?,
            resource_version: node.metadata.resource_version.clone()?,
            labels: node.metadata.labels.clone().unwrap_or_default(),
            provider_id: spec
                .and_then(|spec| spec.provider_id.clone())
                .unwrap_or_default(),
            joined: true,
            unschedulable: spec.and_then(|spec| spec.unschedulable).unwrap_or(false),
            taints: spec
                .and_then(|spec| spec.taints.clone())
                .unwrap_or_default(),
            conditions: conditions.iter().map(condition).collect(),
            created: node.metadata.creation_timestamp.as_ref()?.0,
            deleting: node.metadata.deletion_timestamp.is_some(),
            others: others(node),
            devices: devices(node),
            boot_id: info.map(|info| info.boot_id.clone()).unwrap_or_default(),
            marks: annotation(MARKS).map(|marks| marks.split(',').map(str::to_owned).collect()),
            kept_off: KEEP_OFF
                .iter()
                .filter(|key| annotation(key).is_some())
                .map(|key| (*key).to_owned())
                .collect(),
            dismissed: annotation(DISMISSED).and_then(|at| at.parse().ok()),
            traits: traits(node),
        })
    }

    /// The availability zone, by its label or as the providerID says.
    pub fn zone(&self) -> Option<&str> {
        let label = self.labels.get("topology.kubernetes.io/zone");
        let of_instance = || {
            let (zone, _) = self.provider_id.strip_prefix("aws:///")?.split_once('/')?;
            (!zone.is_empty()).then_some(zone)
        };
        label.map(String::as_str).or_else(of_instance)
    }

    /// By its label, or by the name of its zone without the letter.
    pub fn region(&self) -> Option<String> {
        let label = self.labels.get("topology.kubernetes.io/region");
        let of_zone = || {
            let id = InstanceId::parse(&self.provider_id).ok();
            let zone = self.zone().filter(|_| id.is_some())?;
            zone.strip_suffix(|last: char| last.is_ascii_lowercase())
                .map(str::to_owned)
        };
        label.cloned().or_else(of_zone)
    }

    /// Zonal shifts name zones by id: the names differ from account to account.
    fn zone_id_label(&self) -> Option<&str> {
        self.labels
            .get("topology.k8s.aws/zone-id")
            .map(String::as_str)
    }

    pub fn condition(&self, kind: &str) -> Option<&ConditionView> {
        self.conditions
            .iter()
            .find(|condition| condition.kind == kind)
    }

    /// The control plane has not heard from its kubelet.
    pub fn is_silent(&self) -> bool {
        self.condition("Ready")
            .is_some_and(|condition| condition.status == "Unknown")
    }

    pub fn is_ready(&self) -> bool {
        self.condition("Ready")
            .is_some_and(|condition| condition.status == "True")
    }

    /// Our cordon is both: a person who takes either away has taken the node back.
    pub fn has_our_cordon(&self) -> bool {
        self.unschedulable && self.has_our_taint()
    }

    pub fn has_our_taint(&self) -> bool {
        self.taints.iter().any(|taint| taint.key == TAINT)
    }

    /// Anything that we have set and have to take off again.
    pub fn has_marks(&self) -> bool {
        self.has_our_taint() || self.marks.is_some() || self.is_out_of_service()
    }

    /// By us: a person who says so has a reason that we do not know.
    pub fn is_out_of_service(&self) -> bool {
        let (key, value) = OUT_OF_SERVICE;
        let mut taints = self.taints.iter();
        taints.any(|taint| taint.key == key && taint.value.as_deref() == Some(value))
    }

    pub fn instance(&self) -> Result<InstanceId, ProviderIdError> {
        InstanceId::parse(&self.provider_id)
    }
}

impl ConditionView {
    fn read(condition: &core::NodeCondition) -> Self {
        Self {
            kind: condition.type_.clone(),
            status: condition.status.clone(),
            reason: condition.reason.clone().unwrap_or_default(),
            heartbeat: condition.last_heartbeat_time.as_ref().map(|time| time.0),
            transition: condition.last_transition_time.as_ref().map(|time| time.0),
            writer: None,
        }
    }

    /// Another agent's word: not nodemend's, not that of Kubernetes itself.
    pub fn foreign_writer(&self) -> Option<&str> {
        let writer = self.writer.as_deref()?;
        let known = [DETECTOR, "kubelet", "kube-controller-manager"];
        (!known.contains(&writer)).then_some(writer)
    }
}

fn others(node: &core::Node) -> Vec<String> {
    let taints = node.spec.as_ref().and_then(|spec| spec.taints.as_deref());
    let taints = taints.unwrap_or_default().iter().map(|taint| &taint.key);
    let annotations = node.metadata.annotations.iter().flat_map(BTreeMap::keys);
    let said = |key: &String| {
        let matches = |known: &str| match known.strip_suffix('/') {
            Some(_) => key.starts_with(known),
            None => key == known,
        };
        let (_, what) = OTHERS.iter().find(|(known, _)| matches(known))?;
        Some(format!(
            "{what} ({})",
            key.chars().take(80).collect::<String>()
        ))
    };
    taints.chain(annotations).filter_map(said).collect()
}

/// Names with a domain belong to device plugins; `hugepages-2Mi` and the like have none.
fn devices(node: &core::Node) -> BTreeMap<String, (String, String)> {
    let Some(status) = &node.status else {
        return BTreeMap::new();
    };
    let allocatable = status.allocatable.as_ref();
    let count = |(name, capacity): (
        &String,
        &k8s_openapi::apimachinery::pkg::api::resource::Quantity,
    )| {
        let given = allocatable.and_then(|map| map.get(name));
        let given = given.map(|quantity| quantity.0.clone()).unwrap_or_default();
        name.contains('/')
            .then(|| (name.clone(), (given, capacity.0.clone())))
    };
    status.capacity.iter().flatten().filter_map(count).collect()
}

fn traits(node: &core::Node) -> BTreeMap<String, String> {
    let labels = [
        ("instance type", "node.kubernetes.io/instance-type"),
        ("image", "eks.amazonaws.com/nodegroup-image"),
    ];
    let labelled = labels.iter().filter_map(|(name, label)| {
        let value = node.metadata.labels.as_ref()?.get(*label)?;
        Some(((*name).to_owned(), value.clone()))
    });
    let info = node.status.as_ref().and_then(|s| s.node_info.as_ref());
    let told = info.into_iter().flat_map(|info| {
        [
            ("operating system", &info.os_image),
            ("kernel", &info.kernel_version),
            ("kubelet", &info.kubelet_version),
        ]
    });
    let told = told
        .filter(|(_, value)| !value.is_empty())
        .map(|(name, value)| (name.to_owned(), value.clone()));
    labelled.chain(told).collect()
}

/// Who wrote which condition last, by type, as `managedFields` has it.
fn writers(node: &core::Node) -> BTreeMap<String, String> {
    let mut entries: Vec<_> = node.metadata.managed_fields.iter().flatten().collect();
    entries.sort_by_key(|entry| entry.time.as_ref().map(|time| time.0));
    let mut writers = BTreeMap::new();
    for entry in entries {
        let (Some(manager), Some(fields)) = (&entry.manager, &entry.fields_v1) else {
            continue;
        };
        let conditions = fields.0.pointer("/f:status/f:conditions");
        for key in conditions
            .and_then(|c| c.as_object())
            .into_iter()
            .flat_map(|c| c.keys())
        {
            let kind = key
                .strip_prefix("k:")
                .and_then(|json| serde_json::from_str::<serde_json::Value>(json).ok())
                .and_then(|json| Some(json.get("type")?.as_str()?.to_owned()));
            if let Some(kind) = kind {
                writers.insert(kind, manager.clone());
            }
        }
    }
    writers
}

/// The id of an EC2 instance, known to be one.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct InstanceId(String);

/// Why a `providerID` names no EC2 instance.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum ProviderIdError {
    #[error(
        "spec.providerID is empty: the cloud controller manager or kubelet (--provider-id) must set it"
    )]
    Empty,
    #[error("spec.providerID `{0}` is not aws:///ZONE/i-...: only EC2 instances are repaired")]
    Foreign(String),
}

impl InstanceId {
    /// `aws:///us-west-2a/i-0123456789abcdef0`, as the AWS cloud controller manager writes it.
    pub fn parse(provider_id: &str) -> Result<Self, ProviderIdError> {
        if provider_id.is_empty() {
            return Err(ProviderIdError::Empty);
        }
        let foreign = || ProviderIdError::Foreign(provider_id.chars().take(80).collect());
        let (zone, id) = provider_id
            .strip_prefix("aws:///")
            .and_then(|rest| rest.split_once('/'))
            .ok_or_else(foreign)?;
        let hex = id.strip_prefix("i-").ok_or_else(foreign)?;
        let well_formed = !zone.is_empty()
            && matches!(hex.len(), 8 | 17)
            && hex
                .bytes()
                .all(|b| b.is_ascii_digit() || (b'a'..=b'f').contains(&b));
        if well_formed {
            Ok(Self(id.to_owned()))
        } else {
            Err(foreign())
        }
    }

    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for InstanceId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct InstanceView {
    /// The Auto Scaling group it is a member of.
    pub group: Option<String>,
    /// As Auto Scaling says: `InService`, `Terminating:Wait`, ...
    pub lifecycle: Option<String>,
    pub state: InstanceState,
    /// Whether the cloud's own checks of the machine pass, where they were asked for.
    pub checks_pass: Option<bool>,
    pub facts: Facts,
}

/// What else AWS says of an instance.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Facts {
    /// Those that say whose it is.
    pub tags: BTreeMap<String, String>,
    pub zone_id: Option<String>,
    pub launched: Option<Timestamp>,
    /// Of its group: a person's wish that it stays.
    pub protected_from_scale_in: bool,
    /// Its group knows that it is unhealthy, and will replace it.
    pub unhealthy: bool,
    pub spot: bool,
    pub reservation: Option<String>,
    /// What was asked because it is to be destroyed.
    pub last: Option<LastFacts>,
}

/// What is asked only about an instance that is to be destroyed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct LastFacts {
    pub termination_protection: bool,
    /// The status code of its Spot request.
    pub spot_request: Option<String>,
    /// Its capacity reservation's state and free places.
    pub reservation: Option<(String, i32)>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstanceState {
    /// pending, running or stopping.
    There,
    /// stopped: nothing runs on it, but it may be started again.
    Stopped,
    /// shutting-down.
    Going,
    /// terminated.
    Gone,
}

impl InstanceView {
    /// Nothing of it runs any more: who has its volumes has them alone.
    pub fn is_fenced(&self) -> bool {
        match self.state {
            InstanceState::Stopped | InstanceState::Gone => true,
            InstanceState::There | InstanceState::Going => false,
        }
    }

    /// The end has begun: a terminate of whomever has been accepted.
    pub fn is_ending(&self) -> bool {
        let lifecycle = self.lifecycle.as_deref().unwrap_or_default();
        match self.state {
            InstanceState::Going | InstanceState::Gone => true,
            InstanceState::There | InstanceState::Stopped => {
                lifecycle.starts_with("Terminating") || lifecycle == "Terminated"
            }
        }
    }
}

impl Cluster {
    pub fn region(&self) -> Option<String> {
        self.nodes.values().find_map(NodeView::region)
    }

    /// The Auto Scaling group or the NodePool of a node, where it is known.
    pub fn group_of(&self, node: &NodeView) -> Option<&str> {
        if let Some(claim) = self.claim_of(node) {
            return claim.group.as_deref();
        }
        let id = node.instance().ok()?;
        self.instances.get(id.as_str())?.group.as_deref()
    }

    /// Makes conditions of the nodes of what EC2 says of their instances. They are as old as the look.
    pub fn see_checks(&mut self) {
        let Some(checks) = &self.checks else { return };
        for node in self.nodes.values_mut() {
            let Ok(id) = node.instance() else { continue };
            let impaired = checks.impaired.get(id.as_str());
            let event = checks.events.get(id.as_str());
            if let Some(view) = self.instances.get_mut(id.as_str()) {
                view.checks_pass = Some(impaired.is_none());
            }
            let found = [
                impaired.map(|impaired| (impaired.reason, impaired.since)),
                event.map(|event| (event.reason, None)),
            ];
            for (kind, found) in EC2_CONDITIONS.into_iter().zip(found) {
                node.conditions.retain(|condition| condition.kind != kind);
                let (reason, transition) = found.unwrap_or(("NothingFound", None));
                node.conditions.push(ConditionView {
                    kind: kind.to_owned(),
                    status: if found.is_some() { "True" } else { "False" }.to_owned(),
                    reason: reason.to_owned(),
                    heartbeat: Some(checks.at),
                    transition,
                    writer: None,
                });
            }
        }
    }

    /// Its end has begun: it goes by itself.
    pub fn is_ending(&self, node: &NodeView) -> bool {
        let instance = node.instance().ok();
        let instance = instance.and_then(|id| self.instances.get(id.as_str()));
        instance.is_some_and(InstanceView::is_ending)
            || self.claim_of(node).is_some_and(|claim| claim.deleting)
    }

    /// The id of a node's zone, by its label or as EC2 says.
    pub fn zone_id<'a>(&'a self, node: &'a NodeView) -> Option<&'a str> {
        let of_instance = || {
            let id = node.instance().ok()?;
            self.instances.get(id.as_str())?.facts.zone_id.as_deref()
        };
        node.zone_id_label().or_else(of_instance)
    }

    /// The Node of a repair: the same name *and* UID.
    pub fn node_of(&self, repair: &NodeRepair) -> Option<&NodeView> {
        self.nodes
            .get(&repair.spec.node_ref.name)
            .filter(|node| node.uid == repair.spec.node_ref.uid)
    }

    /// UIDs of the nodes with a repair that has not finished.
    pub fn in_repair(&self) -> HashSet<&str> {
        let unfinished = self.repairs.values().filter(|repair| {
            !repair
                .status
                .as_ref()
                .is_some_and(|status| status.is_finished())
        });
        unfinished
            .map(|repair| repair.spec.node_ref.uid.as_str())
            .collect()
    }

    pub fn open_repair(&self, node_uid: &str) -> Option<(&String, &NodeRepair)> {
        self.repairs.iter().find(|(_, repair)| {
            repair.spec.node_ref.uid == node_uid
                && !repair
                    .status
                    .as_ref()
                    .is_some_and(|status| status.is_finished())
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_ec2_says_becomes_conditions_as_old_as_the_look() {
        use crate::decide::fixture::{self, at};
        let mut cluster = fixture::cluster(2);
        let id = |index: usize| format!("i-{index:017x}");
        let impaired = Impaired {
            reason: "SystemUnreachable",
            since: Some(at(10)),
        };
        let event = Event {
            reason: "InstanceRetirement",
            not_before: None,
        };
        cluster.checks = Some(Checks {
            at: at(60),
            impaired: [(id(0), impaired)].into(),
            events: [(id(1), event)].into(),
        });
        cluster.see_checks();
        cluster.see_checks();
        let told = |node: &str| {
            let node = &cluster.nodes[node];
            EC2_CONDITIONS.map(|kind| {
                let all = node.conditions.iter().filter(|c| c.kind == kind).count();
                assert_eq!(all, 1, "said twice");
                let condition = node.condition(kind).unwrap();
                assert_eq!(condition.heartbeat, Some(at(60)));
                (condition.status.clone(), condition.reason.clone())
            })
        };
        let own = |status: &str, reason: &str| (status.to_owned(), reason.to_owned());
        let fine = own("False", "NothingFound");
        assert_eq!(
            told("node-0"),
            [own("True", "SystemUnreachable"), fine.clone()]
        );
        assert_eq!(told("node-1"), [fine, own("True", "InstanceRetirement")]);
        let passes = |index| cluster.instances[&id(index)].checks_pass;
        assert_eq!((passes(0), passes(1)), (Some(false), Some(true)));
    }

    #[test]
    fn a_region_is_told_by_label_or_by_zone() {
        let mut node = crate::decide::fixture::node("node-0", 0);
        assert_eq!(node.region().as_deref(), Some("us-west-2"));
        let key = "topology.kubernetes.io/region".to_owned();
        node.labels.insert(key, "eu-central-1".to_owned());
        assert_eq!(node.region().as_deref(), Some("eu-central-1"));
        node.labels.clear();
        node.provider_id = "gce://project/us-east1-b/name".to_owned();
        assert_eq!(node.region(), None);
    }

    #[test]
    fn an_instance_id_is_read_from_the_provider_id() {
        assert_eq!(
            InstanceId::parse("aws:///us-west-2a/i-0123456789abcdef0")
                .unwrap()
                .as_str(),
            "i-0123456789abcdef0"
        );
        assert_eq!(
            InstanceId::parse("aws:///us-west-2a/i-01234567")
                .unwrap()
                .as_str(),
            "i-01234567"
        );
    }

    #[test]
    fn anything_else_is_refused_by_name() {
        assert_eq!(InstanceId::parse(""), Err(ProviderIdError::Empty));
        for text in [
            "i-0123456789abcdef0",
            "aws:///i-0123456789abcdef0",
            "aws:////i-0123456789abcdef0",
            "aws:///us-west-2a/i-",
            "aws:///us-west-2a/i-0123456789ABCDEF0",
            "aws:///us-west-2a/i-0123456789abcdef0/x",
            "aws:///us-west-2a/fargate-ip-10-0-0-1.ec2.internal",
            "gce://project/zone/name",
            "eks-hybrid:///us-west-2/cluster/mi-0123456789abcdef0",
            "kind://docker/kind/kind-worker",
        ] {
            let error = InstanceId::parse(text).unwrap_err();
            assert!(error.to_string().contains(text), "{error}");
        }
    }
}
