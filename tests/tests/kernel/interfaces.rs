//! Real interfaces of a network namespace that stands for the host's.

#![expect(clippy::disallowed_methods, reason = "the harness runs the detector")]

use std::fs;
use std::os::unix::fs::symlink;
use std::path::PathBuf;
use std::process::{Child, Command};
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use tempfile::TempDir;

use crate::Test;
use crate::support::Needs::Root;
use crate::watch::Watch;

pub(crate) const TESTS: &[Test] = &[(
    "a_loopback_that_is_down_is_fatal_until_it_is_up",
    Root,
    loopback,
)];

/// A process with network and mounts of its own, and a /proc in which it is process 1.
struct Host {
    folder: TempDir,
    init: Child,
}

impl Host {
    fn start() -> anyhow::Result<Self> {
        let script = "mount -t sysfs none /sys && exec sleep 600";
        let init = Command::new("unshare")
            .args(["--net", "--mount", "sh", "-c", script])
            .spawn()
            .context("run unshare (util-linux)")?;
        let folder = tempfile::tempdir().context("make a folder")?;
        let host = Self { folder, init };
        let process = format!("/proc/{}", host.init.id());
        symlink(process, host.folder.path().join("1")).context("make a link")?;
        let deadline = Instant::now() + Duration::from_secs(10);
        // Its own, once sysfs is mounted: the namespace has nothing but a loopback.
        while fs::read_dir(host.interfaces()).map_or(true, |found| found.count() != 1) {
            ensure!(
                Instant::now() < deadline,
                "no network namespace within 10 s"
            );
            std::thread::sleep(Duration::from_millis(20));
        }
        Ok(host)
    }

    fn interfaces(&self) -> PathBuf {
        self.folder.path().join("1/root/sys/class/net")
    }

    fn set_up(&self) -> anyhow::Result<()> {
        fs::write(self.interfaces().join("lo/flags"), "0x9").context("set lo up")
    }
}

impl Drop for Host {
    fn drop(&mut self) {
        // It may have ended.
        drop(self.init.kill());
        drop(self.init.wait());
    }
}

fn loopback() -> anyhow::Result<()> {
    let host = Host::start()?;
    let proc = host.folder.path().display().to_string();
    let mut watch = Watch::start(&["--host-proc", &proc, "--counter-interval", "1s"])?;
    let down = watch.line("the loopback is down", |line| {
        line["transition"] == "opened" && line["reason"] == "InterfaceNotUp"
    })?;
    ensure!(down["severity"] == "Fatal", "{down}");
    ensure!(down["entity"] == "lo", "{down}");
    host.set_up()?;
    watch
        .line("the loopback is up", |line| {
            line["transition"] == "cleared" && line["reason"] == "InterfaceNotUp"
        })
        .map(drop)
}
