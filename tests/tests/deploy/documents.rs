//! What the documents tell people to apply and to type.

use std::fs;

use anyhow::{Context, ensure};
use k8s_openapi::apiextensions_apiserver::pkg::apis::apiextensions::v1::CustomResourceDefinition;
use kube::Api;
use kube::api::{Patch, PatchParams};
use nodemend_tests::control_plane::ControlPlane;
use nodemend_tests::daemon::binary;
use nodemend_tests::fleet::Fleet;
use nodemend_tests::repo;
use nodemend_tests::terminal::Terminal;
use serde_json::{Value, json};

use crate::chart::CHART;
use crate::scene;

/// Every object of ours in the documents: taken by a real API server, and sound to the repairer.
pub(crate) async fn objects_apply() -> anyhow::Result<()> {
    let control_plane = ControlPlane::start().await?;
    control_plane.apply(&repo().join("deploy/crds")).await?;
    let terminal = Terminal::of(&control_plane)?;
    let repairer = binary("nodemend-repairer")?;
    let mut policies = 0;
    for (document, block) in blocks("yaml")? {
        if !block.starts_with("apiVersion: nodemend.dev/") {
            continue;
        }
        let path = terminal.home().join("object.yaml");
        fs::write(&path, &block).context("write an object")?;
        let path = path.display();
        let said = terminal
            .run(&format!(
                "kubectl apply --server-side --validate=strict -f {path}"
            ))
            .await
            .with_context(|| document.clone())?;
        ensure!(said.contains("serverside-applied"), "{document}: {said}");
        if block.contains("kind: RepairPolicy") {
            let check = format!("{} check --policy {path}", repairer.display());
            let said = terminal
                .run(&check)
                .await
                .with_context(|| document.clone())?;
            ensure!(
                said.contains("nothing is wrong with it"),
                "{document}: {said}"
            );
            policies += 1;
        }
    }
    ensure!(policies > 10, "the documents have {policies} policies");
    let columns = terminal.run("kubectl get rpol").await?;
    ensure!(
        columns.starts_with("NAME") && columns.contains("MODE"),
        "{columns}"
    );
    let said = terminal
        .run("kubectl explain repairpolicy.spec.drain.onTimeout")
        .await?;
    ensure!(said.contains("Force"), "{said}");
    Ok(())
}

/// `docs/upgrade.md`, command by command, over the CRDs of a release that did not know a field.
pub(crate) async fn upgrade() -> anyhow::Result<()> {
    let control_plane = ControlPlane::start().await?;
    control_plane.apply(&repo().join("deploy/crds")).await?;
    let crds: Api<CustomResourceDefinition> = Api::all(control_plane.admin());
    let name = "noderepairs.nodemend.dev";
    let field = "/spec/versions/0/schema/openAPIV3Schema/properties/status/properties/evidence";
    let patch = serde_json::from_value(json!([{"op": "remove", "path": field}]));
    let patch = Patch::<CustomResourceDefinition>::Json(patch.context("write a patch")?);
    crds.patch(name, &PatchParams::default(), &patch)
        .await
        .context("make a CRD older")?;
    let fleet = Fleet::start(&control_plane).await?;
    let node = ("node-0", "i-00000000000000000", "us-west-2a");
    fleet
        .create_labelled_node(node.0, node.1, node.2, &scene::labels())
        .await?;
    fleet.wait_ready(1).await?;
    let terminal = Terminal::of(&control_plane)?;
    let values = "--set detector.heartbeat=7m --set policy.mode=Shadow";
    terminal
        .run(&format!(
            "helm install nodemend {CHART} --namespace nodemend-system --create-namespace --skip-crds {values}"
        ))
        .await?;
    let mut steps = 0;
    for (document, block) in blocks("sh")? {
        if document.ends_with("upgrade.md") {
            for line in block.lines() {
                terminal.run(line).await?;
                steps += 1;
            }
        }
    }
    ensure!(steps == 2, "the page has {steps} commands");
    let crd = serde_json::to_value(crds.get(name).await?).context("write a CRD")?;
    ensure!(
        crd.pointer(field).is_some_and(Value::is_object),
        "the CRD is as old as it was"
    );
    // What was set stays set, and the way back is open.
    let policy = "kubectl get repairpolicy default -o jsonpath={.spec.mode}";
    ensure!(terminal.run(policy).await? == "Shadow");
    terminal
        .run("helm rollback nodemend --namespace nodemend-system --wait")
        .await?;
    ensure!(terminal.run(policy).await? == "Shadow");
    Ok(())
}

/// Links between the documents, and to the files of the repository.
pub(crate) async fn links() -> anyhow::Result<()> {
    let mut checked = 0;
    for path in documents()? {
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let folder = path.parent().context("a document is in no folder")?;
        for part in text.split("](").skip(1) {
            let target = part.split(')').next().unwrap_or_default();
            let target = target.split('#').next().unwrap_or_default();
            if target.is_empty() || target.contains("://") {
                continue;
            }
            ensure!(
                folder.join(target).exists(),
                "{}: no {target}",
                path.display()
            );
            checked += 1;
        }
    }
    ensure!(checked > 20, "{checked} links");
    Ok(())
}

/// Each row of the threat table names a test that there is.
pub(crate) async fn threats_are_tested() -> anyhow::Result<()> {
    let path = repo().join("docs/security.md");
    let text = fs::read_to_string(&path).context("read the security model")?;
    let table = text
        .split("\n## ")
        .find(|section| section.starts_with("Threats"))
        .context("there is no threat table")?;
    let mut tests = String::new();
    for file in [
        "deploy/main.rs",
        "cluster/detector.rs",
        "cluster/repairer.rs",
        "e2e.rs",
    ] {
        let path = repo().join("tests/tests").join(file);
        tests += &fs::read_to_string(&path).with_context(|| format!("read {file}"))?;
    }
    let mut named = 0;
    for row in table.lines().filter(|line| line.starts_with("| ")).skip(1) {
        let shown = row.trim_end_matches(" |").rsplit(" | ").next();
        let shown = shown.unwrap_or_default();
        if let Some(test) = shown
            .strip_prefix('`')
            .and_then(|rest| rest.strip_suffix('`'))
        {
            let is_command = test.starts_with("cargo xtask test ");
            ensure!(
                is_command || tests.contains(&format!("\"{test}\"")),
                "there is no test {test}"
            );
            named += 1;
        } else {
            let said = shown == "the same" || shown.starts_with("scenarios of ");
            ensure!(said, "no test is named in: {row}");
        }
    }
    ensure!(named > 6, "{named} tests are named");
    Ok(())
}

pub(crate) fn documents() -> anyhow::Result<Vec<std::path::PathBuf>> {
    let mut found = vec![
        repo().join("README.md"),
        repo().join("SECURITY.md"),
        repo().join("deploy/chart/README.md"),
    ];
    for folder in ["docs", "docs/runbooks"] {
        for entry in fs::read_dir(repo().join(folder)).with_context(|| format!("list {folder}"))? {
            let path = entry.context("list the documents")?.path();
            if path.extension().is_some_and(|extension| extension == "md") {
                found.push(path);
            }
        }
    }
    found.sort();
    Ok(found)
}

/// Of one language, with the name of its document.
pub(crate) fn blocks(language: &str) -> anyhow::Result<Vec<(String, String)>> {
    let mut blocks = Vec::new();
    for path in documents()? {
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        for block in text.split(&format!("```{language}\n")).skip(1) {
            let (block, _) = block.split_once("\n```").context("a block has no end")?;
            blocks.push((path.display().to_string(), block.to_owned()));
        }
    }
    Ok(blocks)
}
