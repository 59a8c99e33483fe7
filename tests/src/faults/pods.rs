//! Pods as far as the checks see them: cgroups, network namespaces with their veth pairs, and processes.

#![expect(clippy::disallowed_methods, reason = "this starts other programs")]

use std::io::Write;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};

use super::PodCgroup;
use crate::process;

/// A pause container, an application, and what stands beside it.
const PROCESSES: usize = 3;
const LONG: &str = "86400";

/// Dropping it ends the processes; their namespaces, and the veth pairs, go with them.
pub struct Pods {
    // Dropped in this order.
    _processes: Processes,
    _cgroups: Vec<PodCgroup>,
}

struct Processes(Vec<Child>);

impl Pods {
    pub fn start(count: u16) -> anyhow::Result<Self> {
        let mut processes = Processes(Vec::new());
        let mut cgroups = Vec::new();
        let mut links = String::new();
        for pod in 0..count {
            let cgroup = PodCgroup::with_few_pids(&format!("0f7a1c9e-3b7d-4c5e-9f00-{pod:012x}"))?;
            for process in 0..PROCESSES {
                let child = start(process == 0)?;
                let pid = child.id();
                processes.0.push(child);
                cgroup.put(pid)?;
                if process == 0 {
                    links +=
                        &format!("link add bench{pod} up type veth peer name eth0 netns {pid}\n");
                }
            }
            cgroups.push(cgroup);
        }
        // Those of the last pods may not have their namespace yet.
        thread::sleep(Duration::from_secs(1));
        add(&links)?;
        Ok(Self {
            _processes: processes,
            _cgroups: cgroups,
        })
    }
}

fn start(own_network: bool) -> anyhow::Result<Child> {
    let mut command = if own_network {
        let mut command = Command::new("unshare");
        command.args(["--net", "sleep"]);
        command
    } else {
        Command::new("sleep")
    };
    command.arg(LONG);
    process::spawn(command)
}

fn add(links: &str) -> anyhow::Result<()> {
    let mut ip = Command::new("ip")
        .args(["-batch", "-"])
        .stdin(Stdio::piped())
        .spawn()
        .context("run ip")?;
    ip.stdin
        .take()
        .context("write to ip")?
        .write_all(links.as_bytes())
        .context("write to ip")?;
    let status = ip.wait().context("wait for ip")?;
    ensure!(status.success(), "ip has not made all veth pairs: {status}");
    Ok(())
}

impl Drop for Processes {
    fn drop(&mut self) {
        for child in &mut self.0 {
            // It may have ended already.
            let _killed = child.kill();
            let _status = child.wait();
        }
    }
}
