//! Who else in the cluster repairs, drains, reboots or removes nodes, and what of it is in our way.

use k8s_openapi::api::apps::v1::{DaemonSet, Deployment};
use k8s_openapi::api::core::v1::{Container, PodSpec};
use k8s_openapi::apimachinery::pkg::apis::meta::v1::ObjectMeta;
use kube::api::{ApiResource, DynamicObject, ListParams};
use kube::{Api, Client, ResourceExt};
use serde_json::Value;

use super::{Checked, Word};
use crate::cluster::Cluster;
use crate::explain::explain;

/// Annotations of kured's DaemonSet, old and new.
const KURED_LOCKS: [&str; 2] = ["weave.works/kured-node-lock", "kured.dev/kured-node-lock"];
/// Soft: the cluster autoscaler thinks of removing the node.
const CANDIDATE: &str = "DeletionCandidateOfClusterAutoscaler";

/// A Deployment or DaemonSet, as far as it tells what it is.
struct Workload {
    kind: &'static str,
    metadata: ObjectMeta,
    containers: Vec<Container>,
}

impl Workload {
    fn new(kind: &'static str, metadata: ObjectMeta, pod: Option<PodSpec>) -> Self {
        let containers = pod.map(|pod| pod.containers).unwrap_or_default();
        Self {
            kind,
            metadata,
            containers,
        }
    }

    fn what(&self) -> String {
        let name = self.metadata.name.as_deref().unwrap_or_default();
        let namespace = self.metadata.namespace.as_deref().unwrap_or_default();
        format!("{} {namespace}/{name}", self.kind)
    }

    /// By a part of the path of its image: names and labels are the installer's to choose.
    fn runs(&self, program: &str) -> bool {
        let images = self.containers.iter().filter_map(|c| c.image.as_deref());
        // Without tag, digest and port.
        let is_it = |part: &str| part.split(['@', ':']).next() == Some(program);
        images.flat_map(|image| image.split('/')).any(is_it)
    }

    /// `NodeRepair=true` among its arguments or in its environment.
    fn has_node_repair(&self) -> bool {
        let is_on = |text: &str| {
            let gates = text.split([',', '=', ' ']).collect::<Vec<_>>();
            let on =
                |pair: &[&str]| pair[0] == "NodeRepair" && pair[1].eq_ignore_ascii_case("true");
            gates.windows(2).any(on)
        };
        self.containers.iter().any(|container| {
            let arguments = container.args.iter().chain(&container.command).flatten();
            let gates = |env: &&k8s_openapi::api::core::v1::EnvVar| env.name == "FEATURE_GATES";
            let environment = container.env.iter().flatten().filter(gates);
            let values = environment.filter_map(|env| env.value.as_ref());
            arguments.chain(values).any(|text| is_on(text))
        })
    }
}

/// Of a cluster that is asked now. What may not be listed is told, and hides nothing else.
pub async fn add(client: &Client, cluster: &Cluster, checked: &mut Checked) {
    let mut workloads = Vec::new();
    let deployments: Api<Deployment> = Api::all(client.clone());
    match deployments.list(&ListParams::default()).await {
        Ok(list) => workloads.extend(list.items.into_iter().map(|object| {
            let pod = object.spec.and_then(|spec| spec.template.spec);
            Workload::new("Deployment", object.metadata, pod)
        })),
        Err(error) => unknown(checked, "Deployments", error),
    }
    let daemon_sets: Api<DaemonSet> = Api::all(client.clone());
    match daemon_sets.list(&ListParams::default()).await {
        Ok(list) => workloads.extend(list.items.into_iter().map(|object| {
            let pod = object.spec.and_then(|spec| spec.template.spec);
            Workload::new("DaemonSet", object.metadata, pod)
        })),
        Err(error) => unknown(checked, "DaemonSets", error),
    }
    let health_checks: Api<DynamicObject> = Api::all_with(client.clone(), &node_health_checks());
    let health_checks = match health_checks.list(&ListParams::default()).await {
        Ok(list) => list.items.iter().map(ResourceExt::name_any).collect(),
        // The cluster has no such API.
        Err(kube::Error::Api(status)) if status.code == 404 => Vec::new(),
        Err(error) => {
            unknown(checked, "NodeHealthChecks", error);
            Vec::new()
        }
    };
    tell(&workloads, &health_checks, cluster, checked);
}

fn unknown(checked: &mut Checked, what: &str, error: kube::Error) {
    let message = format!(
        "could not be listed, so who else repairs is not known: {}",
        explain(error)
    );
    checked.add(what, Word::Warning, message);
}

fn node_health_checks() -> ApiResource {
    ApiResource {
        group: "remediation.medik8s.io".to_owned(),
        version: "v1alpha1".to_owned(),
        api_version: "remediation.medik8s.io/v1alpha1".to_owned(),
        kind: "NodeHealthCheck".to_owned(),
        plural: "nodehealthchecks".to_owned(),
    }
}

