//! The rules of the chart against what the daemons have asked for in all suites of this run, by the
//! API server's audit log: nothing is granted that nothing uses, and nothing is used that is not granted.

use std::collections::BTreeSet;

use anyhow::{Context, ensure};
use nodemend_tests::control_plane::traffic::{self, Use};
use nodemend_tests::terminal::Terminal;
use serde_json::Value;

/// Every user may ask what it may do.
const OF_EVERYBODY: &str = "selfsubjectaccessreviews";

pub(crate) fn unavailable() -> Option<String> {
    let whole = std::env::var_os("NODEMEND_WHOLE_RUN").is_some();
    (!whole).then(|| "only a run of all suites uses every right".to_owned())
}

pub(crate) async fn are_used_and_enough() -> anyhow::Result<()> {
    let used = traffic::kept()?.context("nobody has kept the traffic")?;
    ensure!(!used.is_empty(), "no daemon has asked for anything");
    let line = "helm template nodemend deploy/chart --namespace nodemend-system";
    let chart = Terminal::open()?.run(line).await?;
    let objects: Vec<Value> = serde_saphyr::from_multiple(&chart).context("parse the chart")?;
    let granted = granted(&objects);
    ensure!(!granted.is_empty(), "the chart grants nothing");
    let covers = |grant: &Use, used: &Use| {
        let anywhere = grant.namespace.is_empty();
        let namespace = if anywhere {
            String::new()
        } else {
            used.namespace.clone()
        };
        *grant
            == Use {
                namespace,
                ..used.clone()
            }
    };
    let unused: Vec<_> = granted
        .iter()
        .filter(|grant| !used.iter().any(|used| covers(grant, used)))
        .collect();
    let missing: Vec<_> = used
        .iter()
        .filter(|used| used.resource != OF_EVERYBODY)
        .filter(|used| !granted.iter().any(|grant| covers(grant, used)))
        .collect();
    ensure!(
        unused.is_empty() && missing.is_empty(),
        "granted and never used: {unused:#?}\nused and not granted: {missing:#?}"
    );
    for grant in &granted {
        ensure!(
            grant.verb != "*" && grant.resource != "*" && grant.group != "*",
            "{grant:?}"
        );
        let forbidden = ["secrets", "nodes/proxy", "pods/exec"];
        ensure!(!forbidden.contains(&grant.resource.as_str()), "{grant:?}");
        let status = grant.account == "nodemend-repairer" && grant.resource == "nodes/status";
        ensure!(!status, "{grant:?}");
    }
    Ok(())
}

/// With an empty namespace: in all of them.
fn granted(objects: &[Value]) -> BTreeSet<Use> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let mut granted = BTreeSet::new();
    for binding in objects {
        let kind = text(&binding["kind"]);
        if kind != "RoleBinding" && kind != "ClusterRoleBinding" {
            continue;
        }
        let roles = objects.iter().filter(|object| {
            object["kind"] == binding["roleRef"]["kind"]
                && object["metadata"]["name"] == binding["roleRef"]["name"]
                && object["metadata"]["namespace"] == binding["metadata"]["namespace"]
        });
        for rule in roles.flat_map(|role| list(&role["rules"])) {
            for (group, resource, verb) in list(&rule["apiGroups"]).iter().flat_map(|group| {
                let resources = list(&rule["resources"]);
                let verbs = list(&rule["verbs"]);
                resources.into_iter().flat_map(move |resource| {
                    let verbs = verbs.clone();
                    verbs
                        .into_iter()
                        .map(move |verb| (group, resource.clone(), verb))
                })
            }) {
                for subject in list(&binding["subjects"]) {
                    granted.insert(Use {
                        account: text(&subject["name"]),
                        verb: text(&verb),
                        group: text(group),
                        resource: text(&resource),
                        namespace: text(&binding["metadata"]["namespace"]),
                    });
                }
            }
        }
    }
    granted
}
