//! What may hang in the kernel for ever is done by a process of its own, this program again: a
//! process cannot end while one of its threads is in uninterruptible sleep, and the agent must end
//! when it is told to.

use std::io;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, bail};
use clap::Subcommand;
use jiff::Timestamp;
use serde::de::DeserializeOwned;

use crate::boots::{Boots, note};
use crate::probe;

/// Answers are one JSON value on standard output.
#[derive(Debug, Subcommand)]
pub(crate) enum Aside {
    /// Notes that an agent starts in this boot; answers with a boot that nobody asked for
    NoteStart {
        folder: PathBuf,
        boot_id: String,
        now: Timestamp,
        /// Folders with last words of kernels
        dumps: Vec<PathBuf>,
    },
    /// Notes that the agent was told to stop
    NoteStop { folder: PathBuf },
    /// Waits for a CPU; answers whether it runs anything but the kernel
    LookAtCpu { proc: PathBuf, cpu: u32 },
    /// Creates and removes a file; answers whether the file system refuses that
    TryWrite { file: PathBuf },
}

/// The side of the child.
pub(crate) fn run(aside: Aside) -> anyhow::Result<()> {
    let answer = match aside {
        Aside::NoteStart {
            folder,
            boot_id,
            now,
            dumps,
        } => serde_json::to_string(&note::start(&folder, &boot_id, now, &dumps)?),
        Aside::NoteStop { folder } => serde_json::to_string(&note::change(&folder, Boots::stop)?),
        Aside::LookAtCpu { proc, cpu } => serde_json::to_string(&probe::look_at_cpu(&proc, cpu)?),
        Aside::TryWrite { file } => serde_json::to_string(&probe::refuses_writes(&file)?),
    };
    println!("{}", answer.context("serialize the answer")?);
    Ok(())
}

/// Starts the child. Its answer is on its standard output.
pub(crate) fn start(arguments: &[&dyn AsRef<std::ffi::OsStr>]) -> io::Result<Child> {
    #[expect(clippy::disallowed_methods, reason = "it runs this program")]
    let mut command = Command::new("/proc/self/exe");
    command
        .arg("aside")
        .args(arguments)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
}

/// The answer. Waits as long as it takes, but in a way that does not keep the agent from ending.
pub(crate) fn answer<T: DeserializeOwned>(child: Child) -> anyhow::Result<T> {
    let output = child.wait_with_output().context("wait for the child")?;
    if !output.status.success() {
        let why = String::from_utf8_lossy(&output.stderr);
        bail!("{}", why.trim().trim_start_matches("error: "));
    }
    serde_json::from_slice(&output.stdout).context("read the child's answer")
}

/// Whether it has ended within the time.
pub(crate) fn ends_within(child: &mut Child, patience: Duration) -> bool {
    const STEP: Duration = Duration::from_millis(10);
    let mut waited = Duration::ZERO;
    loop {
        match child.try_wait() {
            Ok(None) if waited < patience => {}
            Ok(None) => return false,
            Ok(Some(_)) | Err(_) => return true,
        }
        std::thread::sleep(STEP);
        waited += STEP;
    }
}
