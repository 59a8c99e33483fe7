//! The BPF programs: loads the variants that fit this kernel, and turns their records into signals.

use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;
use std::sync::{Arc, Mutex};
use std::{fs, thread};

use anyhow::{Context, bail};
use aya::maps::{Array, MapData, PerCpuArray, RingBuf};
use aya::programs::{BtfTracePoint, Iter, TracePoint};
use aya::{Btf as AyaBtf, Ebpf, EbpfLoader};
use aya_log::EbpfLogger;
use detector_ebpf::{DROP_REASONS, Kind};
use tracing::level_filters::LevelFilter;
use tracing::{Level, debug, warn};

use self::btf::Btf;
use self::decode::Record;
use self::layout::{Attach, Layout, Variant};
use self::tasks::Tasks;
use self::tracefs::Tracefs;
use super::Source;
use crate::signal::{Disk, Signal, SourceName, What, Workload};

mod btf;
mod decode;
mod layout;
pub(super) mod tasks;
mod tracefs;

/// aya reads the object in place, so it must be aligned like an ELF header.
static OBJECT: &[u8] = aya::include_bytes_aligned!(concat!(env!("OUT_DIR"), "/detector.bpf.o"));

const BTF_PATH: &str = "/sys/kernel/btf/vmlinux";

/// Drop reasons that mean that something ran out, and how many in one second on one CPU are
/// worth a word. Everything else is ordinary life (closed ports, old segments, filters).
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

/// What the programs watch, each by the best variant that the kernel has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, clap::ValueEnum)]
pub(crate) enum Hook {
    /// OOM kills (oom:mark_victim)
    Oom,
    /// Block I/O errors (block:block_rq_error)
    BlockIo,
    /// Packet drops (skb:kfree_skb)
    NetDrop,
    /// Hung tasks (sched:sched_process_hang)
    HungTask,
    /// Tasks that have not run for 30 s, with what they wait for (iter/task)
    BlockedTask,
}

impl Hook {
    pub(crate) const ALL: [Self; 5] = [
        Self::Oom,
        Self::BlockIo,
        Self::NetDrop,
        Self::HungTask,
        Self::BlockedTask,
    ];

    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Oom => "oom",
            Self::BlockIo => "block-io",
            Self::NetDrop => "net-drop",
            Self::HungTask => "hung-task",
            Self::BlockedTask => "blocked-task",
        }
    }
}

/// What became of one hook on this kernel.
#[derive(Debug, Clone)]
pub(crate) struct HookStatus {
    pub hook: Hook,
    /// For example `tp_btf mark_victim`.
    pub using: Option<String>,
    /// Why not, or why not by the first choice.
    pub missing: Option<String>,
}

pub(crate) struct BpfSource {
    /// Dropping the last one detaches the programs.
    programs: Arc<Mutex<Ebpf>>,
    ring: RingBuf<MapData>,
    lost: PerCpuArray<MapData, u64>,
    lost_before: u64,
    log: Option<EbpfLogger<&'static dyn log::Log>>,
    drop_reasons: Vec<String>,
    own_netns: Option<u32>,
}

impl BpfSource {
    /// Loads and attaches every hook that this kernel has and that is not in `disabled`. A hook
    /// that cannot be had is no error: its status says why.
    pub(crate) fn load(
        disabled: &[Hook],
        disabled_variants: &[String],
    ) -> anyhow::Result<(Self, Vec<HookStatus>)> {
        // A thread of its own, because tracefs may have to be mounted for it alone.
        let load = || Self::load_here(disabled, disabled_variants);
        thread::scope(|scope| {
            let thread = thread::Builder::new()
                .name("load".to_owned())
                .spawn_scoped(scope, load);
            match thread.context("start a thread")?.join() {
                Ok(result) => result,
                Err(_) => bail!("the thread that loads the BPF programs panicked"),
            }
        })
    }

