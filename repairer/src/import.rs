//! The `nodeRepairConfig` of an EKS managed node group as a RepairPolicy, field by field, with
//! EKS's own defaults for what it does not say. It is `Disabled`: EKS's own repair is to be
//! switched off first.

use anyhow::{Context, bail, ensure};
use aws_sdk_eks::types::{NodeRepairConfig, NodeRepairConfigOverrides, RepairAction};
use serde_json::{Value, json};

use crate::api::validate;

/// EKS: "more than five nodes" where no threshold is set.
const DEFAULT_MIN_NODES: u32 = 6;
const DEFAULT_PERCENTAGE: i32 = 20;

/// What EKS does without an override: condition, reason, minutes, action.
const DEFAULTS: [(&str, Option<&str>, i32, &str); 14] = [
    ("Ready", None, 30, "Replace"),
    ("KernelReady", None, 30, "Replace"),
    ("ContainerRuntimeReady", None, 30, "Replace"),
    ("NetworkingReady", None, 30, "Replace"),
    ("StorageReady", None, 30, "Replace"),
    ("AcceleratedHardwareReady", None, 10, "Replace"),
    ("AcceleratedHardwareReady", Some("DCGM*"), 10, "NoAction"),
    (
        "AcceleratedHardwareReady",
        Some("NvidiaXID13Error"),
        10,
        "Reboot",
    ),
    (
        "AcceleratedHardwareReady",
        Some("NvidiaXID31Error"),
        10,
        "Reboot",
    ),
    (
        "AcceleratedHardwareReady",
        Some("NvidiaXID48Error"),
        10,
        "Reboot",
    ),
    (
        "AcceleratedHardwareReady",
        Some("NvidiaXID63Error"),
        10,
        "Reboot",
    ),
    (
        "AcceleratedHardwareReady",
        Some("NvidiaXID64Error"),
        10,
        "Reboot",
    ),
    (
        "AcceleratedHardwareReady",
        Some("NvidiaXID94Error"),
        10,
        "Reboot",
    ),
    (
        "AcceleratedHardwareReady",
        Some("NvidiaXID95Error"),
        10,
        "Reboot",
    ),
];

pub fn policy(node_group: &str, config: &NodeRepairConfig) -> anyhow::Result<Value> {
    let mut rules: Vec<_> = DEFAULTS
        .iter()
        .map(|(condition, reason, minutes, action)| rule(condition, *reason, *minutes, action))
        .collect();
    for (index, wanted) in config.node_repair_config_overrides().iter().enumerate() {
        let wanted = overridden(wanted)
            .with_context(|| format!("nodeRepairConfigOverrides[{index}] of {node_group}"))?;
        let same = |rule: &Value| {
            ["nodeMonitoringCondition", "nodeUnhealthyReason"]
                .iter()
                .all(|field| rule[field] == wanted[field])
        };
        rules.retain(|rule| !same(rule));
        rules.push(wanted);
    }
    let spec = json!({
        "mode": "Disabled",
        "selector": {"matchLabels": {"eks.amazonaws.com/nodegroup": node_group}},
        "unhealthyThreshold": threshold(config),
        "parallel": parallel(config),
        "zonalShift": "PauseAll",
        "rules": rules,
    });
    let (_, findings) = validate::read(&spec);
    if let Some(error) = validate::first_error(&findings) {
        bail!("{node_group}: {error}");
    }
    Ok(json!({
        "apiVersion": "nodemend.dev/v1alpha1",
        "kind": "RepairPolicy",
        "metadata": {"name": node_group.to_lowercase().replace('_', "-")},
        "spec": spec,
    }))
}

/// A threshold that is set counts at any size.
fn threshold(config: &NodeRepairConfig) -> Value {
    let set = (
        config.max_unhealthy_node_threshold_count,
        config.max_unhealthy_node_threshold_percentage,
    );
    match set {
        (Some(count), _) => json!({"count": count, "minNodes": 1, "comparison": "Above"}),
        (None, Some(percentage)) => {
            json!({"percentage": percentage, "minNodes": 1, "comparison": "Above"})
        }
        (None, None) => json!({
            "percentage": DEFAULT_PERCENTAGE,
            "minNodes": DEFAULT_MIN_NODES,
            "comparison": "Above",
        }),
    }
}

fn parallel(config: &NodeRepairConfig) -> Value {
    let set = (
        config.max_parallel_nodes_repaired_count,
        config.max_parallel_nodes_repaired_percentage,
    );
    match set {
        (Some(count), _) => json!({"count": count}),
        (None, Some(percentage)) => json!({"percentageOfUnhealthy": percentage}),
        (None, None) => json!({"count": 1}),
    }
}

fn overridden(wanted: &NodeRepairConfigOverrides) -> anyhow::Result<Value> {
    let condition = wanted.node_monitoring_condition();
    let condition = condition.context("it has no nodeMonitoringCondition")?;
    let minutes = wanted.min_repair_wait_time_mins();
    let minutes = minutes.context("it has no minRepairWaitTimeMins")?;
    ensure!(minutes > 0, "minRepairWaitTimeMins is {minutes}");
    let action = match wanted.repair_action() {
        Some(RepairAction::Replace) => "Replace",
        Some(RepairAction::Reboot) => "Reboot",
        Some(RepairAction::NoAction) => "NoAction",
        Some(other) => bail!("its repairAction {other} is not known"),
        None => bail!("it has no repairAction"),
    };
    Ok(rule(
        condition,
        wanted.node_unhealthy_reason(),
        minutes,
        action,
    ))
}

