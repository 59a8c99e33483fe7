//! What the kernel only counts: files of procfs, sysfs and cgroups, read again and again and compared.
//!
//! On threads of their own: where memory is short, reading such a file can wait for memory, and the
//! reader must not.

use std::collections::BTreeMap;
use std::hash::{BuildHasher, Hasher, RandomState};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver, Sender};
use std::thread;
use std::time::Duration;

use anyhow::Context;

use self::files::{Files, Roots};
use self::left::Left;
use self::rising::Baseline;
use self::sweep::Sweeper;
use super::Source;
use super::bell::{event, ring, silence};
use super::bpf::Hook;
use crate::args::SourceArgs;
use crate::signal::{Signal, SourceName, What};

mod again;
mod asked;
mod clock_sync;
mod conntrack;
mod cpu_pressure;
mod deprecations;
mod device_ioctl;
mod disk_space;
mod ebs;
mod edac;
mod efa;
mod ena;
mod files;
mod firewall;
mod forwarding;
mod fsmap;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod host_limits;
#[cfg(test)]
mod hosts;
mod interfaces;
mod io_pressure;
mod ipam_state;
mod kube_proxy;
mod kubelet;
mod kubelet_certificate;
mod left;
mod mac_policy;
mod neighbours;
mod netlink;
mod pcie;
mod pids;
mod pod_routes;
mod poisoned;
mod policy_agent;
mod processes;
mod rising;
mod routes;
mod runtime_socket;
mod scsi;
mod softnet;
mod steal;
mod stuck;
mod sweep;
mod systemd;
mod tcp_memory;
mod text;
mod thermal;
mod told;
mod xfs_space;
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

    /// Looks once in so many rounds.
    fn every(&self) -> u32 {
        1
    }

    /// Since when a thread of its own has been asked and has not answered.
    fn waits_since(&self) -> Option<Duration> {
        None
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
        let (spared, counters): (Vec<_>, Vec<_>) =
            all(&roots, args).into_iter().partition(|counter| {
                is_spared(counter.as_ref(), told_else)
                    || (kernel_log && counter.spared_by_the_log())
            });
        let mut sweeper = Sweeper::start(roots, patience(interval), counters)?;
        let mut found = sweeper.sweep();
        let left = Arc::new(Left::default());
        left.keep(sweeper.counters());
        let mut statuses: Vec<_> = sweeper
            .checks()
            .map(|(check, there)| status(check, there, interval))
            .collect();
        statuses.extend(sweeper.hung().map(|name| CounterStatus {
            name,
            using: None,
            missing: Some("its files do not answer".to_owned()),
            absent: false,
        }));
        statuses.extend(spared.iter().map(|counter| in_reserve(counter.as_ref())));
        let (queue, signals) = mpsc::channel();
        let wake = Arc::new(event()?);
        let waker = Arc::clone(&wake);
        let leaving = Arc::clone(&left);
        thread::Builder::new()
            .name("counters".to_owned())
            .spawn(move || {
                while hand_over(found, &queue, &waker) {
                    thread::sleep(jittered(interval));
                    leaving.restore(sweeper.counters());
                    found = sweeper.sweep();
                    leaving.keep(sweeper.counters());
                }
            })
            .context("start the thread that has counters read")?;
        let source = Self {
            signals,
            wake,
            left,
        };
        Ok((source, statuses))
    }
}

/// For one check to answer.
fn patience(interval: Duration) -> Duration {
    (interval / 3).max(Duration::from_secs(3))
}

/// Up to a tenth more: nodes that were started together do not read together for ever.
fn jittered(interval: Duration) -> Duration {
    let random = RandomState::new().build_hasher().finish() % 1000;
    interval + interval / 10 * u32::try_from(random).unwrap_or(0) / 1000
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

/// Whether a disk of this host is a volume of EBS.
pub(crate) fn has_ebs_volumes(host_sys: &Path) -> bool {
    ebs::volumes(&host_sys.join("class/nvme")).next().is_some()
}

/// Why nothing is compared, for a host on which counters are turned off.
pub(crate) fn unused(args: &SourceArgs, why: &str) -> Vec<CounterStatus> {
    let roots = Roots::find(&args.host_proc, &args.host_sys);
    let counters = all(&roots, args);
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

fn all(roots: &Roots, args: &SourceArgs) -> Vec<Box<dyn Counter>> {
    let interval = args.counter_interval.0;
    let allowed = &args.allowed_filter_chains;
    vec![
        Box::new(clock_sync::ClockSync::default()),
        Box::new(conntrack::Conntrack::new(roots.conntrack_entity())),
        Box::new(cpu_pressure::CpuPressure),
        Box::new(deprecations::Deprecations::new(&roots.proc())),
        Box::new(disk_space::DiskSpace::new(
            roots.proc(),
            args.critical_mounts.clone(),
        )),
        Box::new(edac::Edac::default()),
        Box::new(ebs::Ebs::new(roots.nvme(), roots.dev())),
        Box::new(efa::Efa::default()),
        Box::new(ena::Ena::new(roots.net().to_owned())),
        Box::new(firewall::Firewall::new(
            roots.proc(),
            roots.sys(),
            allowed.to_vec(),
        )),
        Box::new(forwarding::Forwarding::default()),
        Box::new(host_limits::OpenFiles),
        Box::new(host_limits::Processes),
        Box::new(interfaces::Interfaces::default()),
        Box::new(io_pressure::IoPressure),
        Box::new(ipam_state::IpamState::new(&roots.proc())),
        Box::new(kube_proxy::KubeProxy::new(roots.pods())),
        Box::new(kubelet::Kubelet::new(
            roots.proc(),
            args.kubelet_healthz.0,
            2 * interval,
        )),
        Box::new(kubelet_certificate::KubeletCertificate::new(roots.proc())),
        Box::new(mac_policy::MacPolicy::default()),
        Box::new(neighbours::Neighbours::default()),
        Box::new(pcie::Pcie::default()),
        Box::new(pids::PidsLimits::default()),
        Box::new(pod_routes::PodRoutes::new(roots.proc())),
        Box::new(poisoned::Poisoned::default()),
        Box::new(policy_agent::PolicyAgent::default()),
        Box::new(processes::ProcessSweep::default()),
        Box::new(scsi::Scsi::default()),
        Box::new(softnet::Softnet::default()),
        Box::new(steal::Steal::new(2 * interval)),
        Box::new(stuck::StuckDisks::new(2 * interval)),
        Box::new(systemd::Systemd::new(&roots.proc())),
        Box::new(tcp_memory::TcpMemory),
        Box::new(thermal::Throttled::default()),
        Box::new(xfs_space::XfsSpace::new(roots.proc())),
        Box::new(zram::Zram),
    ]
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

fn status(counter: &dyn Counter, there: bool, interval: Duration) -> CounterStatus {
    let first = counter.wants().first().copied().unwrap_or_default();
    let every = interval.as_secs() * u64::from(counter.every());
    CounterStatus {
        name: counter.name(),
        using: there.then(|| format!("read every {every} s")),
        missing: (!there).then(|| format!("no {}", files::shown(first))),
        absent: !there,
    }
}
