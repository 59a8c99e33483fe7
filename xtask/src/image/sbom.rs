//! What an image is made of: a bill of materials (CycloneDX 1.5) and a list of licences, by what cargo
//! has resolved for the binary and by the files beside it.

use std::collections::{BTreeMap, BTreeSet};
use std::env::consts::ARCH;
use std::fmt::Write as _;
use std::path::Path;

use anyhow::{Context, ensure};
use serde_json::{Value, json};

use super::layout;
use crate::cargo;

pub(super) struct Contents {
    pub(super) cyclonedx: Vec<u8>,
    pub(super) licences: Vec<u8>,
}

/// `files` are those that are no crates: libraries, certificate authorities.
pub(super) fn of<'a>(
    repo: &Path,
    package: &str,
    files: impl Iterator<Item = (&'a Path, &'a [u8])>,
) -> anyhow::Result<Contents> {
    let platform = format!("{ARCH}-unknown-linux-gnu");
    let output = cargo::command()
        .current_dir(repo)
        .args(["metadata", "--locked", "--format-version", "1"])
        .args(["--filter-platform", &platform])
        .output()
        .context("run cargo metadata")?;
    ensure!(
        output.status.success(),
        "cargo metadata: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    let metadata: Value =
        serde_json::from_slice(&output.stdout).context("parse cargo's metadata")?;
    let crates = linked(&metadata, package)?;
    let mut licences = String::new();
    let mut components = Vec::new();
    for (name, version, licence) in &crates {
        // Writing to a String cannot fail.
        let _written = writeln!(licences, "{name} {version}: {licence}");
        components.push(json!({
            "type": "library",
            "name": name,
            "version": version,
            "purl": format!("pkg:cargo/{name}@{version}"),
            "licenses": [{"expression": licence}],
        }));
    }
    for (path, bytes) in files {
        components.push(json!({
            "type": "file",
            "name": format!("/{}", path.display()),
            "hashes": [{"alg": "SHA-256", "content": layout::hex(bytes)?}],
        }));
    }
    let bill = json!({
        "bomFormat": "CycloneDX",
        "specVersion": "1.5",
        "version": 1,
        "metadata": {"component": {
            "type": "container", "name": package, "version": env!("CARGO_PKG_VERSION"),
        }},
        "components": components,
    });
    Ok(Contents {
        cyclonedx: bill.to_string().into_bytes(),
        licences: licences.into_bytes(),
    })
}

/// Name, version and licence of every crate that ends up in the package's binary.
fn linked(metadata: &Value, package: &str) -> anyhow::Result<BTreeSet<(String, String, String)>> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let list = |value: &Value| value.as_array().cloned().unwrap_or_default();
    let packages: BTreeMap<String, Value> = list(&metadata["packages"])
        .into_iter()
        .map(|package| (text(&package["id"]), package))
        .collect();
    let nodes: BTreeMap<String, Value> = list(&metadata["resolve"]["nodes"])
        .into_iter()
        .map(|node| (text(&node["id"]), node))
        .collect();
    let root = packages
        .iter()
        .find(|(_, found)| found["name"] == package)
        .map(|(id, _)| id.clone())
        .with_context(|| format!("find the package {package}"))?;
    let mut wanted = vec![root];
    let mut seen = BTreeSet::new();
    while let Some(id) = wanted.pop() {
        if !seen.insert(id.clone()) {
            continue;
        }
        let node = nodes.get(&id).with_context(|| format!("find {id}"))?;
        for dependency in list(&node["deps"]) {
            // Neither for tests nor for build scripts.
            let normal = list(&dependency["dep_kinds"])
                .iter()
                .any(|kind| kind["kind"].is_null());
            if normal {
                wanted.push(text(&dependency["pkg"]));
            }
        }
    }
    let known = seen.iter().filter_map(|id| packages.get(id));
    Ok(known
        .map(|found| {
            (
                text(&found["name"]),
                text(&found["version"]),
                text(&found["license"]),
            )
        })
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_linked_is_listed_and_what_only_builds_is_not() {
        let repo = crate::repo();
        let file = (Path::new("lib/x.so"), b"x".as_slice());
        let contents = of(&repo, "nodemend-detector", [file].into_iter()).unwrap();
        let licences = String::from_utf8(contents.licences).unwrap();
        assert!(licences.contains("\ntokio 1"), "{licences}");
        assert!(!licences.contains("proptest "), "{licences}");
        assert!(!licences.contains("aws-sdk-ec2"), "{licences}");
        let nameless: Vec<_> = licences
            .lines()
            .filter(|line| line.ends_with(": "))
            .collect();
        assert!(nameless.is_empty(), "without a licence: {nameless:?}");
        let bill: Value = serde_json::from_slice(&contents.cyclonedx).unwrap();
        assert_eq!(
            bill["components"].as_array().unwrap().last().unwrap()["name"],
            "/lib/x.so"
        );
    }
}
