//! What the kernel only counts: files of procfs, sysfs and cgroups, read again and again and compared.
//!
//! On a thread of its own: where memory is short, reading such a file can wait for memory, and the
//! reader must not.

use std::collections::BTreeMap;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use anyhow::Context;

use self::files::{Files, Roots};
use self::left::Left;
use self::rising::Baseline;
use super::Source;
use super::bell::{event, ring, silence};
use super::bpf::Hook;
use crate::args::SourceArgs;
use crate::clock;
use crate::signal::{Signal, SourceName, What};

mod asked;
mod clock_sync;
mod conntrack;
mod cpu_pressure;
mod device_ioctl;
mod ebs;
mod edac;
mod efa;
mod ena;
mod files;
mod forwarding;
mod host_limits;
mod interfaces;
mod io_pressure;
mod left;
mod neighbours;
mod pcie;
mod pids;
mod poisoned;
mod processes;
mod rising;
mod scsi;
mod softnet;
mod steal;
mod stuck;
mod tcp_memory;
mod text;
mod thermal;
mod told;
mod zram;

/// One idea of what is counted where.
trait Counter: Send {
    /// As `check` names it.
    fn name(&self) -> &'static str;

    /// The files that it compares, as [`files`] has it.
    fn wants(&self) -> &'static [&'static str];

    /// Takes a reading; returns what it says that the readings before did not.
    fn look(&mut self, files: &Files, at: Duration) -> Vec<What>;

    /// Where each rise is a fault: what the agent after this one goes on from.
    fn baselines(&mut self) -> Vec<&mut dyn Baseline> {
        Vec::new()
    }

    /// The hook that tells the same at once: then nobody reads the files.
    fn spared_by(&self) -> &'static [Hook] {
        &[]
    }

    /// The kernel log tells the same under names that the files do not have.
    fn spared_by_the_log(&self) -> bool {
        false
    }
}

/// What became of one counter on this host.
#[derive(Debug, Clone)]
pub(crate) struct CounterStatus {
    pub name: &'static str,
    /// How it is read, or what is used in its place.
    pub using: Option<String>,
    pub missing: Option<String>,
    /// The running kernel does not have it: nothing is wrong with the host.
    pub absent: bool,
}

pub(crate) struct CountersSource {
    signals: Receiver<Signal>,
    wake: Arc<OwnedFd>,
    left: Arc<Left>,
}

impl CountersSource {
    /// `told_else`: the hooks that are attached; `kernel_log`: whether it is read. The first reading, against which the others are
    /// compared, is taken at once. The thread is never waited for.
    pub(crate) fn start(
        args: &SourceArgs,
        told_else: &[Hook],
        kernel_log: bool,
    ) -> anyhow::Result<(Self, Vec<CounterStatus>)> {
        let roots = Roots::find(&args.host_proc, &args.host_sys);
        let interval = args.counter_interval.0;
        let (spared, mut counters): (Vec<_>, Vec<_>) =
            all(&roots, interval).into_iter().partition(|counter| {
                is_spared(counter.as_ref(), told_else)
                    || (kernel_log && counter.spared_by_the_log())
            });
        let first = look(&roots, &mut counters);
        let left = Arc::new(Left::default());
        left.keep(&mut counters);
        let mut statuses: Vec<_> = counters
            .iter()
            .map(|counter| status(counter.as_ref(), &first.files, interval))
            .collect();
        statuses.extend(spared.iter().map(|counter| in_reserve(counter.as_ref())));
        let (queue, signals) = mpsc::channel();
        let wake = Arc::new(event()?);
        let waker = Arc::clone(&wake);
        let leaving = Arc::clone(&left);
        thread::Builder::new()
            .name("counters".to_owned())
            .spawn(move || {
                let mut found = first.found;
                while hand_over(found, &queue, &waker) {
                    thread::sleep(interval);
                    leaving.restore(&mut counters);
                    found = look(&roots, &mut counters).found;
                    leaving.keep(&mut counters);
                }
            })
            .context("start the thread that reads counters")?;
        Ok((
            Self {
                signals,
                wake,
                left,
            },
            statuses,
        ))
    }
}

impl Source for CountersSource {
    fn name(&self) -> SourceName {
        SourceName::Counters
    }

