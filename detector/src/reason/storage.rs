//! PURE. Rows of `StorageReady`.

use std::time::Duration;

use super::{Clears, ConditionType, Row, Severity};

pub(super) const BLOCK_IO_ERROR: Row = Row {
    name: "BlockDeviceIOError",
    condition: ConditionType::StorageReady,
    severity: Severity::Warning,
    clears: Clears::Quiet(Duration::from_secs(600)),
    eks: true,
    threshold: "each failed request, from the tracepoint or from the kernel log; one finding for each disk",
    meaning: "A disk failed a read, a write or a flush. Requests that the device merely does not support, and those that the kernel tries again, do not count.",
    cause: "A failing disk, a volume that was detached or timed out, a link or controller error, a thin volume without space.",
    advice: "Medium and integrity errors: replace the disk. Timeouts and transport errors: look at the volume's or the link's health. Space errors: a thin volume is full.",
    source: "tracepoint block:block_rq_error (5.18 and later), else block:block_rq_complete with an error; the class follows blk_status_t. Kernel log, level 3: `I/O error, dev X, sector N op ...`, `critical medium error, ...`, `Buffer I/O error on dev X, ...` (block/blk-mq.c, fs/buffer.c), counted once with the tracepoint",
};

pub(super) const BLOCK_IO_STUCK: Row = Row {
    name: "BlockIOStuck",
    condition: ConditionType::StorageReady,
    severity: Severity::Warning,
    clears: Clears::Recovered {
        settle: Duration::from_secs(120),
    },
    eks: false,
    threshold: "requests in flight and none completed for two readings, a minute by default; one finding for each disk, and none for what is stacked upon it",
    meaning: "A disk has requests and completes none: whoever waits for it is blocked, while nothing has failed yet.",
    cause: "A volume that was detached or does not answer, a controller that hangs, paths that are all gone, a loop device whose file system does not answer.",
    advice: "Look at the volume's or the controller's health. The kernel's own timeouts (30 s for most SCSI disks; for hours on some clouds' NVMe) decide when it turns into errors.",
    source: "/sys/block/*/inflight and /sys/block/*/stat. One request that hangs on a disk that does others is not seen by them",
};

pub(super) const FILESYSTEM_ERROR: Row = Row {
    name: "FilesystemError",
    condition: ConditionType::StorageReady,
    severity: Severity::Warning,
    clears: Clears::Quiet(Duration::from_secs(1800)),
    eks: false,
    threshold: "each line; one finding for each device",
    meaning: "ext4, XFS or btrfs found its on-disk structures damaged, or could not write them.",
    cause: "I/O errors of the disk below, an unclean detach of the volume, a kernel bug.",
    advice: "Unmount and check the file system (e2fsck, xfs_repair, btrfs check); look for I/O errors of the disk below.",
    source: "tracepoint ext4:ext4_error; kernel log: level 2 `EXT4-fs error (device X): function:line: ...` (fs/ext4/super.c), level 1 `XFS (X): metadata I/O error ...`, `Metadata corruption detected at ...` (fs/xfs), levels 2 to 4 `BTRFS: error (device X) in ...`, `bdev X errs: ...`, `csum failed ...` (fs/btrfs), level 3 or 4 superblock and journal of ext4 that could not be written",
};

pub(super) const WRITEBACK_ERROR: Row = Row {
    name: "WritebackError",
    condition: ConditionType::StorageReady,
    severity: Severity::Warning,
    clears: Clears::Quiet(Duration::from_secs(1800)),
    eks: false,
    threshold: "each event; one finding for each file system",
    meaning: "Data that a program had written, and that the kernel had taken, could not be written to the disk: it is lost unless the program calls fsync and tries again.",
    cause: "I/O errors of the disk below, a thin volume or a remote file system without space.",
    advice: "Look for I/O errors of the disk and for its free space. What was written to the named inode in the last minute is not to be trusted (`find -xdev -inum N`).",
    source: "tracepoint filemap:filemap_set_wb_err (mm/filemap.c). Its errseq is the value before this error, so that 0 is a file's first; without it the kernel log, level 4 `EXT4-fs warning (device X): ext4_end_bio:...: I/O error N writing to inode ...` (fs/ext4/page-io.c) and level 1 `XFS (X): writeback error on inode ...`",
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
    meaning: "The kernel turned a file system read-only or shut it down after an error. Nothing on it can be written any more: under the root, kubelet or the container runtime the node cannot serve.",
    cause: "The kernel found an error in the structures of ext4, XFS or btrfs, or could not write their journal or log: an I/O error of the disk, a volume that was detached.",
    advice: "Replace the node, or unmount, check and mount the file system again.",
    source: "kernel log, level 2: `EXT4-fs (X): Remounting filesystem read-only`, or whatever opens XFSShutdown, BtrfsReadOnly or JournalAborted; confirmed by mountinfo (`ro`, `emergency_ro` since 6.18) or a probe write: 5.15 to 6.12 still show `rw`",
};