fn rule(condition: &str, reason: Option<&str>, minutes: i32, action: &str) -> Value {
    let mut rule = json!({
        "nodeMonitoringCondition": condition,
        "minRepairWaitTime": format!("{minutes}m"),
        "repairActions": [action],
    });
    if let Some(reason) = reason {
        rule["nodeUnhealthyReason"] = json!(reason);
    }
    if condition == "Ready" {
        rule["status"] = json!(["False", "Unknown"]);
    } else if !condition.ends_with("Ready") {
        rule["status"] = json!(["True"]);
    }
    rule
}

#[cfg(test)]
mod tests {
    use super::*;

    fn spec(config: NodeRepairConfig) -> Value {
        policy("Blue_1", &config).unwrap()["spec"].clone()
    }

    fn find<'a>(spec: &'a Value, condition: &str, reason: Option<&str>) -> Vec<&'a Value> {
        let rules = spec["rules"].as_array().unwrap().iter();
        rules
            .filter(|rule| rule["nodeMonitoringCondition"] == condition)
            .filter(|rule| rule["nodeUnhealthyReason"].as_str() == reason)
            .collect()
    }

    #[test]
    fn without_a_word_it_says_what_eks_does() {
        let policy = policy("Blue_1", &NodeRepairConfig::builder().enabled(true).build()).unwrap();
        assert_eq!(policy["metadata"]["name"], "blue-1");
        let spec = &policy["spec"];
        assert_eq!(spec["mode"], "Disabled");
        assert_eq!(
            spec["selector"]["matchLabels"]["eks.amazonaws.com/nodegroup"],
            "Blue_1"
        );
        let above_a_fifth = json!({"percentage": 20, "minNodes": 6, "comparison": "Above"});
        assert_eq!(spec["unhealthyThreshold"], above_a_fifth);
        assert_eq!(spec["parallel"], json!({"count": 1}));
        let waits = |condition| find(spec, condition, None)[0]["minRepairWaitTime"].clone();
        assert_eq!(
            (waits("KernelReady"), waits("AcceleratedHardwareReady")),
            ("30m".into(), "10m".into())
        );
    }

    #[test]
    fn each_field_is_taken_over() {
        let build = NodeRepairConfig::builder;
        let rows = [
            (
                build().max_unhealthy_node_threshold_count(3),
                "unhealthyThreshold",
                json!({"count": 3, "minNodes": 1, "comparison": "Above"}),
            ),
            (
                build().max_unhealthy_node_threshold_percentage(40),
                "unhealthyThreshold",
                json!({"percentage": 40, "minNodes": 1, "comparison": "Above"}),
            ),
            (
                build().max_parallel_nodes_repaired_count(2),
                "parallel",
                json!({"count": 2}),
            ),
            (
                build().max_parallel_nodes_repaired_percentage(50),
                "parallel",
                json!({"percentageOfUnhealthy": 50}),
            ),
        ];
        for (config, field, expected) in rows {
            assert_eq!(spec(config.build())[field], expected);
        }
    }

    fn wanted(
        condition: &str,
        reason: &str,
        minutes: i32,
        action: RepairAction,
    ) -> NodeRepairConfig {
        let wanted = NodeRepairConfigOverrides::builder()
            .node_monitoring_condition(condition)
            .node_unhealthy_reason(reason)
            .min_repair_wait_time_mins(minutes)
            .repair_action(action)
            .build();
        NodeRepairConfig::builder()
            .node_repair_config_overrides(wanted)
            .build()
    }

    #[test]
    fn an_override_takes_the_place_of_the_default() {
        let (accelerated, xid) = ("AcceleratedHardwareReady", "NvidiaXID64Error");
        let spec = spec(wanted(accelerated, xid, 20, RepairAction::Replace));
        let found = find(&spec, accelerated, Some(xid));
        assert_eq!(found.len(), 1);
        assert_eq!(found[0]["minRepairWaitTime"], "20m");
        assert_eq!(found[0]["repairActions"], json!(["Replace"]));
    }

    #[test]
    fn a_condition_that_is_bad_when_true_says_so() {
        let spec = spec(wanted(
            "DiskPressure",
            "KubeletHasDiskPressure",
            10,
            RepairAction::Reboot,
        ));
        let found = find(&spec, "DiskPressure", Some("KubeletHasDiskPressure"));
        assert_eq!(found[0]["status"], json!(["True"]));
    }

    /// But for accelerated hardware, where it does what the detector advises.
    #[test]
    fn the_shipped_policy_does_what_eks_does() {
        let path = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../deploy/policy.yaml");
        let shipped = std::fs::read_to_string(path).unwrap();
        let shipped: Value = serde_saphyr::from_str(&shipped).unwrap();
        let shipped = shipped["spec"]["rules"].as_array().unwrap();
        let wanted = spec(NodeRepairConfig::builder().build());
        let wanted = wanted["rules"].as_array().unwrap();
        let accelerated =
            |rule: &&Value| rule["nodeMonitoringCondition"] == "AcceleratedHardwareReady";
        let others = |rules: &[Value]| rules.iter().filter(|rule| !accelerated(rule)).count();
        assert_eq!(others(shipped), others(wanted));
        for rule in wanted.iter().filter(|rule| !accelerated(rule)) {
            assert!(shipped.contains(rule), "{rule}");
        }
        for rule in shipped.iter().filter(accelerated) {
            assert_eq!(rule["minRepairWaitTime"], "10m", "{rule}");
        }
    }

    #[test]
    fn what_is_not_understood_is_an_error_that_names_it() {
        let unknown = RepairAction::from("Polish");
        let error = policy("blue", &wanted("KernelReady", "A", 10, unknown)).unwrap_err();
        let message = format!("{error:#}");
        assert!(
            message.contains("nodeRepairConfigOverrides[0] of blue") && message.contains("Polish"),
            "{message}"
        );
    }
}
