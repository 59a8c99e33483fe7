//! PURE. What the CRD's own schema says against a policy, in the words of the API server, for one
//! that no API server has seen.

use std::sync::LazyLock;

use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::{
    JSONSchemaProps, JSONSchemaPropsOrArray, JSONSchemaPropsOrBool,
};
use kube::CustomResourceExt;
use regex::Regex;
use serde_json::Value;

use super::policy::RepairPolicy;
use super::validate::{Finding, Severity};

static POLICY: LazyLock<Option<JSONSchemaProps>> = LazyLock::new(|| {
    let crd = RepairPolicy::crd();
    let version = crd.spec.versions.into_iter().next()?;
    let schema = version.schema?.open_api_v3_schema?;
    schema.properties?.remove("spec")
});

/// All that the schema says against the spec of a policy.
pub fn of_policy(spec: &Value) -> Vec<Finding> {
    let mut found = Vec::new();
    if let Some(schema) = &*POLICY {
        check(schema, spec, "spec", &mut found);
    }
    found
}

fn check(schema: &JSONSchemaProps, value: &Value, path: &str, found: &mut Vec<Finding>) {
    if value.is_null() && schema.nullable == Some(true) {
        return;
    }
    let mut say = |message: String| {
        found.push(Finding {
            severity: Severity::Error,
            path: path.to_owned(),
            message,
        });
    };
    let kind = schema.type_.as_deref().unwrap_or_default();
    let is_it = match kind {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        _ => true,
    };
    if !is_it {
        say(format!("must be of type {kind}"));
        return;
    }
    if let Some(allowed) = &schema.enum_
        && !allowed.iter().any(|one| one.0 == *value)
    {
        let names: Vec<_> = allowed.iter().map(|one| one.0.to_string()).collect();
        say(format!("supported values: {}", names.join(", ")));
    }
    match value {
        Value::Number(number) => {
            let number = number.as_f64().unwrap_or_default();
            if let Some(least) = schema.minimum.filter(|least| number < *least) {
                say(format!("should be greater than or equal to {least}"));
            }
            if let Some(most) = schema.maximum.filter(|most| number > *most) {
                say(format!("should be less than or equal to {most}"));
            }
        }
        Value::String(text) => {
            let length = i64::try_from(text.chars().count()).unwrap_or(i64::MAX);
            if let Some(least) = schema.min_length.filter(|least| length < *least) {
                say(format!("should be at least {least} chars long"));
            }
            if let Some(most) = schema.max_length.filter(|most| length > *most) {
                say(format!("may not be more than {most} bytes"));
            }
            let matches = |pattern: &str| Regex::new(pattern).is_ok_and(|it| it.is_match(text));
            if let Some(pattern) = schema.pattern.as_ref().filter(|it| !matches(it)) {
                say(format!("should match '{pattern}'"));
            }
        }
        Value::Array(items) => {
            let length = i64::try_from(items.len()).unwrap_or(i64::MAX);
            if let Some(least) = schema.min_items.filter(|least| length < *least) {
                say(format!("should have at least {least} items"));
            }
            if let Some(most) = schema.max_items.filter(|most| length > *most) {
                say(format!("must have at most {most} items"));
            }
            let is_set = schema.x_kubernetes_list_type.as_deref() == Some("set");
            let again = |index: &usize| items[..*index].contains(&items[*index]);
            if let Some(index) = (0..items.len()).filter(|_| is_set).find(again) {
                say(format!("Duplicate value: {}", items[index]));
            }
            if let Some(JSONSchemaPropsOrArray::Schema(of_item)) = &schema.items {
                for (index, item) in items.iter().enumerate() {
                    check(of_item, item, &format!("{path}[{index}]"), found);
                }
            }
        }
        Value::Object(fields) => {
            let count = i64::try_from(fields.len()).unwrap_or(i64::MAX);
            if let Some(most) = schema.max_properties.filter(|most| count > *most) {
                say(format!("must have at most {most} items"));
            }
            for name in schema.required.iter().flatten() {
                if !fields.contains_key(name) {
                    found.push(Finding {
                        severity: Severity::Error,
                        path: format!("{path}.{name}"),
                        message: "Required value".to_owned(),
                    });
                }
            }
            for (name, value) in fields {
                let known = schema.properties.as_ref().and_then(|known| known.get(name));
                let any = match &schema.additional_properties {
                    Some(JSONSchemaPropsOrBool::Schema(any)) => Some(&**any),
                    Some(JSONSchemaPropsOrBool::Bool(_)) | None => None,
                };
                // What is in neither is told as an unknown field.
                if let Some(schema) = known.or(any) {
                    check(schema, value, &format!("{path}.{name}"), found);
                }
            }
        }
        Value::Null | Value::Bool(_) => {}
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn said(changes: &Value) -> Vec<String> {
        let mut spec = json!({
            "selector": {},
            "rules": [{"nodeMonitoringCondition": "KernelReady", "minRepairWaitTime": "5m", "repairActions": ["Replace"]}],
        });
        for (key, value) in changes.as_object().unwrap() {
            spec[key] = value.clone();
        }
        let found = of_policy(&spec).into_iter();
        found
            .map(|f| format!("{}: {}", f.path, f.message))
            .collect()
    }

    #[test]
    fn what_the_schema_admits_is_not_spoken_against() {
        assert_eq!(said(&json!({})), Vec::<String>::new());
        let all =
            json!({"priority": -1, "paused": true, "parallel": {"count": 1000}, "mode": "Shadow"});
        assert_eq!(said(&all), Vec::<String>::new());
    }

    #[test]
    fn each_kind_of_constraint_is_told_with_its_place() {
        let cases = [
            (
                json!({"parallel": {"count": 0}}),
                "spec.parallel.count: should be greater than or equal to 1",
            ),
            (
                json!({"zones": {"maxUnhealthyPercentage": 101}}),
                "spec.zones.maxUnhealthyPercentage: should be less than or equal to 100",
            ),
            (
                json!({"rules": []}),
                "spec.rules: should have at least 1 items",
            ),
            (
                json!({"mode": "On"}),
                "spec.mode: supported values: \"Disabled\", \"Shadow\", \"Enforce\"",
            ),
            (
                json!({"paused": "no"}),
                "spec.paused: must be of type boolean",
            ),
            (
                json!({"groupBy": {"label": ""}}),
                "spec.groupBy.label: should be at least 1 chars long",
            ),
            (
                json!({"cordon": {"after": "soon"}}),
                "spec.cordon.after: should match '^([0-9]+(s|m|h))+$'",
            ),
            (
                json!({"rules": [{"nodeMonitoringCondition": "KernelReady", "repairActions": ["Replace", "Replace"]}]}),
                "spec.rules[0].repairActions: Duplicate value: \"Replace\"",
            ),
        ];
        for (changes, wanted) in cases {
            let said = said(&changes);
            assert!(said.iter().any(|one| one == wanted), "{wanted}: {said:?}");
        }
        let required = said(&json!({"rules": [{"repairActions": ["Replace"]}]}));
        assert!(
            required.contains(&"spec.rules[0].minRepairWaitTime: Required value".to_owned()),
            "{required:?}"
        );
    }
}