fn tell(
    workloads: &[Workload],
    health_checks: &[String],
    cluster: &Cluster,
    checked: &mut Checked,
) {
    let before = checked.rows.len();
    for workload in workloads {
        let what = workload.what();
        if workload.runs("karpenter") && workload.has_node_repair() {
            let message = "Karpenter's own node repair is on: it deletes NodeClaims of nodes with a bad condition without a drain; take NodeRepair=true out of its feature gates";
            checked.add(&what, Word::Warning, message);
        }
        if workload.runs("aws-node-termination-handler") {
            let message = "drains nodes at scheduled events of EC2, as a rule for EC2ScheduledEvent does: switch one of them off; a node that it has marked is left to it";
            checked.add(&what, Word::Warning, message);
        }
        if workload.runs("kured") {
            let message = match workload.lock() {
                Some(node) => format!("kured holds its lock for {node}: it reboots that node, or has not come back from it; other nodes are not waited for"),
                None => "kured reboots nodes, one after the other; while it does, the node is left to it".to_owned(),
            };
            checked.add(&what, Word::Warning, message);
        }
    }
    for name in health_checks {
        let message = "medik8s repairs the nodes that it selects: give it and the RepairPolicies different nodes";
        checked.add(&format!("NodeHealthCheck {name}"), Word::Warning, message);
    }
    for node in cluster.nodes.values() {
        if node.taints.iter().any(|taint| taint.key == CANDIDATE) {
            let message = format!("the cluster autoscaler is about to remove it ({CANDIDATE})");
            checked.add(&format!("Node {}", node.name), Word::Warning, message);
        }
    }
    if checked.rows.len() == before {
        checked.add(
            "others",
            Word::Good,
            "nobody else was found who repairs or reboots nodes",
        );
    }
}

impl Workload {
    /// The node that kured's lock is held for; with several holders the first.
    fn lock(&self) -> Option<String> {
        let annotations = self.metadata.annotations.as_ref()?;
        let lock = KURED_LOCKS.iter().find_map(|key| annotations.get(*key))?;
        let lock: Value = serde_json::from_str(lock).ok()?;
        let holder = lock["nodeID"].as_str();
        let first = holder.or_else(|| lock["locks"][0]["nodeID"].as_str())?;
        Some(first.chars().take(253).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::fixture;
    use serde_json::json;

    fn workload(name: &str, image: &str, container: Value, annotations: Value) -> Workload {
        let mut container = container;
        container["name"] = json!("main");
        container["image"] = json!(image);
        let metadata =
            json!({"name": name, "namespace": "kube-system", "annotations": annotations});
        Workload {
            kind: "Deployment",
            metadata: serde_json::from_value(metadata).unwrap(),
            containers: vec![serde_json::from_value(container).unwrap()],
        }
    }

    fn told(workloads: &[Workload], health_checks: &[String], cluster: &Cluster) -> String {
        let mut checked = Checked::default();
        tell(workloads, health_checks, cluster, &mut checked);
        checked.text()
    }

    const KARPENTER: &str = "public.ecr.aws/karpenter/controller:1.9.0@sha256:0";

    #[test]
    fn each_neighbour_is_told_by_what_it_runs() {
        let none = json!({});
        let lock = json!({"kured.dev/kured-node-lock": "{\"nodeID\":\"node-7\"}"});
        let old_lock =
            json!({"weave.works/kured-node-lock": "{\"locks\":[{\"nodeID\":\"node-8\"}]}"});
        let gates = |value: &str| json!({"env": [{"name": "FEATURE_GATES", "value": value}]});
        let argument = json!({"args": ["--feature-gates=Drift=true,NodeRepair=true"]});
        let rows = [
            (
                KARPENTER,
                gates("Drift=true,NodeRepair=true"),
                none.clone(),
                "Karpenter's own node repair is on",
            ),
            (
                KARPENTER,
                argument,
                none.clone(),
                "Karpenter's own node repair is on",
            ),
            (
                KARPENTER,
                gates("NodeRepair=false,Drift=true"),
                none.clone(),
                "nobody else was found",
            ),
            (
                "example.test/app:1",
                gates("NodeRepair=true"),
                none.clone(),
                "nobody else was found",
            ),
            (
                "public.ecr.aws/aws-ec2/aws-node-termination-handler:v1",
                none.clone(),
                none.clone(),
                "scheduled events of EC2",
            ),
            (
                "ghcr.io/kubereboot/kured:1.17",
                none.clone(),
                none.clone(),
                "one after the other",
            ),
            (
                "ghcr.io/kubereboot/kured:1.17",
                none.clone(),
                lock,
                "holds its lock for node-7",
            ),
            (
                "ghcr.io/kubereboot/kured:1.17",
                none.clone(),
                old_lock,
                "holds its lock for node-8",
            ),
            (
                "localhost:5000/kured",
                none.clone(),
                none.clone(),
                "one after the other",
            ),
        ];
        for (image, container, annotations, says) in rows {
            let workloads = [workload("it", image, container, annotations)];
            let told = told(&workloads, &[], &Cluster::default());
            assert!(told.contains(says), "{image}: {told}");
            assert_eq!(told.lines().count(), 1, "{told}");
        }
    }

    #[test]
    fn health_checks_and_the_autoscalers_candidates_are_told() {
        let mut cluster = fixture::cluster(2);
        let node = cluster.nodes.get_mut("node-1").unwrap();
        node.taints.push(k8s_openapi::api::core::v1::Taint {
            key: CANDIDATE.to_owned(),
            effect: "PreferNoSchedule".to_owned(),
            ..Default::default()
        });
        let told = told(&[], &["workers".to_owned()], &cluster);
        assert!(told.contains("NodeHealthCheck workers: medik8s"), "{told}");
        assert!(
            told.contains("Node node-1: the cluster autoscaler"),
            "{told}"
        );
        assert_eq!(told.lines().count(), 2, "{told}");
    }
}
