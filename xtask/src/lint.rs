//! `cargo xtask lint`: what can be said about the code without running it.

use std::path::Path;
use std::process::Command;

use anyhow::{Context, bail};

use crate::{bpf, build, cache, cargo};

const CARGO_DENY: &str = "0.20.2";

pub(crate) fn run(repo: &Path) -> anyhow::Result<()> {
    step(
        "formatting",
        cargo::command()
            .current_dir(repo)
            .args(["fmt", "--all", "--check"]),
    )?;
    step(
        "formatting of the fuzzer",
        cargo::command()
            .current_dir(repo.join("tests/fuzz"))
            .args(["fmt", "--check"]),
    )?;
    step(
        "clippy, host",
        cargo::command().current_dir(repo).args([
            "clippy",
            "--quiet",
            "--locked",
            "--workspace",
            "--all-targets",
            "--profile",
            build::PROFILE,
            "--",
            "-D",
            "warnings",
        ]),
    )?;
    eprintln!("clippy, BPF");
    bpf::clippy(repo)?;
    let deny = cache::cargo_tool("cargo-deny", CARGO_DENY, "")?;
    step(
        "licences, bans and sources",
        // Advisories need a database from a git host; these three need only the crates.
        Command::new(deny)
            .current_dir(repo)
            .args(["--locked", "check", "bans", "licenses", "sources"]),
    )
}

fn step(name: &str, command: &mut Command) -> anyhow::Result<()> {
    eprintln!("{name}");
    let status = command.status().with_context(|| format!("{name}: start"))?;
    if !status.success() {
        bail!("{name}: failed ({status})");
    }
    Ok(())
}
