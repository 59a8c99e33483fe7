//! PURE. What a policy's status says: counts, and whether anything stops all of it.

use std::collections::BTreeMap;

use k8s_openapi::apimachinery::pkg::apis::meta::v1::{Condition, Time};

use super::Planner;
use crate::api::policy::{GroupStatus, Mode, RepairPolicy, RepairPolicyStatus, ShadowSummary};
use crate::api::repair::Gate;
use crate::api::validate::{self, Severity};
use crate::cluster::Asked;

const MOST_GROUPS: usize = 16;
/// The schema of a condition's message allows more; people read less.
const MOST_TEXT: usize = 1024;

impl Planner<'_> {
    pub(super) fn policy_statuses(&self) -> BTreeMap<String, RepairPolicyStatus> {
        let policies = self.cluster.policies.iter();
        policies
            .filter_map(|policy| {
                let name = policy.metadata.name.clone()?;
                let status = self.policy_status(policy, &name);
                Some((name, status))
            })
            .collect()
    }

    fn policy_status(&self, policy: &RepairPolicy, name: &str) -> RepairPolicyStatus {
        let counts = self.tally.counts(name);
        let paces = self.breakers.get(name).map_or(&[][..], Vec::as_slice);
        RepairPolicyStatus {
            observed_generation: policy.metadata.generation.unwrap_or_default(),
            conditions: vec![self.accepted(policy), self.allowed(policy, name)],
            nodes: number(counts.nodes),
            unhealthy: number(counts.unhealthy),
            in_repair: number(counts.in_repair),
            needs_human: number(counts.needs_human),
            groups: self.worst_groups(name),
            breakers: paces.iter().map(|pace| pace.status()).collect(),
            shadow: self.shadow_summary(policy, name),
        }
    }

    /// Those with unhealthy nodes, the worst first.
    fn worst_groups(&self, policy: &str) -> Vec<GroupStatus> {
        let mut groups: Vec<_> = self
            .tally
            .groups(policy)
            .filter(|(_, group)| group.share.unhealthy > 0)
            .map(|(name, group)| GroupStatus {
                name: name.to_owned(),
                nodes: number(group.share.nodes),
                unhealthy: number(group.share.unhealthy),
            })
            .collect();
        groups.sort_by(|a, b| (b.unhealthy, &a.name).cmp(&(a.unhealthy, &b.name)));
        groups.truncate(MOST_GROUPS);
        groups
    }

    fn accepted(&self, policy: &RepairPolicy) -> Condition {
        let found = validate::policy(&policy.spec);
        let errors = found.iter().any(|f| f.severity == Severity::Error);
        let message = found.iter().map(ToString::to_string).collect::<Vec<_>>();
        let reason = match (errors, message.is_empty()) {
            (true, _) => "Invalid",
            (false, true) => "Valid",
            (false, false) => "Warnings",
        };
        self.condition(policy, "Accepted", !errors, reason, &message.join("; "))
    }

    /// Its reason is the gate that stops a whole group or more.
    fn allowed(&self, policy: &RepairPolicy, name: &str) -> Condition {
        let (gate, message) = match self.stopped(policy, name) {
            Some((gate, message)) => (format!("{gate:?}"), message),
            None => ("Allowed".to_owned(), String::new()),
        };
        let allowed = gate == "Allowed";
        self.condition(policy, "RepairAllowed", allowed, &gate, &message)
    }

    fn stopped(&self, policy: &RepairPolicy, name: &str) -> Option<(Gate, String)> {
        if let Some(first) = self.cluster.unreadable.first() {
            return Some((Gate::Unreadable, first.clone()));
        }
        match policy.spec.mode {
            Mode::Enforce => {}
            Mode::Disabled => {
                return Some((
                    Gate::Disabled,
                    "enable it with spec.mode: Enforce".to_owned(),
                ));
            }
            Mode::Shadow => {
                let message = "what would be done is recorded, nothing is touched".to_owned();
                return Some((Gate::Shadow, message));
            }
        }
        if policy.spec.paused || self.cluster.limits.paused {
            return Some((Gate::Paused, "paused by a person".to_owned()));
        }
        if let Some(closed) = self
            .breakers
            .get(name)
            .into_iter()
            .flatten()
            .find(|pace| pace.reopened.is_none())
        {
            let scope = &closed.scope;
            return Some((
                closed.gate,
                format!("in {scope}; see the NodeRepairs it holds"),
            ));
        }
        match &self.cluster.shifted {
            Asked::Yes(Err(error)) => Some((Gate::ZonalShift, error.clone())),
            Asked::No | Asked::Yes(Ok(_)) => None,
        }
    }

    fn condition(
        &self,
        policy: &RepairPolicy,
        kind: &str,
        status: bool,
        reason: &str,
        message: &str,
    ) -> Condition {
        let status = if status { "True" } else { "False" };
        let known = policy.status.iter().flat_map(|status| &status.conditions);
        let known = known
            .into_iter()
            .find(|condition| condition.type_ == kind && condition.status == status);
        // To the second, as the API server stores it.
        let now = jiff::Timestamp::from_second(self.now.as_second()).unwrap_or(self.now);
        Condition {
            type_: kind.to_owned(),
            status: status.to_owned(),
            reason: reason.to_owned(),
            message: message.chars().take(MOST_TEXT).collect(),
            last_transition_time: known
                .map_or(Time(now), |known| known.last_transition_time.clone()),
            observed_generation: policy.metadata.generation,
        }
    }

    fn shadow_summary(&self, policy: &RepairPolicy, name: &str) -> Option<ShadowSummary> {
        if policy.spec.mode != Mode::Shadow {
            return None;
        }
        let mut summary = ShadowSummary::default();
        for repair in self.cluster.repairs.values().filter(|r| r.policy() == name) {
            let Some(shadow) = repair.status.as_ref().and_then(|s| s.shadow.as_ref()) else {
                continue;
            };
            summary.cordoned += u32::from(shadow.cordoned.is_some());
            summary.replaced += u32::from(shadow.started.is_some());
        }
        Some(summary)
    }
}

fn number(count: usize) -> u32 {
    u32::try_from(count).unwrap_or(u32::MAX)
}
