//! `cargo xtask demo`, `bench` and `peers`: builds what they need, then becomes that program,
//! so that Ctrl-C reaches it directly.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::Context;

use crate::{bpf, build, control_plane};

pub(crate) fn harness(repo: &Path, program: &str, args: &[String]) -> anyhow::Result<()> {
    bpf::build(repo)?;
    let control_plane = control_plane::ensure(repo)?;
    start(repo, program, args, Some(&control_plane))
}

/// A program of the harness that needs no control plane.
pub(crate) fn alone(repo: &Path, program: &str, args: &[String]) -> anyhow::Result<()> {
    bpf::build(repo)?;
    start(repo, program, args, None)
}

fn start(
    repo: &Path,
    program: &str,
    args: &[String],
    control_plane: Option<&Path>,
) -> anyhow::Result<()> {
    let executables = build::workspace(repo)?;
    let mut command = Command::new(build::binary(&executables, program)?);
    command
        .args(args)
        .env("NODEMEND_REPO", repo)
        .env("NODEMEND_BIN_DIR", build::bin_dir(&executables)?);
    if let Some(dir) = control_plane {
        command.env("NODEMEND_CONTROL_PLANE_BIN", dir);
    }
    Err(command.exec()).with_context(|| format!("start {program}"))
}
