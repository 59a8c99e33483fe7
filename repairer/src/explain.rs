//! PURE. What a failure of the API server is, in one line, and what a person can do about it.

use anyhow::anyhow;

/// kube's own text of an answer is a page of its fields.
pub fn explain(error: kube::Error) -> anyhow::Error {
    let kube::Error::Api(status) = error else {
        return error.into();
    };
    let said = format!("{} ({})", status.message, status.code);
    match remedy(status.code) {
        Some(remedy) => anyhow!("{said}: {remedy}"),
        None => anyhow!("{said}"),
    }
}

/// By HTTP status.
pub fn remedy(code: u16) -> Option<&'static str> {
    match code {
        401 => Some("the token is not known; is the service account still there?"),
        403 => {
            Some("apply deploy/rbac/repairer.yaml and use the service account nodemend-repairer")
        }
        404 => Some("apply deploy/crds and deploy/rbac/repairer.yaml"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_answer_is_told_in_one_line_with_its_remedy() {
        let status: kube::core::Status = serde_json::from_value(serde_json::json!({
            "code": 403, "reason": "Forbidden", "message": "leases is forbidden",
        }))
        .unwrap();
        let error = explain(kube::Error::Api(status.boxed())).to_string();
        assert!(
            error.starts_with("leases is forbidden (403): apply deploy/rbac/repairer.yaml"),
            "{error}"
        );
    }
}
