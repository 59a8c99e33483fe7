//! PURE. Rows of `KernelReady`.

use std::time::Duration;

use super::{Clears, ConditionType, Row, Severity};

pub(super) const OOM_KILLING: Row = Row {
    name: "OOMKilling",
    condition: ConditionType::KernelReady,
    severity: Severity::Warning,
    clears: Clears::Quiet(Duration::from_secs(600)),
    eks: false,
    threshold: "each kill; one finding for each container (or process outside of pods)",
    meaning: "The kernel killed a process because its container, its pod, all pods together or the node had no memory left: the message says which.",
    cause: "A memory limit below what the container needs, a leak, or more pods than the node has memory for.",
    advice: "A container's or pod's limit: compare it with what it uses. All pods together, or the node: it is overcommitted, or its reserved memory (kube-reserved, system-reserved) is too small.",
    source: "tracepoint oom:mark_victim (Linux 4.13 and later), with task since the 2024 backports; kernel log, level 6 `oom-kill:constraint=...,task=x,pid=N` and level 3 `Killed process N (x)`, for the time without the tracepoint",
};

pub(super) const PAGE_ALLOCATION_FAILURE: Row = Row {
    name: "PageAllocationFailure",
    condition: ConditionType::KernelReady,
    severity: Severity::Warning,
    clears: Clears::Quiet(Duration::from_secs(1800)),
    eks: false,
    threshold: "each line; one finding for each name of a process",
    meaning: "The kernel had no memory of the wanted kind or size, and what asked for it had to do without: mostly a dropped packet or a failed system call.",
    cause: "Memory is short, or so fragmented that no block of that order is left; interrupts that need memory faster than it is freed.",
    advice: "Order 0: free memory or raise `vm.min_free_kbytes`. Higher orders: fragmentation; look at which driver asks in the stack that follows in the log.",
    source: "kernel log, level 4: `comm: page allocation failure: order:N, mode:0xN(GFP flags), nodemask=...` (mm/page_alloc.c); level 3: `XFS: comm(pid) possible memory allocation deadlock ...` (fs/xfs, until 6.9)",
};

pub(super) const APP_BLOCKED: Row = Row {
    name: "AppBlocked",
    condition: ConditionType::KernelReady,
    severity: Severity::Warning,
    clears: Clears::Recovered {
        settle: Duration::from_secs(15),
    },
    eks: true,
    threshold: "two looks at all tasks, 30 s apart, between which the task did not run, or one report of khungtaskd (`kernel.hung_task_timeout_secs`, 120 s by default); each later look counts towards a configured threshold. Fatal only for a process outside of pods that is called kubelet, containerd, crio or dockerd, or as the configuration says (criticalProcesses), after 120 s without a run, and only if its kernel stack is known and shows a file system on a disk or a block device, and nothing of a network file system, FUSE or the like",
    meaning: "A task has been in uninterruptible sleep for a long time: a disk, a network file system or a lock does not answer. The message has the kernel functions that it is in.",
    cause: "A disk or volume that hangs, an NFS server that is away, a kernel bug around a lock.",
    advice: "Look at the disk or mount behind what the process waits for. On a network file system, look at the server; a lock has a holder that waits for something else.",
    source: "BPF iterator over all tasks (also sees killable sleepers, which khungtaskd never reports: NFS, and FUSE once the waiting task has got a signal; needs the host's PID namespace), names from /proc/kallsyms; tracepoint sched:sched_process_hang, or without it the kernel log, level 3: `INFO: task x:N blocked for more than N seconds.`; then the task's state in /proc/<pid>/stat. Fires also when the kernel's own warnings are spent (hung_task_warnings) or turned off. A parent in vfork and the threads of a process whose core is dumped do not count",
};

pub(super) const SOFT_LOCKUP: Row = Row {
    name: "SoftLockup",
    condition: ConditionType::KernelReady,
    severity: Severity::Warning,
    clears: Clears::Quiet(Duration::from_secs(1800)),
    eks: true,
    threshold: "each line; one finding for each CPU. Fatal only at the third line within 10 minutes at which the CPU was seen to be in the kernel for 2 s, 90 % of them by /proc/stat, while a thread with real-time priority waited for it, and no time was stolen",
    meaning: "A CPU ran in the kernel for more than twice `kernel.watchdog_thresh` without scheduling.",
    cause: "A driver that loops, a starved or paused virtual machine, failing hardware.",
    advice: "A single one can be a starved virtual machine. Repeated ones point to a driver or to hardware: drain and replace.",
    source: "kernel log, level 0: `watchdog: BUG: soft lockup - CPU#N stuck for Ns! [comm:pid]` (no tracepoint exists); whether it is so, by a thread that is tied to the CPU and by /proc/stat",
};

