//! PURE. What the repairer knows at one moment: a snapshot that decisions are made on.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use jiff::Timestamp;
use k8s_openapi::api::core::v1 as core;

use crate::api::TAINT;
use crate::api::policy::RepairPolicy;
use crate::api::repair::NodeRepair;
use crate::drain::PodView;

#[derive(Clone, Debug, Default)]
pub struct Cluster {
    pub nodes: BTreeMap<String, NodeView>,
    pub policies: Vec<RepairPolicy>,
    pub repairs: BTreeMap<String, NodeRepair>,
    /// What AWS says of instances, by id; what is not here is unknown.
    pub instances: BTreeMap<String, InstanceView>,
    /// Pods of nodes that are being drained, listed in this pass; what is not here is unknown.
    pub pods: BTreeMap<String, Vec<PodView>>,
    /// Objects of ours that are there but cannot be read, with the error.
    pub unreadable: Vec<String>,
}

#[derive(Clone, Debug, PartialEq)]
pub struct NodeView {
    pub name: String,
    pub uid: String,
    pub resource_version: String,
    pub labels: BTreeMap<String, String>,
    pub provider_id: String,
    pub unschedulable: bool,
    pub taints: Vec<core::Taint>,
    pub conditions: Vec<ConditionView>,
    pub created: Timestamp,
    /// Somebody has asked for its deletion.
    pub deleting: bool,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ConditionView {
    pub kind: String,
    /// As written: `True`, `False` or `Unknown`.
    pub status: String,
    pub reason: String,
    pub heartbeat: Option<Timestamp>,
    pub transition: Option<Timestamp>,
}

impl NodeView {
    /// `None`: an object without a name or UID did not come from an API server.
    pub fn read(node: &core::Node) -> Option<Self> {
        let spec = node.spec.as_ref();
        let status = node.status.as_ref();
        let conditions = status
            .and_then(|status| status.conditions.as_deref())
            .unwrap_or_default();
        Some(Self {
            name: node.metadata.name.clone()?,
            uid: node.metadata.uid.clone()?,
            resource_version: node.metadata.resource_version.clone()?,
            labels: node.metadata.labels.clone().unwrap_or_default(),
            provider_id: spec
                .and_then(|spec| spec.provider_id.clone())
                .unwrap_or_default(),
            unschedulable: spec.and_then(|spec| spec.unschedulable).unwrap_or(false),
            taints: spec
                .and_then(|spec| spec.taints.clone())
                .unwrap_or_default(),
            conditions: conditions.iter().map(ConditionView::read).collect(),
            created: node.metadata.creation_timestamp.as_ref()?.0,
            deleting: node.metadata.deletion_timestamp.is_some(),
        })
    }

    pub fn condition(&self, kind: &str) -> Option<&ConditionView> {
        self.conditions
            .iter()
            .find(|condition| condition.kind == kind)
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
        }
    }
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
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum InstanceState {
    /// pending, running, stopping or stopped.
    There,
    /// shutting-down.
    Going,
    /// terminated.
    Gone,
}

impl InstanceView {
    /// The end has begun: a terminate of whomever has been accepted.
    pub fn is_ending(&self) -> bool {
        let lifecycle = self.lifecycle.as_deref().unwrap_or_default();
        match self.state {
            InstanceState::Going | InstanceState::Gone => true,
            InstanceState::There => {
                lifecycle.starts_with("Terminating") || lifecycle == "Terminated"
            }
        }
    }
}

impl Cluster {
    /// The Auto Scaling group of a node, where it is known.
    pub fn group_of(&self, node: &NodeView) -> Option<&str> {
        let id = node.instance().ok()?;
        self.instances.get(id.as_str())?.group.as_deref()
    }

    /// The Node of a repair: the same name *and* UID.
    pub fn node_of(&self, repair: &NodeRepair) -> Option<&NodeView> {
        self.nodes
            .get(&repair.spec.node_ref.name)
            .filter(|node| node.uid == repair.spec.node_ref.uid)
    }

    /// UIDs of the nodes with a repair that has not finished.
    pub fn in_repair(&self) -> BTreeSet<&str> {
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
