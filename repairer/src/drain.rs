//! PURE. Which pods have to leave a node, and what the API server's answers to evictions mean.

use k8s_openapi::api::core::v1::Pod;
use kube::core::Status;

use crate::api::DRAIN_LABEL;
use crate::api::policy::LocalVolumes;

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PodView {
    pub namespace: String,
    pub name: String,
    pub uid: String,
    pub terminating: bool,
    /// Succeeded or Failed.
    pub ended: bool,
    pub owner: Owner,
    /// An emptyDir on the node's disk.
    pub local_volume: bool,
    pub wish: Option<Wish>,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Owner {
    /// Would come straight back.
    DaemonSet,
    /// A mirror of a static pod: deleting it changes nothing.
    Static,
    Other,
}

/// The label `nodemend.dev/drain`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Wish {
    Skip,
    Wait,
}

/// What a drain does about a pod.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Treatment {
    /// Stays, and is no obstacle.
    Leave,
    Evict,
    /// Evicted already, or ends by itself.
    Await,
    /// Its data would be lost, and the policy does not allow that.
    HoldForLocalVolume,
}

impl PodView {
    pub fn read(pod: &Pod) -> Option<Self> {
        let metadata = &pod.metadata;
        let annotated = |key: &str| {
            metadata
                .annotations
                .as_ref()
                .is_some_and(|map| map.contains_key(key))
        };
        let owned_by = |kind: &str| {
            let owners = metadata.owner_references.as_deref().unwrap_or_default();
            owners
                .iter()
                .any(|owner| owner.controller == Some(true) && owner.kind == kind)
        };
        let owner = if annotated("kubernetes.io/config.mirror") {
            Owner::Static
        } else if owned_by("DaemonSet") {
            Owner::DaemonSet
        } else {
            Owner::Other
        };
        let volumes = pod
            .spec
            .as_ref()
            .and_then(|spec| spec.volumes.as_deref())
            .unwrap_or_default();
        let on_disk = |medium: Option<&str>| medium.is_none_or(|medium| medium != "Memory");
        let phase = pod
            .status
            .as_ref()
            .and_then(|status| status.phase.as_deref())
            .unwrap_or_default();
        let wish = match metadata
            .labels
            .as_ref()
            .and_then(|labels| labels.get(DRAIN_LABEL))
            .map(String::as_str)
        {
            Some("skip") => Some(Wish::Skip),
            Some("wait") => Some(Wish::Wait),
            _ => None,
        };
        Some(Self {
            namespace: metadata.namespace.clone()?,
            name: metadata.name.clone()?,
            uid: metadata.uid.clone()?,
            terminating: metadata.deletion_timestamp.is_some(),
            ended: matches!(phase, "Succeeded" | "Failed"),
            owner,
            local_volume: volumes
                .iter()
                .filter_map(|volume| volume.empty_dir.as_ref())
                .any(|empty_dir| on_disk(empty_dir.medium.as_deref())),
            wish,
        })
    }

    pub fn treatment(&self, local_volumes: LocalVolumes) -> Treatment {
        match (self.owner, self.wish) {
            (Owner::DaemonSet | Owner::Static, _) | (_, Some(Wish::Skip)) => {
                return Treatment::Leave;
            }
            (Owner::Other, None | Some(Wish::Wait)) => {}
        }
        if self.ended {
            return Treatment::Leave;
        }
        if self.terminating || self.wish == Some(Wish::Wait) {
            return Treatment::Await;
        }
        match (self.local_volume, local_volumes) {
            (true, LocalVolumes::Hold) => Treatment::HoldForLocalVolume,
            (true, LocalVolumes::Discard) | (false, _) => Treatment::Evict,
        }
    }

    pub fn label(&self) -> String {
        format!("{}/{}", self.namespace, self.name)
    }
}

/// What became of one eviction.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Eviction {
    /// Accepted, or the pod is gone or another one.
    Done,
    /// A PodDisruptionBudget says not now.
    Blocked(String),
    /// Something else says not now; it is no statement about a budget.
    Later(String),
}

