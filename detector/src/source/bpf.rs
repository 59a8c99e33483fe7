//! The BPF programs: loads the variants that fit this kernel, and turns their records into signals.

use std::os::fd::{AsFd, BorrowedFd};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;
use std::{fs, thread};

use anyhow::{Context, bail};
use aya::maps::{Array, HashMap, MapData, PerCpuArray, RingBuf};
use aya::{Btf as AyaBtf, Ebpf, EbpfLoader};
use aya_log::EbpfLogger;
use detector_ebpf::{DROP_REASONS, Kind};
use tracing::level_filters::LevelFilter;
use tracing::{Level, warn};

use self::btf::Btf;
use self::decode::Record;
use self::fields::{Format, Values};
pub(crate) use self::hook::{Hook, HookStatus};
use self::late::Late;
use self::layout::{Copied, Layout};
use self::misses::Misses;
use self::names::{HostNames, Names};
use self::netns::NetworkNamespaces;
use self::tasks::Tasks;
use self::traced::{EVENTS, Event};
use self::tracefs::Tracefs;
use super::Source;
use super::kmsg::grammar::beginnings;
use super::timer::Timer;
use crate::args::SourceArgs;
use crate::clock;
use crate::signal::{Disk, Signal, SourceName, What};

mod attach;
mod btf;
mod decode;
mod fields;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
mod hook;
mod late;
mod layout;
mod lockdown;
mod misses;
mod names;
mod netns;
mod rcu;
pub(super) mod tasks;
mod traced;
pub(crate) mod tracefs;

/// aya reads the object in place, so it must be aligned like an ELF header.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/detector.bpf.o"));

const BTF_PATH: &str = "/sys/kernel/btf/vmlinux";

/// Drop reasons that mean that something ran out, and how many in one second on one interface of one
/// network namespace are worth a word. Everything else is ordinary life (closed ports, old segments, filters).
const DROPS_OF_INTEREST: &[(&str, u32)] = &[
    ("SOCKET_RCVBUFF", 100),
    ("SOCKET_BACKLOG", 100),
    ("PROTO_MEM", 100),
    ("NOMEM", 100),
    ("CPU_BACKLOG", 100),
    ("FULL_RING", 100),
    ("QDISC_DROP", 1000),
    ("NEIGH_QUEUEFULL", 100),
    ("TCP_RFQ_PRUNE", 100),
    ("TCP_OFO_QUEUE_PRUNE", 100),
];

/// Records that are handed over before the other sources have their turn.
const BATCH: usize = 1024;

const MINUTE: Duration = Duration::from_secs(60);

pub(crate) struct BpfSource {
    /// Dropping the last one detaches the programs.
    programs: Arc<Mutex<Ebpf>>,
    ring: RingBuf<MapData>,
    lost: PerCpuArray<MapData, u64>,
    lost_before: u64,
    log: Option<EbpfLogger<&'static dyn log::Log>>,
    drop_reasons: Vec<String>,
    /// The events whose records are copied.
    copied: Vec<(&'static Event, Format)>,
    /// What is looked at once a minute.
    minute: Timer,
    late: Late,
    misses: Misses,
    names: HostNames,
    namespaces: NetworkNamespaces,
}

impl BpfSource {
    /// Loads and attaches every hook that this kernel has and that is not disabled. A hook that
    /// cannot be had is no error: its status says why.
    pub(crate) fn load(args: &SourceArgs) -> anyhow::Result<(Self, Vec<HookStatus>)> {
        if lockdown::is_confidentiality(&args.host_sys, &args.host_proc) {
            bail!(lockdown::REMEDY);
        }
        with_tracefs(|tracefs| Self::load_here(args, tracefs))
    }

