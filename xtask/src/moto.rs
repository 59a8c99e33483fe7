//! moto, a second opinion on what AWS answers: its Python package in an environment of its own, made
//! once per version and user.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;

use crate::{cache, progress};

const VERSION: &str = "5.2.5";

/// The Python that has it; `None`, and said so, where no environment can be made.
pub(crate) fn ensure() -> anyhow::Result<Option<PathBuf>> {
    let cache = cache::dir()?;
    let folder = cache.join(format!("moto-{VERSION}"));
    fs::create_dir_all(&cache).with_context(|| format!("create {}", cache.display()))?;
    let lock = File::create(cache.join("moto.lock")).context("create the lock of moto")?;
    lock.lock().context("wait for another set-up of moto")?;
    if !folder.exists() {
        let unfinished = cache.join("moto.unfinished");
        if unfinished.exists() {
            fs::remove_dir_all(&unfinished).context("remove an unfinished set-up of moto")?;
        }
        if let Err(error) = make(&unfinished) {
            eprintln!("no moto: {error:#}");
            return Ok(None);
        }
        fs::rename(&unfinished, &folder)
            .with_context(|| format!("move moto to {}", folder.display()))?;
    }
    Ok(Some(folder.join("bin/python")))
}

fn make(folder: &Path) -> anyhow::Result<()> {
    let what = format!("installing moto {VERSION} (first run only, about a minute)");
    let mut venv = Command::new("python3");
    venv.args(["-m", "venv"]).arg(folder);
    run(&mut venv, &what).context("make an environment: is there a python3 with venv?")?;
    let mut pip = Command::new(folder.join("bin/python"));
    pip.args(["-m", "pip", "install", "--quiet"])
        .arg("--disable-pip-version-check")
        .arg(format!("moto[server]=={VERSION}"));
    run(&mut pip, &what).context("install the package")
}

fn run(command: &mut Command, what: &str) -> anyhow::Result<()> {
    let (status, _nothing) = progress::run(command, what, |_| progress::Line::Message)?;
    anyhow::ensure!(status.success(), "{status}");
    Ok(())
}
