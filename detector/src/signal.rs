//! PURE. What a source saw: one typed observation, before anyone judges it.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::judgement::Action;
use crate::reason::{ConditionType, Reason};
use serde::{Deserialize, Serialize};

mod details;

pub(crate) use self::details::{GpuDetails, Partition, Pcie, Remapped, SpareRows};

/// One observation by one source.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Signal {
    /// When it happened, as time since boot (`CLOCK_BOOTTIME`).
    pub at: Duration,
    /// It happened before this agent started, so it may be over by now.
    pub historic: bool,
    pub what: What,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum What {
    /// The OOM killer chose a victim (`oom:mark_victim`).
    OomKill { victim: Task, limit: OomLimit },
    /// A block request ended in an error (`block:block_rq_error` or `block_rq_complete`).
    BlockError {
        disk: Disk,
        operation: BlockOperation,
        class: BlockErrorClass,
        /// Positive errno, as in errno(3).
        errno: i32,
        sector: u64,
        sectors: u32,
        /// Failed requests of the disk since the last record; the others are of this one.
        count: u64,
        /// What lies on top of the disk: `md0`, `dm-0 (vg-data)`.
        above: Vec<String>,
    },
    /// A process is ended by a signal that it does not handle (`signal:signal_deliver`).
    Crash { task: Task, signal: u32, count: u64 },
    /// What a tracepoint tells, in words; the kernel log may tell of it as well.
    Traced { fault: LogFault, count: u64 },
    /// What a counter of the kernel tells between two of its readings.
    Counted { fault: LogFault, counted: Counted },
    /// Hundredths of their time that the hypervisor took from CPUs since the reading before; those of
    /// which it took little are left out.
    Stolen { cpus: BTreeMap<u32, u8> },
    /// How often systemd has started services again since somebody started them, as it said at that time;
    /// the others never. The journal tells of each.
    Restarts {
        at: Duration,
        units: BTreeMap<String, u64>,
    },
    /// The kernel log tells of a failed request; the tracepoint tells of it as well, where it works.
    BlockLine {
        disk: String,
        line: String,
        /// Of a buffer that the request was for, not of the request.
        buffer: bool,
    },
    /// A drop reason passed its threshold within one window on one interface of one network namespace
    /// (`skb:kfree_skb`).
    PacketDrops {
        /// The kernel's name without `SKB_DROP_REASON_`, for example `SOCKET_RCVBUFF`.
        reason: String,
        count: u64,
        window: Duration,
        interface: Option<String>,
        /// Local port of the socket the packet was for, where there was one.
        local_port: Option<u16>,
        /// Inode number of the network namespace.
        netns: Option<u32>,
        workload: Option<Workload>,
    },
    /// khungtaskd found a task that has not run for `hung_task_timeout_secs` (`sched:sched_process_hang`).
    HungTask { task: Task },
    /// A scan found a task that has not run since an earlier one (`iter/task`); each scan tells it again.
    BlockedTask(BlockedTask),
    /// The kernel log says that a file system became read-only because of an error.
    RemountedReadOnly { device: String },
    /// The kernel log reports an ext4 error.
    Ext4Error { device: String, detail: String },
    /// The kernel log reports a CPU that did not schedule for a long time.
    SoftLockup { cpu: u32, seconds: u32, task: Task },
    /// An NVIDIA GPU reported an error (docs.nvidia.com/deploy/xid-errors).
    Xid {
        gpu: String,
        /// The GPU instance of MIG that had it, if that is known.
        partition: Option<u32>,
        xid: u32,
        /// The text of the kernel log; NVML gives only the number.
        detail: Option<String>,
        /// Whose work had the error, where the kernel log says so.
        process: Option<Task>,
        seen_by: SourceName,
        /// The driver that has the GPU, by sysfs.
        driver: Option<String>,
    },
    /// An NVIDIA GPU does not answer its driver any more: a line without a number, mostly behind the
    /// XID 79 of the same fault.
    FallenOff {
        gpu: String,
        detail: String,
        /// By sysfs, it is one of NVIDIA's.
        nvidia: bool,
    },
    /// An NVSwitch reported an error (NVIDIA's fabric manager user guide).
    Sxid {
        switch: String,
        sxid: u32,
        detail: String,
        /// The driver that has the switch, by sysfs.
        driver: Option<String>,
    },
    /// What NVML says about a GPU; told when it changes.
    Gpu { gpu: String, state: GpuState },
    /// NVML itself.
    Nvml(Nvml),
    /// The host was booted though nobody had asked for it, `count` times within a day.
    UnexpectedBoot {
        count: usize,
        /// Of the kernel that died.
        last_words: Option<String>,
    },
    /// A fault of which only the kernel log tells, and whose text is all there is.
    Logged(LogFault),
    /// A line fits a log rule of the configuration.
    LogRule {
        rule: String,
        reason: &'static str,
        condition: ConditionType,
        /// The file's path or the journal's unit; absent for the kernel log.
        log: Option<String>,
        /// The line itself: printable, bounded.
        line: String,
    },
    /// What the configuration is like; told at start and when the file changes.
    Configuration {
        file: String,
        /// What is wrong with the file, so that the one before it stays in force.
        invalid: Option<String>,
        /// Keys whose change waits for the next start.
        pending: Option<String>,
    },
    /// A source lost observations: nothing can be said about them but their number.
    Lost { source: SourceName, count: u64 },
    /// The same where the source does not tell how many.
    Overrun { source: SourceName },
}