    fn load_here(args: &SourceArgs, tracefs: &Tracefs) -> anyhow::Result<(Self, Vec<HookStatus>)> {
        check_object()?;
        let bytes = fs::read(BTF_PATH).with_context(|| {
            format!("read {BTF_PATH}: the kernel must be built with CONFIG_DEBUG_INFO_BTF")
        })?;
        let layout = Layout::resolve(
            &Btf::parse(&bytes).with_context(|| format!("parse {BTF_PATH}"))?,
            tracefs,
        );
        drop(bytes);

        let kernel_types = AyaBtf::from_sys_fs().with_context(|| format!("parse {BTF_PATH}"))?;
        let mut loader = EbpfLoader::new();
        loader.btf(Some(&kernel_types));
        for (name, value) in &layout.globals {
            loader.override_global(name, value, true);
        }
        // What nobody would see costs nothing in the kernel.
        let log_level = log_level();
        loader.override_global(aya_log::LEVEL, &log_level, true);
        let mut programs = loader
            .load(OBJECT)
            .context("load the BPF object: root, or CAP_BPF and CAP_PERFMON, are needed (CAP_SYS_ADMIN before 5.8)")?;
        // Before the programs: they hold on to its map.
        let log = EbpfLogger::init(&mut programs)
            .inspect_err(|error| warn!(%error, "messages of the BPF programs are not shown"))
            .ok();
        set_thresholds(&mut programs, &layout.drop_reasons)?;
        set_beginnings(&mut programs)?;
        for copied in &layout.copied {
            attach::set_rule(&mut programs, copied)?;
        }
        let statuses: Vec<_> = Hook::ALL
            .into_iter()
            .map(|hook| {
                if args.disable_hooks.contains(&hook) {
                    let why = "disabled by --disable-hook or by the configuration";
                    return HookStatus::not_attached(hook, why.to_owned());
                }
                let disabled = &args.disable_variants;
                attach::hook(&mut programs, &kernel_types, &layout, hook, disabled)
            })
            .collect();
        let waiting = EVENTS.iter().filter(|event| {
            let absent = |status: &HookStatus| status.absent && status.hook == event.hook;
            event.module.is_some() && statuses.iter().any(absent)
        });
        let late = Late::new(waiting.collect(), &args.host_sys);
        let ring = programs
            .take_map("EVENTS")
            .context("find the map EVENTS in the BPF object")?;
        let lost = programs
            .take_map("LOST")
            .context("find the map LOST in the BPF object")?;
        let source = Self {
            ring: RingBuf::try_from(ring).context("open the ring buffer")?,
            lost: PerCpuArray::try_from(lost).context("open the map of losses")?,
            lost_before: 0,
            log,
            drop_reasons: layout.drop_reasons,
            copied: layout
                .copied
                .into_iter()
                .map(|Copied { event, format, .. }| (event, format))
                .collect(),
            minute: Timer::every(MINUTE)?,
            late,
            misses: Misses::default(),
            names: HostNames {
                host_proc: args.host_proc.clone(),
                host_sys: args.host_sys.clone(),
            },
            namespaces: NetworkNamespaces::new(args.host_proc.clone()),
            programs: Arc::new(Mutex::new(programs)),
        };
        drop(kernel_types);
        release_memory();
        Ok((source, statuses))
    }

    /// The copies that are made of lines of the kernel log, for whoever reads it: only where the hook is
    /// in use.
    pub(crate) fn lines(&self) -> anyhow::Result<RingBuf<MapData>> {
        let mut programs = self.programs.lock().unwrap_or_else(PoisonError::into_inner);
        let ring = programs
            .take_map("LINES")
            .context("find the map LINES in the BPF object")?;
        RingBuf::try_from(ring).context("open the ring of copied lines")
    }

    /// The scan for blocked tasks, for whoever makes it: only where its hook is in use.
    pub(crate) fn tasks(&self) -> Tasks {
        Tasks::new(Arc::clone(&self.programs))
    }

    /// Records that did not fit into the ring, since the last time.
    fn newly_lost(&mut self) -> anyhow::Result<u64> {
        let mut total = 0;
        for kind in Kind::ALL {
            let slots = self
                .lost
                .get(&(*kind as u32), 0)
                .context("read the map of losses")?;
            total += slots.iter().sum::<u64>();
        }
        let new = total - self.lost_before;
        self.lost_before = total;
        Ok(new)
    }

