//! Side effects on the API server. Each is guarded by a resourceVersion or a UID, so that one that
//! was decided on an old view is refused and decided again.

use std::time::Duration;

use anyhow::{Context, bail};
use jiff::Timestamp;
use k8s_openapi::api::core::v1::{Node, Pod, Taint};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::Time;
use kube::api::{
    DeleteParams, DynamicObject, ListParams, Patch, PatchParams, PostParams, Preconditions,
};
use kube::{Api, Client};
use serde_json::{Map, Value, json};
use tokio::time::timeout;

use crate::api::policy::{RepairPolicy, RepairPolicyStatus};
use crate::api::repair::{NodeRepair, NodeRepairStatus};
use crate::api::{DISMISSED, KEEP_OFF, MARKS, OUT_OF_SERVICE, TAINT};
use crate::aws::Outcome;
use crate::claim;
use crate::cluster::NodeView;
use crate::decide::ClaimTarget;
use crate::drain::{Answer, Deletion, PodView};
use crate::explain::explain;
use crate::lease::Term;

const MANAGER: &str = "nodemend-repairer";
/// As long as a call of AWS that changes something may take.
const DELETE_CLAIM: Duration = Duration::from_secs(10);
/// Among our marks on a node: it was schedulable before us.
const UNSCHEDULABLE: &str = "unschedulable";

/// What a guarded write came to.
pub enum Written<T> {
    Done(T),
    /// The object has changed since it was seen: decide again.
    Stale,
}

fn guarded<T>(answer: kube::Result<T>) -> anyhow::Result<Written<T>> {
    match answer {
        Ok(object) => Ok(Written::Done(object)),
        Err(kube::Error::Api(status)) if matches!(status.code, 404 | 409) => Ok(Written::Stale),
        Err(error) => Err(explain(error)),
    }
}

/// Creates a repair; its name makes a second creation of the same one harmless.
pub async fn create(client: &Client, repair: &NodeRepair) -> anyhow::Result<()> {
    let api: Api<NodeRepair> = Api::all(client.clone());
    match api.create(&PostParams::default(), repair).await {
        Ok(_) => Ok(()),
        Err(kube::Error::Api(status)) if status.code == 409 => Ok(()),
        Err(error) => Err(explain(error)).context("create the NodeRepair"),
    }
}

/// Stores a status over exactly the object that it was derived from.
pub async fn record(
    client: &Client,
    name: &str,
    seen: &NodeRepair,
    status: NodeRepairStatus,
) -> anyhow::Result<Written<NodeRepair>> {
    let api: Api<NodeRepair> = Api::all(client.clone());
    let object = NodeRepair {
        status: Some(status),
        ..seen.clone()
    };
    let written = guarded(
        api.replace_status(name, &PostParams::default(), &object)
            .await,
    )
    .and_then(|written| {
        if let Written::Done(stored) = &written {
            kept_whole(object.status.as_ref(), stored.status.as_ref())?;
        }
        Ok(written)
    });
    written.with_context(|| format!("store the status of NodeRepair {name}"))
}

/// An API server leaves out what its CRD does not have, without a word: of an older release, which Helm
/// does not upgrade.
fn kept_whole(
    sent: Option<&NodeRepairStatus>,
    stored: Option<&NodeRepairStatus>,
) -> anyhow::Result<()> {
    // As text: times in memory are finer.
    let fields = |status| serde_json::to_value(status).context("write a status");
    let (sent, stored) = (fields(sent)?, fields(stored)?);
    let mut sent = sent.as_object().into_iter().flatten();
    let lost = sent.find(|(field, value)| stored.get(field) != Some(value));
    let Some((field, _)) = lost else {
        return Ok(());
    };
    bail!(
        "the API server did not keep status.{field} as it was written: apply deploy/crds of this release"
    )
}