/// What a reading says of a fault.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Counted {
    /// It happened that often since the reading before.
    Times(u64),
    /// It is so; told with each reading.
    Still,
    /// It was so, and is not any more.
    Over,
}

/// The entity of what concerns the whole host.
pub(crate) const HOST: &str = "host";

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct LogFault {
    pub reason: Reason,
    /// What has the fault: lines of one reason about one entity are one finding.
    pub entity: String,
    /// One line; what a stranger chose in it is printable and bounded.
    pub message: String,
    pub device: Option<String>,
    pub interface: Option<String>,
    pub task: Option<Task>,
    /// The evidence makes it no more than a Warning, whatever its row says.
    pub mild: bool,
}

impl LogFault {
    pub(crate) fn new(reason: Reason, entity: String, message: String) -> Self {
        Self {
            reason,
            entity,
            message,
            device: None,
            interface: None,
            task: None,
            mild: false,
        }
    }

    pub(crate) fn on_device(reason: Reason, device: String, message: String) -> Self {
        Self {
            device: Some(device.clone()),
            ..Self::new(reason, device, message)
        }
    }

    pub(crate) fn on_interface(reason: Reason, interface: String, message: String) -> Self {
        Self {
            interface: Some(interface.clone()),
            ..Self::new(reason, interface, message)
        }
    }
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Task {
    pub pid: u32,
    pub comm: String,
    pub workload: Option<Workload>,
}

/// Whose memory had run out when the OOM killer came.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum OomLimit {
    Unknown,
    Node,
    /// What the node allows all pods together (node allocatable).
    AllPods,
    Pod,
    Container,
    /// The limit of a cgroup that is none of these, by its name.
    Cgroup(String),
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct BlockedTask {
    pub task: Task,
    /// The name of the process that it is a thread of.
    pub process: String,
    /// In uninterruptible sleep for at least that long.
    pub blocked: Duration,
    /// The functions that it is in, the innermost first ([`crate::core::UNNAMED`] where one has no
    /// name), or why they are not known.
    pub stack: Result<Vec<String>, String>,
}

/// The pod and container that a cgroup belongs to, read from its path.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "camelCase")]
pub(crate) struct Workload {
    /// Names from the outermost level that was copied to the innermost, joined by `/`.
    pub cgroup: String,
    /// In the API's form, with dashes.
    pub pod_uid: Option<String>,
    pub container_id: Option<String>,
}

#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Disk {
    pub major: u32,
    pub minor: u32,
    /// For example `nvme0n1`; absent when sysfs does not know the number (any more).
    pub name: Option<String>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum BlockOperation {
    Read,
    Write,
    Flush,
    Discard,
    Other,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum BlockErrorClass {
    Medium,
    Timeout,
    Transport,
    Space,
    Integrity,
    Other,
}

/// What is absent the GPU or its driver does not tell.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) struct GpuState {
    /// Why the driver cannot use it, if so.
    pub lost: Option<String>,
    pub recovery: Recovery,
    /// Uncorrected ECC errors since the driver was loaded or the GPU was reset; absent without ECC.
    pub uncorrected: Option<u64>,
    /// What the driver says must be done, where recovery is needed.
    #[serde(default)]
    pub action: Option<Action>,
    /// Memory rows, or pages, that the next reset replaces.
    #[serde(default)]
    pub remap_pending: Option<bool>,
    /// A row could not be replaced.
    #[serde(default)]
    pub remap_failed: Option<bool>,
    #[serde(default)]
    pub links: Option<Links>,
    /// NVLink replays and recoveries since the driver was loaded.
    #[serde(default)]
    pub link_errors: Option<u64>,
    #[serde(default)]
    pub pcie_replays: Option<u64>,
    /// Slowed down by heat.
    #[serde(default)]
    pub hot: Option<bool>,
    /// Slowed down by the hardware because of its power.
    #[serde(default)]
    pub power_brake: Option<bool>,
    #[serde(default)]
    pub fabric: Option<Fabric>,
    #[serde(default)]
    pub uuid: Option<String>,
    /// Containers that kubelet gave it to, as `namespace/pod container name`.
    #[serde(default)]
    pub holders: Vec<String>,
    #[serde(default)]
    pub details: Box<GpuDetails>,
}

impl GpuState {
    /// What can be told of a GPU, and whether this one does.
    pub(crate) fn tells(&self) -> [(&'static str, bool); 17] {
        let details = &self.details;
        [
            ("uncorrected ECC errors", self.uncorrected.is_some()),
            ("recovery action", self.recovery != Recovery::Unknown),
            (
                "row remapping or page retirement",
                self.remap_pending.is_some(),
            ),
            ("NVLink state", self.links.is_some()),
            ("NVLink errors", self.link_errors.is_some()),
            ("PCIe replays", self.pcie_replays.is_some()),
            ("clock event reasons", self.hot.is_some()),
            ("NVLink fabric", self.fabric.is_some()),
            ("serial number", details.serial.is_some()),
            ("InfoROM", details.inforom_corrupted.is_some()),
            ("ECC errors by location", !details.uncorrected.is_empty()),
            ("SRAM errors", details.sram_worn_out.is_some()),
            ("remapped rows", details.remapped.is_some()),
            ("spare rows", details.spare_rows.is_some()),
            ("temperature", details.heat.gpu.is_some()),
            ("PCIe link", details.pcie.is_some()),
            ("persistence", details.persistence.is_some()),
        ]
    }
}

/// NVLinks, a bit for each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Links {
    pub active: u32,
    /// Those that have been active in this boot; the core's own.
    #[serde(default)]
    pub known: u32,
}

/// The NVLink fabric as a GPU sees it (`nvmlGpuFabricInfoV_t`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Fabric {
    /// The setup has ended, in an error.
    pub failed: bool,
    pub health_mask: u32,
}