/// Reads the API server's refusal of an eviction (pkg/registry/core/pod/storage/eviction.go).
pub fn refused(status: &Status) -> Eviction {
    let budget = status
        .details
        .iter()
        .flat_map(|details| &details.causes)
        .find(|cause| cause.reason == "DisruptionBudget");
    match status.code {
        404 => Eviction::Done,
        // The UID precondition: the pod of this name is another one.
        409 if status.message.contains("UID") => Eviction::Done,
        429 => match budget {
            Some(cause) => Eviction::Blocked(cause.message.clone()),
            // Priority and fairness of the API server.
            None => Eviction::Later("the API server is throttling".to_owned()),
        },
        // Says the API server for ever, so a person must know.
        500 if status.message.contains("more than one PodDisruptionBudget") => Eviction::Blocked(
            "more than one PodDisruptionBudget selects it: the API server evicts no such pod"
                .to_owned(),
        ),
        403 if status.message.contains("being terminated") => {
            Eviction::Later("its namespace is being deleted".to_owned())
        }
        code => Eviction::Later(format!("{code} {}: {}", status.reason, status.message)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::fixture::pod;

    #[test]
    fn what_would_come_back_or_has_ended_is_left() {
        for pod in [
            PodView {
                owner: Owner::DaemonSet,
                ..pod("a")
            },
            PodView {
                owner: Owner::Static,
                ..pod("a")
            },
            PodView {
                ended: true,
                ..pod("a")
            },
            PodView {
                wish: Some(Wish::Skip),
                ..pod("a")
            },
        ] {
            assert_eq!(
                pod.treatment(LocalVolumes::Hold),
                Treatment::Leave,
                "{pod:?}"
            );
        }
    }

    #[test]
    fn what_is_on_its_way_is_waited_for() {
        for pod in [
            PodView {
                terminating: true,
                ..pod("a")
            },
            PodView {
                wish: Some(Wish::Wait),
                ..pod("a")
            },
        ] {
            assert_eq!(
                pod.treatment(LocalVolumes::Hold),
                Treatment::Await,
                "{pod:?}"
            );
        }
    }

    #[test]
    fn local_data_is_lost_only_where_the_policy_says_so() {
        let pod = PodView {
            local_volume: true,
            ..pod("a")
        };
        assert_eq!(
            pod.treatment(LocalVolumes::Hold),
            Treatment::HoldForLocalVolume
        );
        assert_eq!(pod.treatment(LocalVolumes::Discard), Treatment::Evict);
    }

    fn status(code: u16, message: &str, cause: Option<&str>) -> Status {
        let cause = cause
            .map(|message| serde_json::json!({"reason": "DisruptionBudget", "message": message}));
        let causes: Vec<_> = cause.into_iter().collect();
        serde_json::from_value(
            serde_json::json!({"code": code, "message": message, "reason": "x", "details": {"causes": causes}}),
        )
        .unwrap()
    }

    #[test]
    fn only_a_budget_counts_as_a_budget() {
        let blocked = "The disruption budget web needs 3 healthy pods and has 3 currently";
        assert_eq!(
            refused(&status(429, "", Some(blocked))),
            Eviction::Blocked(blocked.to_owned())
        );
        assert!(matches!(
            refused(&status(429, "too many requests", None)),
            Eviction::Later(_)
        ));
        assert!(matches!(
            refused(&status(500, "webhook failed", None)),
            Eviction::Later(_)
        ));
        assert!(matches!(
            refused(&status(
                500,
                "This pod has more than one PodDisruptionBudget",
                None
            )),
            Eviction::Blocked(_)
        ));
    }

    #[test]
    fn a_pod_that_is_gone_or_another_one_is_done() {
        assert_eq!(refused(&status(404, "not found", None)), Eviction::Done);
        let conflict = "Precondition failed: UID in precondition: a, UID in object meta: b";
        assert_eq!(refused(&status(409, conflict, None)), Eviction::Done);
        assert!(matches!(
            refused(&status(409, "the object has been modified", None)),
            Eviction::Later(_)
        ));
    }
}
