//! PURE. What is wrong with a policy, in the words of the API server: the schema's rules take their
//! messages from here. And what no schema can know: names that nothing reports.

use std::fmt;

use serde_json::Value;

use super::policy::{GroupKind, RepairAction, RepairPolicySpec, RepairRule};
use super::schema;
use crate::reasons;
use crate::window::Window;

pub const GROUP_BY: &str = "groupBy.type Label needs groupBy.label, and only that does";
pub const ONE_THRESHOLD: &str = "set percentage or count, not both";
pub const ONE_PARALLEL: &str = "set count or percentageOfUnhealthy, not both";
pub const STATUS_REQUIRED: &str =
    "status is required for a condition whose type does not end in Ready: is True good or bad?";
pub const SELECTOR_VALUES: &str = "the operators In and NotIn need values, and only they do";
pub const WINDOW_DURATION: &str = "a window lasts for longer than 0s, and for 168h at most";
pub const NO_ACTION_ALONE: &str = "NoAction cannot be combined with another action";

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Severity {
    /// The policy is not accepted.
    Error,
    /// It is, but perhaps does not do what was meant.
    Warning,
}

#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finding {
    pub severity: Severity,
    /// For example `spec.rules[2].nodeUnhealthyReason`.
    pub path: String,
    pub message: String,
}

impl fmt::Display for Finding {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let word = match self.severity {
            Severity::Error => "error",
            Severity::Warning => "warning",
        };
        write!(f, "{word}: {}: {}", self.path, self.message)
    }
}

/// A policy's spec as somebody wrote it; `None` where it cannot be read, which an error then tells. A
/// field that it does not have is an error, too: the API server would drop it without a word.
pub fn read(spec: &Value) -> (Option<RepairPolicySpec>, Vec<Finding>) {
    let mut found = schema::of_policy(spec);
    let parsed = serde_json::from_value::<RepairPolicySpec>(spec.clone())
        .and_then(|parsed| Ok((serde_json::to_value(&parsed)?, parsed)));
    match parsed {
        Ok((known, parsed)) => {
            unknown(spec, &known, "spec", &mut found);
            found.extend(policy(&parsed));
            (Some(parsed), found)
        }
        Err(error) => {
            // Mostly the schema has said it, with its place.
            if found.is_empty() {
                found.push(Finding {
                    severity: Severity::Error,
                    path: "spec".to_owned(),
                    message: error.to_string(),
                });
            }
            (None, found)
        }
    }
}

/// The first error.
pub fn first_error(found: &[Finding]) -> Option<&Finding> {
    found.iter().find(|f| f.severity == Severity::Error)
}

fn unknown(written: &Value, known: &Value, path: &str, found: &mut Vec<Finding>) {
    match (written, known) {
        (Value::Object(written), Value::Object(known)) => {
            for (key, value) in written {
                let path = format!("{path}.{key}");
                match known.get(key) {
                    Some(known) => unknown(value, known, &path, found),
                    // What is empty is not kept.
                    None if value.is_null() || value.as_array().is_some_and(Vec::is_empty) => {}
                    None => found.push(Finding {
                        severity: Severity::Error,
                        path,
                        message: "unknown field".to_owned(),
                    }),
                }
            }
        }
        (Value::Array(written), Value::Array(known)) => {
            for (index, (written, known)) in written.iter().zip(known).enumerate() {
                unknown(written, known, &format!("{path}[{index}]"), found);
            }
        }
        _ => {}
    }
}

/// Everything at once, errors and warnings, in the order of the fields.
pub fn policy(spec: &RepairPolicySpec) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut say = |severity, path: String, message: String| {
        found.push(Finding {
            severity,
            path,
            message,
        });
    };
    let error = Severity::Error;
    let expressions = spec.selector.match_expressions.iter().flatten();
    for (index, expression) in expressions.enumerate() {
        let wants = matches!(expression.operator.as_str(), "In" | "NotIn");
        if wants == expression.values.as_ref().is_none_or(Vec::is_empty) {
            let path = format!("spec.selector.matchExpressions[{index}]");
            say(error, path, SELECTOR_VALUES.to_owned());
        }
    }
    let labelled = match spec.group_by.kind {
        GroupKind::Auto => false,
        GroupKind::Label => true,
    };
    if labelled != spec.group_by.label.is_some() {
        say(error, "spec.groupBy".to_owned(), GROUP_BY.to_owned());
    }
    let threshold = &spec.unhealthy_threshold;
    if threshold.percentage.is_some() && threshold.count.is_some() {
        say(
            error,
            "spec.unhealthyThreshold".to_owned(),
            ONE_THRESHOLD.to_owned(),
        );
    }
    if spec.parallel.count.is_some() && spec.parallel.percentage_of_unhealthy.is_some() {
        say(error, "spec.parallel".to_owned(), ONE_PARALLEL.to_owned());
    }
    for (index, window) in spec.maintenance_windows.iter().enumerate() {
        if let Err(message) = Window::read(window) {
            say(error, format!("spec.maintenanceWindows[{index}]"), message);
        }
    }
    for (index, rule) in spec.rules.iter().enumerate() {
        found.extend(of_rule(rule, &format!("spec.rules[{index}]")));
    }
    for (index, rule) in spec.rules.iter().enumerate() {
        let same = |other: &&RepairRule| {
            other.node_monitoring_condition == rule.node_monitoring_condition
                && other.node_unhealthy_reason == rule.node_unhealthy_reason
                && other.status == rule.status
        };
        if spec.rules[..index].iter().any(|other| same(&other)) {
            found.push(Finding {
                severity: Severity::Warning,
                path: format!("spec.rules[{index}]"),
                message: "another rule is for the same: the one that does less wins".to_owned(),
            });
        }
    }
    found
}

