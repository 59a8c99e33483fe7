//! A containerd of the test's own, in mounts of its own, whose socket is where that of a host is.

#![expect(
    clippy::disallowed_methods,
    reason = "the harness reads its environment and runs other programs"
)]

use std::os::unix::fs::symlink;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::Duration;
use std::{env, fs, thread};

use anyhow::{Context, bail};
use rustix::process::Signal;
use tempfile::TempDir;

use crate::process;

/// One or the other, of `cargo xtask test`.
const PROGRAM: &str = "NODEMEND_NEW_CONTAINERD";
const MISSING: &str = "NODEMEND_NEW_CONTAINERD_MISSING";

/// Mirrors in this place are what it calls deprecated. It unpacks nothing: any file system is good enough.
const CONFIG: &str = r#"version = 2
[plugins."io.containerd.grpc.v1.cri"]
disable_apparmor = true
tolerate_missing_hugetlb_controller = true
[plugins."io.containerd.grpc.v1.cri".containerd]
snapshotter = "native"
[plugins."io.containerd.grpc.v1.cri".registry.mirrors."registry.example"]
endpoint = ["https://registry.example"]
"#;

/// With the program, then its configuration. A record of the VPC CNI, so that its pods are asked for.
const SCRIPT: &str = r#"
for at in /var/lib /run; do mount -t tmpfs tmpfs "$at"; done
mkdir /run/aws-node
echo '{"allocations":[]}' > /run/aws-node/ipam.json
exec "$1" --config "$2"
"#;

pub struct HostContainerd {
    daemon: Child,
    folder: TempDir,
}

impl HostContainerd {
    #[must_use]
    pub fn unavailable() -> Option<String> {
        let why = || env::var(MISSING).unwrap_or_else(|_unset| format!("{PROGRAM} is not set"));
        program().is_none().then(why)
    }

    /// It listens when this returns.
    pub fn start() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("make a folder")?;
        let at = |name: &str| folder.path().join(name);
        fs::write(at("config.toml"), CONFIG).context("write a configuration")?;
        let log = fs::File::create(at("log")).context("make a log")?;
        let mut command = Command::new("unshare");
        command
            // What other tests unmount meanwhile must not stay mounted here.
            .args(["--mount", "--propagation", "slave"])
            .args(["sh", "-euc", SCRIPT, "sh"])
            .arg(program().context("find containerd")?)
            .arg(at("config.toml"))
            .stdin(Stdio::null())
            .stdout(log.try_clone().context("share a log")?)
            .stderr(log);
        let daemon = process::spawn(command)?;
        let process = PathBuf::from(format!("/proc/{}", daemon.id()));
        let host = Self { daemon, folder };
        // Before the script has come so far its root is the host's own.
        let is_it =
            || fs::read_link(process.join("exe")).is_ok_and(|exe| exe.ends_with("containerd"));
        let socket = process.join("root/run/containerd/containerd.sock");
        for _ in 0..1000 {
            if is_it() && UnixStream::connect(&socket).is_ok() {
                let proc = host.folder.path().join("proc");
                fs::create_dir(&proc)
                    .and_then(|()| symlink(&process, proc.join("1")))
                    .context("make a /proc")?;
                return Ok(host);
            }
            thread::sleep(Duration::from_millis(10));
        }
        let log = fs::read(host.folder.path().join("log")).unwrap_or_default();
        let words = process::last_lines(&String::from_utf8_lossy(&log));
        bail!("containerd does not start: {words}")
    }

    /// For `--host-proc`.
    #[must_use]
    pub fn proc(&self) -> String {
        self.folder.path().join("proc").display().to_string()
    }

    /// Its socket takes connections, and nobody answers.
    pub fn pause(&self) -> anyhow::Result<()> {
        process::signal_group(self.daemon.id(), Signal::STOP)?;
        process::wait_stopped(self.daemon.id())
    }

    pub fn resume(&self) -> anyhow::Result<()> {
        process::signal_group(self.daemon.id(), Signal::CONT)
    }
}

impl Drop for HostContainerd {
    fn drop(&mut self) {
        // It may have ended already.
        let _gone = self.daemon.kill();
        let _status = self.daemon.wait();
    }
}

fn program() -> Option<PathBuf> {
    env::var_os(PROGRAM).map(PathBuf::from)
}
