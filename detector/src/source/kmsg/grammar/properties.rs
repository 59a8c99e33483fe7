//! What holds of every family: any bytes are a fault or none, and a line is its whole self.

use std::time::Duration;

use proptest::prelude::*;

use super::super::record::{self, Record};
use super::{forged, read};
use crate::reason::Reason;
use crate::signal::What;

/// One whole line of each rule besides those of `forged`, and its level.
pub(crate) const WHOLE: [(u32, &str); 51] = [
    (2, "EXT4-fs (sda1): Remounting filesystem read-only"),
    (0, "watchdog: BUG: soft lockup - CPU#3 stuck for 26s! [x:1]"),
    (
        3,
        "I/O error, dev sda, sector 8 op 0x0:(READ) flags 0x0 phys_seg 1 prio class 2",
    ),
    (
        3,
        "Buffer I/O error on dev dm-0, logical block 0, lost async page write",
    ),
    (3, "Aborting journal on device sda1-8."),
    (
        3,
        "JBD2: I/O error when updating journal superblock for sda1-8.",
    ),
    (3, "EXT4-fs (sda1): I/O error while writing superblock"),
    (1, "XFS (md127): log I/O error -5"),
    (
        1,
        "XFS (dm-3): Filesystem has been shut down due to log error (0x2).",
    ),
    (
        1,
        "XFS (loop0): writeback error on inode 131, offset 0, sector 160",
    ),
    (
        2,
        "BTRFS: error (device sda1) in f:123: errno=-5 IO failure (Error while writing out transaction)",
    ),
    (6, "BTRFS info (device sda1): forced readonly"),
    (
        3,
        "BTRFS error (device sda1): bdev /dev/sda1 errs: wr 1, rd 0, flush 0, corrupt 0, gen 0",
    ),
    (4, "block nvme0n1: no available path - failing I/O"),
    (4, "nvme nvme4: I/O 22 QID 5 timeout, aborting"),
    (4, "nvme nvme0: Disabling device after reset failure: -5"),
    (3, "nvme nvme0: Device not ready; aborting reset, CSTS=0x1"),
    (2, "md/raid1:md0: Disk failure on sda, disabling device."),
    (6, "md/raid1:md0: active with 1 out of 2 mirrors"),
    (4, "device-mapper: multipath: 253:4: Failing path 8:16."),
    (
        6,
        "device-mapper: thin: 253:4: switching pool to read-only mode",
    ),
    (
        3,
        "device-mapper: verity: 253:4: data block 17 is corrupted",
    ),
    (5, "nfs: server 10.0.0.9 not responding, timed out"),
    (4, "NFS: nfs4_reclaim_open_state: Lock reclaim failed!"),
    (
        6,
        "NETDEV WATCHDOG: eth0 (e1000e): transmit queue 0 timed out",
    ),
    (
        2,
        "virtio_net virtio0 eth0: NETDEV WATCHDOG: CPU: 1: transmit queue 0 timed out 5040 ms",
    ),
    (
        0,
        "unregister_netdevice: waiting for lo to become free. Usage count = 1",
    ),
    (
        3,
        "mlx5_core 0000:5c:00.0: poll_health:739:(pid 0): device's health compromised - reached miss count",
    ),
    (
        3,
        "mlx5_core 0000:5c:00.0: port_module:252:(pid 0): Port module event[error]: module 0, Cable error, High Temperature",
    ),
    (
        4,
        "mlx5_core 0000:5c:00.0: mlx5_pcie_event:299:(pid 7): Detected insufficient power on the PCIe slot (27W).",
    ),
    (
        4,
        "mlx5_core 0000:5c:00.0: wait_func:1171:(pid 812): ACCESS_REG(0x805) timeout. Will cause a leak of a command resource",
    ),
    (3, "ena 0000:00:05.0 eth0: Keep alive watchdog timeout."),
    (3, "e1000e 0000:00:1f.6 eno1: Detected Hardware Unit Hang:"),
    (4, "nf_conntrack: nf_conntrack: table full, dropping packet"),
    (6, "neighbour: arp_cache: neighbor table overflow!"),
    (
        6,
        "TCP: request_sock_TCP: Possible SYN flooding on port 80. Sending cookies.",
    ),
    (6, "TCP: out of memory -- consider tuning tcp_mem"),
    (4, "NVRM: GPU 0000:29:00.0: GPU has fallen off the bus."),
    (
        3,
        "NVRM: GPU0 knvlinkUpdatePostRxDetectLinkMask_IMPL: Failed to update Rx Detect Link mask!",
    ),
    (
        3,
        "nvidia-peermem nv_get_p2p_free_callback:127 ERROR detected invalid context, skipping further processing",
    ),
    (
        3,
        "2025-01-01T00:00:00Z NEURON_HW_ERR=DMA_ERROR instance-id=i-0123456789abcdef0",
    ),
    (
        3,
        "amdgpu 0000:03:00.0: amdgpu: ring gfx_0.0.0 timeout, signaled seq=1, emitted seq=3",
    ),
    (
        6,
        "i915 0000:03:00.0: [drm] GPU HANG: ecode 12:1:85dffffb, in x [1234]",
    ),
    (
        3,
        "xe 0000:03:00.0: [drm] *ERROR* CRITICAL: Xe has declared device 0000:03:00.0 as wedged.",
    ),
    (6, "TCP: too many orphaned sockets"),
    (6, "VFS: file-max limit 1000000 reached"),
    (6, "cgroup: fork rejected by pids controller in /a"),
    (6, "pcieport 0000:00:1c.0: pciehp: Slot(5): Link Down"),
    (3, "Out of memory: Killed process 9876 (nginx)."),
    (3, "INFO: task x:7 blocked for more than 120 seconds."),
    (
        6,
        "oom-kill:constraint=CONSTRAINT_NONE,nodemask=(null),cpuset=/,mems_allowed=0,global_oom,task_memcg=/a,task=x,pid=7,uid=0",
    ),
];

