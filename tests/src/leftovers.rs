//! What a run could leave behind on its host: compared before and after.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;

use anyhow::{Context, bail};

use crate::wait::until;

/// How long the kernel may take to let go of a loop device or a cgroup.
const TIMEOUT: std::time::Duration = std::time::Duration::from_secs(10);

/// Children, temporary folders, mounts, loop devices, cgroups of pods, settings.
pub struct Host(BTreeSet<String>);

impl Host {
    pub fn look() -> anyhow::Result<Self> {
        let mut found = BTreeSet::new();
        for entry in list(Path::new("/proc"))? {
            found.extend(child(&entry).map(|name| format!("process {entry} ({name})")));
        }
        let temporary = std::env::temp_dir();
        let folders = list(&temporary)?
            .into_iter()
            .filter(|name| name.starts_with("nodemend-"));
        found.extend(folders.map(|name| format!("folder {}", temporary.join(name).display())));
        let mounts =
            fs::read_to_string("/proc/self/mountinfo").context("read /proc/self/mountinfo")?;
        found.extend(
            mounts
                .lines()
                .filter(|line| line.contains("/nodemend-"))
                .map(|line| format!("mount {line}")),
        );
        for name in list(Path::new("/sys/block"))? {
            let backing = Path::new("/sys/block")
                .join(&name)
                .join("loop/backing_file");
            found.extend(
                fs::read_to_string(backing).map(|file| format!("device {name} on {}", file.trim())),
            );
        }
        for root in ["/sys/fs/cgroup", "/sys/fs/cgroup/memory"] {
            for name in list(Path::new(root))?
                .into_iter()
                .filter(|name| name.starts_with("kubepods"))
            {
                cgroups(&Path::new(root).join(name), &mut found)?;
            }
        }
        for name in list(Path::new("/proc/sys/kernel"))?
            .into_iter()
            .filter(|name| name.starts_with("hung_task_"))
        {
            // Counted down, and counted, by the kernel itself.
            if !matches!(
                name.as_str(),
                "hung_task_warnings" | "hung_task_detect_count"
            ) {
                let value = fs::read_to_string(Path::new("/proc/sys/kernel").join(&name))
                    .unwrap_or_default();
                found.insert(format!("setting kernel.{name}={}", value.trim()));
            }
        }
        Ok(Self(found))
    }

    /// Waits until the host is as it was.
    pub async fn wait_unchanged(&self) -> anyhow::Result<()> {
        until(TIMEOUT, "everything is taken away", async || {
            let now = Self::look()?;
            let left: Vec<_> = now.0.difference(&self.0).cloned().collect();
            if left.is_empty() {
                Ok(Some(()))
            } else {
                bail!("left behind: {}", left.join("; "))
            }
        })
        .await
    }
}

/// The entries of a folder; none if there is no such folder.
fn list(folder: &Path) -> anyhow::Result<Vec<String>> {
    match fs::read_dir(folder) {
        Ok(entries) => Ok(entries
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect()),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(Vec::new()),
        Err(error) => Err(error).with_context(|| format!("list {}", folder.display())),
    }
}

/// The name of a process that this one has started and not reaped.
fn child(pid: &str) -> Option<String> {
    let status = fs::read_to_string(format!("/proc/{}/status", pid.parse::<u32>().ok()?)).ok()?;
    let field = |name: &str| {
        status
            .lines()
            .find_map(|line| line.strip_prefix(name))
            .map(str::trim)
    };
    let parent: u32 = field("PPid:")?.parse().ok()?;
    (parent == std::process::id()).then(|| field("Name:").unwrap_or_default().to_owned())
}

fn cgroups(path: &Path, found: &mut BTreeSet<String>) -> anyhow::Result<()> {
    // It may go while it is looked at.
    if path.is_dir() {
        found.insert(format!("cgroup {}", path.display()));
        for name in list(path)? {
            cgroups(&path.join(name), found)?;
        }
    }
    Ok(())
}