    fn load_here(
        disabled: &[Hook],
        disabled_variants: &[String],
    ) -> anyhow::Result<(Self, Vec<HookStatus>)> {
        check_object()?;
        let tracefs = Tracefs::open()?;
        let bytes = fs::read(BTF_PATH).with_context(|| {
            format!("read {BTF_PATH}: the kernel must be built with CONFIG_DEBUG_INFO_BTF")
        })?;
        let layout = Layout::resolve(
            &Btf::parse(&bytes).with_context(|| format!("parse {BTF_PATH}"))?,
            &tracefs,
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
        let statuses = Hook::ALL
            .into_iter()
            .map(|hook| {
                if disabled.contains(&hook) {
                    HookStatus {
                        hook,
                        using: None,
                        missing: Some(
                            "disabled by --disable-hook or by the configuration".to_owned(),
                        ),
                    }
                } else {
                    attach_hook(
                        &mut programs,
                        &kernel_types,
                        &layout,
                        hook,
                        disabled_variants,
                    )
                }
            })
            .collect();
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
            own_netns: netns_of(Path::new("/proc/self")),
            programs: Arc::new(Mutex::new(programs)),
        };
        drop(kernel_types);
        release_memory();
        Ok((source, statuses))
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
                .get(&(kind as u32), 0)
                .context("read the map of losses")?;
            total += slots.iter().sum::<u64>();
        }
        let new = total - self.lost_before;
        self.lost_before = total;
        Ok(new)
    }

    fn signal(&self, record: Record) -> Signal {
        let what = match record.what {
            decode::What::OomKill(victim) => What::OomKill { victim },
            decode::What::HungTask(task) => What::HungTask { task },
            decode::What::BlockError {
                major,
                minor,
                operation,
                class,
                errno,
                sector,
                sectors,
            } => What::BlockError {
                disk: Disk {
                    major,
                    minor,
                    name: disk_name(major, minor),
                },
                operation,
                class,
                errno,
                sector,
                sectors,
            },
            decode::What::PacketDrops {
                reason,
                count,
                window,
                ifindex,
                port,
                netns,
            } => {
                let netns = (netns != 0).then_some(netns);
                let foreign = netns.filter(|_| netns != self.own_netns);
                What::PacketDrops {
                    reason: self
                        .drop_reasons
                        .get(reason as usize)
                        .filter(|name| !name.is_empty())
                        .cloned()
                        .unwrap_or_else(|| format!("REASON_{reason}")),
                    count,
                    window,
                    interface: interface_name(ifindex, foreign.is_none()),
                    local_port: (port != 0).then_some(port),
                    netns,
                    workload: foreign.and_then(workload_in_netns),
                }
            }
        };
        Signal {
            at: record.at,
            historic: false,
            what,
        }
    }
}

impl Source for BpfSource {
    fn name(&self) -> SourceName {
        SourceName::Bpf
    }

