//! The ABI between the BPF programs and the detector: what a ring record looks like.
//!
//! zerocopy's `IntoBytes` refuses implicit padding at compile time, the classic trap
//! of records that cross this border.

#![no_std]

use zerocopy::{FromBytes, Immutable, IntoBytes, KnownLayout};

/// Levels of a cgroup path that a record carries: the outermost. A power of two.
pub const CGROUP_LEVELS: usize = 8;
/// Bytes of each cgroup name, with the terminating NUL; longer names are cut.
pub const CGROUP_NAME: usize = 128;
/// Bytes of a task's name, as in the kernel (`TASK_COMM_LEN`).
pub const COMM: usize = 16;
/// Frames of a kernel stack that are copied, from the innermost.
pub const STACK_FRAMES: usize = 32;
/// Drop reasons that are counted: the core reasons of Linux 7.2 end at 128.
pub const DROP_REASONS: u32 = 256;
/// The window in which a drop reason is compared with its threshold.
pub const DROP_WINDOW_NS: u64 = 1_000_000_000;

/// Bytes of a tracepoint's record that are copied. The strings of the largest that is of interest
/// (`cxl:cxl_aer_uncorrectable_error`, with a header log of 512 bytes) end before.
pub const EVENT_BYTES: usize = 768;
/// Bytes of each of the two texts at the start of a copied `rcu:rcu_stall_warning`.
pub const RCU_TEXT: usize = 32;
/// Records of one kind about one entity that are made in one second; the others are counted in the next.
pub const MOST_PER_SECOND: u64 = 16;
/// The same for crashes in one container: each may be of another program.
pub const MOST_CRASHES_PER_SECOND: u64 = 128;

macro_rules! kinds {
    ($($kind:ident = $number:literal,)+) => {
        /// What a ring record is. The first field of every record.
        #[repr(u32)]
        #[derive(Clone, Copy, PartialEq, Eq, Debug)]
        pub enum Kind {
            $($kind = $number,)+
        }

        impl Kind {
            pub const ALL: &[Self] = &[$(Self::$kind),+];
        }
    };
}

kinds! {
    OomKill = 1,
    BlockError = 2,
    PacketDrops = 3,
    HungTask = 4,
    Crash = 5,
    RcuStall = 6,
    Ext4Error = 7,
    Ext4Shutdown = 8,
    XfsShutdown = 9,
    WritebackError = 10,
    NvmeError = 11,
    ScsiError = 12,
    ScsiTimeout = 13,
    AtaError = 14,
    MachineCheck = 15,
    MemoryController = 16,
    Aer = 17,
    FirmwareError = 18,
    ArmError = 19,
    PoisonedPage = 20,
    CxlUncorrectable = 21,
    TransmitTimeout = 22,
    DevlinkHealth = 23,
    ThermalTrip = 24,
}

impl Kind {
    /// Entries of a map with one for each kind.
    pub const SLOTS: u32 = 25;
}

const _: () = assert!(Kind::ALL.len() + 1 == Kind::SLOTS as usize);

pub const NO_LIMIT: u32 = 0;
pub const LIMIT_UNKNOWN: u32 = u32::MAX;

#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct Header {
    pub kind: u32,
    pub cpu: u32,
    /// `CLOCK_BOOTTIME` in nanoseconds.
    pub boot_ns: u64,
}

/// [`Kind::OomKill`], [`Kind::HungTask`] and [`Kind::Crash`].
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct TaskRecord {
    pub header: Header,
    /// The thread's id.
    pub pid: u32,
    /// The process' id; 0 where the hook does not know it.
    pub tgid: u32,
    pub comm: [u8; COMM],
    /// How many names the way from the task's cgroup to the root has; 0: unknown, or the root.
    pub levels: u32,
    /// Of a crash; otherwise 0.
    pub signal: u32,
    /// How many there were since the last record of its like; otherwise 1.
    pub count: u64,
    /// Of an OOM kill: how many levels above the task's own cgroup, counted from 1, is the first that
    /// has used up its memory limit; [`NO_LIMIT`] where none has, [`LIMIT_UNKNOWN`] otherwise.
    pub limit_level: u32,
    pub reserved: u32,
    /// The name at depth `d` (0: the task's own cgroup) is at `d % CGROUP_LEVELS`, so that of a
    /// deep tree the outermost levels stay: a container chooses only the names below its own.
    pub cgroup: [[u8; CGROUP_NAME]; CGROUP_LEVELS],
}