/// Deletes a finished repair, exactly as it was seen.
pub async fn forget(client: &Client, name: &str, seen: &NodeRepair) -> anyhow::Result<()> {
    let api: Api<NodeRepair> = Api::all(client.clone());
    let params = DeleteParams::default().preconditions(Preconditions {
        resource_version: seen.metadata.resource_version.clone(),
        uid: seen.metadata.uid.clone(),
    });
    let gone = guarded(api.delete(name, &params).await);
    gone.with_context(|| format!("delete the old NodeRepair {name}"))?;
    Ok(())
}

pub async fn record_policy(
    client: &Client,
    name: &str,
    status: &RepairPolicyStatus,
) -> anyhow::Result<()> {
    let api: Api<RepairPolicy> = Api::all(client.clone());
    let mut status = serde_json::to_value(status).context("write the status")?;
    // A merge leaves what it does not name.
    for list in ["conditions", "groups", "breakers", "shadow"] {
        if let Some(object) = status.as_object_mut() {
            object.entry(list).or_insert(Value::Null);
        }
    }
    let patch = Patch::Merge(json!({"status": status}));
    guarded(
        api.patch_status(name, &PatchParams::default(), &patch)
            .await,
    )
    .with_context(|| format!("store the status of RepairPolicy {name}"))?;
    Ok(())
}

/// Unschedulable, our taint and the marks that keep other programs off, in one write over exactly
/// the node that was decided about. What was there before us is not ours.
pub async fn cordon(
    client: &Client,
    node: &NodeView,
    now: Timestamp,
) -> anyhow::Result<Written<Node>> {
    let mut ours = node.marks.clone().unwrap_or_default();
    if !node.unschedulable {
        ours.insert(UNSCHEDULABLE.to_owned());
    }
    let mut annotations = Map::new();
    for key in KEEP_OFF.iter().filter(|key| !node.kept_off.contains(**key)) {
        ours.insert((*key).to_owned());
        annotations.insert((*key).to_owned(), json!("true"));
    }
    let marks: Vec<_> = ours.into_iter().collect();
    annotations.insert(MARKS.to_owned(), json!(marks.join(",")));
    let mut taints = without(node, &[TAINT]);
    taints.push(Taint {
        key: TAINT.to_owned(),
        value: None,
        effect: "NoSchedule".to_owned(),
        time_added: Some(Time(now)),
    });
    let spec = json!({"unschedulable": true, "taints": taints});
    patch(client, node, annotations, spec)
        .await
        .context("cordon the node")
}

/// Undoes our cordon: the taints, the marks, and the unschedulable that we set ourselves. Whoever has
/// taken either half of the cordon away has taken the other over.
pub async fn uncordon(
    client: &Client,
    node: &NodeView,
    found_cordoned: bool,
) -> anyhow::Result<Written<Node>> {
    let (annotations, spec) = undone(node, found_cordoned);
    patch(client, node, annotations, spec)
        .await
        .context("un-cordon the node")
}

/// The same where a person has deleted the record: it is not begun again for what is unhealthy now.
pub async fn dismiss(
    client: &Client,
    node: &NodeView,
    now: Timestamp,
) -> anyhow::Result<Written<Node>> {
    let (mut annotations, spec) = undone(node, false);
    annotations.insert(DISMISSED.to_owned(), json!(now.to_string()));
    patch(client, node, annotations, spec)
        .await
        .context("un-cordon the node")
}

/// The same for good: nothing of ours stays.
pub async fn clean(
    client: &Client,
    node: &NodeView,
    found_cordoned: bool,
) -> anyhow::Result<Written<Node>> {
    let (mut annotations, spec) = undone(node, found_cordoned);
    annotations.insert(DISMISSED.to_owned(), Value::Null);
    patch(client, node, annotations, spec)
        .await
        .context("take what is ours off the node")
}

