//! `cargo xtask demo` and `bench`: builds what they need, then becomes that program,
//! so that Ctrl-C reaches it directly.

use std::os::unix::process::CommandExt;
use std::path::Path;
use std::process::Command;

use anyhow::Context;

use crate::{bpf, build, control_plane};

pub(crate) fn harness(repo: &Path, program: &str, args: &[String]) -> anyhow::Result<()> {
    bpf::build(repo)?;
    let control_plane = control_plane::ensure(repo)?;
    let executables = build::workspace(repo)?;
    let error = Command::new(build::binary(&executables, program)?)
        .args(args)
        .env("NODEMEND_REPO", repo)
        .env("NODEMEND_BIN_DIR", build::bin_dir(&executables)?)
        .env("NODEMEND_CONTROL_PLANE_BIN", control_plane)
        .exec();
    Err(error).with_context(|| format!("start {program}"))
}