/// What the scan for blocked tasks writes about each task in uninterruptible sleep. It does not go
/// through the ring: the reader of the iterator gets it.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct BlockedRecord {
    /// With [`Kind::HungTask`].
    pub task: TaskRecord,
    /// When the task was started, in nanoseconds since boot: tells it from a later one of its number.
    pub started_ns: u64,
    /// How often it has been switched out so far: while it sleeps, the number stays.
    pub switches: u64,
    /// The name of the process that the thread belongs to.
    pub process: [u8; COMM],
    /// How many bytes of `stack` there are, or a negative errno.
    pub stack_bytes: i64,
    /// Return addresses, the innermost first.
    pub stack: [u64; STACK_FRAMES],
}

/// [`Kind::BlockError`].
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct BlockRecord {
    pub header: Header,
    pub sector: u64,
    pub sectors: u32,
    /// The kernel's `dev_t`: major << 20 | minor.
    pub dev: u32,
    /// Negative errno.
    pub error: i32,
    /// Operation letters, NUL-terminated.
    pub rwbs: [u8; 8],
    pub reserved: u32,
    /// How many there were since the last record of this device.
    pub count: u64,
}

/// [`Kind::PacketDrops`].
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct DropsRecord {
    pub header: Header,
    /// Packets of this reason, interface and network namespace inside the window so far.
    pub count: u64,
    pub window_ns: u64,
    /// Raw `enum skb_drop_reason`.
    pub reason: u32,
    /// Interface that the packet came in on, or was to leave by; 0 when unknown.
    pub ifindex: u32,
    /// Inode number of the network namespace; 0 when unknown.
    pub netns: u32,
    /// Local port of the socket; 0 when there was none.
    pub port: u16,
    pub reserved: u16,
}

/// A tracepoint's record as the kernel made it; user space knows the layout.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct EventRecord {
    pub header: Header,
    /// How many there were since the last record of this entity.
    pub count: u64,
    pub data: [u8; EVENT_BYTES],
}

/// What the loader says about a tracepoint whose records are copied. In a map and not in globals: a
/// module's tracepoint has no layout before the module is there.
#[repr(C)]
#[derive(
    Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable, Default, PartialEq, Eq, Debug,
)]
pub struct CopyRule {
    /// Of the field by which records are limited: that of the device, where there is one.
    pub entity_offset: u32,
    /// Of the 4 bytes that tell a fault from a success.
    pub fault_offset: u32,
    /// Bits of these that are set in a fault; 0: every record is one.
    pub fault_mask: u32,
    pub reserved: u32,
    /// Bits of the 8 bytes at `entity_offset` that belong to that field.
    pub entity_mask: u64,
}

/// Bytes of a line of the kernel log that are copied. A power of two.
pub const LINE_BYTES: usize = 512;
/// Beginnings of lines that the filter can hold.
pub const MOST_BEGINNINGS: u32 = 256;

/// A line of the kernel log, as `printk:console` saw it. In a ring of its own.
#[repr(C)]
#[derive(Clone, Copy, FromBytes, IntoBytes, KnownLayout, Immutable)]
pub struct LineRecord {
    /// `CLOCK_BOOTTIME` in nanoseconds.
    pub boot_ns: u64,
    /// How many bytes of `text` there are.
    pub length: u64,
    pub text: [u8; LINE_BYTES],
}
