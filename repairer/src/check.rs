//! `check`: what a policy says that nobody can mean, and whether the repairer may do what it has to.

mod kubernetes;
mod neighbours;

use std::fmt::Write as _;

use anyhow::Context;
use aws_sdk_eks::types::Nodegroup;
use k8s_openapi::api::authorization::v1::{
    ResourceAttributes, SelfSubjectAccessReview, SelfSubjectAccessReviewSpec,
};
use kube::api::PostParams;
use kube::{Api, Client};
use serde::Serialize;
use serde_json::Value;

use crate::api::policy::{RepairPolicy, RepairPolicySpec};
use crate::api::validate::{self, Finding, Severity};
use crate::cluster::Cluster;
use crate::explain::explain;

/// Namespace (empty: all of them), group, resource, verbs: deploy/rbac/repairer.yaml says why.
const NEEDED: &[(&str, &str, &str, &[&str])] = &[
    ("", "", "nodes", &["get", "list", "watch", "patch"]),
    ("", "", "pods", &["get", "list", "delete"]),
    ("", "", "pods/eviction", &["create"]),
    ("", "policy", "poddisruptionbudgets", &["list"]),
    ("", "apps", "daemonsets", &["list"]),
    ("", "apps", "deployments", &["list"]),
    ("", "remediation.medik8s.io", "nodehealthchecks", &["list"]),
    ("", "storage.k8s.io", "volumeattachments", &["list"]),
    ("", "", "persistentvolumes", &["get"]),
    ("default", "", "events", &["list"]),
    (
        "",
        "karpenter.sh",
        "nodeclaims",
        &["list", "watch", "delete"],
    ),
    (
        "",
        "nodemend.dev",
        "noderepairs",
        &["list", "watch", "create", "delete"],
    ),
    ("", "nodemend.dev", "noderepairs/status", &["update"]),
    ("", "nodemend.dev", "repairpolicies", &["list", "watch"]),
    ("", "nodemend.dev", "repairpolicies/status", &["patch"]),
    (
        "kube-node-lease",
        "coordination.k8s.io",
        "leases",
        &["get", "list"],
    ),
    (
        "default",
        "events.k8s.io",
        "events",
        &["create", "get", "patch"],
    ),
];

pub use self::kubernetes::add as add_kubernetes;
pub use self::neighbours::add as add_neighbours;

#[derive(Debug, Default, Serialize)]
pub struct Checked {
    pub rows: Vec<Row>,
}

#[derive(Debug, Serialize)]
pub struct Row {
    pub what: String,
    pub state: Word,
    pub message: String,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Word {
    Good,
    Warning,
    Error,
}

impl Checked {
    pub fn add(&mut self, what: &str, state: Word, message: impl Into<String>) {
        self.rows.push(Row {
            what: what.to_owned(),
            state,
            message: message.into(),
        });
    }

    pub fn is_good(&self) -> bool {
        self.rows.iter().all(|row| row.state != Word::Error)
    }

    pub fn text(&self) -> String {
        let mut out = String::new();
        for row in &self.rows {
            let word = match row.state {
                Word::Good => "ok",
                Word::Warning => "WARNING",
                Word::Error => "ERROR",
            };
            let _ = writeln!(out, "{word:<8} {}: {}", row.what, row.message);
        }
        out
    }

    /// EKS's own repair of a managed node group, beside ours.
    pub fn add_node_group(&mut self, name: &str, found: &Nodegroup) {
        let what = format!("node group {name}");
        let config = found.node_repair_config();
        if config.and_then(|config| config.enabled).unwrap_or_default() {
            let message = "EKS repairs its nodes itself (nodeRepairConfig): nodemend leaves them to it; `nodemend-repairer import` takes its settings over";
            self.add(&what, Word::Warning, message);
        } else {
            self.add(&what, Word::Good, "EKS does not repair its nodes itself");
        }
    }