    /// What the modules bring that have been loaded since.
    fn attach_late(&mut self) {
        let loaded = self.late.loaded();
        if loaded.is_empty() {
            return;
        }
        let programs = &self.programs;
        let attached = with_tracefs(|tracefs| {
            let mut programs = programs.lock().unwrap_or_else(PoisonError::into_inner);
            Ok(attach::late(&mut programs, &loaded, tracefs))
        });
        match attached {
            Ok(attached) => self.copied.extend(attached),
            Err(error) => warn!(
                error = format!("{error:#}"),
                "the hooks of a module that was loaded just now are not watched"
            ),
        }
    }

    /// Nothing where the record is of no fault.
    fn signal(&mut self, record: Record) -> Option<Signal> {
        let what = match record.what {
            decode::What::OomKill { victim, limit } => What::OomKill { victim, limit },
            decode::What::HungTask(task) => What::HungTask { task },
            decode::What::Crash {
                task,
                signal,
                count,
            } => What::Crash {
                task,
                signal,
                count,
            },
            decode::What::RcuStall { data, count } => What::Traced {
                fault: rcu::stall(&data),
                count,
            },
            decode::What::Copied { kind, data, count } => {
                let (event, format) = self.copied.iter().find(|(event, _)| event.kind == kind)?;
                let values = Values {
                    format,
                    data: &data,
                };
                match (event.read)(&values, &self.names) {
                    Ok(fault) => What::Traced {
                        fault: fault?,
                        count,
                    },
                    Err(error) => {
                        warn!(event = event.name, %error, "a record could not be read");
                        What::Lost {
                            source: SourceName::Bpf,
                            count,
                        }
                    }
                }
            }
            decode::What::BlockError {
                device,
                operation,
                class,
                errno,
                sector,
                sectors,
                count,
            } => {
                let name = self.names.disk(device);
                What::BlockError {
                    above: name
                        .as_deref()
                        .map(|name| self.names.above(name))
                        .unwrap_or_default(),
                    disk: Disk {
                        major: device.0,
                        minor: device.1,
                        name,
                    },
                    operation,
                    class,
                    errno,
                    sector,
                    sectors,
                    count,
                }
            }
            decode::What::PacketDrops {
                reason,
                count,
                window,
                ifindex,
                port,
                netns,
            } => {
                let (interface, workload) = self.namespaces.resolve(netns, ifindex);
                What::PacketDrops {
                    reason: self
                        .drop_reasons
                        .get(reason as usize)
                        .filter(|name| !name.is_empty())
                        .cloned()
                        .unwrap_or_else(|| format!("REASON_{reason}")),
                    count,
                    window,
                    interface,
                    local_port: (port != 0).then_some(port),
                    netns: (netns != 0).then_some(netns),
                    workload,
                }
            }
        };
        Some(Signal {
            at: record.at,
            historic: false,
            what,
        })
    }
}

/// On a thread of its own, because tracefs may have to be mounted for it alone.
fn with_tracefs<T: Send>(
    work: impl FnOnce(&Tracefs) -> anyhow::Result<T> + Send,
) -> anyhow::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new()
            .name("load".to_owned())
            .spawn_scoped(scope, || work(&Tracefs::open()?));
        match thread.context("start a thread")?.join() {
            Ok(result) => result,
            Err(_) => bail!("the thread that loads the BPF programs panicked"),
        }
    })
}

impl Source for BpfSource {
    fn name(&self) -> SourceName {
        SourceName::Bpf
    }

