//! A CPU that a process with a real-time priority keeps for itself, in the kernel or in user space.

use anyhow::Context;

use super::victim::Victim;

/// Dropping it gives the CPU back.
pub struct BusyCpu {
    cpu: usize,
    _victim: Victim,
}

impl BusyCpu {
    /// In the kernel it copies zeros.
    pub fn start(in_kernel: bool) -> anyhow::Result<Self> {
        let cpu = last_cpu()?;
        let deed = if in_kernel { "keep-in-kernel" } else { "keep" };
        let mut victim = Victim::start(deed, "keeper", Some(&cpu.to_string()))?;
        victim.go()?;
        Ok(Self {
            cpu,
            _victim: victim,
        })
    }

    pub fn cpu(&self) -> usize {
        self.cpu
    }
}

/// That this process may run on.
pub fn last_cpu() -> anyhow::Result<usize> {
    let cpus = rustix::thread::sched_getaffinity(None).context("read the allowed CPUs")?;
    let allowed = |cpu: &usize| cpus.is_set(*cpu);
    let last = (0..rustix::thread::CpuSet::MAX_CPU).rev().find(allowed);
    last.context("find a CPU")
}
