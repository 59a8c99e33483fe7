//! Whether a CPU is stuck in the kernel: a thread that goes before all others waits for it, and the
//! kernel's own count says what it did meanwhile.
//!
//! Nobody without privileges can make it look so: whoever keeps the CPU busy in user space, or in one
//! system call after the other, makes room for the thread.

use std::fs;
use std::path::Path;
use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use anyhow::{Context, bail};
use rustix::thread::{CpuSet, Pid};
use serde::{Deserialize, Serialize};
use tracing::warn;

use crate::{aside, urgency};

#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) enum CpuState {
    /// It took the thread.
    Runs,
    /// It did nothing but run the kernel, which did not give it up.
    InKernel,
    /// It did not take the thread, and not because of the kernel: the hypervisor did not run it, say, or
    /// a program with a higher priority did not give it up. Or nobody could look.
    Unknown,
}

/// For the thread to run.
const PATIENCE: Duration = Duration::from_secs(2);

/// Hundredths of that time in the kernel, at least.
const MOSTLY: u64 = 90;

/// In a process of its own, which may not end before the CPU goes on.
pub(super) fn look_aside(proc: &Path, cpu: u32) -> CpuState {
    let answer = aside::start(&[&"look-at-cpu", &proc, &cpu.to_string()])
        .context("start a process")
        .and_then(aside::answer);
    answer.unwrap_or_else(|error| {
        warn!(
            cpu,
            error = format!("{error:#}"),
            "nobody can look at the CPU"
        );
        CpuState::Unknown
    })
}

/// The side of that process.
pub(crate) fn look(proc: &Path, cpu: u32) -> anyhow::Result<CpuState> {
    let path = proc.join("stat");
    let in_kernel = || -> anyhow::Result<u64> {
        let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
        kernel_ticks(&text, cpu).with_context(|| format!("find CPU {cpu} in {}", path.display()))
    };
    let index = usize::try_from(cpu).context("number a CPU")?;
    if index >= CpuSet::MAX_CPU {
        bail!("there is no CPU {cpu}");
    }
    let everywhere = rustix::thread::sched_getaffinity(None).context("read the allowed CPUs")?;
    let before = in_kernel()?;
    let (began, id) = mpsc::channel();
    let (ran, has_run) = mpsc::channel();
    let visitor = move || {
        let there = || -> anyhow::Result<()> {
            urgency::real_time().context("wait with priority (CAP_SYS_NICE)")?;
            let mut only = CpuSet::new();
            only.set(index);
            // Returns on that CPU.
            rustix::thread::sched_setaffinity(None, &only).context("go to the CPU")
        };
        // Nobody listens after the patience is over.
        let _listening = began.send(rustix::thread::gettid());
        let _listening = ran.send(there());
    };
    thread::Builder::new()
        .name("visitor".to_owned())
        .spawn(visitor)
        .context("start a thread")?;
    let id: Pid = id.recv().context("start a thread")?;
    match has_run.recv_timeout(PATIENCE) {
        Ok(Ok(())) => return Ok(CpuState::Runs),
        Ok(Err(error)) => return Err(error),
        Err(RecvTimeoutError::Disconnected) => bail!("a thread panicked"),
        Err(RecvTimeoutError::Timeout) => {}
    }
    let ticks = in_kernel()?.saturating_sub(before);
    // So that this process can end.
    rustix::thread::sched_setaffinity(Some(id), &everywhere).context("leave the CPU")?;
    let all = PATIENCE.as_secs() * rustix::param::clock_ticks_per_second();
    Ok(if ticks * 100 >= all * MOSTLY {
        CpuState::InKernel
    } else {
        CpuState::Unknown
    })
}

/// `cpu1 user nice system idle iowait irq softirq steal guest guest_nice`; time that was stolen is in
/// none of the others.
fn kernel_ticks(stat: &str, cpu: u32) -> Option<u64> {
    let name = format!("cpu{cpu}");
    let mut words = stat
        .lines()
        .find_map(|line| {
            let mut words = line.split_ascii_whitespace();
            (words.next() == Some(name.as_str())).then_some(words)
        })?
        .map(|word| word.parse::<u64>().ok());
    let system = words.nth(2)??;
    let irq = words.nth(2)??;
    let softirq = words.next()??;
    system.checked_add(irq)?.checked_add(softirq)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_kernels_time_is_that_of_one_cpu() {
        let stat =
            "cpu  9 9 9 9 9 9 9 9 9 9\ncpu1 1 2 30 4 5 600 7000 8 9 10\ncpu10 1 2 3 4 5 6 7\n";
        assert_eq!(kernel_ticks(stat, 1), Some(7630));
        assert_eq!(kernel_ticks(stat, 10), Some(16));
        assert_eq!(kernel_ticks(stat, 2), None);
        assert_eq!(kernel_ticks("cpu1 1 2 3", 1), None);
    }

    #[test]
    fn there_is_no_cpu_beyond_the_last() {
        assert!(look(Path::new("/proc"), u32::MAX).is_err());
    }
}
