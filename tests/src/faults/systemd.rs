//! A systemd of the test's own: init of its own PID, mount and cgroup namespaces.

#![expect(clippy::disallowed_methods, reason = "the harness runs other programs")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use tempfile::TempDir;

use crate::process;

const SYSTEMD: [&str; 2] = ["/usr/lib/systemd/systemd", "/lib/systemd/systemd"];
/// A cgroup in each hierarchy, so that nothing of systemd's is left in those of the host.
const CGROUP: &str = "nodemend-systemd";
/// With the folder of units, then systemd.
const SCRIPT: &str = r#"
set -e
while read -r _ at kind _; do
    case $kind in cgroup|cgroup2)
        mkdir -p "$at/nodemend-systemd"
        for of in cpus mems; do
            [ -e "$at/cpuset.$of" ] && cat "$at/cpuset.$of" > "$at/nodemend-systemd/cpuset.$of"
        done
        echo $$ > "$at/nodemend-systemd/cgroup.procs"
    esac
done < /proc/self/mounts
exec unshare --pid --mount --cgroup --uts --ipc --fork --kill-child --mount-proc sh -ec '
    mount --make-rprivate /
    mount -t tmpfs tmpfs /run
    mkdir -p /run/systemd/system
    exec env container=nodemend SYSTEMD_LOG_TARGET=null SYSTEMD_PROC_CMDLINE= \
        SYSTEMD_UNIT_PATH="$1" "$2" --system --unit=all.target --show-status=no
' sh "$1" "$2"
"#;

pub struct HostSystemd {
    unshare: Child,
    _units: TempDir,
    proc: TempDir,
}

impl HostSystemd {
    #[must_use]
    pub fn unavailable() -> Option<&'static str> {
        binary().is_none().then_some("there is no systemd here")
    }

    /// With these services, by name and `[Service]` section, all started.
    pub fn start(services: &[(&str, &str)]) -> anyhow::Result<Self> {
        let units = tempfile::tempdir().context("make a folder")?;
        let write = |name: &str, text: String| {
            fs::write(units.path().join(name), text).context("write a unit")
        };
        let wants = |wants: String, (name, _): &(&str, &str)| format!("{wants}Wants={name}\n");
        let wants = services.iter().fold(String::new(), wants);
        write("all.target", format!("[Unit]\n{wants}"))?;
        for (name, service) in services {
            let unit = format!("[Unit]\nStartLimitIntervalSec=0\n[Service]\n{service}");
            write(name, unit)?;
        }
        let mut command = Command::new("sh");
        command
            .args(["-c", SCRIPT, "sh"])
            .arg(units.path())
            .arg(binary().context("find systemd")?)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let unshare = process::spawn(command)?;
        let host = Self {
            unshare,
            _units: units,
            proc: tempfile::tempdir().context("make a folder")?,
        };
        let init = host.init()?;
        symlink(format!("/proc/{init}"), host.proc.path().join("1")).context("make a /proc")?;
        Ok(host)
    }

    /// For `--host-proc`.
    #[must_use]
    pub fn proc(&self) -> String {
        self.proc.path().display().to_string()
    }

    /// Its PID, once it answers.
    fn init(&self) -> anyhow::Result<u32> {
        let unshare = self.unshare.id();
        let children = format!("/proc/{unshare}/task/{unshare}/children");
        for _ in 0..1000 {
            let pids = fs::read_to_string(&children).context("list children")?;
            let init = pids.split_whitespace().next();
            let socket = |pid: &str| PathBuf::from(format!("/proc/{pid}/root/run/systemd/private"));
            if let Some(pid) = init.filter(|pid| socket(pid).exists()) {
                return pid.parse().context("read a PID");
            }
            thread::sleep(Duration::from_millis(10));
        }
        bail!("systemd does not start")
    }
}

impl Drop for HostSystemd {
    fn drop(&mut self) {
        // Init goes with it, and all others with init.
        let _gone = self.unshare.kill();
        let _status = self.unshare.wait();
        let mounts = fs::read_to_string("/proc/self/mounts").unwrap_or_default();
        let cgroups = mounts.lines().filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (at, kind) = (fields.next()?, fields.next()?);
            kind.starts_with("cgroup")
                .then(|| Path::new(at).join(CGROUP))
        });
        for cgroup in cgroups {
            // Whoever has just been killed is in it for a moment.
            for _ in 0..200 {
                remove(&cgroup);
                if !cgroup.exists() {
                    break;
                }
                thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

/// From the inside out.
fn remove(cgroup: &Path) {
    for inside in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if inside.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove(&inside.path());
        }
    }
    let _not_yet = fs::remove_dir(cgroup);
}

fn binary() -> Option<&'static str> {
    SYSTEMD.into_iter().find(|path| Path::new(path).exists())
}
