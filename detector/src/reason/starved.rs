//! PURE. Rows of `KernelReady`: a host that gets too little memory or CPU time.

use std::time::Duration;

use super::{Clears, ConditionType, Row, Severity};

pub(super) const MEMORY_STALL: Row = Row {
    name: "MemoryStall",
    condition: ConditionType::KernelReady,
    severity: Severity::Warning,
    clears: Clears::Quiet(Duration::from_secs(600)),
    eks: false,
    threshold: "5 windows of 2 s within a minute in which all processes that had something to do waited for memory for at least 15 % of the time",
    meaning: "Memory is so short that the host does little but look for some: pages are thrown out and read back again and again. The OOM killer need not come.",
    cause: "Pods that use more memory than the node has; one at its limit whose files no longer fit, on a node that has little else to do.",
    advice: "Look for the cgroup with the highest `memory.pressure`, and give it more memory or a lower limit; reserve memory for the system (kube-reserved, system-reserved).",
    source: "a trigger of /proc/pressure/memory (4.20 and later with CONFIG_PSI, and `psi=1` where that is not the default)",
};

pub(super) const CPU_STOLEN: Row = Row {
    name: "CPUStealHigh",
    condition: ConditionType::KernelReady,
    severity: Severity::Warning,
    clears: Clears::Quiet(Duration::from_secs(600)),
    eks: false,
    threshold: "30 % of the host's CPU time over a minute",
    meaning: "The hypervisor gave CPU time to others while this virtual machine wanted to run. Lockups and stalls meanwhile are its doing.",
    cause: "An instance whose CPU credits are spent, or an overcommitted host.",
    advice: "Instances with CPU credits: take an unlimited or a fixed type. Else move the machine to another host (stop and start).",
    source: "`steal` of /proc/stat",
};

pub(super) const CPU_STARVED: Row = Row {
    name: "CPUStarvation",
    condition: ConditionType::KernelReady,
    severity: Severity::Info,
    clears: Clears::Quiet(Duration::from_secs(600)),
    eks: false,
    threshold: "95 % of the last five minutes, with a load of 5 or more for each CPU",
    meaning: "At nearly any time some process could have run, but got no CPU, and each CPU had many to choose from. A container that is throttled at its own limit counts as well.",
    cause: "More runnable threads than CPUs, for minutes on end; CPU limits.",
    advice: "None where the work is done in time. Else look for throttled containers (`nr_throttled` in `cpu.stat`), then for the busiest ones.",
    source: "`some avg300` of /proc/pressure/cpu, and /proc/loadavg",
};
