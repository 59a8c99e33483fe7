//! The policies of deploy/iam hold exactly the calls that this code makes.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use serde_json::Value;

/// Client field of `Aws`, and the service as IAM names it.
const CLIENTS: [(&str, &str); 4] = [
    ("ec2", "ec2"),
    ("autoscaling", "autoscaling"),
    ("eks", "eks"),
    ("zonal_shift", "arc-zonal-shift"),
];
const PARTITIONS: [(&str, &str); 3] = [("aws", ""), ("aws-cn", "-cn"), ("aws-us-gov", "-us-gov")];

fn folder(path: &str) -> std::path::PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join(path)
}

/// `self.ec2.describe_instances()` is `ec2:DescribeInstances`.
fn calls() -> BTreeSet<String> {
    let mut calls = BTreeSet::new();
    let mut clients = 0;
    for entry in fs::read_dir(folder("src/aws")).unwrap() {
        let path = entry.unwrap().path();
        if path.extension().is_none_or(|extension| extension != "rs") || path.ends_with("tests.rs")
        {
            continue;
        }
        let text: String = fs::read_to_string(path)
            .unwrap()
            .split_whitespace()
            .collect();
        for (field, service) in CLIENTS {
            for rest in text.split(&format!("self.{field}.")).skip(1) {
                let call = rest.split('(').next().unwrap();
                let camel: String = call
                    .split('_')
                    .map(|word| word[..1].to_uppercase() + &word[1..])
                    .collect();
                calls.insert(format!("{service}:{camel}"));
                clients += 1;
            }
        }
    }
    assert!(clients >= calls.len() && calls.len() > 10, "{calls:?}");
    calls
}

fn policy(name: &str) -> Value {
    let path = folder("../deploy/iam").join(name);
    let text =
        fs::read_to_string(&path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
    serde_json::from_str(&text).unwrap()
}

/// Statements with their actions.
fn actions(policy: &Value) -> Vec<(&Value, Vec<String>)> {
    let statements = policy["Statement"].as_array().unwrap();
    let of = |statement: &Value| match &statement["Action"] {
        Value::String(one) => vec![one.clone()],
        Value::Array(many) => many
            .iter()
            .map(|one| one.as_str().unwrap().to_owned())
            .collect(),
        other => panic!("{other}"),
    };
    statements
        .iter()
        .map(|statement| (statement, of(statement)))
        .collect()
}

fn all_actions(name: &str) -> BTreeSet<String> {
    let policy = policy(name);
    let actions = actions(&policy);
    let all: Vec<_> = actions
        .into_iter()
        .flat_map(|(_, actions)| actions)
        .collect();
    let distinct: BTreeSet<_> = all.iter().cloned().collect();
    assert_eq!(all.len(), distinct.len(), "{name} allows something twice");
    distinct
}

fn changes(action: &str) -> bool {
    let (_, verb) = action.split_once(':').unwrap();
    !verb.starts_with("Describe") && !verb.starts_with("Get")
}

#[test]
fn each_policy_holds_the_calls_of_the_code_and_no_other() {
    let calls = calls();
    let reads: BTreeSet<_> = calls
        .iter()
        .filter(|call| !changes(call))
        .cloned()
        .collect();
    for (_, suffix) in PARTITIONS {
        assert_eq!(all_actions(&format!("read-only{suffix}.json")), reads);
        let mut reboot = reads.clone();
        reboot.insert("ec2:RebootInstances".to_owned());
        assert_eq!(all_actions(&format!("reboot{suffix}.json")), reboot);
        assert_eq!(all_actions(&format!("replace{suffix}.json")), calls);
    }
}

#[test]
fn what_changes_anything_is_bound_to_the_cluster_by_a_tag_and_to_the_partition() {
    for (partition, suffix) in PARTITIONS {
        for kind in ["read-only", "reboot", "replace"] {
            let policy = policy(&format!("{kind}{suffix}.json"));
            let text = policy.to_string();
            for arn in text.split("arn:").skip(1) {
                assert!(
                    arn.starts_with(&format!("{partition}:")),
                    "{kind}{suffix}: {arn}"
                );
            }
            for (statement, actions) in actions(&policy) {
                assert_eq!(statement["Effect"], "Allow");
                if actions.iter().any(|action| changes(action)) {
                    let condition = statement["Condition"].to_string();
                    assert!(
                        condition.contains("kubernetes.io/cluster/CLUSTER_NAME"),
                        "{statement}"
                    );
                    assert_ne!(statement["Resource"], "*", "{statement}");
                }
            }
        }
    }
}
