//! A systemd of the test's own, in namespaces of its own, whose socket is where that of a host is.
//!
//! As the manager of a user: that of a system is the first of its PID namespace, and gives nobody access
//! whose PID it cannot see.

#![expect(clippy::disallowed_methods, reason = "the harness runs other programs")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};
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
            if [ -e "$at/cpuset.$of" ]; then
                cat "$at/cpuset.$of" > "$at/nodemend-systemd/cpuset.$of"
            fi
        done
        echo $$ > "$at/nodemend-systemd/cgroup.procs"
    esac
done < /proc/self/mounts
exec unshare --mount --cgroup sh -ec '
    mount --make-rprivate /
    mount -t tmpfs tmpfs /run
    mkdir -p /run/systemd/system
    exec env XDG_RUNTIME_DIR=/run SYSTEMD_LOG_TARGET=null SYSTEMD_UNIT_PATH="$1" \
        "$2" --user --unit=all.target
' sh "$1" "$2"
"#;

pub struct HostSystemd {
    manager: Child,
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
            // Without those that other units would be needed for.
            let unit = "[Unit]\nDefaultDependencies=no\nStartLimitIntervalSec=0\n[Service]\n";
            let unit = format!("{unit}{service}");
            write(name, unit)?;
        }
        let mut command = Command::new("sh");
        command
            .args(["-c", SCRIPT, "sh"])
            .arg(units.path())
            .arg(binary().context("find systemd")?)
            .stdin(Stdio::null())
            .stdout(Stdio::null());
        let host = Self {
            manager: process::spawn(command)?,
            _units: units,
            proc: tempfile::tempdir().context("make a folder")?,
        };
        let manager = PathBuf::from(format!("/proc/{}", host.manager.id()));
        let socket = manager.join("root/run/systemd/private");
        // Before the script has come so far it is the host's own.
        let systemd =
            || fs::read_link(manager.join("exe")).is_ok_and(|exe| exe.ends_with("systemd"));
        for _ in 0..1000 {
            if systemd() && socket.exists() {
                symlink(&manager, host.proc.path().join("1")).context("make a /proc")?;
                return Ok(host);
            }
            thread::sleep(Duration::from_millis(10));
        }
        bail!("systemd does not start")
    }

    /// For `--host-proc`.
    #[must_use]
    pub fn proc(&self) -> String {
        self.proc.path().display().to_string()
    }
}

impl Drop for HostSystemd {
    fn drop(&mut self) {
        let _gone = self.manager.kill();
        let _status = self.manager.wait();
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
                empty(&cgroup);
                if !cgroup.exists() {
                    break;
                }
                thread::sleep(Duration::from_millis(10));
            }
        }
    }
}

/// From the inside out.
fn empty(cgroup: &Path) {
    for inside in fs::read_dir(cgroup).into_iter().flatten().flatten() {
        if inside.file_type().is_ok_and(|kind| kind.is_dir()) {
            empty(&inside.path());
        }
    }
    let pids = fs::read_to_string(cgroup.join("cgroup.procs")).unwrap_or_default();
    for pid in pids.lines().filter_map(|pid| pid.parse().ok()) {
        if let Some(pid) = Pid::from_raw(pid) {
            let _gone = kill_process(pid, Signal::KILL);
        }
    }
    let _not_yet = fs::remove_dir(cgroup);
}

fn binary() -> Option<&'static str> {
    SYSTEMD.into_iter().find(|path| Path::new(path).exists())
}
