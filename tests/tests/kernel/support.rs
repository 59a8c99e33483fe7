//! What this host can show; the tests of the rest are skipped, with the reason.

#![expect(clippy::disallowed_methods, reason = "the harness runs the detector")]

use std::process::Command;

use nodemend_tests::{daemon, faults};
use serde_json::Value;

#[derive(Clone, Copy)]
pub(crate) enum Needs {
    Root,
    /// That the kernel tracks connections.
    Conntrack,
    /// A hook that `nodemend-detector check` says is attached, by its name there.
    Hook(&'static str),
    /// The same, and that the kernel looks for hung tasks.
    HungTask,
    /// The scan for blocked tasks, and a task that hangs.
    BlockedTask,
    /// The scan, and a FUSE file system.
    Fuse,
    /// A FUSE file system.
    FuseAlone,
    /// A tracefs that takes traces of one's own.
    Executions,
    /// systemd, to be started in namespaces of its own.
    Systemd,
    /// A containerd that tells what is deprecated, to be started in mounts of its own.
    Containerd,
    /// That the kernel measures how long processes wait for memory.
    MemoryPressure,
}

pub(crate) struct Support {
    /// Why nothing can be tested.
    nothing: Option<String>,
    /// The rows of `nodemend-detector check`.
    rows: Vec<Value>,
}

impl Support {
    pub(crate) fn find() -> Self {
        if let Some(reason) = faults::unavailable() {
            return Self {
                nothing: Some(reason.to_owned()),
                rows: Vec::new(),
            };
        }
        Self {
            nothing: None,
            rows: check(),
        }
    }

    pub(crate) fn missing(&self, needs: Needs) -> Option<String> {
        if self.nothing.is_some() {
            return self.nothing.clone();
        }
        match needs {
            Needs::Root => None,
            Needs::Conntrack => faults::FullConntrack::unavailable().map(str::to_owned),
            Needs::Hook(name) => self.hook_missing(name),
            Needs::HungTask => faults::HungTask::unavailable()
                .map(str::to_owned)
                .or_else(|| self.hook_missing("hung-task")),
            Needs::BlockedTask => faults::HungTask::unavailable()
                .map(str::to_owned)
                .or_else(|| self.hook_missing("blocked-task")),
            Needs::Executions => faults::Executions::unavailable(),
            Needs::Systemd => faults::HostSystemd::unavailable().map(str::to_owned),
            Needs::Containerd => faults::HostContainerd::unavailable(),
            Needs::MemoryPressure => faults::Thrashing::unavailable().map(str::to_owned),
            Needs::FuseAlone => faults::FuseSleeper::unavailable(),
            Needs::Fuse => {
                faults::FuseSleeper::unavailable().or_else(|| self.hook_missing("blocked-task"))
            }
        }
    }

    fn hook_missing(&self, name: &str) -> Option<String> {
        let row = self
            .rows
            .iter()
            .find(|row| row["what"] == format!("hook {name}"))?;
        row["using"].is_null().then(|| {
            format!(
                "hook {name}: {}",
                row["missing"].as_str().unwrap_or("unknown why")
            )
        })
    }
}

/// Nothing where the detector does not start: then the tests run, and fail, and say why.
pub(crate) fn check() -> Vec<Value> {
    let Ok(detector) = daemon::binary("nodemend-detector") else {
        return Vec::new();
    };
    let Ok(output) = Command::new(detector)
        .args(["check", "-o", "json"])
        .output()
    else {
        return Vec::new();
    };
    serde_json::from_slice(&output.stdout).unwrap_or_default()
}