fn undone(node: &NodeView, found_cordoned: bool) -> (Map<String, Value>, Value) {
    let marks = node.marks.as_ref();
    let ours = |key: &&&str| marks.is_some_and(|marks| marks.contains(**key));
    let removed = KEEP_OFF.iter().filter(ours).chain([&MARKS]);
    let annotations = removed.map(|key| ((*key).to_owned(), Value::Null));
    let found = found_cordoned || marks.is_some_and(|marks| !marks.contains(UNSCHEDULABLE));
    let unschedulable = node.unschedulable && (found || !node.has_our_taint());
    let mut taints = without(node, &[TAINT]);
    if node.is_out_of_service() {
        taints.retain(|taint| taint.key != OUT_OF_SERVICE.0);
    }
    let spec = json!({"unschedulable": unschedulable, "taints": taints});
    (annotations.collect(), spec)
}

/// Only where the machine is proven to be off: on one that runs, its pods would go on writing to
/// volumes that others have got.
pub async fn out_of_service(
    client: &Client,
    node: &NodeView,
    now: Timestamp,
) -> anyhow::Result<Written<Node>> {
    let (key, value) = OUT_OF_SERVICE;
    let mut taints = without(node, &[key]);
    taints.push(Taint {
        key: key.to_owned(),
        value: Some(value.to_owned()),
        effect: "NoExecute".to_owned(),
        time_added: Some(Time(now)),
    });
    patch(client, node, Map::new(), json!({"taints": taints}))
        .await
        .context("mark the node out of service")
}

pub async fn back_in_service(client: &Client, node: &NodeView) -> anyhow::Result<Written<Node>> {
    let taints = without(node, &[OUT_OF_SERVICE.0]);
    patch(client, node, Map::new(), json!({"taints": taints}))
        .await
        .context("take the out-of-service taint off the node")
}

fn without(node: &NodeView, keys: &[&str]) -> Vec<Taint> {
    let others = node.taints.iter();
    let others = others.filter(|taint| !keys.contains(&taint.key.as_str()));
    others.cloned().collect()
}

async fn patch(
    client: &Client,
    node: &NodeView,
    annotations: Map<String, Value>,
    spec: Value,
) -> anyhow::Result<Written<Node>> {
    let api: Api<Node> = Api::all(client.clone());
    let metadata = json!({
        "uid": node.uid, "resourceVersion": node.resource_version, "annotations": annotations,
    });
    let patch = json!({"metadata": metadata, "spec": spec});
    let params = PatchParams {
        field_manager: Some(MANAGER.to_owned()),
        ..PatchParams::default()
    };
    guarded(api.patch(&node.name, &params, &Patch::Merge(patch)).await)
}

/// Karpenter ends the node and its instance. By UID alone: Karpenter writes to its claims at every change of
/// a pod, and a new claim of an old name has another UID.
pub async fn delete_claim(client: &Client, claim: ClaimTarget, _term: Term) -> Outcome {
    let api: Api<DynamicObject> = Api::all_with(client.clone(), &claim::resource());
    let params = DeleteParams::default().preconditions(Preconditions {
        resource_version: None,
        uid: Some(claim.uid().to_owned()),
    });
    let answer = timeout(DELETE_CLAIM, api.delete(claim.name(), &params)).await;
    let request_id = None;
    match answer {
        Ok(Ok(_)) => Outcome::Accepted {
            request_id,
            message: None,
        },
        Ok(Err(kube::Error::Api(status))) => {
            let message = format!("{} ({})", status.message, status.code);
            match status.code {
                404 => Outcome::Accepted {
                    request_id,
                    message: Some("it is gone already".to_owned()),
                },
                403 => Outcome::Denied {
                    request_id,
                    message,
                },
                409 => Outcome::Busy {
                    request_id,
                    message,
                },
                429 => Outcome::Throttled {
                    request_id,
                    message,
                },
                500.. => Outcome::Unknown { message },
                _ => Outcome::Refused {
                    request_id,
                    message,
                },
            }
        }
        Ok(Err(error)) => Outcome::Unknown {
            message: error.to_string(),
        },
        Err(_elapsed) => Outcome::Unknown {
            message: "no answer in time".to_owned(),
        },
    }
}

