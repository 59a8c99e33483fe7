//! `cargo xtask demo`, `bench`, `peers` and `vm`: builds what they need, then becomes that program,
//! so that Ctrl-C reaches it directly.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::Context;

use crate::{bpf, build, control_plane, vm};

pub(crate) fn harness(repo: &Path, program: &str, args: &[String]) -> anyhow::Result<()> {
    bpf::build(repo)?;
    let control_plane = control_plane::ensure(repo)?;
    let found = ("NODEMEND_CONTROL_PLANE_BIN", control_plane.as_path());
    start(repo, program, args, Some(found))
}

/// A program of the harness that needs no control plane.
pub(crate) fn alone(repo: &Path, program: &str, args: &[String]) -> anyhow::Result<()> {
    bpf::build(repo)?;
    start(repo, program, args, None)
}

/// In virtual machines, with what Debian has today, and on the kernel that runs here.
pub(crate) fn machines(repo: &Path, kernels: &[vm::Kernel], running: bool) -> anyhow::Result<()> {
    bpf::build(repo)?;
    let parts = vm::ensure(repo, kernels, true)?;
    let versions = kernels.iter().map(|kernel| kernel.version());
    let versions = versions.chain(running.then_some("running"));
    let versions: Vec<_> = versions.map(str::to_owned).collect();
    start(repo, "nodemend-vm", &versions, Some((vm::FOLDER, &parts)))
}

fn start(
    repo: &Path,
    program: &str,
    args: &[String],
    parts: Option<(&str, &Path)>,
) -> anyhow::Result<()> {
    let executables = build::workspace(repo)?;
    let mut command = Command::new(build::binary(&executables, program)?);
    command
        .args(args)
        .env("NODEMEND_REPO", repo)
        .env("NODEMEND_BIN_DIR", build::bin_dir(&executables)?);
    if let Some((name, dir)) = parts {
        command.env(name, dir);
    }
    Err(command.exec()).with_context(|| format!("start {program}"))
}