pub(super) const XFS_SHUTDOWN: Row = Row {
    name: "XFSShutdown",
    condition: ConditionType::StorageReady,
    severity: Severity::Warning,
    clears: Clears::Quiet(Duration::from_secs(1800)),
    eks: false,
    threshold: "each line; one finding for each device",
    meaning: "XFS shut a file system down after an error: everything on it fails until it is mounted again. /proc/mounts still shows it as `rw`.",
    cause: "A log or metadata block that could not be written, damaged structures, a disk that was detached.",
    advice: "Look for I/O errors of the disk; unmount, repair (xfs_repair) and mount again, or replace the node.",
    source: "tracepoint xfs:xfs_force_shutdown (newer than 5.10); kernel log, level 1: `XFS (X): log I/O error -5`, `... Shutting down filesystem`, `Filesystem has been shut down due to log error (0x2).` (fs/xfs/xfs_fsops.c, xfs_log.c)",
};

pub(super) const BTRFS_READ_ONLY: Row = Row {
    name: "BtrfsReadOnly",
    condition: ConditionType::StorageReady,
    severity: Severity::Warning,
    clears: Clears::Quiet(Duration::from_secs(1800)),
    eks: false,
    threshold: "each line; one finding for each device",
    meaning: "btrfs made a file system read-only after an error.",
    cause: "A transaction that could not be written: I/O errors, damaged structures, no space for metadata.",
    advice: "Look at the lines before it and at `btrfs device stats`; mount again after the cause is gone.",
    source: "kernel log, level 6: `BTRFS info (device X): forced readonly` (fs/btrfs/messages.c)",
};

pub(super) const JOURNAL_ABORTED: Row = Row {
    name: "JournalAborted",
    condition: ConditionType::StorageReady,
    severity: Severity::Warning,
    clears: Clears::Quiet(Duration::from_secs(1800)),
    eks: false,
    threshold: "each line; one finding for each device",
    meaning: "The journal of an ext4 file system could not be written and was given up, or the file system was shut down: nothing on it can be changed any more.",
    cause: "I/O errors of the disk below, or a volume that was detached.",
    advice: "Look for I/O errors of the disk; unmount, check (e2fsck) and mount again, or replace the node.",
    source: "tracepoint ext4:ext4_shutdown; kernel log, level 3: `Aborting journal on device X-8.` (fs/jbd2/journal.c)",
};

pub(super) const NVME_TIMEOUT: Row = Row {
    name: "NVMeTimeout",
    condition: ConditionType::StorageReady,
    severity: Severity::Warning,
    clears: Clears::Quiet(Duration::from_secs(600)),
    eks: false,
    threshold: "each line; one finding for each controller",
    meaning: "An NVMe controller did not answer a command in time (30 seconds by default): the command is aborted or the controller reset.",
    cause: "A drive or its firmware that hangs, a network volume that does not answer, a lost interrupt (`completion polled`).",
    advice: "A single one can be a volume that was slow for a while. Repeated ones: replace the volume or the node.",
    source: "kernel log, level 4: `nvme nvmeN: I/O tag N (..) opcode .. (..) QID N timeout, reset controller`, before 6.6 `I/O N QID N timeout, ...` (drivers/nvme/host/pci.c, tcp.c)",
};