    fn add_findings(&mut self, what: &str, findings: &[Finding]) {
        for finding in findings {
            let state = match finding.severity {
                Severity::Error => Word::Error,
                Severity::Warning => Word::Warning,
            };
            self.add(
                what,
                state,
                format!("{}: {}", finding.path, finding.message),
            );
        }
        if findings.is_empty() {
            self.add(what, Word::Good, "nothing is wrong with it");
        }
    }
}

/// Every RepairPolicy of a YAML stream, without a cluster.
pub fn file(text: &str) -> Checked {
    let mut checked = Checked::default();
    let documents: Result<Vec<Value>, _> = serde_saphyr::from_multiple(text);
    let documents = match documents {
        Ok(documents) => documents,
        Err(error) => {
            checked.add("the file", Word::Error, error.to_string());
            return checked;
        }
    };
    for document in documents.iter().filter(|d| d["kind"] == "RepairPolicy") {
        let name = document["metadata"]["name"]
            .as_str()
            .unwrap_or("without a name");
        let what = format!("RepairPolicy {name}");
        let (_, found) = validate::read(&document["spec"]);
        checked.add_findings(&what, &found);
    }
    if checked.rows.is_empty() {
        checked.add("the file", Word::Error, "there is no RepairPolicy in it");
    }
    checked
}

/// The policies of a cluster, and who else repairs its nodes.
pub fn cluster(cluster: &Cluster) -> Checked {
    let mut checked = Checked::default();
    for unreadable in &cluster.unreadable {
        checked.add("objects", Word::Error, unreadable);
    }
    for policy in &cluster.policies {
        let name = policy.metadata.name.as_deref().unwrap_or_default();
        checked.add_findings(&format!("RepairPolicy {name}"), &of(policy));
    }
    if cluster.policies.is_empty() {
        let message = "there is none: nothing is repaired (deploy/policy.yaml)";
        checked.add("RepairPolicy", Word::Warning, message);
    }
    for node in cluster.nodes.values() {
        for other in &node.others {
            checked.add(&format!("Node {}", node.name), Word::Warning, other);
        }
    }
    checked
}

fn of(policy: &RepairPolicy) -> Vec<Finding> {
    let spec: &RepairPolicySpec = &policy.spec;
    validate::policy(spec)
}

/// Whether the account may do what the repairer has to.
pub async fn rights(client: &Client, checked: &mut Checked) -> anyhow::Result<()> {
    let reviews: Api<SelfSubjectAccessReview> = Api::all(client.clone());
    for (namespace, group, resource, verbs) in NEEDED {
        let (resource, subresource) = match resource.split_once('/') {
            Some((resource, subresource)) => (resource, Some(subresource)),
            None => (*resource, None),
        };
        for verb in *verbs {
            let attributes = ResourceAttributes {
                namespace: (!namespace.is_empty()).then(|| (*namespace).to_owned()),
                group: Some((*group).to_owned()),
                resource: Some(resource.to_owned()),
                subresource: subresource.map(str::to_owned),
                verb: Some((*verb).to_owned()),
                ..ResourceAttributes::default()
            };
            let review = SelfSubjectAccessReview {
                spec: SelfSubjectAccessReviewSpec {
                    resource_attributes: Some(attributes),
                    non_resource_attributes: None,
                },
                ..SelfSubjectAccessReview::default()
            };
            let answer = reviews.create(&PostParams::default(), &review).await;
            let answer = answer
                .map_err(explain)
                .context("ask what the account may do")?;
            if !answer.status.is_some_and(|status| status.allowed) {
                let of = subresource.map(|s| format!("/{s}")).unwrap_or_default();
                let message =
                    format!("may not {verb} {resource}{of}: apply deploy/rbac/repairer.yaml");
                checked.add("rights", Word::Error, message);
            }
        }
    }
    if !checked.rows.iter().any(|row| row.what == "rights") {
        checked.add(
            "rights",
            Word::Good,
            "the account may do all that the repairer has to",
        );
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_shipped_policy_is_sound() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/policy.yaml");
        let checked = file(&std::fs::read_to_string(path).unwrap());
        assert_eq!(
            checked.text(),
            "ok       RepairPolicy default: nothing is wrong with it\n"
        );
    }

    #[test]
    fn everything_that_is_wrong_is_told_at_once() {
        let checked = file(
            "kind: RepairPolicy\nmetadata: {name: p}\nspec:\n  selector: {}\n  unhealthyTreshold: {}\n  \
             parallel: {count: 1, percentageOfUnhealthy: 5}\n  rules:\n    - {nodeMonitoringCondition: \
             StorageReady, nodeUnhealthyReason: FilesystemReadonly, minRepairWaitTime: 30m, repairActions: [Replace]}\n",
        );
        assert!(!checked.is_good());
        assert_eq!(
            checked.text(),
            "ERROR    RepairPolicy p: spec.unhealthyTreshold: unknown field\n\
             ERROR    RepairPolicy p: spec.parallel: set count or percentageOfUnhealthy, not both\n\
             WARNING  RepairPolicy p: spec.rules[0].nodeUnhealthyReason: no agent is known to report \
             FilesystemReadonly; did you mean FilesystemReadOnly?\n"
        );
    }

    #[test]
    fn what_is_no_policy_is_told() {
        assert!(!file("a: b").is_good());
        let wrong = file("kind: RepairPolicy\nspec: {selector: {}, rules: 5}");
        assert!(wrong.text().contains("spec.rules: "), "{}", wrong.text());
    }

    #[test]
    fn the_rights_that_are_asked_for_are_those_that_are_given() {
        let path =
            std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/rbac/repairer.yaml");
        let rbac = std::fs::read_to_string(path).unwrap();
        let documents: Vec<Value> = serde_saphyr::from_multiple(&rbac).unwrap();
        for (namespace, group, resource, verbs) in NEEDED {
            let is_role = |document: &&Value| match *namespace {
                "" => document["kind"] == "ClusterRole",
                namespace => {
                    document["kind"] == "Role" && document["metadata"]["namespace"] == namespace
                }
            };
            let role = documents.iter().find(is_role).unwrap();
            let rule =
                role["rules"].as_array().unwrap().iter().find(|rule| {
                    rule["apiGroups"][0] == *group && rule["resources"][0] == *resource
                });
            let given = &rule.unwrap_or_else(|| panic!("{resource}"))["verbs"];
            assert_eq!(*given, serde_json::json!(verbs), "{resource}");
        }
    }
}
