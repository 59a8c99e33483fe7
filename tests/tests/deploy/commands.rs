//! Every command of the documents, typed as it stands, in a cluster with a sick node.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::{Context, bail, ensure};
use kube::Api;
use kube::api::{Patch, PatchParams, PostParams};
use nodemend_tests::cloud::{Cloud, NodeGroup};
use nodemend_tests::control_plane::ControlPlane;
use nodemend_tests::daemon::binary;
use nodemend_tests::fleet::Fleet;
use nodemend_tests::repo;
use nodemend_tests::terminal::Terminal;
use serde_json::json;

use crate::chart::CHART;
use crate::{documents, scene};

/// Before a block: why nobody can type it here.
const NOT_RUN: &str = "<!-- not run: ";
/// Those are typed by tests of their own, in their order.
const ELSEWHERE: [&str; 2] = ["README.md", "docs/upgrade.md"];
const NODE: &str = "node-0";
const REPAIR: &str = "by-hand";

struct Block {
    document: String,
    commands: String,
    not_run: Option<String>,
}

pub(crate) async fn typed() -> anyhow::Result<()> {
    let control_plane = ControlPlane::start().await?;
    let cloud = Cloud::start().await?;
    let place = Place::prepare(&control_plane, &cloud).await?;
    in_blocks(&place).await?;
    in_sentences(&place).await
}

async fn in_blocks(place: &Place) -> anyhow::Result<()> {
    let mut counts = BTreeMap::new();
    for block in blocks("sh")? {
        let Block {
            document,
            commands,
            not_run,
        } = block;
        let what = match not_run {
            Some(reason) if reason.starts_with("it needs ") => "not run",
            Some(reason) => bail!("{document}: `not run: {reason}` does not say what it needs"),
            None if ELSEWHERE.contains(&document.as_str()) => "run elsewhere",
            None => {
                let said = place.types(&commands).await;
                said.with_context(|| format!("{document} says:\n{commands}"))?;
                "run"
            }
        };
        *counts.entry(what).or_insert(0) += 1;
    }
    // Who adds one that cannot be run says so here too.
    let expected = [("not run", 5), ("run", 4), ("run elsewhere", 7)];
    ensure!(counts == expected.into(), "of the blocks are {counts:?}");
    Ok(())
}

/// With all that they print.
pub(crate) async fn transcripts() -> anyhow::Result<()> {
    let terminal = Terminal::open()?;
    let folder = terminal.home().join("at");
    lay_out(&folder)?;
    let mut seen = 0;
    for Block {
        document, commands, ..
    } in blocks("console")?
    {
        let mut script = format!(
            "cd {}; PATH=$PATH:{}; set +e\n",
            folder.display(),
            binaries()?
        );
        let mut expected = Vec::new();
        for step in format!("\n{commands}").split("\n$ ").skip(1) {
            let (command, said) = step.split_once('\n').unwrap_or((step, ""));
            if let Some(file) = command.strip_prefix("cat ") {
                fs::write(folder.join(file), format!("{said}\n")).context("write a file")?;
            }
            script += &format!("{command}\n");
            expected.extend(said.lines().map(str::to_owned));
        }
        // Of a command that refuses something too.
        script += "true\n";
        let said = terminal.run(&script).await?;
        same(&expected, &said).with_context(|| document.clone())?;
        seen += 1;
    }
    ensure!(seen == 3, "{seen} transcripts");
    Ok(())
}

/// Those that ask the cluster something in the middle of a sentence.
async fn in_sentences(place: &Place) -> anyhow::Result<()> {
    let mut seen = 0;
    for path in documents::documents()? {
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        for code in text.split('`').skip(1).step_by(2) {
            let asks = [
                "get ",
                "explain ",
                "label ",
                "patch repair",
                "-n nodemend-system get ",
            ];
            let command = code.strip_prefix("kubectl ");
            let whole = command.is_some_and(|rest| asks.iter().any(|ask| rest.starts_with(ask)));
            if !whole {
                continue;
            }
            let of_policy = code.contains("repairpolicy NAME");
            let typed = code
                .replace("NAME", if of_policy { "default" } else { REPAIR })
                .replace("NODE", NODE);
            let said = place.types(&typed).await;
            said.with_context(|| format!("{} says: {code}", path.display()))?;
            seen += 1;
        }
    }
    ensure!(seen > 25, "{seen} commands");
    Ok(())
}

/// A folder of a person who has the repository's files, an installed chart, and a node that is sick.
struct Place {
    terminal: Terminal,
    prefix: String,
    _fleet: Fleet,
}

