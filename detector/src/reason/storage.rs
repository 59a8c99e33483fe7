//! PURE. Rows of `StorageReady`.

use std::time::Duration;

use super::{Clears, ConditionType, Row, Severity};

pub(super) const BLOCK_IO_ERROR: Row = Row {
    name: "BlockIOError",
    condition: ConditionType::StorageReady,
    severity: Severity::Warning,
    clears: Clears::Quiet(Duration::from_secs(600)),
    eks: false,
    threshold: "each failed request; one finding for each disk",
    meaning: "A disk failed a read, a write or a flush. Requests that the device merely does not support, and those that the kernel tries again, do not count.",
    cause: "A failing disk, a volume that was detached or timed out, a link or controller error, a thin volume without space.",
    advice: "Medium and integrity errors: replace the disk. Timeouts and transport errors: look at the volume's or the link's health. Space errors: a thin volume is full.",
    source: "tracepoint block:block_rq_error (5.18 and later), else block:block_rq_complete with an error; the class follows blk_status_t",
};

pub(super) const FILESYSTEM_ERROR: Row = Row {
    name: "FilesystemError",
    condition: ConditionType::StorageReady,
    severity: Severity::Warning,
    clears: Clears::Quiet(Duration::from_secs(1800)),
    eks: false,
    threshold: "each line; one finding for each device",
    meaning: "ext4 found its on-disk structures damaged or could not write them.",
    cause: "I/O errors of the disk below, an unclean detach of the volume, a kernel bug.",
    advice: "Unmount and check the file system (e2fsck); look for I/O errors of the disk below.",
    source: "kernel log, level 2: `EXT4-fs error (device X): function:line: ...` (fs/ext4/super.c)",
};

pub(super) const FILESYSTEM_READ_ONLY: Row = Row {
    name: "FilesystemReadOnly",
    condition: ConditionType::StorageReady,
    severity: Severity::Fatal,
    clears: Clears::Recovered {
        settle: Duration::from_secs(15),
    },
    eks: false,
    threshold: "at once, when the mount is seen to be read-only; Fatal only if a critical path lies on it (--critical-mount), else a Warning",
    meaning: "The kernel turned a file system read-only after an error. Nothing on it can be written any more: under the root, kubelet or the container runtime the node cannot serve.",
    cause: "The kernel found an error in ext4's structures, or its journal could not be written, and the mount option `errors=remount-ro` did its work.",
    advice: "Replace the node, or unmount, check and mount the file system again.",
    source: "kernel log, level 2: `EXT4-fs (X): Remounting filesystem read-only`, confirmed by mountinfo (`ro`, `emergency_ro` since 6.18) or a probe write: 5.15 to 6.12 still show `rw`",
};