    fn fds(&self) -> Vec<BorrowedFd<'_>> {
        let mut fds = vec![self.ring.as_fd()];
        fds.extend(self.log.as_ref().map(AsFd::as_fd));
        fds
    }

    fn drain(&mut self, emit: &mut dyn FnMut(Signal)) -> anyhow::Result<()> {
        let mut at = None;
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
            emit(self.signal(record));
        }
        if let Some(log) = &mut self.log {
            log.flush();
        }
        // A ring that was full has had records to read.
        if let Some(at) = at {
            let count = self.newly_lost()?;
            if count > 0 {
                emit(Signal {
                    at,
                    historic: false,
                    what: What::Lost {
                        source: SourceName::Bpf,
                        count,
                    },
                });
            }
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

/// Tries the variants in order; each refusal is kept for the status.
fn attach_hook(
    programs: &mut Ebpf,
    types: &AyaBtf,
    layout: &Layout,
    hook: Hook,
    disabled: &[String],
) -> HookStatus {
    let mut refused: Vec<String> = layout
        .missing(hook)
        .map(str::to_owned)
        .into_iter()
        .collect();
    for variant in layout.variants(hook) {
        let name = variant.attach.to_string();
        if disabled.contains(&name) {
            refused.push(format!("{name}: disabled by --disable-variant"));
            continue;
        }
        match attach(programs, types, variant) {
            Ok(()) => {
                let missing = (!refused.is_empty()).then(|| refused.join("; "));
                return HookStatus {
                    hook,
                    using: Some(name),
                    missing,
                };
            }
            Err(error) => {
                let error = format!("{error:#}");
                debug!(variant = name, error, "refused");
                refused.push(format!("{name}: {}", first_line(&error)));
            }
        }
    }
    HookStatus {
        hook,
        using: None,
        missing: Some(refused.join("; ")),
    }
}

fn attach(programs: &mut Ebpf, types: &AyaBtf, variant: &Variant) -> anyhow::Result<()> {
    let program = programs
        .program_mut(variant.program)
        .context("not in the BPF object")?;
    match variant.attach {
        Attach::Btf(event) => {
            let program: &mut BtfTracePoint = program.try_into().context("wrong program type")?;
            program.load(event, types).context("load")?;
            program.attach().context("attach")?;
        }
        Attach::Classic(category, event) => {
            let program: &mut TracePoint = program.try_into().context("wrong program type")?;
            program.load().context("load")?;
            program.attach(category, event).context("attach")?;
        }
        Attach::Iterator(over) => {
            let program: &mut Iter = program.try_into().context("wrong program type")?;
            program.load(over, types).context("load")?;
            // Each scan attaches it anew: this one only shows that it can be.
            tasks::open(program)?;
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

/// A verifier log has hundreds of lines.
fn first_line(text: &str) -> &str {
    text.lines().next().unwrap_or_default()
}

fn disk_name(major: u32, minor: u32) -> Option<String> {
    let link = fs::read_link(format!("/sys/dev/block/{major}:{minor}")).ok()?;
    Some(link.file_name()?.to_string_lossy().into_owned())
}

/// Index 1 is the loopback interface of every namespace; other indices mean something in our own
/// namespace only.
fn interface_name(ifindex: u32, own_namespace: bool) -> Option<String> {
    match ifindex {
        0 => None,
        1 => Some("lo".to_owned()),
        _ if !own_namespace => None,
        _ => fs::read_dir("/sys/class/net")
            .ok()?
            .flatten()
            .find_map(|entry| {
                let index = fs::read_to_string(entry.path().join("ifindex")).ok()?;
                (index.trim().parse() == Ok(ifindex))
                    .then(|| entry.file_name().to_string_lossy().into_owned())
            }),
    }
}

/// Inode number of a process' network namespace: `net:[4026531840]`.
fn netns_of(process: &Path) -> Option<u32> {
    let link = fs::read_link(process.join("ns/net")).ok()?;
    link.to_str()?
        .strip_prefix("net:[")?
        .strip_suffix(']')?
        .parse()
        .ok()
}

/// The pod that owns a network namespace: that of the first process found in it. At most once a
/// second and CPU for each drop reason, so a walk over /proc is affordable.
fn workload_in_netns(netns: u32) -> Option<Workload> {
    const MOST: usize = 8192;
    let processes = fs::read_dir("/proc")
        .ok()?
        .flatten()
        .map(|entry| entry.path());
    let process = processes
        .take(MOST)
        .find(|path| netns_of(path) == Some(netns))?;
    let cgroups = fs::read_to_string(process.join("cgroup")).ok()?;
    cgroups
        .lines()
        .filter_map(|line| Workload::from_cgroup_path(line.rsplit(':').next()?))
        .max_by_key(|workload| (workload.pod_uid.is_some(), workload.container_id.is_some()))
}

/// Parsing the kernel's BTF takes tens of megabytes that malloc would keep.
fn release_memory() {
    #[expect(unsafe_code, reason = "malloc_trim is a C function")]
    // SAFETY: malloc_trim has no preconditions.
    unsafe {
        libc::malloc_trim(0);
    }
}
