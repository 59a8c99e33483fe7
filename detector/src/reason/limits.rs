//! PURE. Rows of `KernelReady` about limits that were reached, and about PCIe slots.

use std::time::Duration;

use super::{Clears, ConditionType, Row, Severity};

pub(super) const PIDS_LIMIT_REACHED: Row = Row {
    name: "PidsLimitReached",
    condition: ConditionType::KernelReady,
    severity: Severity::Warning,
    clears: Clears::Quiet(Duration::from_secs(1800)),
    eks: false,
    threshold: "each line; one finding for each container, or cgroup outside of pods; each refused fork by the counter; 95 % of the threads that the host may have",
    meaning: "A cgroup has as many processes and threads as it may have: a fork in it was refused.",
    cause: "A container that forks without end or does not reap its children, or a `podPidsLimit` of kubelet below what it needs.",
    advice: "Look at what runs in the container. The log says it once for each cgroup; `pids.events` of the cgroup counts on.",
    source: "kernel log, level 6: `cgroup: fork rejected by pids controller in PATH` (kernel/cgroup/pids.c, Linux 4.8 and later); `max` of `pids.events` below kubepods, and /proc/loadavg against `kernel.pid_max` and `kernel.threads-max`, read every 30 s",
};

pub(super) const FILE_MAX_REACHED: Row = Row {
    name: "FileMaxReached",
    condition: ConditionType::KernelReady,
    severity: Severity::Warning,
    clears: Clears::Quiet(Duration::from_secs(1800)),
    eks: false,
    threshold: "each line, or 95 % of the limit",
    meaning: "As many files are open on the whole host as `fs.file-max` allows: processes without CAP_SYS_ADMIN can open no more.",
    cause: "A process that leaks file descriptors, or a limit that was set too low.",
    advice: "Look for the process with the most open files (`/proc/<pid>/fd`); raise `fs.file-max`.",
    source: "kernel log, level 6: `VFS: file-max limit N reached` (fs/file_table.c); /proc/sys/fs/file-nr, read every 30 s",
};

pub(super) const PCIE_LINK_DOWN: Row = Row {
    name: "PCIeLinkDown",
    condition: ConditionType::KernelReady,
    severity: Severity::Info,
    clears: Clears::Quiet(Duration::from_secs(1800)),
    eks: false,
    threshold: "each line; one finding for each port",
    meaning: "The link of a PCIe slot went down, its card is gone, or the link could not be brought up.",
    cause: "A device that was detached on purpose (clouds detach volumes and network interfaces so), or a card that failed.",
    advice: "None where a volume or an interface was detached. Else look for the device that was in the slot.",
    source: "kernel log, level 6: `pcieport ADDR: pciehp: Slot(N): Link Down`, `Card not present` or `Cannot train link: status 0x...` (3 before 5.19); level 3: `Power fault` (drivers/pci/hotplug/pciehp_ctrl.c, pciehp_hpc.c)",
};