pub(super) const SIGNALS_LOST: Row = Row {
    name: "SignalsLost",
    condition: ConditionType::KernelReady,
    severity: Severity::Warning,
    clears: Clears::Quiet(Duration::from_secs(600)),
    eks: false,
    threshold: "each gap; one finding for each source",
    meaning: "More was reported than could be read: the ring buffer was full, or the kernel log was overwritten before it was read.",
    cause: "A storm of faults or of log lines, and an agent that did not get to run in the meantime.",
    advice: "Look at what floods the log or the disk. The findings that are open stay right; their counts are lower bounds.",
    source: "the ring buffer's own counter; tasks in uninterruptible sleep beyond 4096; sequence numbers of /dev/kmsg, or by syslog(2) that the line read last is gone: then one for each gap",
};

pub(super) const MONITORING_GAP: Row = Row {
    name: "MonitoringGap",
    condition: ConditionType::KernelReady,
    severity: Severity::Info,
    clears: Clears::Quiet(Duration::from_secs(3600)),
    eks: false,
    threshold: "each restart of the agent",
    meaning: "For the time that the message names, no agent was watching: faults that only tracepoints show (failed requests that the log is silent about, dropped packets) are not counted for it. The kernel log was read from where the agent before had stopped.",
    cause: "An upgrade, a crash or an eviction of the agent.",
    advice: "None after an upgrade. Many of them: look why the agent restarts.",
    source: "the state that the agent before left in --state-dir",
};

pub(super) const STATE_DAMAGED: Row = Row {
    name: "StateDamaged",
    condition: ConditionType::KernelReady,
    severity: Severity::Warning,
    clears: Clears::Quiet(Duration::from_secs(600)),
    eks: false,
    threshold: "at once, at the agent's start",
    meaning: "What the agent before had saved could not be read. Findings were rebuilt from the kernel log and the Node's conditions; those that only tracepoints show are forgotten.",
    cause: "Something else that writes there, or a file of a newer release with another format.",
    advice: "Look at the file that was set aside, and at what else writes to --state-dir.",
    source: "the state file in --state-dir",
};

const BOOTS: &str = "the list of boots in --boots-dir: a boot is unexpected if the agent had not been told to stop before it, as it is when a host shuts down; pstore for the last words";

pub(super) const UNEXPECTED_REBOOT: Row = Row {
    name: "UnexpectedReboot",
    condition: ConditionType::KernelReady,
    severity: Severity::Warning,
    clears: Clears::Quiet(Duration::from_secs(3600)),
    eks: false,
    threshold: "each boot that nobody asked for",
    meaning: "The host was reset, lost power or its kernel died: it was booted without having been shut down.",
    cause: "A kernel panic, a watchdog or hypervisor reset, a loss of power; also an agent that had been killed before an orderly reboot.",
    advice: "Look at the last words of the kernel in the message, at the console of the machine, and at the cloud's own events.",
    source: BOOTS,
};

pub(super) const UNEXPECTED_REBOOT_LOOP: Row = Row {
    name: "UnexpectedRebootLoop",
    condition: ConditionType::KernelReady,
    severity: Severity::Warning,
    clears: Clears::Quiet(Duration::from_secs(24 * 3600)),
    eks: false,
    threshold: "the third boot within 24 hours that nobody asked for",
    meaning: "The host dies again and again.",
    cause: "Failing hardware, or a kernel or driver that panics on the work that is scheduled here.",
    advice: "Replace the node. `severity: Fatal` in the configuration leaves that to repair.",
    source: BOOTS,
};

pub(super) const CONFIG_INVALID: Row = Row {
    name: "ConfigInvalid",
    condition: ConditionType::KernelReady,
    severity: Severity::Warning,
    clears: Clears::Recovered {
        settle: Duration::ZERO,
    },
    eks: false,
    threshold: "at once, when the changed file cannot be used; a good file clears it",
    meaning: "The detector's configuration file has an error. All of what was in force before stays in force.",
    cause: "A mistake in the ConfigMap, or a file of another release.",
    advice: "`nodemend-detector check --config FILE` names every error with its line.",
    source: "the file, watched by inotify",
};

pub(super) const CONFIG_PENDING: Row = Row {
    name: "ConfigPending",
    condition: ConditionType::KernelReady,
    severity: Severity::Info,
    clears: Clears::Recovered {
        settle: Duration::ZERO,
    },
    eks: false,
    threshold: "at once, when keys change that are read at start only; a restart clears it, or taking the change back",
    meaning: "A part of the detector's configuration waits for the agent's next start; the rest is in force.",
    cause: "Sources and coexistence are set up once, at the start.",
    advice: "Restart the detector's pod on this node.",
    source: "the file, watched by inotify",
};
