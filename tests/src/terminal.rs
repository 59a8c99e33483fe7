//! Commands as a person types them, with `helm` and `kubectl` of the versions that the tests pin.

#![expect(
    clippy::disallowed_methods,
    reason = "this runs the commands of the README"
)]

use std::env;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use tempfile::TempDir;

use crate::control_plane::{self, ControlPlane};
use crate::process;

/// Longer than any command waits by itself.
const TIMEOUT: Duration = Duration::from_secs(400);

pub struct Terminal {
    environment: Vec<(&'static str, OsString)>,
    /// Helm's folders, kubectl's cache, output.
    home: TempDir,
}

/// An error names what is missing.
pub fn helm() -> anyhow::Result<PathBuf> {
    let folder = env::var_os("NODEMEND_HELM_BIN").context(
        "no helm to run: `cargo xtask test deploy` builds it and sets NODEMEND_HELM_BIN",
    )?;
    let folder = PathBuf::from(folder);
    ensure!(
        folder.join("helm").is_file(),
        "no helm in {}",
        folder.display()
    );
    Ok(folder)
}

impl Terminal {
    /// Without a cluster, as for `helm lint`.
    pub fn open() -> anyhow::Result<Self> {
        let home = TempDir::with_prefix("nodemend-").context("make a temporary folder")?;
        let kubectl = control_plane::program("kubectl")?;
        let kubectl = kubectl.parent().context("find the folder of kubectl")?;
        let mut path = vec![helm()?, kubectl.to_owned()];
        path.extend(env::split_paths(&env::var_os("PATH").unwrap_or_default()));
        let path = env::join_paths(path).context("make a PATH")?;
        let mut environment = vec![
            ("PATH", path),
            ("KUBECONFIG", home.path().join("none").into()),
            ("KUBECACHEDIR", home.path().join("kubectl").into()),
        ];
        for name in ["HELM_CACHE_HOME", "HELM_CONFIG_HOME", "HELM_DATA_HOME"] {
            environment.push((name, home.path().join(name).into()));
        }
        Ok(Self { environment, home })
    }

    /// As the administrator of a cluster.
    pub fn of(control_plane: &ControlPlane) -> anyhow::Result<Self> {
        let mut terminal = Self::open()?;
        terminal.set("KUBECONFIG", control_plane.admin_kubeconfig());
        Ok(terminal)
    }

    pub fn set(&mut self, name: &'static str, value: impl Into<OsString>) {
        self.environment.retain(|(known, _)| *known != name);
        self.environment.push((name, value.into()));
    }

    /// A folder that goes with this.
    pub fn home(&self) -> &Path {
        self.home.path()
    }

    /// The output of a shell command in the folder of the repository.
    pub async fn run(&self, line: &str) -> anyhow::Result<String> {
        let (succeeded, output) = self.try_run(line).await?;
        ensure!(succeeded, "{line}\n{output}");
        Ok(output)
    }

    /// The output of a command that has to fail.
    pub async fn fails(&self, line: &str) -> anyhow::Result<String> {
        let (succeeded, output) = self.try_run(line).await?;
        ensure!(!succeeded, "it should have failed: {line}\n{output}");
        Ok(output)
    }

    async fn try_run(&self, line: &str) -> anyhow::Result<(bool, String)> {
        // A file takes any amount of output, so that nobody has to read while it runs.
        let file = tempfile::NamedTempFile::new_in(self.home.path()).context("make a file")?;
        let output = file.reopen().context("open a file again")?;
        let mut shell = Command::new("/bin/sh");
        shell
            .args(["-ec", line])
            .current_dir(crate::repo())
            .envs(self.environment.iter().map(|(name, value)| (name, value)))
            .stdin(Stdio::null())
            .stdout(output.try_clone().context("share a file")?)
            .stderr(output);
        let mut child = process::spawn(shell)?;
        let status = tokio::task::spawn_blocking(move || process::wait_exit(&mut child, TIMEOUT))
            .await
            .context("wait for a command")?
            .with_context(|| format!("run {line}"))?;
        let text = std::fs::read(file.path()).context("read the output of a command")?;
        Ok((
            status.success(),
            String::from_utf8_lossy(&text).into_owned(),
        ))
    }
}
