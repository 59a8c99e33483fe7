//! PURE. Which policy is for a node, and which of its rules is for a condition.

use std::collections::HashMap;

use kube::core::{Selector, SelectorExt};

use crate::api::policy::{
    ConditionStatus, Mode, RepairAction, RepairPolicy, RepairPolicySpec, RepairRule,
};
use crate::cluster::{Cluster, ConditionView, NodeView};

/// The policy that a node falls under.
pub enum Choice<'a> {
    None,
    One(&'a RepairPolicy),
    /// Names of policies of one priority that both select it.
    Tie(Vec<String>),
}

/// The highest priority wins; a Disabled policy counts only where no enabled one selects the node.
fn choose(selecting: Vec<&RepairPolicy>) -> Choice<'_> {
    let enabled: Vec<_> = selecting
        .iter()
        .copied()
        .filter(|policy| policy.spec.mode != Mode::Disabled)
        .collect();
    let candidates = if enabled.is_empty() {
        selecting
    } else {
        enabled
    };
    let Some(highest) = candidates.iter().map(|policy| policy.spec.priority).max() else {
        return Choice::None;
    };
    let mut best: Vec<_> = candidates
        .into_iter()
        .filter(|policy| policy.spec.priority == highest)
        .collect();
    match best.as_slice() {
        [one] => Choice::One(one),
        _ => {
            best.sort_by(|a, b| a.metadata.name.cmp(&b.metadata.name));
            let name = |policy: &&RepairPolicy| policy.metadata.name.clone();
            Choice::Tie(best.iter().filter_map(name).collect())
        }
    }
}

/// The rule for a condition as it is now; `None` when it is healthy or nobody's business.
pub fn matching<'a>(
    policy: &'a RepairPolicySpec,
    condition: &ConditionView,
) -> Option<&'a RepairRule> {
    matching_reason(
        policy,
        &condition.kind,
        &condition.status,
        &condition.reason,
    )
}

/// The same for a reason that the condition had.
pub fn matching_reason<'a>(
    policy: &'a RepairPolicySpec,
    kind: &str,
    status: &str,
    reason: &str,
) -> Option<&'a RepairRule> {
    policy
        .rules
        .iter()
        .filter(|rule| rule.node_monitoring_condition == kind && is_unhealthy(rule, status))
        .filter_map(|rule| Some((specificity(rule, reason)?, rule)))
        // Of equally specific ones the one that does less.
        .max_by_key(|(specificity, rule)| {
            (
                *specificity,
                std::cmp::Reverse(first_action(rule)),
                rule.min_repair_wait_time,
            )
        })
        .map(|(_, rule)| rule)
}

/// Whether the rule for a reason goes as far as an action, whatever the condition's status is now.
pub fn reaches(policy: &RepairPolicySpec, kind: &str, reason: &str, action: RepairAction) -> bool {
    let mut rules = ["False", "Unknown", "True"]
        .into_iter()
        .filter_map(|status| matching_reason(policy, kind, status, reason));
    rules.any(|rule| rule.repair_actions.iter().any(|step| *step >= action))
}

/// Whether a rule asks for more than to be left alone.
pub fn acts(rule: &RepairRule) -> bool {
    match first_action(rule) {
        RepairAction::Replace | RepairAction::Reboot => true,
        RepairAction::NoAction => false,
    }
}

/// What is done first.
pub fn first_action(rule: &RepairRule) -> RepairAction {
    rule.repair_actions
        .first()
        .copied()
        .unwrap_or(RepairAction::NoAction)
}

/// How sure a rule is of what it is about, for the order of repairs and among an episode's reasons.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Certainty {
    Condition,
    Beginning,
    Reason,
}

pub fn certainty(rule: &RepairRule) -> Certainty {
    match &rule.node_unhealthy_reason {
        None => Certainty::Condition,
        Some(pattern) if pattern.ends_with('*') => Certainty::Beginning,
        Some(_) => Certainty::Reason,
    }
}

/// Which policy each node falls under: asked often, so found once.
pub struct Assigned<'a>(HashMap<&'a str, Choice<'a>>);

impl<'a> Assigned<'a> {
    pub fn of(cluster: &'a Cluster) -> Self {
        let policies: Vec<_> = cluster
            .policies
            .iter()
            // A selector that cannot be read selects nothing; the schema keeps such ones out.
            .filter_map(|policy| {
                let selector = Selector::try_from(policy.spec.selector.clone()).ok()?;
                Some((selector, policy))
            })
            .collect();
        let choice = |node: &'a NodeView| {
            let selecting = policies
                .iter()
                .filter(|(selector, _)| selector.matches(&node.labels));
            (
                node.name.as_str(),
                choose(selecting.map(|(_, policy)| *policy).collect()),
            )
        };
        Self(cluster.nodes.values().map(choice).collect())
    }

    pub fn choice(&self, node: &NodeView) -> &Choice<'a> {
        self.0.get(node.name.as_str()).unwrap_or(&Choice::None)
    }

    pub fn policy(&self, node: &NodeView) -> Option<&'a RepairPolicy> {
        match self.choice(node) {
            Choice::One(policy) => Some(policy),
            Choice::None | Choice::Tie(_) => None,
        }
    }
}