fn of_rule(rule: &RepairRule, path: &str) -> Vec<Finding> {
    let mut found = Vec::new();
    let mut say = |severity, field: &str, message: String| {
        found.push(Finding {
            severity,
            path: format!("{path}{field}"),
            message,
        });
    };
    if !rule.node_monitoring_condition.ends_with("Ready") && rule.status.is_none() {
        say(Severity::Error, "", STATUS_REQUIRED.to_owned());
    }
    if rule.repair_actions.contains(&RepairAction::NoAction) && rule.repair_actions.len() > 1 {
        say(Severity::Error, "", NO_ACTION_ALONE.to_owned());
    }
    if rule.repair_actions == [RepairAction::Replace, RepairAction::Reboot] {
        say(
            Severity::Warning,
            ".repairActions",
            "a node that has been replaced is not there to be rebooted".to_owned(),
        );
    }
    if let Some(reason) = &rule.node_unhealthy_reason
        && let Some(hint) = reasons::unknown(reason)
    {
        say(Severity::Warning, ".nodeUnhealthyReason", hint);
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::fixture;

    fn findings(change: impl FnOnce(&mut RepairPolicySpec)) -> Vec<String> {
        let mut spec = fixture::policy("p").spec;
        change(&mut spec);
        policy(&spec).iter().map(ToString::to_string).collect()
    }

    #[test]
    fn a_sound_policy_has_no_finding() {
        assert_eq!(findings(|_| {}), Vec::<String>::new());
    }

    #[test]
    fn the_code_refuses_what_the_schema_refuses_in_the_same_words() {
        let crds = crate::api::crds().unwrap();
        for message in [
            GROUP_BY,
            ONE_THRESHOLD,
            ONE_PARALLEL,
            STATUS_REQUIRED,
            NO_ACTION_ALONE,
        ] {
            let flat = crds.replace('\n', " ");
            let words: Vec<_> = message.split([':', '\'']).collect();
            assert!(
                words.iter().all(|part| flat.contains(part.trim())),
                "{message}"
            );
        }
        let both = findings(|spec| spec.unhealthy_threshold.count = Some(3));
        assert_eq!(
            both,
            ["error: spec.unhealthyThreshold: set percentage or count, not both"]
        );
        let both = findings(|spec| spec.parallel.percentage_of_unhealthy = Some(50));
        assert_eq!(
            both,
            ["error: spec.parallel: set count or percentageOfUnhealthy, not both"]
        );
        let label = findings(|spec| spec.group_by.kind = GroupKind::Label);
        assert_eq!(label, [format!("error: spec.groupBy: {GROUP_BY}")]);
        let status = findings(|spec| {
            spec.rules[0].node_monitoring_condition = "DiskPressure".to_owned();
        });
        assert_eq!(status, [format!("error: spec.rules[0]: {STATUS_REQUIRED}")]);
        let alone = findings(|spec| spec.rules[0].repair_actions.push(RepairAction::NoAction));
        assert_eq!(alone, [format!("error: spec.rules[0]: {NO_ACTION_ALONE}")]);
    }

    #[test]
    fn an_unknown_reason_is_told_with_the_nearest_known_one() {
        let typo = findings(|spec| {
            spec.rules[0].node_unhealthy_reason = Some("FilesystemReadonly".to_owned());
        });
        assert_eq!(
            typo,
            [
                "warning: spec.rules[0].nodeUnhealthyReason: no agent is known to report FilesystemReadonly; did you mean FilesystemReadOnly?"
            ]
        );
    }

    #[test]
    fn a_ladder_the_wrong_way_round_is_told() {
        let ladder = [RepairAction::Replace, RepairAction::Reboot];
        let wrong = findings(|spec| spec.rules[0].repair_actions = ladder.to_vec());
        assert!(wrong[0].contains("not there to be rebooted"), "{wrong:?}");
        let right = [RepairAction::Reboot, RepairAction::Replace];
        let right = findings(|spec| spec.rules[0].repair_actions = right.to_vec());
        assert_eq!(right, [""; 0]);
    }

    #[test]
    fn two_rules_for_the_same_are_told() {
        let twice = findings(|spec| spec.rules.push(spec.rules[0].clone()));
        assert!(
            twice[0].contains("the one that does less wins"),
            "{twice:?}"
        );
    }
}
