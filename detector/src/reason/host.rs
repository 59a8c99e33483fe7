//! PURE. Rows of `KernelReady` about limits and state of the host that user space can read.

use std::time::Duration;

use super::{Clears, ConditionType, Row, Severity};

const fn warning(name: &'static str, minutes: u64) -> Row {
    Row {
        name,
        condition: ConditionType::KernelReady,
        severity: Severity::Warning,
        clears: Clears::Quiet(Duration::from_secs(60 * minutes)),
        eks: true,
        threshold: "",
        meaning: "",
        cause: "",
        advice: "",
        source: "",
    }
}

pub(super) const FORK_FAILED_OUT_OF_PIDS: Row = Row {
    severity: Severity::Fatal,
    threshold: "each line; Fatal only while the kernel's own numbers say the same: PidsLimitReached of the whole host is open",
    meaning: "kubelet or the container runtime could not start a process or a thread.",
    cause: "The host has as many threads as `kernel.pid_max` or `kernel.threads-max` allow, or the service's own cgroup has (`TasksMax=`). A limit of one container makes kubelet print the same.",
    advice: "Look for what forks without end (`ps -eLf | sort`); raise `kernel.pid_max`, or set `podPidsLimit` so that one pod cannot take all.",
    source: "journal of kubelet.service and containerd.service: `fork/exec ...: resource temporarily unavailable`, `failed to create new OS thread (...; errno=11)` (Go's runtime). EKS's agent makes the node Fatal by one such line",
    ..warning("ForkFailedOutOfPIDs", 10)
};

pub(super) const RAPID_CRON: Row = Row {
    severity: Severity::Info,
    threshold: "the same command of the same user twice within 5 minutes",
    meaning: "A cron job runs more often than every 5 minutes.",
    cause: "A job that was meant to, mostly: so it is in the metrics and the log only, until the configuration makes it a Warning.",
    advice: "None, if the job is short. Else let it run less often, or as a service.",
    source: "journal of crond.service and cron.service, and /var/log/cron.log: `(user) CMD (command)`. EKS's agent compares the user only",
    ..warning("RapidCron", 30)
};

pub(super) const APPROACHING_MAX_OPEN_FILES: Row = Row {
    threshold: "70 % of the limit",
    meaning: "The whole host has many files open, of what `fs.file-max` allows.",
    cause: "A process that leaks file descriptors, or a limit that was set too low; by default nobody can reach it.",
    advice: "Look for the process with the most open files (`/proc/<pid>/fd`); raise `fs.file-max`.",
    source: "/proc/sys/fs/file-nr, read every 30 s",
    ..warning("ApproachingMaxOpenFiles", 10)
};

pub(super) const APPROACHING_KERNEL_PID_MAX: Row = Row {
    threshold: "70 % of the smaller limit",
    meaning: "The host has many threads, of what `kernel.pid_max` and `kernel.threads-max` allow; each takes a process id.",
    cause: "A container that forks without end or does not reap its children, or limits that are too low for so many pods.",
    advice: "Look for the process with the most threads; raise `kernel.pid_max`, or set `podPidsLimit`.",
    source: "/proc/loadavg against `kernel.pid_max` and `kernel.threads-max`, read every 30 s. EKS's agent counts processes against the larger limit",
    ..warning("ApproachingKernelPidMax", 10)
};

pub(super) const EXCESSIVE_ZOMBIE_PROCESSES: Row = Row {
    threshold: "20 in two readings, 30 s apart",
    meaning: "Processes have ended whose parents do not ask how: each keeps its process id.",
    cause: "A container whose first process does not reap its children, or a parent that hangs.",
    advice: "The message names the parent that has most of them. Let the container have an init (`shareProcessNamespace`, `tini`), or restart it.",
    source: "state Z in /proc/<pid>/stat, read every 30 s",
    ..warning("ExcessiveZombieProcesses", 10)
};

pub(super) const LARGE_ENVIRONMENT: Row = Row {
    severity: Severity::Info,
    threshold: "40,000 bytes, about 1,000 variables; one finding for each name of a process",
    meaning: "A process was started with a very large environment.",
    cause: "Mostly Kubernetes itself: a namespace with hundreds of Services, whose addresses every container gets. Nothing is broken, so it is in the metrics and the log only, until the configuration makes it a Warning.",
    advice: "Set `enableServiceLinks: false` in the pod.",
    source: "env_start and env_end of /proc/<pid>/stat, read every 30 s; no process's memory is read. EKS's agent reads and counts the variables",
    ..warning("LargeEnvironment", 10)
};

pub(super) const CLOCK_UNSYNCHRONIZED: Row = Row {
    threshold: "10 minutes, after it had been synchronised in this agent's time",
    meaning: "The kernel's clock was synchronised and is not any more.",
    cause: "chronyd, ntpd or systemd-timesyncd has stopped or reaches no server.",
    advice: "`chronyc tracking` or `timedatectl timesync-status` say why. Certificates and leases depend on the clock.",
    source: "STA_UNSYNC of adjtimex(2), read every 30 s. Some time sources never tell the kernel (PTP, hypervisors' own): there it has never been clear, and nothing is said",
    ..warning("ClockUnsynchronized", 10)
};

pub(super) const ZRAM_HIGH_USAGE: Row = Row {
    threshold: "10 % of the device, before compression",
    meaning: "The host swaps to compressed memory: it is short of memory.",
    cause: "Pods that use more memory than they request, or a node that is too small.",
    advice: "Look for pods above their requests; set memory requests as they are used.",
    source: "mm_stat (orig_data_size) and disksize of /sys/block/zram*, read every 30 s",
    ..warning("ZramHighUsage", 10)
};

pub(super) const CHECK_HUNG: Row = Row {
    clears: Clears::Recovered {
        settle: Duration::ZERO,
    },
    eks: false,
    threshold: "10 s; 30 s for the thread of its own of a check that asks a device, a socket or a disk",
    meaning: "A check of the host does not come back: what it would tell is not known. The other checks go on.",
    cause: "A file system, a driver or a lock of the kernel that hangs: the check waits for it as everything else does.",
    advice: "The message names the check; `nodemend-detector check` lists what each reads. Look for AppBlocked and BlockIOStuck of the same time.",
    source: "the agent's own clock, for each check of each reading",
    ..warning("CheckHung", 0)
};