/// What the driver says must be done with a GPU (`NVML_FI_DEV_GET_GPU_RECOVERY_ACTION`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(crate) enum Recovery {
    /// The driver is too old to say.
    #[default]
    Unknown,
    NotNeeded,
    Needed,
}

#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Nvml {
    Watching {
        gpus: usize,
        /// What none of them, or their driver, tells.
        untold: Vec<&'static str>,
    },
    /// How many the bus has, and an instance of this type; told when it changes.
    Present {
        gpus: usize,
        expected: usize,
        instance_type: String,
    },
    /// `driver`: whether the kernel module is loaded.
    Unavailable { why: String, driver: bool },
    /// A call has not returned within its deadline.
    Hung {
        call: &'static str,
        /// That it is about.
        gpu: Option<String>,
        limit: Duration,
    },
    /// The call that hung has returned.
    Answered,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum SourceName {
    Bpf,
    Kmsg,
    Nvml,
    /// Log files that rules look at.
    File,
    /// The systemd journal, where rules look at it.
    Journal,
    /// Files of the kernel that count.
    Counters,
}

impl SourceName {
    pub(crate) const ALL: [Self; 6] = [
        Self::Bpf,
        Self::Kmsg,
        Self::Nvml,
        Self::File,
        Self::Journal,
        Self::Counters,
    ];

    /// For the state file and metrics.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Bpf => "bpf",
            Self::Kmsg => "kernelLog",
            Self::Nvml => "nvml",
            Self::File => "files",
            Self::Journal => "journal",
            Self::Counters => "counters",
        }
    }
}

/// A GPU by PCI domain, bus and device as the driver writes it: `0000:05:00`; it goes into paths
/// of sysfs. Domains of virtual machines can be longer than 16 bits.
pub(crate) fn gpu_name(text: &str) -> Option<String> {
    let mut parts = text.split(':');
    let mut hex = |lengths: std::ops::RangeInclusive<usize>| {
        let part = parts.next()?;
        let fits = lengths.contains(&part.len()) && part.bytes().all(|b| b.is_ascii_hexdigit());
        fits.then(|| part.to_ascii_lowercase())
    };
    let (domain, bus, device) = (hex(4..=8)?, hex(2..=2)?, hex(2..=2)?);
    parts
        .next()
        .is_none()
        .then(|| format!("{domain}:{bus}:{device}"))
}

/// The name of a block device (`DISK_NAME_LEN` is 32), if it is one; it goes into paths of sysfs.
pub(crate) fn device_name(name: &str) -> Option<String> {
    let fits = (1..=32).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'!' | b':'));
    fits.then(|| name.to_owned())
}

/// The name of a network interface (`IFNAMSIZ` is 16), if it is one.
pub(crate) fn interface_name(name: &str) -> Option<String> {
    let fits = (1..=15).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_graphic() && !matches!(b, b'/' | b':' | b';'));
    fits.then(|| name.to_owned())
}
