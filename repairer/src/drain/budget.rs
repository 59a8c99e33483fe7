//! PURE. PodDisruptionBudgets, and whether one that is in the way can ever let go.

use k8s_openapi::api::policy::v1::PodDisruptionBudget;
use k8s_openapi::apimachinery::pkg::util::intstr::IntOrString;
use kube::core::{Selector, SelectorExt};

use super::PodView;

#[derive(Clone, Debug)]
pub struct Budget {
    pub namespace: String,
    pub name: String,
    selector: Selector,
    /// What its controller has not looked at yet says nothing.
    observed: bool,
    expected: i32,
    desired: i32,
    healthy: i32,
    allowed: i32,
    none_unavailable: bool,
    always_allow: bool,
    /// Why its controller cannot count.
    failure: Option<String>,
}

/// Whether a budget that is in the way lets go in time.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Clears {
    Maybe(String),
    Never(String),
}

impl Budget {
    /// `None`: its selector cannot be read, and the API server would not take it either.
    pub fn read(budget: &PodDisruptionBudget) -> Option<Self> {
        let spec = budget.spec.as_ref()?;
        let status = budget.status.clone().unwrap_or_default();
        let selector = spec.selector.clone();
        let failed = status.conditions.iter().flatten().find(|condition| {
            condition.type_ == "DisruptionAllowed" && condition.reason == "SyncFailed"
        });
        let generation = budget.metadata.generation;
        Some(Self {
            namespace: budget.metadata.namespace.clone()?,
            name: budget.metadata.name.clone()?,
            // Without a selector it selects nothing.
            selector: Selector::try_from(selector?).ok()?,
            observed: status.observed_generation >= generation,
            expected: status.expected_pods,
            desired: status.desired_healthy,
            healthy: status.current_healthy,
            allowed: status.disruptions_allowed,
            none_unavailable: match &spec.max_unavailable {
                Some(IntOrString::Int(count)) => *count == 0,
                Some(IntOrString::String(share)) => share == "0%",
                None => false,
            },
            always_allow: spec.unhealthy_pod_eviction_policy.as_deref() == Some("AlwaysAllow"),
            failure: failed.map(|condition| condition.message.clone()),
        })
    }

    pub fn selects(&self, pod: &PodView) -> bool {
        self.namespace == pod.namespace && self.selector.matches(&pod.labels)
    }

    pub fn clears(&self) -> Clears {
        let Self {
            expected,
            desired,
            healthy,
            allowed,
            ..
        } = self;
        if !self.observed {
            return Clears::Maybe("its controller has not looked at it yet".to_owned());
        }
        if let Some(failure) = &self.failure {
            return Clears::Never(format!("its controller cannot count its pods: {failure}"));
        }
        if self.none_unavailable {
            return Clears::Never("its maxUnavailable is 0".to_owned());
        }
        if *expected > 0 && desired >= expected {
            return Clears::Never(format!(
                "it wants {desired} healthy pods of {expected}; more replicas or another budget would open it"
            ));
        }
        if healthy < expected {
            let hint = if self.always_allow {
                ""
            } else {
                "; with unhealthyPodEvictionPolicy: AlwaysAllow those that are not ready could go"
            };
            return Clears::Maybe(format!(
                "{healthy} of its {expected} pods are healthy, it wants {desired}{hint}"
            ));
        }
        Clears::Maybe(format!("it allows {allowed} disruptions now"))
    }
}

#[cfg(test)]
mod tests {
    use serde_json::{Value, json};

    use super::*;

    fn budget(spec: Value, status: Value) -> Budget {
        let object = json!({
            "metadata": {"namespace": "default", "name": "web", "generation": 1},
            "spec": spec,
            "status": status,
        });
        Budget::read(&serde_json::from_value(object).unwrap()).unwrap()
    }

    fn status(expected: i32, desired: i32, healthy: i32) -> Value {
        json!({
            "observedGeneration": 1, "expectedPods": expected, "desiredHealthy": desired,
            "currentHealthy": healthy, "disruptionsAllowed": (healthy - desired).max(0),
        })
    }

    #[test]
    fn what_can_never_clear_is_told_from_what_may() {
        let any = json!({"selector": {}, "minAvailable": 2});
        let cases = [
            (any.clone(), status(3, 2, 3), false),
            (any.clone(), status(3, 2, 2), false),
            (any.clone(), status(2, 2, 2), true),
            (
                json!({"selector": {}, "minAvailable": "100%"}),
                status(3, 3, 3),
                true,
            ),
            (
                json!({"selector": {}, "maxUnavailable": 0}),
                status(3, 3, 3),
                true,
            ),
            (
                json!({"selector": {}, "maxUnavailable": "0%"}),
                status(0, 0, 0),
                true,
            ),
            // Whatever the old numbers say.
            (
                any.clone(),
                json!({"observedGeneration": 0, "expectedPods": 2, "desiredHealthy": 2, "currentHealthy": 2, "disruptionsAllowed": 0}),
                false,
            ),
            (
                any,
                json!({"observedGeneration": 1, "expectedPods": 0, "desiredHealthy": 0, "currentHealthy": 0, "disruptionsAllowed": 0,
                "conditions": [{"type": "DisruptionAllowed", "status": "False", "reason": "SyncFailed", "message": "found no controllers", "lastTransitionTime": "2026-01-01T00:00:00Z"}]}),
                true,
            ),
        ];
        for (spec, status, never) in cases {
            let clears = budget(spec.clone(), status.clone()).clears();
            assert_eq!(
                matches!(clears, Clears::Never(_)),
                never,
                "{spec} {status}: {clears:?}"
            );
        }
    }

    #[test]
    fn pods_that_are_not_ready_are_named_with_the_policy_that_lets_them_go() {
        let ill = budget(json!({"selector": {}, "minAvailable": 1}), status(2, 1, 0));
        let Clears::Maybe(why) = ill.clears() else {
            panic!()
        };
        assert!(why.contains("AlwaysAllow"), "{why}");
    }
}
