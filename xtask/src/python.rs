//! Python packages that the tests use, each in an environment of its own, made once per version and user.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::{cache, progress};

pub(crate) struct Package {
    name: &'static str,
    /// As pip is asked for it.
    wanted: &'static str,
    version: &'static str,
}

/// A second opinion on what AWS answers.
pub(crate) const MOTO: Package = Package {
    name: "moto",
    wanted: "moto[server]",
    version: "5.2.5",
};

/// A second opinion on manifests, with the schemas of many Kubernetes versions.
pub(crate) const KUBERNETES_VALIDATE: Package = Package {
    name: "kubernetes-validate",
    wanted: "kubernetes-validate",
    version: "1.37.0",
};

/// The Python that has it; `None`, and said so, where no environment can be made.
pub(crate) fn ensure(package: &Package) -> anyhow::Result<Option<PathBuf>> {
    let Package { name, version, .. } = package;
    let cache = cache::dir()?;
    let folder = cache.join(format!("{name}-{version}"));
    fs::create_dir_all(&cache).with_context(|| format!("create {}", cache.display()))?;
    let lock = File::create(cache.join(format!("{name}.lock")))
        .with_context(|| format!("create the lock of {name}"))?;
    lock.lock()
        .with_context(|| format!("wait for another set-up of {name}"))?;
    if !folder.exists() {
        let unfinished = cache.join(format!("{name}.unfinished"));
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished)
                .with_context(|| format!("remove an unfinished set-up of {name}"))?;
        }
        if let Err(error) = make(&unfinished, package) {
            eprintln!("no {name}: {error:#}");
            return Ok(None);
        }
        fs::rename(&unfinished, &folder)
            .with_context(|| format!("move {name} to {}", folder.display()))?;
    }
    Ok(Some(folder.join("bin/python")))
}

fn make(folder: &Path, package: &Package) -> anyhow::Result<()> {
    let Package {
        name,
        wanted,
        version,
    } = package;
    let what = format!("installing {name} {version} (first run only, about a minute)");
    let mut venv = Command::new("python3");
    venv.args(["-m", "venv"]).arg(folder);
    run(&mut venv, &what).context("make an environment: is there a python3 with venv?")?;
    let mut pip = Command::new(folder.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet"])
        .arg("--disable-pip-version-check")
        .arg(format!("{wanted}=={version}"));
    run(&mut pip, &what).context("install the package")
}

fn run(command: &mut Command, what: &str) -> anyhow::Result<()> {
    let (status, _nothing) = progress::run(command, what, |_| progress::Line::Message)?;
    anyhow::ensure!(status.success(), "{status}");
    Ok(())
}
