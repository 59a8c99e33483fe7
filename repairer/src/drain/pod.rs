//! PURE. A pod as a drain sees it, in kubectl's classes.

use std::collections::BTreeMap;
use std::time::Duration;

use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Pod, PodSpec, Toleration, Volume};

use crate::api::{DRAIN_LABEL, TAINT};

/// What the API server takes where a pod does not say.
const DEFAULT_GRACE: i64 = 30;
/// The lowest of the two priority classes that Kubernetes has for itself.
const CRITICAL: i32 = 2_000_000_000;
/// By which other programs are asked to leave a pod alone.
const ASKED_NOT_TO: [(&str, &str); 2] = [
    ("cluster-autoscaler.kubernetes.io/safe-to-evict", "false"),
    ("karpenter.sh/do-not-disrupt", "true"),
];

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodView {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub labels: BTreeMap<String, String>,
    pub created: Timestamp,
    /// When its grace is over, if it was told to end.
    pub ends: Option<Timestamp>,
    /// Its object outlives it until somebody takes these away.
    pub finalizers: Vec<String>,
    /// Succeeded or Failed.
    pub ended: bool,
    pub owner: Owner,
    /// An emptyDir on the node's disk.
    pub local_volume: bool,
    /// Namespace and name of the claims of its volumes.
    pub claims: Vec<String>,
    pub critical: bool,
    pub grace: Duration,
    /// Our cordon does not keep it off: once evicted, it comes back.
    pub tolerates_cordon: bool,
    /// It carries another program's mark to be left alone.
    pub asks_to_stay: Option<String>,
    pub wish: Option<Wish>,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Would come straight back; its name.
    DaemonSet(String),
    /// A mirror of a static pod: deleting it changes nothing.
    Static,
    Controller,
    /// Nobody makes it again.
    None,
}

/// The label `nodemend.dev/drain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    Skip,
    Wait,
}

impl PodView {
    pub fn read(pod: &Pod) -> Option<Self> {
        let metadata = &pod.metadata;
        let spec = pod.spec.as_ref();
        let annotation = |key: &str| metadata.annotations.as_ref()?.get(key);
        let namespace = metadata.namespace.clone()?;
        let volumes = spec.and_then(|spec| spec.volumes.as_deref());
        let volumes = volumes.unwrap_or_default();
        let phase = pod.status.as_ref().and_then(|s| s.phase.as_deref());
        let labels = metadata.labels.clone().unwrap_or_default();
        let wish = match labels.get(DRAIN_LABEL).map(String::as_str) {
            Some("skip") => Some(Wish::Skip),
            Some("wait") => Some(Wish::Wait),
            Some(_) | None => None,
        };
        let claim = |volume: &Volume| {
            let claim = volume.persistent_volume_claim.as_ref()?;
            Some(format!("{namespace}/{}", claim.claim_name))
        };
        let grace = spec.and_then(|spec| spec.termination_grace_period_seconds);
        let grace = u64::try_from(grace.unwrap_or(DEFAULT_GRACE)).unwrap_or_default();
        Some(Self {
            name: metadata.name.clone()?,
            uid: metadata.uid.clone()?,
            created: metadata
                .creation_timestamp
                .as_ref()
                .map_or(Timestamp::UNIX_EPOCH, |at| at.0),
            ends: metadata.deletion_timestamp.as_ref().map(|at| at.0),
            finalizers: metadata.finalizers.clone().unwrap_or_default(),
            ended: matches!(phase, Some("Succeeded" | "Failed")),
            owner: owner(pod),
            local_volume: volumes.iter().any(is_local),
            claims: volumes.iter().filter_map(claim).collect(),
            critical: spec.is_some_and(is_critical),
            grace: Duration::from_secs(grace),
            tolerates_cordon: spec.is_some_and(tolerates_cordon),
            asks_to_stay: ASKED_NOT_TO
                .iter()
                .find(|(key, value)| annotation(key).is_some_and(|found| found == value))
                .map(|(key, value)| format!("{key}={value}")),
            wish,
            labels,
            namespace,
        })
    }

    pub fn label(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

fn owner(pod: &Pod) -> Owner {
    let metadata = &pod.metadata;
    let mirror = "kubernetes.io/config.mirror";
    let annotations = metadata.annotations.as_ref();
    if annotations.is_some_and(|map| map.contains_key(mirror)) {
        return Owner::Static;
    }
    let owners = metadata.owner_references.as_deref().unwrap_or_default();
    let controller = owners.iter().find(|owner| owner.controller == Some(true));
    match controller {
        Some(owner) if owner.kind == "DaemonSet" => Owner::DaemonSet(owner.name.clone()),
        Some(_) => Owner::Controller,
        None => Owner::None,
    }
}

fn is_local(volume: &Volume) -> bool {
    let on_disk = |medium: Option<&str>| medium.is_none_or(|medium| medium != "Memory");
    let empty_dir = volume.empty_dir.as_ref();
    empty_dir.is_some_and(|empty_dir| on_disk(empty_dir.medium.as_deref()))
}

fn is_critical(spec: &PodSpec) -> bool {
    spec.priority.is_some_and(|priority| priority >= CRITICAL)
        || spec
            .priority_class_name
            .as_deref()
            .is_some_and(|name| name.starts_with("system-") && name.ends_with("-critical"))
}

/// Both halves of it: the scheduler's own taint of an unschedulable node, and ours.
fn tolerates_cordon(spec: &PodSpec) -> bool {
    let tolerations = spec.tolerations.as_deref().unwrap_or_default();
    let tolerated = |key: &str| tolerations.iter().any(|t| tolerates(t, key));
    tolerated("node.kubernetes.io/unschedulable") && tolerated(TAINT)
}

fn tolerates(toleration: &Toleration, key: &str) -> bool {
    let effect = toleration.effect.as_deref().unwrap_or_default();
    let named = toleration.key.as_deref().unwrap_or_default();
    let exists = toleration.operator.as_deref() == Some("Exists");
    let value = toleration.value.as_deref().unwrap_or_default();
    matches!(effect, "" | "NoSchedule")
        && (named == key && (exists || value.is_empty()) || named.is_empty() && exists)
}
