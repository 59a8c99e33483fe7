//! What the detector advises about accelerated hardware, and what the shipped policy does about it:
//! the two programs share no code, so the one is asked for its table and the other decides for each
//! row in a simulation.

#![expect(clippy::disallowed_methods, reason = "this runs both programs")]

use std::fs;
use std::process::Command;

use anyhow::{Context, ensure};
use nodemend_tests::{daemon, repo};
use serde_json::{Value, json};

const CONDITION: &str = "AcceleratedHardwareReady";

/// Rules about what the detector never makes Fatal: another agent does, or a configuration.
const OF_OTHERS: [(&str, &str); 4] = [
    ("DCGM*", "DCGMError"),
    ("NvidiaXID13Error", "NvidiaXID13Error"),
    ("NvidiaXID31Error", "NvidiaXID31Error"),
    ("NvidiaXID94Error", "NvidiaXID94Error"),
];

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Ladder {
    Nothing,
    Replace,
    RebootThenReplace,
}

struct Reason {
    name: String,
    class: Option<String>,
    action: Option<String>,
}

/// Each reason that can be Fatal is repaired as it is advised.
pub(crate) fn is_followed() -> anyhow::Result<()> {
    let policy = shipped()?;
    let reasons = fatal()?;
    ensure!(reasons.len() > 30, "only {} reasons", reasons.len());
    let mut wrong = Vec::new();
    for Reason {
        name,
        class,
        action,
    } in reasons
    {
        let expected = match action.as_deref() {
            Some("ResetGPU" | "Reboot") => Ladder::RebootThenReplace,
            Some("Replace") => Ladder::Replace,
            Some("Inspect") => Ladder::Nothing,
            other => {
                wrong.push(format!("{name} is Fatal, and its advice is {other:?}"));
                continue;
            }
        };
        if class.as_deref() == Some("application") {
            wrong.push(format!("{name} is Fatal and of the application class"));
        }
        let decided = decided(&policy, &name)?;
        if decided != expected {
            wrong.push(format!("{name} is advised {action:?}: {decided:?}"));
        }
    }
    for (_, name) in OF_OTHERS {
        let decided = decided(&policy, name)?;
        if decided != Ladder::Nothing {
            wrong.push(format!("{name} is nobody's advice: {decided:?}"));
        }
    }
    ensure!(wrong.is_empty(), "{}", wrong.join("\n"));
    Ok(())
}

/// Each rule is for a reason that is advised otherwise than the rule without one does.
pub(crate) fn has_no_idle_rule() -> anyhow::Result<()> {
    let policy = shipped()?;
    let rules = policy["rules"].as_array().context("read the rules")?;
    let rules: Vec<_> = rules
        .iter()
        .filter(|rule| rule["nodeMonitoringCondition"] == CONDITION)
        .collect();
    let default = rules
        .iter()
        .find(|rule| rule["nodeUnhealthyReason"].is_null());
    let default = default.context("there is no rule without a reason")?;
    let reasons = fatal()?;
    for rule in &rules {
        let Some(pattern) = rule["nodeUnhealthyReason"].as_str() else {
            continue;
        };
        ensure!(
            rule["repairActions"] != default["repairActions"],
            "{pattern}: the rule without a reason does the same"
        );
        let known = OF_OTHERS.iter().any(|(other, _)| *other == pattern);
        let meant = reasons
            .iter()
            .any(|reason| match pattern.strip_suffix('*') {
                Some(beginning) => reason.name.starts_with(beginning),
                None => reason.name == pattern,
            });
        ensure!(known || meant, "{pattern}: the detector has no such reason");
    }
    Ok(())
}

fn shipped() -> anyhow::Result<Value> {
    let text = fs::read_to_string(repo().join("deploy/policy.yaml")).context("read the policy")?;
    let mut policy: Value = serde_saphyr::from_str(&text).context("read the policy")?;
    policy["spec"]["mode"] = json!("Enforce");
    Ok(policy["spec"].take())
}

/// Those of accelerated hardware that can make the condition False, families by their members.
fn fatal() -> anyhow::Result<Vec<Reason>> {
    let output = Command::new(daemon::binary("nodemend-detector")?)
        .args(["reasons", "-o", "json"])
        .output()
        .context("run the detector")?;
    let rows: Vec<Value> = serde_json::from_slice(&output.stdout).context("read its reasons")?;
    let rows = rows
        .into_iter()
        .filter(|row| row["condition"] == CONDITION && row["severity"] == "Fatal");
    let text = |value: &Value| value.as_str().map(str::to_owned);
    let mut reasons = Vec::new();
    for row in rows {
        let family = row["reason"].as_str().context("read a reason")?;
        let codes = row["codes"].as_array().context("read its codes")?;
        if codes.is_empty() {
            reasons.push(Reason {
                name: family.replace("<n>", "20034"),
                class: None,
                action: text(&row["action"]),
            });
        }
        reasons.extend(codes.iter().map(|code| Reason {
            name: family.replace("<n>", &code["code"].to_string()),
            class: text(&code["class"]),
            action: text(&code["action"]),
        }));
    }
    Ok(reasons)
}

/// What becomes of one sick node of ten, where a reboot does not help.
fn decided(policy: &Value, reason: &str) -> anyhow::Result<Ladder> {
    let condition =
        json!({"nodes": ["n-0"], "type": CONDITION, "status": "False", "reason": reason});
    let file = |expect: Value| {
        json!({
            "for": "2h",
            "policies": [{"name": "default", "spec": policy}],
            "nodes": [{"name": "n", "count": 10, "group": "workers"}],
            "cloud": {"rebooted": "StillSick"},
            "timeline": [{"at": "1m", "condition": condition}],
            "expect": expect,
        })
    };
    for (ladder, reboots, destroyed) in [
        (Ladder::RebootThenReplace, 1, 1),
        (Ladder::Replace, 0, 1),
        (Ladder::Nothing, 0, 0),
    ] {
        let expect = json!([
            {"at": "10m59s", "reboots": 0, "destroyedCount": 0},
            {"reboots": reboots, "destroyedCount": destroyed},
        ]);
        if is_so(&file(expect))? {
            return Ok(ladder);
        }
    }
    anyhow::bail!("{reason} is repaired in a way that no advice asks for")
}

fn is_so(file: &Value) -> anyhow::Result<bool> {
    let folder = tempfile::tempdir().context("make a folder")?;
    let path = folder.path().join("file.yaml");
    fs::write(&path, file.to_string()).context("write the file")?;
    let output = Command::new(daemon::binary("nodemend-repairer")?)
        .args(["simulate", "-o", "json"])
        .arg(&path)
        .output()
        .context("run the repairer")?;
    ensure!(
        output.status.code() != Some(2),
        "{}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(output.status.success())
}
