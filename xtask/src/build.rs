//! One build of the whole workspace, always the same selection and profile, so
//! that features unify the same way and nothing is compiled twice.

use std::env;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, bail};
use serde_json::Value;

use crate::{cargo, progress, rustc};

/// The profile of everything that demo, tests and CI build.
pub(crate) const PROFILE: &str = "ci";

pub(crate) struct Executable {
    pub package: String,
    pub target: String,
    pub is_test: bool,
    pub path: PathBuf,
    /// Where cargo runs the package's tests.
    pub package_dir: PathBuf,
}

/// Builds every target and returns what can be run.
pub(crate) fn workspace(repo: &Path) -> anyhow::Result<Vec<Executable>> {
    let mut cargo = cargo::command();
    cargo.current_dir(repo).args([
        "build",
        "--locked",
        "--workspace",
        "--all-targets",
        "--profile",
        PROFILE,
    ]);
    let what = "compiling the workspace (first run: about ten minutes, most of it the AWS SDK)";
    run(&mut cargo, what)
}

/// Builds with a cargo that is told what to build.
pub(crate) fn run(cargo: &mut Command, what: &str) -> anyhow::Result<Vec<Executable>> {
    let this = env::current_exe().context("find this program")?;
    cargo
        .env(rustc::WRAPPER, this)
        .arg("--message-format=json-render-diagnostics");
    let (status, messages) = progress::run(cargo, what, progress::cargo)?;
    if !status.success() {
        bail!("cargo build failed ({status})");
    }
    let messages = messages
        .iter()
        .filter_map(|line| serde_json::from_str::<Value>(line).ok());
    Ok(messages
        .filter_map(|message| executable(&message))
        .collect())
}

/// The folder of the binaries `nodemend-detector`, `nodemend-repairer` and the harness.
pub(crate) fn bin_dir(executables: &[Executable]) -> anyhow::Result<PathBuf> {
    binary(executables, "nodemend-detector")?
        .parent()
        .map(Path::to_owned)
        .context("find the folder of the binaries")
}

pub(crate) fn binary<'a>(executables: &'a [Executable], name: &str) -> anyhow::Result<&'a Path> {
    executables
        .iter()
        .find(|e| !e.is_test && e.target == name)
        .map(|e| e.path.as_path())
        .with_context(|| format!("cargo build made no binary `{name}`"))
}

fn executable(message: &Value) -> Option<Executable> {
    let path = PathBuf::from(message["executable"].as_str()?);
    let package_dir = Path::new(message["manifest_path"].as_str()?)
        .parent()?
        .to_owned();
    Some(Executable {
        package: package_dir.file_name()?.to_str()?.to_owned(),
        target: message["target"]["name"].as_str()?.to_owned(),
        is_test: message["profile"]["test"].as_bool()?,
        path,
        package_dir,
    })
}
