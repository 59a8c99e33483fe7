//! Real faults of this kernel. Each is a guard: dropping it undoes the fault, also in a panic.
//!
//! All need root in the initial namespaces; [`unavailable`] says why not. All calls block, for
//! milliseconds unless they say otherwise. Times are `CLOCK_BOOTTIME` ([`boot_clock`]), as in the
//! detector's `faultNs`, `foundNs` and `exported_ns`.
//!
//! | fault | how to provoke it | what the detector says |
//! |---|---|---|
//! | OOM kill in a pod | [`PodCgroup::systemd`]`(uid)?.`[`oom_kill`](PodCgroup::oom_kill)`("hog")?` | `OOMKilling` with `subject.podUid`, `containerId`, `pid`, `comm` |
//! | block I/O error | [`LoopDisk::new`]`()?.`[`read_error`](LoopDisk::read_error)`()?` | `BlockDeviceIOError` with `subject.device` |
//! | packet drops | [`fill_socket_buffer`]`(2000)?` | `PacketsDropped` with `subject.localPort`, `interface` |
//! | the same in several pods at once | [`fill_socket_buffers`]`(&[&pod, &other], 2000)?` | the same for each, with `subject.podUid` |
//! | hung task | [`HungTask::start`]`("stuck-writer")?`, held for about 5 s | `AppBlocked` with `subject.pid`, `comm` |
//! | task that khungtaskd does not see | [`HungTask::unnoticed`]`("stuck-writer")?`, or a killable one: [`FuseSleeper::start`]`("waiter")?`; held for two looks of the detector (`--task-interval 1s`) | `AppBlocked` with `subject.pid`, `comm`, and the stack in the message |
//! | disk that does not answer | [`StuckDisk::start`]`("kubelet")?` | the same, and that the task is blocked on ext4; Fatal after 120 s |
//! | read-only file system | [`Ext4::mounted`]`()?`, start the detector with its [`path`](Ext4::path) as `--critical-mount`, then [`turn_read_only`](Ext4::turn_read_only) | `FilesystemReadOnly` (and `FilesystemError`) with `subject.device` = [`Ext4::device`] |
//! | file system that is shut down | [`Ext4::shut_down`] | `JournalAborted`, `FilesystemReadOnly` |
//! | refused forks in a pod | [`PodCgroup::with_few_pids`]`(uid)?.`[`fork_beyond`](PodCgroup::fork_beyond)`("forker")?` | `PidsLimitReached` with `subject.podUid`, `containerId` |
//! | full conntrack table | [`FullConntrack::fill`]`()?` | `ConntrackExceededKernel` |
//! | full neighbour table | [`overflow_neighbours`]`()?` | `NeighbourTableFull` |
//! | flood of SYNs | [`flood_with_syns`]`()?` | `SynFlood`, with the port in the message |
//! | TCP's limits | [`Orphans::too_many`]`()?`, [`TcpMemory::exhausted`]`()?` | `OrphanSocketsExceeded`, `TCPMemoryExhausted` |
//! | open files | [`NearlyAllFiles::open`]`()?`, held for one interval of the counters | `FileMaxReached` |
//! | disk that answers nothing | [`SilentDisk::start`]`()?`, held for two intervals of the counters | `BlockIOStuck` with `subject.device` |
//! | lost write | [`Ext4::lose_a_write`] | `WritebackError` with `subject.device` |
//! | memory too small for what runs | [`Thrashing::start`]`(uid)?`, held until it is told, about 15 s | `MemoryStall` |
//! | crash | [`abort`]`("x")?`, in a pod [`PodCgroup::abort`] | `AppCrash` with `subject.pid`, `comm` |
//! | kernel log that is overrun | [`overrun_kernel_log`]`()?` | `SignalsLost`, if nobody read meanwhile |
//! | packets that are refused in a network namespace | [`PacketFilter::of`]`(pid).`[`drop_by_nft`](PacketFilter::drop_by_nft)`("filter", "ATTACK", None)?` | `UnexpectedRejectRule` |
//! | device that is refused | [`where_refused`]`("/dev/kmsg", || ...)?` | in `check`: `syslog(2)` |
//! | kubelet that is silent | [`Healthz::start`]`()?`, [`set_well`](Healthz::set_well)`(false)`, beside [`StuckDisk::start`]`("kubelet")?` or [`StoppedKubelet::start`]`()?`; the detector with `--kubelet-healthz` | `KubeletUnresponsive` |
//! | services that fail | [`HostSystemd::start`]`(&[("x.service", "ExecStart=/bin/false\n")])?`, the detector with its `--host-proc` | `ServiceFailedToStart`, `<Unit>RepeatedRestart` |
//! | containerd with a deprecated configuration, or that answers nobody | [`HostContainerd::start`]`()?`, [`pause`](HostContainerd::pause), the detector with its `--host-proc` | `DeprecatedContainerdConfiguration`; a warning in its log |
//! | CPU that answers nobody | [`BusyCpu::start`]`(true)?` | to `aside look-at-cpu`: `InKernel` |
//! | forged kernel line | [`crash`]`("BUG: soft locku")?` | nothing |
//!
//! `mkfs` alone, which must not be reported, is [`LoopDisk::new`] and [`LoopDisk::mkfs_ext4`].
//!
//! A hung task changes sysctls of the whole host. [`HungTask::start`] therefore waits for a lock
//! that only one process on the host can hold.

