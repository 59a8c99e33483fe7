//! The user's cache folder: tools that are built once and kept, keyed by version.

use std::env;
use std::path::{Path, PathBuf};

use anyhow::{Context, bail};

use crate::{cargo, progress};

pub(crate) fn dir() -> anyhow::Result<PathBuf> {
    if let Some(dir) = env::var_os("XDG_CACHE_HOME").filter(|dir| !dir.is_empty()) {
        return Ok(Path::new(&dir).join("nodemend"));
    }
    let home = env::var_os("HOME").context("find the cache folder: set HOME or XDG_CACHE_HOME")?;
    Ok(Path::new(&home).join(".cache/nodemend"))
}

/// The path of a tool that `cargo install` provides, installed on first use.
pub(crate) fn cargo_tool(name: &str, version: &str, key: &str) -> anyhow::Result<PathBuf> {
    let root = dir()?.join(format!("{name}-{version}{key}"));
    let binary = root.join("bin").join(name);
    if !binary.exists() {
        let mut cargo = cargo::command();
        cargo
            .args(["install", "--locked", "--version", version, name, "--root"])
            .arg(&root)
            .env_remove("CARGO_TARGET_DIR")
            .env_remove("RUSTFLAGS");
        let what = format!("installing {name} {version} (first run only, a few minutes)");
        let (status, _nothing) = progress::run(&mut cargo, &what, progress::cargo)?;
        if !status.success() {
            bail!("install {name} {version}: cargo install failed ({status})");
        }
    }
    Ok(binary)
}
