//! The crates that end up in a binary, by what cargo has resolved for it.

use std::collections::BTreeMap;
use std::path::Path;

use anyhow::{Context, ensure};
use serde_json::Value;

use crate::cargo;

pub(crate) struct Crate {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) licence: String,
    /// None for our own.
    pub(crate) source: Option<String>,
    /// Their places in the list of all.
    pub(crate) dependencies: Vec<usize>,
}

/// Of a package of ours for a platform (rustc's target), itself among them; by name and version.
pub(crate) fn linked(repo: &Path, package: &str, platform: &str) -> anyhow::Result<Vec<Crate>> {
    let output = cargo::command()
        .current_dir(repo)
        .args(["metadata", "--locked", "--format-version", "1"])
        .args(["--filter-platform", platform])
        .output()
        .context("run cargo metadata")?;
    ensure!(
        output.status.success(),
        "cargo metadata: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value =
        serde_json::from_slice(&output.stdout).context("parse cargo's metadata")?;
    let packages = by_id(&metadata["packages"]);
    let nodes = by_id(&metadata["resolve"]["nodes"]);
    let root = packages
        .iter()
        .find(|(_, found)| found["name"] == package)
        .map(|(id, _)| *id)
        .with_context(|| format!("find the package {package}"))?;
    let mut wanted = vec![root];
    let mut seen = BTreeMap::new();
    while let Some(id) = wanted.pop() {
        if seen.contains_key(id) {
            continue;
        }
        let node = nodes.get(id).with_context(|| format!("find {id}"))?;
        let dependencies: Vec<_> = list(&node["deps"]).filter_map(normal).collect();
        wanted.extend(&dependencies);
        seen.insert(id, dependencies);
    }
    let key = |id: &str| {
        let found = packages.get(id)?;
        Some((text(&found["name"]), text(&found["version"]), id.to_owned()))
    };
    let mut order: Vec<_> = seen.keys().filter_map(|id| key(id)).collect();
    order.sort();
    let place = |id: &str| order.iter().position(|(_, _, known)| known == id);
    let crates = order.iter().map(|(name, version, id)| {
        let dependencies = seen.get(id.as_str()).into_iter().flatten();
        let found = packages.get(id.as_str());
        let found = found.with_context(|| format!("find {id}"))?;
        Ok(Crate {
            name: name.clone(),
            version: version.clone(),
            licence: text(&found["license"]),
            source: found["source"].as_str().map(str::to_owned),
            dependencies: dependencies.filter_map(|id| place(id)).collect(),
        })
    });
    crates.collect()
}

/// Neither for tests nor for build scripts.
fn normal(dependency: &Value) -> Option<&str> {
    let mut kinds = list(&dependency["dep_kinds"]);
    let is_normal = kinds.any(|kind| kind["kind"].is_null());
    dependency["pkg"].as_str().filter(|_| is_normal)
}

fn by_id(objects: &Value) -> BTreeMap<&str, &Value> {
    list(objects)
        .filter_map(|object| Some((object["id"].as_str()?, object)))
        .collect()
}

fn list(value: &Value) -> impl Iterator<Item = &Value> {
    value.as_array().into_iter().flatten()
}

fn text(value: &Value) -> String {
    value.as_str().unwrap_or_default().to_owned()
}
