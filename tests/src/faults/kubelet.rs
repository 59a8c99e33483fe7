//! A kubelet's /healthz, and its process, where it is only to be stopped.

#![expect(clippy::disallowed_methods, reason = "the harness runs other programs")]

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::process::{Child, Command};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use anyhow::Context;
use rustix::process::{Pid, Signal, kill_process};
use tempfile::TempDir;

use crate::process;

/// It answers, or accepts for ever, until the test's process ends.
pub struct Healthz {
    address: SocketAddr,
    well: Arc<AtomicBool>,
}

impl Healthz {
    /// It answers well.
    pub fn start() -> anyhow::Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").context("listen on loopback")?;
        let address = listener.local_addr().context("read a port")?;
        let well = Arc::new(AtomicBool::new(true));
        let answers = Arc::clone(&well);
        thread::spawn(move || {
            let mut unanswered = Vec::new();
            for mut stream in listener.incoming().flatten() {
                if !answers.load(Ordering::Relaxed) {
                    unanswered.push(stream);
                    continue;
                }
                let asked = stream.read(&mut [0; 1024]);
                // Whoever asked may have gone.
                let _answered = asked.and_then(|_| {
                    stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok")
                });
            }
        });
        Ok(Self { address, well })
    }

    pub fn address(&self) -> String {
        self.address.to_string()
    }

    /// From now on it answers, or only accepts.
    pub fn set_well(&self, well: bool) {
        self.well.store(well, Ordering::Relaxed);
    }
}

/// A process called kubelet that SIGSTOP has stopped.
pub struct StoppedKubelet {
    child: Child,
    _folder: TempDir,
}

impl StoppedKubelet {
    pub fn start() -> anyhow::Result<Self> {
        let folder = tempfile::tempdir().context("make a folder")?;
        let program = folder.path().join("kubelet");
        fs::copy("/bin/sleep", &program).context("copy sleep")?;
        let mut command = Command::new(&program);
        command.arg("600");
        let child = process::spawn(command)?;
        let stopped = Self {
            child,
            _folder: folder,
        };
        let pid = i32::try_from(stopped.child.id())
            .ok()
            .and_then(Pid::from_raw);
        kill_process(pid.context("read a pid")?, Signal::STOP).context("stop a process")?;
        Ok(stopped)
    }

    pub fn pid(&self) -> u32 {
        self.child.id()
    }
}

impl Drop for StoppedKubelet {
    fn drop(&mut self) {
        // It may have ended already.
        let _killed = self.child.kill();
        let _status = self.child.wait();
    }
}
