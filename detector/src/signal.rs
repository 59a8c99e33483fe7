//! PURE. What a source saw: one typed observation, before anyone judges it.

use std::time::Duration;

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
    OomKill { victim: Task },
    /// A block request ended in an error (`block:block_rq_error` or `block_rq_complete`).
    BlockError {
        disk: Disk,
        operation: BlockOperation,
        class: BlockErrorClass,
        /// Positive errno, as in errno(3).
        errno: i32,
        sector: u64,
        sectors: u32,
    },
    /// A drop reason passed its threshold within one window on one CPU (`skb:kfree_skb`).
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
    /// The kernel log says that a file system became read-only because of an error.
    RemountedReadOnly { device: String },
    /// The kernel log reports an ext4 error.
    Ext4Error { device: String, detail: String },
    /// The kernel log reports a CPU that did not schedule for a long time.
    SoftLockup { cpu: u32, seconds: u32, task: Task },
    /// A source lost observations: nothing can be said about them but their number.
    Lost { source: SourceName, count: u64 },
}

#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub(crate) struct Task {
    pub pid: u32,
    pub comm: String,
    pub workload: Option<Workload>,
}

/// The pod and container that a cgroup belongs to, read from its path.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
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

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) enum SourceName {
    Bpf,
    Kmsg,
}

/// The name of a block device (`DISK_NAME_LEN` is 32), if it is one; it goes into paths of sysfs.
pub(crate) fn device_name(name: &str) -> Option<String> {
    let fits = (1..=32).contains(&name.len())
        && name
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || matches!(b, b'-' | b'_' | b'.' | b'!' | b':'));
    fits.then(|| name.to_owned())
}
