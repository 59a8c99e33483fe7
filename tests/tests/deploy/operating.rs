//! Alerts, their tests and runbooks, and the dashboard: all of them about what is really there.

use std::collections::BTreeSet;
use std::path::Path;
use std::{env, fs};

use anyhow::{Context, ensure};
use nodemend_tests::repo;
use nodemend_tests::terminal::Terminal;
use serde_json::Value;

const RUNBOOKS: &str = "docs/runbooks";
const ALERTS: &str = "deploy/alerts/nodemend.yaml";

pub(crate) fn no_promtool() -> Option<&'static str> {
    let promtool = env::var_os("NODEMEND_PROMTOOL");
    promtool.is_none().then_some(
        "no promtool: `cargo xtask test deploy` gets it from Debian's prometheus and sets NODEMEND_PROMTOOL",
    )
}

pub(crate) async fn alerts_fire_and_are_silent() -> anyhow::Result<()> {
    let terminal = Terminal::open()?;
    let said = terminal
        .run(&format!("$NODEMEND_PROMTOOL check rules {ALERTS}"))
        .await?;
    ensure!(said.contains("SUCCESS"), "{said}");
    let tests = "deploy/alerts/nodemend_test.yaml";
    let said = terminal
        .run(&format!("$NODEMEND_PROMTOOL test rules {tests}"))
        .await?;
    ensure!(said.contains("SUCCESS"), "{said}");
    let text = read(tests)?;
    for alert in alerts()? {
        for what in ["fires", "is silent"] {
            ensure!(
                text.contains(&format!("name: {alert} {what}")),
                "no test: {alert} {what}"
            );
        }
    }
    Ok(())
}

/// One for each alert and each gate, and none for anything else.
pub(crate) async fn runbooks() -> anyhow::Result<()> {
    let mut wanted: BTreeSet<String> = alerts()?;
    wanted.extend(gates()?.into_iter().map(|gate| format!("gate-{gate}")));
    let folder = repo().join(RUNBOOKS);
    let mut there = BTreeSet::new();
    for entry in fs::read_dir(&folder).with_context(|| format!("list {RUNBOOKS}"))? {
        let path = entry.context("list the runbooks")?.path();
        let name = path.file_stem().context("a runbook has no name")?;
        there.insert(name.to_string_lossy().into_owned());
        let text = fs::read_to_string(&path).context("read a runbook")?;
        for section in ["\n## Look\n", "\n## Do\n"] {
            ensure!(
                text.contains(section),
                "{} has no {section}",
                path.display()
            );
        }
    }
    ensure!(
        there == wanted,
        "without a runbook: {:?}; for nothing: {:?}",
        wanted.difference(&there).collect::<Vec<_>>(),
        there.difference(&wanted).collect::<Vec<_>>()
    );
    for rule in rules()? {
        let alert = rule["alert"].as_str().unwrap_or_default();
        let url = rule["annotations"]["runbook_url"]
            .as_str()
            .unwrap_or_default();
        ensure!(
            url.ends_with(&format!("/{RUNBOOKS}/{alert}.md")),
            "{alert}: {url}"
        );
    }
    Ok(())
}

pub(crate) async fn metrics_exist() -> anyhow::Result<()> {
    let mut exist = BTreeSet::new();
    for daemon in ["detector", "repairer"] {
        let text = read(format!("{daemon}/src/metrics/render.rs"))?;
        for call in text.split("page.own(").skip(1) {
            let name = call.split('"').nth(1).context("a metric has no name")?;
            exist.insert(format!("nodemend_{daemon}_{name}"));
        }
    }
    ensure!(exist.len() > 20, "{exist:?}");
    for file in [ALERTS, "deploy/dashboards/nodemend.json"] {
        let text = read(file)?;
        let words = text.split(|c: char| !(c.is_ascii_alphanumeric() || c == '_'));
        let used: BTreeSet<_> = words
            .filter(|word| {
                word.starts_with("nodemend_detector_") || word.starts_with("nodemend_repairer_")
            })
            .map(|word| word.trim_end_matches("_bucket"))
            .collect();
        ensure!(!used.is_empty(), "{file} uses no metric");
        for name in used {
            ensure!(exist.contains(name), "{file}: there is no metric {name}");
        }
    }
    Ok(())
}

/// Those that an alert names are gates, and each gate that can hold for long is in one of them.
pub(crate) async fn gates_of_alerts_are_gates() -> anyhow::Result<()> {
    let gates = gates()?;
    for rule in rules()? {
        let expression = rule["expr"].as_str().unwrap_or_default();
        for part in expression.split("gate").skip(1) {
            let Some(named) = part.split('"').nth(1) else {
                continue;
            };
            for gate in named.split('|') {
                ensure!(gates.contains(gate), "{}: no gate {gate}", rule["alert"]);
            }
        }
    }
    Ok(())
}

fn rules() -> anyhow::Result<Vec<Value>> {
    let file: Value = serde_saphyr::from_str(&read(ALERTS)?).context("parse the alerts")?;
    let groups = file["groups"].as_array().context("there is no group")?;
    Ok(groups
        .iter()
        .flat_map(|group| group["rules"].as_array().cloned().unwrap_or_default())
        .collect())
}

fn alerts() -> anyhow::Result<BTreeSet<String>> {
    let names = rules()?.into_iter().map(|rule| {
        let name = rule["alert"].as_str().context("a rule is no alert")?;
        Ok(name.to_owned())
    });
    names.collect()
}

/// As the CRD lists them.
fn gates() -> anyhow::Result<BTreeSet<String>> {
    let text = read("deploy/crds/noderepairs.yaml")?;
    let crd: Value = serde_saphyr::from_str(&text).context("parse a CRD")?;
    let schema = &crd["spec"]["versions"][0]["schema"]["openAPIV3Schema"];
    let gate = &schema["properties"]["status"]["properties"]["hold"]["properties"]["gate"];
    let gates = gate["enum"].as_array().context("the CRD lists no gates")?;
    Ok(gates
        .iter()
        .filter_map(|gate| gate.as_str().map(str::to_owned))
        .collect())
}

fn read(path: impl AsRef<Path>) -> anyhow::Result<String> {
    let path = repo().join(path);
    fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
}