impl Place {
    async fn prepare(control_plane: &ControlPlane, cloud: &Cloud) -> anyhow::Result<Self> {
        let fleet = Fleet::start(control_plane).await?;
        let instances = cloud.create_group("workers", &["us-west-2a"]);
        let instance = instances.first().context("a group has no instance")?;
        fleet
            .create_labelled_node(NODE, instance, "us-west-2a", &scene::labels())
            .await?;
        cloud.set_node_group(NodeGroup {
            cluster: "prod".to_owned(),
            name: "blue".to_owned(),
            group: "workers".to_owned(),
            status: "ACTIVE".to_owned(),
            issues: Vec::new(),
            repair_config: Some(json!({"enabled": true})),
        });
        let mut terminal = Terminal::of(control_plane)?;
        let install =
            format!("helm install nodemend {CHART} --namespace nodemend-system --create-namespace");
        terminal.run(&install).await?;
        let sick =
            json!({"type": "StorageReady", "status": "False", "reason": "FilesystemReadOnly"});
        let nodes: Api<k8s_openapi::api::core::v1::Node> = Api::all(control_plane.admin());
        nodes
            .patch_status(
                NODE,
                &PatchParams::default(),
                &Patch::Strategic(json!({"status": {"conditions": [sick]}})),
            )
            .await?;
        let repair = json!({
            "apiVersion": "nodemend.dev/v1alpha1", "kind": "NodeRepair", "metadata": {"name": REPAIR},
            "spec": {"nodeRef": {"name": NODE, "uid": "u"}, "action": "Replace"},
        });
        let repairs = scene::repairs(control_plane.admin());
        let repair = serde_json::from_value(repair).context("write a NodeRepair")?;
        repairs.create(&PostParams::default(), &repair).await?;

        let folder = terminal.home().join("at");
        lay_out(&folder)?;
        let prefix = format!("cd {}; PATH=$PATH:{}\n", folder.display(), binaries()?);
        terminal.set("NODE", NODE);
        for (name, value) in [
            ("AWS_ENDPOINT_URL", cloud.url().as_str()),
            ("AWS_REGION", "us-west-2"),
            ("AWS_ACCESS_KEY_ID", "local"),
            ("AWS_SECRET_ACCESS_KEY", "local"),
            ("AWS_EC2_METADATA_DISABLED", "true"),
        ] {
            terminal.set(name, value);
        }
        Ok(Self {
            terminal,
            prefix,
            _fleet: fleet,
        })
    }

    async fn types(&self, commands: &str) -> anyhow::Result<String> {
        let mut said = String::new();
        for command in commands.replace("\\\n", " ").lines() {
            let line = format!("{}{command}", self.prefix);
            if command.starts_with("nodemend-repairer explain ") {
                // Its exit code says that the node is not well.
                let explained = self.terminal.fails(&line).await?;
                ensure!(explained.contains("FilesystemReadOnly"), "{explained}");
                said += &explained;
            } else {
                said += &self.terminal.run(&line).await?;
            }
        }
        Ok(said)
    }
}

/// The repository, and each policy of the documents as a file of its name.
fn lay_out(folder: &Path) -> anyhow::Result<()> {
    fs::create_dir(folder).context("make a folder")?;
    for name in ["deploy", "tests"] {
        symlink(repo().join(name), folder.join(name)).context("link a folder")?;
    }
    for (document, block) in documents::blocks("yaml")? {
        if block.contains("kind: RepairPolicy") {
            let object: serde_json::Value =
                serde_saphyr::from_str(&block).with_context(|| format!("parse {document}"))?;
            let name = object["metadata"]["name"].as_str();
            let name = name.with_context(|| format!("{document}: a policy has no name"))?;
            fs::write(folder.join(format!("{name}.yaml")), &block).context("write a policy")?;
        }
    }
    Ok(())
}

fn binaries() -> anyhow::Result<String> {
    let detector = binary("nodemend-detector")?;
    let folder = detector.parent().context("find the binaries")?;
    Ok(folder.display().to_string())
}

/// Line by line; `...` stands for any.
fn same(expected: &[String], said: &str) -> anyhow::Result<()> {
    let mut rest = said.lines();
    let mut skips = false;
    for line in expected {
        if line == "..." {
            skips = true;
            continue;
        }
        let found = if skips {
            rest.any(|said| said == line)
        } else {
            rest.next() == Some(line.as_str())
        };
        ensure!(found, "it does not say, in its place: {line}\nbut:\n{said}");
        skips = false;
    }
    ensure!(skips || rest.next().is_none(), "it says more:\n{said}");
    Ok(())
}

fn blocks(language: &str) -> anyhow::Result<Vec<Block>> {
    let mut found = Vec::new();
    for path in documents::documents()? {
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let document = path
            .strip_prefix(repo())
            .unwrap_or(&path)
            .display()
            .to_string();
        let fence = format!("```{language}\n");
        let mut parts = text.split(fence.as_str());
        let mut above = parts.next().unwrap_or_default();
        for part in parts {
            let (block, after) = part.split_once("\n```").context("a block has no end")?;
            let marker = above.lines().next_back().unwrap_or_default();
            let reason = marker.strip_prefix(NOT_RUN);
            found.push(Block {
                document: document.clone(),
                commands: block.to_owned(),
                not_run: reason
                    .and_then(|reason| reason.strip_suffix(" -->"))
                    .map(str::to_owned),
            });
            above = after;
        }
    }
    Ok(found)
}