fn of(level: Option<u32>, text: &str) -> Option<What> {
    read(&Record {
        facility: 0,
        level,
        sequence: 1,
        at: Duration::ZERO,
        text,
    })
}

fn lines() -> impl Iterator<Item = (u32, &'static str)> {
    WHOLE.into_iter().chain(forged::TRUE)
}

/// Lines that begin with a name of a stranger's choice, or end in free words: they are about no more
/// than that.
fn is_open(what: Option<&What>) -> bool {
    let open = [
        Reason::AppCrash,
        Reason::KernelPanic,
        Reason::ClocksourceUnstable,
        Reason::PageAllocationFailure,
    ];
    match what {
        None => true,
        Some(What::Logged(fault)) => open.contains(&fault.reason),
        Some(_) => false,
    }
}

#[test]
fn every_line_counts_as_it_stands() {
    for (level, text) in lines() {
        assert!(of(Some(level), text).is_some(), "{text}");
        assert!(of(None, text).is_some(), "{text}");
    }
}

#[test]
fn no_part_of_a_line_panics() {
    for (level, text) in lines() {
        for end in (0..text.len()).filter(|end| text.is_char_boundary(*end)) {
            for level in [Some(level), None] {
                let (begin, rest) = text.split_at(end);
                let _ = of(level, begin);
                let _ = of(level, rest);
            }
        }
    }
}

proptest! {
    #[test]
    fn any_bytes_are_a_fault_or_none(
        priority in 0..8_u32,
        bytes in prop::collection::vec(any::<u8>(), 0..300),
    ) {
        let mut raw = format!("{priority},1,2,-;").into_bytes();
        raw.extend(bytes);
        if let Some(record) = record::parse(&raw) {
            let _ = read(&record);
        }
    }

    #[test]
    fn a_line_with_something_behind_it_does_not_count(
        at in any::<prop::sample::Index>(),
        behind in r" [a-zA-Z0-9=!][a-zA-Z0-9 =!]{0,30}",
    ) {
        let lines: Vec<_> = lines().collect();
        let (level, text) = lines[at.index(lines.len())];
        for level in [Some(level), None] {
            let what = of(level, &format!("{text}{behind}"));
            prop_assert!(is_open(what.as_ref()), "{text}{behind}: {what:?}");
        }
    }

    #[test]
    fn a_line_with_something_before_it_does_not_count(
        at in any::<prop::sample::Index>(),
        before in r"[a-zA-Z0-9_.-]{1,15}[: ] ?",
    ) {
        let lines: Vec<_> = lines().collect();
        let (level, text) = lines[at.index(lines.len())];
        for level in [Some(level), None] {
            let what = of(level, &format!("{before}{text}"));
            prop_assert!(is_open(what.as_ref()), "{before}{text}: {what:?}");
        }
    }

    #[test]
    fn a_line_with_a_byte_changed_panics_nowhere(
        at in any::<prop::sample::Index>(),
        place in any::<prop::sample::Index>(),
        other in any::<char>(),
    ) {
        let lines: Vec<_> = lines().collect();
        let (level, text) = lines[at.index(lines.len())];
        let mut changed: Vec<char> = text.chars().collect();
        let place = place.index(changed.len());
        changed[place] = other;
        let changed: String = changed.into_iter().collect();
        let _ = of(Some(level), &changed);
    }
}