pub async fn pods_on(client: &Client, node: &str) -> anyhow::Result<Vec<PodView>> {
    let api: Api<Pod> = Api::all(client.clone());
    let params = ListParams::default().fields(&format!("spec.nodeName={node}"));
    let pods = api
        .list(&params)
        .await
        .map_err(explain)
        .with_context(|| format!("list the pods of node {node}"))?;
    Ok(pods.items.iter().filter_map(PodView::read).collect())
}

/// Asks the API server to let a pod go. Its own body: kube's `evict` sends delete options under a
/// name that the API server ignores, and with them the UID precondition. The UID was read just
/// before: a wrong one charges the pod's budget for two minutes.
pub async fn evict(client: &Client, pod: &PodView) -> anyhow::Result<Answer> {
    let body = json!({
        "apiVersion": "policy/v1",
        "kind": "Eviction",
        "metadata": {"name": pod.name, "namespace": pod.namespace},
        "deleteOptions": {"preconditions": {"uid": pod.uid}},
    });
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace);
    match api.get_metadata_opt(&pod.name).await {
        Ok(Some(found)) if found.metadata.uid.as_deref() == Some(pod.uid.as_str()) => {}
        Ok(_) => return Ok(Answer::Gone),
        Err(kube::Error::Api(status)) => return Ok(Answer::refused(&status)),
        Err(error) => return Err(explain(error)).with_context(|| format!("get {}", pod.label())),
    }
    let answer: kube::Result<Value> = api
        .create_subresource("eviction", &pod.name, &PostParams::default(), &body)
        .await;
    match answer {
        Ok(_) => Ok(Answer::Accepted),
        Err(kube::Error::Api(status)) => Ok(Answer::refused(&status)),
        Err(error) => Err(explain(error)).with_context(|| format!("evict {}", pod.label())),
    }
}

/// Past its budget, with the grace that it is given: never none.
pub async fn delete(client: &Client, deletion: &Deletion) -> anyhow::Result<Answer> {
    let pod = &deletion.pod;
    let api: Api<Pod> = Api::namespaced(client.clone(), &pod.namespace);
    let seconds = u32::try_from(deletion.grace.as_secs()).unwrap_or(u32::MAX);
    let params = DeleteParams::default()
        .grace_period(seconds.max(1))
        .preconditions(Preconditions {
            resource_version: None,
            uid: Some(pod.uid.clone()),
        });
    match api.delete(&pod.name, &params).await {
        Ok(_) => Ok(Answer::Accepted),
        Err(kube::Error::Api(status)) => Ok(Answer::refused(&status)),
        Err(error) => Err(explain(error)).with_context(|| format!("delete {}", pod.label())),
    }
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

    use super::*;
    use crate::api::repair::Phase;

    #[test]
    fn a_status_that_was_not_kept_whole_names_what_is_missing() {
        let sent = NodeRepairStatus {
            phase: Phase::Draining,
            instance_id: Some("i-1".to_owned()),
            ..NodeRepairStatus::default()
        };
        let well = Timestamp::from_nanosecond(1_234_567_890_123_456_789).unwrap();
        let sent = NodeRepairStatus {
            well_since: Some(MicroTime(well)),
            ..sent
        };
        let stored = serde_json::from_value(serde_json::to_value(&sent).unwrap()).unwrap();
        assert_ne!(sent, stored, "the API keeps microseconds");
        assert!(kept_whole(Some(&sent), Some(&stored)).is_ok());
        let pruned = NodeRepairStatus {
            instance_id: None,
            ..sent.clone()
        };
        let error = kept_whole(Some(&sent), Some(&pruned)).unwrap_err();
        assert!(error.to_string().contains("status.instanceId"), "{error}");
        assert!(kept_whole(Some(&sent), None).is_err());
    }
}