pub(super) const NVME_COMMAND_RETRIED: Row = Row {
    name: "NVMeCommandRetried",
    condition: ConditionType::StorageReady,
    severity: Severity::Warning,
    clears: Clears::Quiet(Duration::from_secs(1800)),
    eks: false,
    threshold: "each failed attempt that the kernel makes again (media, data transfer, internal and path errors); one finding for each disk",
    meaning: "An NVMe command failed and was tried again. Nothing was lost, and the kernel log says nothing of it; a disk that does so often is about to fail.",
    cause: "A worn or failing medium, a marginal link, a volume whose path changes.",
    advice: "Look at `nvme smart-log`. Rising numbers: replace the disk or the volume in time. What still failed in the end is a BlockDeviceIOError.",
    source: "tracepoint nvme:nvme_complete_rq with a status (drivers/nvme/host/trace.h; the status codes are NVMe Base Specification 2.0, figure 93 and following)",
};

pub(super) const NVME_CONTROLLER_FAILED: Row = Row {
    name: "NVMeControllerFailed",
    condition: ConditionType::StorageReady,
    severity: Severity::Warning,
    clears: Clears::Quiet(Duration::from_secs(1800)),
    eks: false,
    threshold: "each line; one finding for each controller, or namespace whose paths are all gone",
    meaning: "An NVMe controller went down, could not be reset, or was given up: I/O to its namespaces fails.",
    cause: "A drive that failed or was pulled, a PCIe link that is down, a power state that it does not survive.",
    advice: "Replace the drive or the node, unless the controller came back.",
    source: "kernel log, level 4: `nvme nvmeN: controller is down; will reset: ...`, `Disabling device after reset failure: N`, `Removing after probe failure status: N`, `block nvmeXnY: no available path - failing I/O`; level 3: `Device not ready; aborting reset` (drivers/nvme/host)",
};

pub(super) const SCSI_ERROR: Row = Row {
    name: "SCSIError",
    condition: ConditionType::StorageReady,
    severity: Severity::Warning,
    clears: Clears::Quiet(Duration::from_secs(600)),
    eks: false,
    threshold: "each line; one finding for each disk",
    meaning: "A command of a SCSI (or SATA) disk failed for good.",
    cause: "A failing disk, a link, an adapter or a network volume that does not answer: the host byte tells which.",
    advice: "DID_OK with a sense key: the disk. DID_TIME_OUT, DID_NO_CONNECT, DID_TRANSPORT_...: the way to it.",
    source: "tracepoint scsi:scsi_dispatch_cmd_done (its sense from 6.5 on) and scsi:scsi_dispatch_cmd_timeout; kernel log, level 6: `sd H:C:T:L: [sdX] tag#N FAILED Result: hostbyte=.. driverbyte=.. cmd_age=Ns`; level 3: `timing out command, waited Ns` (drivers/scsi/scsi_logging.c, scsi_lib.c); without the tracepoints `ioerr_cnt` (10 and more between two readings) and `iotmo_cnt` of the device as well, read every 30 s",
};

pub(super) const SCSI_DEVICE_OFFLINE: Row = Row {
    name: "SCSIDeviceOffline",
    condition: ConditionType::StorageReady,
    severity: Severity::Warning,
    clears: Clears::Quiet(Duration::from_secs(1800)),
    eks: false,
    threshold: "each line; one finding for each SCSI address (host:channel:target:lun)",
    meaning: "The kernel gave a SCSI device up after error recovery had failed: all I/O to it fails.",
    cause: "A disk or the way to it that has failed.",
    advice: "Find the disk by its address (`lsscsi`, /sys/class/scsi_device); replace it, or the node.",
    source: "kernel log, level 6: `sd H:C:T:L: Device offlined - not ready after error recovery`; level 3: `rejecting I/O to offline device` (drivers/scsi/scsi_error.c, scsi_lib.c)",
};

pub(super) const ATA_ERROR: Row = Row {
    name: "ATAError",
    condition: ConditionType::StorageReady,
    severity: Severity::Warning,
    clears: Clears::Quiet(Duration::from_secs(600)),
    eks: false,
    threshold: "each line; one finding for each port",
    meaning: "A command of an ATA disk failed or timed out, or the link to it had an error; the kernel resets the link and tries again.",
    cause: "A failing disk, a bad cable or backplane (SErr is not 0), power.",
    advice: "Look at the disk's SMART data; errors on several ports at once point to controller, cable or power.",
    source: "tracepoint libata:ata_eh_link_autopsy, except for commands that the device itself refuses; kernel log, level 3: `ataN.NN: exception Emask ...`, `failed command: ...`, `COMRESET failed (errno=N)`; level 4: `disable device`, `limiting SATA link speed to ...` (drivers/ata/libata-eh.c, libata-core.c)",
};