fn is_unhealthy(rule: &RepairRule, status: &str) -> bool {
    let statuses = rule.status.as_deref().unwrap_or(&[ConditionStatus::False]);
    statuses.iter().any(|unhealthy| match unhealthy {
        ConditionStatus::True => status == "True",
        ConditionStatus::False => status == "False",
        ConditionStatus::Unknown => status == "Unknown",
    })
}

/// None: not this reason. A whole name is more than any beginning, a longer beginning more than
/// a shorter one, and any of them more than no reason at all.
fn specificity(rule: &RepairRule, reason: &str) -> Option<usize> {
    let Some(pattern) = &rule.node_unhealthy_reason else {
        return Some(0);
    };
    match pattern.strip_suffix('*') {
        Some(beginning) => reason.starts_with(beginning).then(|| 1 + beginning.len()),
        None => (pattern == reason).then_some(usize::MAX),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::fixture;

    fn rule(kind: &str, reason: Option<&str>, action: RepairAction) -> RepairRule {
        let reason = reason.map(str::to_owned);
        RepairRule {
            node_unhealthy_reason: reason,
            repair_actions: vec![action],
            ..fixture::rule(kind, 600)
        }
    }

    fn unhealthy(kind: &str, reason: &str) -> ConditionView {
        ConditionView {
            reason: reason.to_owned(),
            ..fixture::condition(kind, "False", 0)
        }
    }

    #[test]
    fn the_most_specific_rule_wins_in_any_order() {
        let kind = "AcceleratedHardwareReady";
        let mut policy = fixture::policy("gpu").spec;
        policy.rules = vec![
            rule(kind, None, RepairAction::Replace),
            rule(kind, Some("DCGM*"), RepairAction::NoAction),
            rule(kind, Some("DCGMFatal"), RepairAction::Replace),
        ];
        for _ in 0..3 {
            policy.rules.rotate_left(1);
            let of = |reason| {
                matching(&policy, &unhealthy(kind, reason))
                    .unwrap()
                    .node_unhealthy_reason
                    .as_deref()
            };
            assert_eq!(of("NvidiaXID79Error"), None);
            assert_eq!(of("DCGMError"), Some("DCGM*"));
            assert_eq!(of("DCGMFatal"), Some("DCGMFatal"));
        }
    }

    #[test]
    fn of_two_equal_rules_the_one_that_does_nothing_wins() {
        let mut policy = fixture::policy("p").spec;
        policy.rules = vec![
            rule("KernelReady", None, RepairAction::Replace),
            rule("KernelReady", None, RepairAction::NoAction),
        ];
        assert!(!acts(
            matching(&policy, &unhealthy("KernelReady", "x")).unwrap()
        ));
    }

    #[test]
    fn unknown_is_unhealthy_only_where_the_rule_says_so() {
        let mut policy = fixture::policy("p").spec;
        policy.rules = vec![fixture::rule("KernelReady", 600)];
        let unknown = ConditionView {
            status: "Unknown".to_owned(),
            ..unhealthy("KernelReady", "")
        };
        assert!(matching(&policy, &unknown).is_none());
        policy.rules[0].status = Some(vec![ConditionStatus::False, ConditionStatus::Unknown]);
        assert!(matching(&policy, &unknown).is_some());
    }

    #[test]
    fn the_higher_priority_wins_and_a_tie_is_told() {
        let (mut low, mut high) = (fixture::policy("low"), fixture::policy("high"));
        high.spec.priority = 1;
        let name = |policies: &[&RepairPolicy]| {
            let mut cluster = fixture::cluster(1);
            cluster.policies = policies.iter().map(|policy| (*policy).clone()).collect();
            let assigned = Assigned::of(&cluster);
            match assigned.choice(&cluster.nodes["node-0"]) {
                Choice::One(policy) => policy.metadata.name.clone().unwrap(),
                Choice::Tie(names) => names.join("+"),
                Choice::None => "none".to_owned(),
            }
        };
        assert_eq!(name(&[&low, &high]), "high");
        low.spec.priority = 1;
        assert_eq!(name(&[&low, &high]), "high+low");
        high.spec.mode = Mode::Disabled;
        assert_eq!(name(&[&low, &high]), "low");
        assert_eq!(name(&[]), "none");
    }
}
