//! What a person would type.

#![expect(
    clippy::disallowed_methods,
    reason = "the story shows what kubectl shows"
)]

use std::process::Command;

use anyhow::{Context, ensure};

use crate::control_plane::{self, ControlPlane};

pub(super) async fn run(control_plane: &ControlPlane, args: &[&str]) -> anyhow::Result<String> {
    let mut command = Command::new(control_plane::program("kubectl")?);
    command
        .arg("--kubeconfig")
        .arg(control_plane.admin_kubeconfig());
    // Not in the home folder of whoever runs this.
    command
        .arg("--cache-dir")
        .arg(control_plane.folder().join("kubectl"))
        .args(args);
    let output = tokio::task::spawn_blocking(move || command.output())
        .await
        .context("run kubectl")?;
    let output = output.context("run kubectl")?;
    ensure!(
        output.status.success(),
        "kubectl: {}",
        String::from_utf8_lossy(&output.stderr)
    );
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
