//! The programs that a process and its children start, as `sched:sched_process_exec` tells them.

use std::fs;
use std::path::PathBuf;

use anyhow::Context;

const INSTANCES: &str = "/sys/kernel/tracing/instances";

/// A trace of its own; dropping it removes it.
pub struct Executions {
    folder: PathBuf,
}

impl Executions {
    /// Why there can be none here, if so.
    pub fn unavailable() -> Option<String> {
        fs::metadata(INSTANCES)
            .err()
            .map(|error| format!("look at {INSTANCES}: {error}"))
    }

    /// From now on. A process that one of them starts is one of them.
    pub fn of(pid: u32) -> anyhow::Result<Self> {
        let folder = PathBuf::from(INSTANCES).join(format!("nodemend-{pid}"));
        fs::create_dir(&folder).with_context(|| format!("make {}", folder.display()))?;
        let trace = Self { folder };
        let tasks = format!("/proc/{pid}/task");
        let threads = fs::read_dir(&tasks).with_context(|| format!("list {tasks}"))?;
        let threads: Vec<_> = threads
            .flatten()
            .map(|thread| thread.file_name().to_string_lossy().into_owned())
            .collect();
        trace.set("options/event-fork", "1")?;
        trace.set("set_event_pid", &threads.join(" "))?;
        trace.set("events/sched/sched_process_exec/enable", "1")?;
        Ok(trace)
    }

    /// A line for each program that was started.
    pub fn so_far(&self) -> anyhow::Result<Vec<String>> {
        let path = self.folder.join("trace");
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        Ok(lines.map(str::to_owned).collect())
    }

    fn set(&self, name: &str, value: &str) -> anyhow::Result<()> {
        let path = self.folder.join(name);
        fs::write(&path, value).with_context(|| format!("write {value} to {}", path.display()))
    }
}

impl Drop for Executions {
    fn drop(&mut self) {
        // An instance whose events are on can be removed, too.
        if let Err(error) = fs::remove_dir(&self.folder) {
            eprintln!("could not remove {}: {error}", self.folder.display());
        }
    }
}
