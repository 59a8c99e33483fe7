//! PURE. Rows of `StorageReady` that user space tells.

use std::time::Duration;

use super::{Clears, ConditionType, Row, Severity};

const fn warning(name: &'static str) -> Row {
    Row {
        name,
        condition: ConditionType::StorageReady,
        severity: Severity::Warning,
        clears: Clears::Quiet(Duration::from_secs(1800)),
        eks: true,
        threshold: "",
        meaning: "",
        cause: "",
        advice: "",
        source: "",
    }
}

pub(super) const KUBELET_DISK_USAGE_SLOW: Row = Row {
    threshold: "each line",
    meaning: "kubelet needed more than a second to count the files of a container.",
    cause: "A slow or busy disk, or a container with very many files.",
    advice: "Look at the disk's load (`iostat -x`), and for the volume with the most files.",
    source: "journal of kubelet.service: `fs: disk usage and inodes count on following dirs took` (cAdvisor)",
    ..warning("KubeletDiskUsageSlow")
};

pub(super) const ETC_HOSTS_MOUNT_FAILED: Row = Row {
    threshold: "each line; one finding for each pod, where the line names it",
    meaning: "A container could not be started, because its /etc/hosts could not be mounted.",
    cause: "The pod's folder below /var/lib/kubelet is gone: mostly the pod was deleted meanwhile.",
    advice: "None for a single one. Many: look at the disk under /var/lib/kubelet.",
    source: "journal of kubelet.service and containerd.service: `error mounting \".../etc-hosts\" to rootfs at \"/etc/hosts\"`",
    ..warning("EtcHostsMountFailed")
};

pub(super) const IO_DELAYS: Row = Row {
    threshold: "a process that waited for disks for 10 of 30 seconds; or, of the whole host, all of its work for 20 % of 5 minutes",
    meaning: "Work waits for disks.",
    cause: "A disk that is slow, at the limit of its volume, or failing; too little memory, so that files are read again and again.",
    advice: "Compare with the volume's own metrics, with BlockDeviceIOError and with MemoryStall.",
    source: "delayacct_blkio_ticks of /proc/<pid>/stat, read every 30 s (with `kernel.task_delayacct=1`; off by default since Linux 5.14); `full avg300` of /proc/pressure/io, read as often",
    ..warning("IODelays")
};

pub(super) const XFS_SMALL_AVERAGE_CLUSTER_SIZE: Row = Row {
    clears: Clears::Recovered {
        settle: Duration::from_secs(30),
    },
    threshold: "less than 16 blocks on average",
    meaning: "The free space of an XFS is in small pieces: it can say that it is full while it is not.",
    cause: "A file system that has been nearly full for long.",
    advice: "Free space, or replace the volume; `xfs_db -r -c 'freesp -s'` shows the pieces.",
    source: "the map of the mounted file system (FS_IOC_GETFSMAP), its first 65,536 pieces, read every 10 minutes",
    ..warning("XFSSmallAverageClusterSize")
};

pub(super) const DISK_NEARLY_FULL: Row = Row {
    clears: Clears::Recovered {
        settle: Duration::from_secs(60),
    },
    eks: false,
    threshold: "less than 10 % of its space, or 5 % of its inodes, as kubelet's own defaults for evictions",
    meaning: "A file system that the node cannot do without (`--critical-mount`) is nearly full: kubelet evicts pods (DiskPressure), and then nothing can be written.",
    cause: "Logs, images or emptyDirs that grow, files that were deleted and are still open, or a volume that is too small.",
    advice: "`du -x` on the path, `crictl rmi --prune`, `lsof +L1`. kubelet's own word, where it has one, is in the message.",
    source: "statvfs(2) of each `--critical-mount`, read every minute on a thread of its own",
    ..warning("DiskNearlyFull")
};
