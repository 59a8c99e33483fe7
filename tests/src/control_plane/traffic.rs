//! Which rights our service accounts have used: the API server's own audit log, kept as one line for
//! each verb on each resource, of all control planes of a run.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::{env, fs};

use anyhow::Context;
use serde_json::Value;

/// A folder that `cargo xtask test` gives to all suites of a run.
const FOLDER: &str = "NODEMEND_API_TRAFFIC";
const LOG: &str = "audit.log";
const POLICY: &str = r#"
apiVersion: audit.k8s.io/v1
kind: Policy
omitStages: [RequestReceived]
rules:
  - level: Metadata
    userGroups: ["system:serviceaccounts:nodemend-system"]
  - level: None
"#;

/// A verb that a daemon used.
#[derive(Clone, PartialEq, Eq, PartialOrd, Ord, Debug)]
pub struct Use {
    /// Name of its service account.
    pub account: String,
    pub verb: String,
    pub group: String,
    /// With its subresource: `nodes/status`.
    pub resource: String,
    /// Empty where it has none.
    pub namespace: String,
}

pub(super) fn apiserver_args(dir: &Path) -> anyhow::Result<Vec<String>> {
    if folder().is_none() {
        return Ok(Vec::new());
    }
    let policy = dir.join("audit-policy.yaml");
    fs::write(&policy, POLICY).context("write an audit policy")?;
    Ok(vec![
        format!("--audit-policy-file={}", policy.display()),
        format!("--audit-log-path={}", dir.join(LOG).display()),
    ])
}

/// What one control plane has seen. Nobody can be told of an error here; what is missing then fails
/// the test that reads it.
pub(super) fn keep(dir: &Path) {
    let (Some(folder), Ok(log)) = (folder(), fs::read_to_string(dir.join(LOG))) else {
        return;
    };
    let uses: BTreeSet<Use> = log.lines().filter_map(parse).collect();
    let lines: String = uses
        .iter()
        .map(|used| {
            let Use {
                account,
                verb,
                group,
                resource,
                namespace,
            } = used;
            format!("{account}\t{verb}\t{group}\t{resource}\t{namespace}\n")
        })
        .collect();
    if let Some(name) = dir.file_name() {
        let _written = fs::write(folder.join(name), lines);
    }
}

/// Of all control planes of this run so far; `None` where nobody keeps it.
pub fn kept() -> anyhow::Result<Option<BTreeSet<Use>>> {
    let Some(folder) = folder() else {
        return Ok(None);
    };
    let mut uses = BTreeSet::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("list {}", folder.display()))? {
        let text = fs::read_to_string(entry.context("list the traffic")?.path());
        for line in text.context("read the traffic")?.lines() {
            let mut fields = line.split('\t').map(str::to_owned);
            let mut next = || fields.next().context("a line is cut off");
            uses.insert(Use {
                account: next()?,
                verb: next()?,
                group: next()?,
                resource: next()?,
                namespace: next()?,
            });
        }
    }
    Ok(Some(uses))
}

/// The daemons alone: tests try under their accounts what they may not.
fn parse(line: &str) -> Option<Use> {
    let event: Value = serde_json::from_str(line).ok()?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    if !text(&event["userAgent"]).starts_with("nodemend-") {
        return None;
    }
    let user = text(&event["user"]["username"]);
    let object = &event["objectRef"];
    let mut resource = object["resource"].as_str()?.to_owned();
    if let Some(sub) = object["subresource"].as_str() {
        resource = format!("{resource}/{sub}");
    }
    Some(Use {
        account: user.rsplit(':').next()?.to_owned(),
        verb: text(&event["verb"]),
        group: text(&object["apiGroup"]),
        resource,
        namespace: text(&object["namespace"]),
    })
}

fn folder() -> Option<PathBuf> {
    env::var_os(FOLDER).map(PathBuf::from)
}