pub(super) const RAID_DEGRADED: Row = Row {
    name: "RAIDDegraded",
    condition: ConditionType::StorageReady,
    severity: Severity::Warning,
    clears: Clears::Quiet(Duration::from_secs(3600)),
    eks: false,
    threshold: "each line; one finding for each array",
    meaning: "A software RAID array lost a disk, or was started without one. It may still serve; the next loss can end it.",
    cause: "A disk that failed or was detached.",
    advice: "Look at /proc/mdstat; replace the disk and add it again (mdadm).",
    source: "kernel log, level 2: `md/raidN:mdN: Disk failure on X, disabling device.` or ` detected, failing array.` (drivers/md/raid1.c, raid5.c, raid10.c, raid0.c); level 6: `md/raidN:mdN: active with N out of M ...` with fewer disks than it has",
};

pub(super) const DEVICE_MAPPER_ERROR: Row = Row {
    name: "DeviceMapperError",
    condition: ConditionType::StorageReady,
    severity: Severity::Warning,
    clears: Clears::Quiet(Duration::from_secs(1800)),
    eks: false,
    threshold: "each line; one finding for each map (major:minor)",
    meaning: "A device-mapper device lost a path (multipath), cannot write any more (thin pool), or read data that does not verify (verity).",
    cause: "A path to the storage that is down, a thin pool without space, damaged or changed data.",
    advice: "Find the map by its number (`dmsetup ls`). Multipath: `multipath -ll`. Thin pool: extend it.",
    source: "kernel log: level 4 `device-mapper: multipath: M:N: Failing path M:N.`, level 6 `device-mapper: thin: M:N: switching pool to ... mode`, level 3 `device-mapper: verity: M:N: data block N is corrupted` (drivers/md/dm-mpath.c, dm-thin.c, dm-verity-target.c)",
};

pub(super) const NFS_NOT_RESPONDING: Row = Row {
    name: "NFSNotResponding",
    condition: ConditionType::StorageReady,
    severity: Severity::Warning,
    clears: Clears::Quiet(Duration::from_secs(600)),
    eks: false,
    threshold: "each line; one finding for each server",
    meaning: "An NFS server does not answer: what uses its mounts waits, or gets errors where they are soft.",
    cause: "A server or a network that is down. All nodes that mount from it share this: it is no fault of the node.",
    advice: "Look at the server. Replacing the node does not help.",
    source: "kernel log, level 5: `nfs: server X not responding, still trying` or `timed out` (net/sunrpc/clnt.c)",
};

pub(super) const NFS_LOCK_LOST: Row = Row {
    name: "NFSLockLost",
    condition: ConditionType::StorageReady,
    severity: Severity::Warning,
    clears: Clears::Quiet(Duration::from_secs(600)),
    eks: false,
    threshold: "each line; the kernel names no server",
    meaning: "A process held a lock on a file of an NFS server. The server was away, and the lock could not be had again: another client may have changed the file.",
    cause: "A server that restarted or was cut off for longer than its grace period.",
    advice: "Look for the server in earlier lines; restart what relies on locks of its files.",
    source: "kernel log, level 4: `NFS: nfs4_reclaim_open_state: Lock reclaim failed!` (fs/nfs/nfs4state.c)",
};

pub(super) const ACCESS_BEYOND_END_OF_DEVICE: Row = Row {
    name: "AccessBeyondEndOfDevice",
    condition: ConditionType::StorageReady,
    severity: Severity::Warning,
    clears: Clears::Quiet(Duration::from_secs(1800)),
    eks: false,
    threshold: "each line; one finding for each device, where the line names it",
    meaning: "Something asked for blocks that a device does not have; the request was refused.",
    cause: "A file system that is larger than its device: the device shrank or was cut off, or its structures are damaged.",
    advice: "Compare the sizes of device and file system (`lsblk`, `dumpe2fs -h`, `xfs_info`); check the file system.",
    source: "kernel log, level 6: `comm: attempt to access beyond end of device`, then `X: rw=N, sector=N, nr_sectors = N limit=N` (block/blk-core.c)",
};
