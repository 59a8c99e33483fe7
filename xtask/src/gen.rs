//! `cargo xtask gen`: files that the code is the source of.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};

use crate::{bpf, build, chart};

pub(crate) fn run(repo: &Path, check: bool) -> anyhow::Result<()> {
    bpf::build(repo)?;
    let executables = build::workspace(repo)?;
    let crds = output(build::binary(&executables, "nodemend-repairer")?, &["crds"])?;
    let reasons = output(
        build::binary(&executables, "nodemend-detector")?,
        &["reasons", "-o", "markdown"],
    )?;

    let mut files = crd_files(&crds)?;
    files.extend(chart::files(repo, &files)?);
    files.push((PathBuf::from("docs/reasons.md"), reasons));
    let mut stale = Vec::new();
    for (path, wanted) in files {
        let absolute = repo.join(&path);
        if fs::read_to_string(&absolute).ok().as_deref() == Some(&wanted) {
            continue;
        }
        if check {
            stale.push(path.display().to_string());
        } else {
            fs::write(&absolute, wanted).with_context(|| format!("write {}", path.display()))?;
            eprintln!("wrote {}", path.display());
        }
    }
    if !stale.is_empty() {
        bail!(
            "out of date: {}; run `cargo xtask gen` and commit the result",
            stale.join(", ")
        );
    }
    Ok(())
}

/// One file per CRD, named by its plural.
fn crd_files(documents: &str) -> anyhow::Result<Vec<(PathBuf, String)>> {
    let files: Vec<_> = documents
        .split("---\n")
        .filter(|document| !document.trim().is_empty())
        .map(|document| {
            let name = document
                .lines()
                .find_map(|line| line.strip_prefix("  name: ")?.strip_suffix(".nodemend.dev"))
                .context("a CRD has no metadata.name in the group nodemend.dev")?;
            Ok((
                Path::new("deploy/crds").join(format!("{name}.yaml")),
                document.to_owned(),
            ))
        })
        .collect::<anyhow::Result<_>>()?;
    if files.is_empty() {
        bail!("`nodemend-repairer crds` printed no CRD");
    }
    Ok(files)
}

fn output(program: &Path, args: &[&str]) -> anyhow::Result<String> {
    let output = Command::new(program)
        .args(args)
        .output()
        .with_context(|| format!("run {}", program.display()))?;
    if !output.status.success() {
        bail!(
            "{} {}: {}",
            program.display(),
            args.join(" "),
            String::from_utf8_lossy(&output.stderr)
        );
    }
    String::from_utf8(output.stdout)
        .with_context(|| format!("{} printed no UTF-8", program.display()))
}
