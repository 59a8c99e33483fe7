//! PURE. Rows of `KernelReady`: CPUs and threads of the kernel that do not get on.

use std::time::Duration;

use super::{Clears, ConditionType, Row, Severity};

pub(super) const HARD_LOCKUP: Row = Row {
    name: "HardLockup",
    condition: ConditionType::KernelReady,
    severity: Severity::Warning,
    clears: Clears::Quiet(Duration::from_secs(1800)),
    eks: false,
    threshold: "each line; one finding for each CPU. Never Fatal: the kernel counts no time on such a CPU, so nothing but the line tells it from one that the hypervisor does not run",
    meaning: "A CPU ran in the kernel with interrupts off for longer than `kernel.watchdog_thresh`.",
    cause: "A driver that loops or waits with interrupts off, failing hardware or firmware, a starved virtual machine.",
    advice: "Unlike a soft lockup it is rarely harmless. Look at the stack that follows in the log. Repeated ones: drain and replace.",
    source: "kernel log, level 0: `Watchdog detected hard LOCKUP on cpu N` after `NMI watchdog: ` (kernel/watchdog_hld.c, up to 6.4), `watchdog: ` (kernel/watchdog.c, since 6.5) or `watchdog: CPUn: ` (7.2)",
};

pub(super) const RCU_STALL: Row = Row {
    name: "RCUStall",
    condition: ConditionType::KernelReady,
    severity: Severity::Warning,
    clears: Clears::Quiet(Duration::from_secs(1800)),
    eks: false,
    threshold: "each report; one finding for each kind of RCU",
    meaning: "The kernel has waited in vain for its CPUs or tasks to pass a quiescent state (`rcu_cpu_stall_timeout`, 21 s by default; expedited ones 20 ms on some kernels). Memory that is freed by RCU piles up in the meantime.",
    cause: "A CPU that loops in the kernel, a virtual machine that was not scheduled, a real-time task that starves the rest.",
    advice: "A single one can be a paused virtual machine: look at its steal time. Repeated ones: look at the stacks that follow in the log, drain and replace.",
    source: "kernel log, level 3: `rcu: INFO: NAME self-detected stall on CPU`, `detected stalls on CPUs/tasks:`, `detected expedited stalls` (kernel/rcu/tree_stall.h, tree_exp.h; without `rcu: ` before 4.20)",
};

pub(super) const WORKQUEUE_LOCKUP: Row = Row {
    name: "WorkqueueLockup",
    condition: ConditionType::KernelReady,
    severity: Severity::Warning,
    clears: Clears::Quiet(Duration::from_secs(1800)),
    eks: false,
    threshold: "each report; one finding for each pool's CPUs",
    meaning: "A worker pool of the kernel has not begun new work for longer than `workqueue.watchdog_thresh` (30 s): whatever the kernel does in the background stands still there.",
    cause: "A work item or a real-time task that does not give up the CPU, a starved virtual machine.",
    advice: "Look at the busy work queues that the log lists after the line. Repeated ones: drain and replace.",
    source: "kernel log, level 0: `BUG: workqueue lockup - pool cpus=N ... stuck for Ns!` (kernel/workqueue.c, with CONFIG_WQ_WATCHDOG)",
};
