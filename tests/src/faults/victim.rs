//! A process that a fault happens to: the program `nodemend-fault`, under a name of choice.

#![expect(clippy::disallowed_methods, reason = "the harness runs other programs")]

use std::io::Write;
use std::os::unix::process::ExitStatusExt;
use std::process::{Child, ChildStdin, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::Signal;

use crate::{daemon, process};

/// How long any fault may take to hit its victim.
const TIMEOUT: Duration = Duration::from_secs(20);

/// Killed and reaped on drop.
pub(super) struct Victim {
    child: Child,
    gate: Option<ChildStdin>,
}

impl Victim {
    /// Starts it; it does nothing before [`Victim::go`].
    pub(super) fn start(deed: &str, comm: &str, argument: Option<&str>) -> anyhow::Result<Self> {
        let mut command = Command::new(daemon::binary("nodemend-fault")?);
        command
            .args([deed, comm])
            .args(argument)
            .stdin(Stdio::piped())
            .stdout(Stdio::null())
            .stderr(Stdio::null());
        let mut child = process::spawn(command)?;
        let gate = child.stdin.take();
        Ok(Self { child, gate })
    }

    pub(super) fn pid(&self) -> u32 {
        self.child.id()
    }

    pub(super) fn go(&mut self) -> anyhow::Result<()> {
        let mut gate = self.gate.take().context("start a victim twice")?;
        gate.write_all(b"\n")
            .context("reach the program nodemend-fault")
    }

    /// Waits until it has done its deed and ended.
    pub(super) fn wait_for_success(&mut self) -> anyhow::Result<()> {
        let status = process::wait_exit(&mut self.child, TIMEOUT)?;
        if !status.success() {
            bail!("the victim ended with {status}");
        }
        Ok(())
    }

    /// Waits until a signal ends it.
    pub(super) fn wait_for_signal(&mut self, signal: Signal) -> anyhow::Result<()> {
        let status = process::wait_exit(&mut self.child, TIMEOUT)?;
        if status.signal() != Some(signal.as_raw()) {
            bail!(
                "the victim ended with {status} instead of signal {}",
                signal.as_raw()
            );
        }
        Ok(())
    }
}

impl Drop for Victim {
    fn drop(&mut self) {
        // It may have ended already.
        let _killed = self.child.kill();
        let _status = self.child.wait();
    }
}
