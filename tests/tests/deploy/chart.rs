//! What the chart renders to.

use std::fs;

use anyhow::{Context, ensure};
use nodemend_tests::repo;
use nodemend_tests::terminal::Terminal;
use serde_json::{Value, json};

pub(crate) const CHART: &str = "deploy/chart";

/// The objects of the chart, with more arguments of `helm template`.
pub(crate) async fn render(more: &str) -> anyhow::Result<Vec<Value>> {
    let line = format!("helm template nodemend {CHART} --namespace nodemend-system {more}");
    documents(&Terminal::open()?.run(&line).await?)
}

pub(crate) fn documents(text: &str) -> anyhow::Result<Vec<Value>> {
    let documents: Vec<Value> = serde_saphyr::from_multiple(text).context("parse a manifest")?;
    Ok(documents
        .into_iter()
        .filter(|object| !object.is_null())
        .collect())
}

pub(crate) fn find<'a>(objects: &'a [Value], kind: &str, name: &str) -> anyhow::Result<&'a Value> {
    objects
        .iter()
        .find(|object| object["kind"] == kind && object["metadata"]["name"] == name)
        .with_context(|| format!("the chart has no {kind} {name}"))
}

pub(crate) async fn lint() -> anyhow::Result<()> {
    let line = format!("helm lint --strict {CHART}");
    let said = Terminal::open()?.run(&line).await?;
    ensure!(said.contains("0 chart(s) failed"), "{said}");
    Ok(())
}

pub(crate) async fn rules() -> anyhow::Result<()> {
    let rendered = render("").await?;
    for daemon in ["detector", "repairer"] {
        let path = repo().join(format!("deploy/rbac/{daemon}.yaml"));
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        for object in documents(&text)? {
            let kind = object["kind"].as_str().unwrap_or_default();
            let name = object["metadata"]["name"].as_str().unwrap_or_default();
            match kind {
                // `--create-namespace` makes it.
                "Namespace" => {}
                "ServiceAccount" => {
                    let account = find(&rendered, kind, name)?;
                    ensure!(account["metadata"]["namespace"] == object["metadata"]["namespace"]);
                }
                _ => {
                    let there = find(&rendered, kind, name)?;
                    ensure!(*there == object, "{kind} {name}: {there}");
                }
            }
        }
    }
    Ok(())
}

pub(crate) async fn only_the_detector_is_privileged() -> anyhow::Result<()> {
    let rendered = render("").await?;
    let mut seen = Vec::new();
    for object in &rendered {
        let pod = &object["spec"]["template"]["spec"];
        for container in pod["containers"].as_array().into_iter().flatten() {
            let (kind, security) = (&object["kind"], &container["securityContext"]);
            seen.push(kind.clone());
            ensure!(
                security["readOnlyRootFilesystem"] == true,
                "{kind}: {security}"
            );
            if kind == "DaemonSet" {
                ensure!(security["privileged"] == true && pod["hostPID"] == true);
                ensure!(pod["tolerations"] == json!([{"operator": "Exists"}]));
                continue;
            }
            ensure!(security["runAsNonRoot"] == true, "{kind}: {security}");
            ensure!(security["allowPrivilegeEscalation"] == false);
            ensure!(security["capabilities"] == json!({"drop": ["ALL"]}));
            ensure!(pod["volumes"].is_null() && pod["hostPID"].is_null());
        }
    }
    seen.sort_by_key(Value::to_string);
    ensure!(
        seen == ["DaemonSet", "Deployment", "Job", "Job"],
        "{seen:?}"
    );
    Ok(())
}

/// A variable that a daemon does not read would be a value without effect.
pub(crate) async fn known_to_the_daemons() -> anyhow::Result<()> {
    let rendered = render(
        "--set aws.region=us-west-2 --set detector.disableHooks={oom} --set repairer.paused=true \
         --set repairer.maxParallel=2 --set repairer.maxRepairsPerHour=3 --set aws.eksCluster=a",
    )
    .await?;
    for object in &rendered {
        let pod = &object["spec"]["template"]["spec"];
        for container in pod["containers"].as_array().into_iter().flatten() {
            let name = container["name"].as_str().context("a name")?;
            let command = container["args"][0].as_str().context("a command")?;
            let args = [command, "--help"];
            let binary = format!("nodemend-{name}");
            let mut help = nodemend_tests::daemon::Daemon::start(&binary, &args, &[])?;
            // Lines are broken to the width of a terminal.
            let text = help.output().await;
            let text = text.split_whitespace().collect::<Vec<_>>().join(" ");
            ensure!(
                help.wait_exit(std::time::Duration::from_secs(5))?.success(),
                "{binary} {command}: {text}"
            );
            for variable in container["env"].as_array().into_iter().flatten() {
                let variable = variable["name"].as_str().context("a name")?;
                // Read by libraries: the AWS SDK, NVIDIA's container runtime.
                if variable.starts_with("AWS_") || variable.starts_with("NVIDIA_") {
                    continue;
                }
                ensure!(
                    text.contains(&format!("[env: {variable}=")),
                    "{binary} {command} does not read {variable}: {text}"
                );
            }
        }
    }
    Ok(())
}