use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};

mod busy_cpu;
mod conntrack;
mod containerd;
mod crash;
mod executions;
mod ext4;
mod fuse;
mod hung_task;
mod kernel_log;
mod kubelet;
mod loop_disk;
mod neighbours;
mod netlink;
mod network_lines;
mod open_files;
mod packet_filter;
mod pod_cgroup;
mod pods;
mod refused_device;
mod setting;
mod silent_disk;
mod socket_buffer;
mod stuck_disk;
mod systemd;
mod tcp_limits;
mod thrashing;
mod victim;

pub use self::busy_cpu::{BusyCpu, last_cpu};
pub use self::conntrack::FullConntrack;
pub use self::containerd::HostContainerd;
pub use self::crash::{Crash, FORGED_NAMES, abort, crash, handled_crash};
pub use self::executions::Executions;
pub use self::ext4::Ext4;
pub use self::fuse::{FuseSleeper, SilentFolder};
pub use self::hung_task::HungTask;
pub use self::kernel_log::{fill_kernel_log, overrun_kernel_log};
pub use self::kubelet::{Healthz, KubeletHost, StoppedKubelet};
pub use self::loop_disk::LoopDisk;
pub use self::neighbours::overflow_neighbours;
pub use self::network_lines::AllNetworkLines;
pub use self::open_files::NearlyAllFiles;
pub use self::packet_filter::PacketFilter;
pub use self::pod_cgroup::{Killed, PodCgroup};
pub use self::pods::Pods;
pub use self::refused_device::where_refused;
pub use self::setting::Setting;
pub use self::silent_disk::SilentDisk;
pub use self::socket_buffer::{Drops, fill_socket_buffer, fill_socket_buffers};
pub use self::stuck_disk::StuckDisk;
pub use self::systemd::HostSystemd;
pub use self::tcp_limits::{Orphans, TcpMemory, flood_with_syns};
pub use self::thrashing::Thrashing;

/// Why no fault can be provoked here, if so.
pub fn unavailable() -> Option<&'static str> {
    (!rustix::process::geteuid().is_root()).then_some("provoking kernel faults needs root")
}

/// The clock of every time in this module.
pub fn boot_clock() -> Duration {
    let time = clock_gettime(ClockId::Boottime);
    // It counts up from zero at boot.
    Duration::new(
        time.tv_sec.unsigned_abs(),
        u32::try_from(time.tv_nsec).unwrap_or(0),
    )
}