    fn fds(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.wake.as_fd()]
    }

    fn positions(&self) -> BTreeMap<String, u64> {
        self.left.positions()
    }

    fn resume(&mut self, _since: Duration, positions: &BTreeMap<String, u64>) {
        self.left.resume(positions);
    }

    fn drain(&mut self, emit: &mut dyn FnMut(Signal)) -> anyhow::Result<()> {
        silence(&self.wake)?;
        self.signals.try_iter().for_each(emit);
        Ok(())
    }
}

/// Why nothing is compared, for a host on which counters are turned off.
pub(crate) fn unused(args: &SourceArgs, why: &str) -> Vec<CounterStatus> {
    let roots = Roots::find(&args.host_proc, &args.host_sys);
    let counters = all(&roots, args.counter_interval.0);
    counters
        .iter()
        .map(|counter| CounterStatus {
            name: counter.name(),
            using: None,
            missing: Some(why.to_owned()),
            absent: false,
        })
        .collect()
}

fn all(roots: &Roots, interval: Duration) -> Vec<Box<dyn Counter>> {
    vec![
        Box::new(clock_sync::ClockSync::default()),
        Box::new(conntrack::Conntrack::new(roots.conntrack_entity())),
        Box::new(cpu_pressure::CpuPressure),
        Box::new(edac::Edac::default()),
        Box::new(ebs::Ebs::new(roots.nvme(), roots.dev())),
        Box::new(efa::Efa::default()),
        Box::new(ena::Ena::new(roots.net().to_owned())),
        Box::new(forwarding::Forwarding::default()),
        Box::new(host_limits::OpenFiles),
        Box::new(host_limits::Processes),
        Box::new(interfaces::Interfaces::default()),
        Box::new(io_pressure::IoPressure),
        Box::new(neighbours::Neighbours::default()),
        Box::new(pcie::Pcie::default()),
        Box::new(pids::PidsLimits::default()),
        Box::new(poisoned::Poisoned::default()),
        Box::new(processes::ProcessSweep::default()),
        Box::new(scsi::Scsi::default()),
        Box::new(softnet::Softnet::default()),
        Box::new(steal::Steal::new(2 * interval)),
        Box::new(stuck::StuckDisks::new(2 * interval)),
        Box::new(tcp_memory::TcpMemory),
        Box::new(thermal::Throttled::default()),
        Box::new(zram::Zram),
    ]
}

struct Look {
    files: Vec<(&'static str, bool)>,
    found: Vec<Signal>,
}

/// One reading of all. Files are held only for the counter that wants them.
fn look(roots: &Roots, counters: &mut [Box<dyn Counter>]) -> Look {
    let mut all = Look {
        files: Vec::new(),
        found: Vec::new(),
    };
    for counter in counters {
        let files = Files::read(roots, counter.wants());
        all.files.push((counter.name(), files.any()));
        let at = clock::boot();
        let found = counter.look(&files, at).into_iter();
        all.found.extend(found.map(|what| Signal {
            at,
            historic: false,
            what,
        }));
    }
    all
}

/// False when nobody listens any more.
fn hand_over(found: Vec<Signal>, queue: &Sender<Signal>, wake: &OwnedFd) -> bool {
    if found.is_empty() {
        return true;
    }
    let heard = found.into_iter().all(|signal| queue.send(signal).is_ok());
    ring(wake);
    heard
}

fn is_spared(counter: &dyn Counter, told_else: &[Hook]) -> bool {
    let hooks = counter.spared_by();
    !hooks.is_empty() && hooks.iter().all(|hook| told_else.contains(hook))
}

fn in_reserve(counter: &dyn Counter) -> CounterStatus {
    let hooks: Vec<_> = counter.spared_by().iter().map(|hook| hook.name()).collect();
    let log = if counter.spared_by_the_log() {
        " and kernel log"
    } else {
        ""
    };
    CounterStatus {
        name: counter.name(),
        using: Some(format!("in reserve for hook {}{log}", hooks.join(", "))),
        missing: None,
        absent: false,
    }
}

fn status(
    counter: &dyn Counter,
    files: &[(&'static str, bool)],
    interval: Duration,
) -> CounterStatus {
    let there = files.contains(&(counter.name(), true));
    let first = counter.wants().first().copied().unwrap_or_default();
    CounterStatus {
        name: counter.name(),
        using: there.then(|| format!("read every {} s", interval.as_secs())),
        missing: (!there).then(|| format!("no {}", files::shown(first))),
        absent: !there,
    }
}