    fn fds(&self) -> Vec<BorrowedFd<'_>> {
        let mut fds = vec![self.ring.as_fd()];
        fds.extend(self.log.as_ref().map(AsFd::as_fd));
        fds.push(self.minute.as_fd());
        fds
    }

    fn drain(&mut self, emit: &mut dyn FnMut(Signal)) -> anyhow::Result<()> {
        let mut at = None;
        let mut lost = 0;
        if self.minute.has_ticked()? {
            self.attach_late();
            let programs = self.programs.lock();
            lost += self
                .misses
                .newly(&programs.unwrap_or_else(PoisonError::into_inner));
        }
        for _ in 0..BATCH {
            // The item borrows the ring, and making a signal borrows the rest.
            let Some(record) = self.ring.next().map(|item| decode::record(&item)) else {
                break;
            };
            let Some(record) = record else {
                warn!("a ring record of an unknown kind was skipped");
                continue;
            };
            at = Some(record.at);
            self.signal(record).into_iter().for_each(&mut *emit);
        }
        if let Some(log) = &mut self.log {
            log.flush();
        }
        // A ring that was full has had records to read.
        if at.is_some() {
            lost += self.newly_lost()?;
        }
        if lost > 0 {
            emit(Signal {
                at: at.unwrap_or_else(clock::boot),
                historic: false,
                what: What::Lost {
                    source: SourceName::Bpf,
                    count: lost,
                },
            });
        }
        Ok(())
    }
}

/// The object is built by `cargo xtask bpf`, apart from cargo's own dependency tracking.
fn check_object() -> anyhow::Result<()> {
    if OBJECT.is_empty() {
        bail!(
            "this binary was built without BPF programs: run `cargo xtask bpf` and build it again"
        );
    }
    let (built_from, source) = (env!("BPF_BUILT_FROM"), env!("BPF_SOURCE"));
    if built_from != source {
        bail!(
            "the embedded BPF programs are older than their source: run `cargo xtask bpf` and build again"
        );
    }
    Ok(())
}

fn set_thresholds(programs: &mut Ebpf, reasons: &[String]) -> anyhow::Result<()> {
    let map = programs
        .map_mut("DROP_THRESHOLDS")
        .context("find the map DROP_THRESHOLDS in the BPF object")?;
    let mut thresholds: Array<_, u32> =
        Array::try_from(map).context("open the map of thresholds")?;
    for (name, threshold) in DROPS_OF_INTEREST {
        // A kernel without the reason cannot drop for it.
        let Some(index) = reasons.iter().position(|reason| reason == name) else {
            continue;
        };
        if let Some(index) = u32::try_from(index)
            .ok()
            .filter(|&index| index < DROP_REASONS)
        {
            thresholds
                .set(index, threshold, 0)
                .with_context(|| format!("set the threshold of {name}"))?;
        }
    }
    Ok(())
}

/// Which lines of the kernel log are copied.
fn set_beginnings(programs: &mut Ebpf) -> anyhow::Result<()> {
    let all = beginnings::all();
    let mut bits = [0u64; 1 << 10];
    let map = programs
        .map_mut("BEGINNINGS")
        .context("find the map BEGINNINGS in the BPF object")?;
    let mut map: HashMap<_, u32, u8> =
        HashMap::try_from(map).context("open the map of beginnings")?;
    for beginning in all {
        map.insert(beginning, 1, 0)
            .context("say how a line begins")?;
        let first = beginning & 0xffff;
        bits[first as usize >> 6] |= 1 << (first & 63);
    }
    let map = programs
        .map_mut("FIRST_BYTES")
        .context("find the map FIRST_BYTES in the BPF object")?;
    let mut map: Array<_, u64> = Array::try_from(map).context("open the map of first bytes")?;
    for (index, bits) in (0..).zip(bits) {
        if bits != 0 {
            map.set(index, bits, 0).context("say how a line begins")?;
        }
    }
    Ok(())
}

/// The level of the programs' messages, as aya-log numbers them: 1 error ... 5 trace.
fn log_level() -> u8 {
    match LevelFilter::current().into_level() {
        None => 0,
        Some(Level::ERROR) => 1,
        Some(Level::WARN) => 2,
        Some(Level::INFO) => 3,
        Some(Level::DEBUG) => 4,
        Some(Level::TRACE) => 5,
    }
}

/// Parsing the kernel's BTF takes tens of megabytes that malloc would keep.
fn release_memory() {
    #[expect(unsafe_code, reason = "malloc_trim is a C function")]
    // SAFETY: malloc_trim has no preconditions.
    unsafe {
        libc::malloc_trim(0);
    }
}
