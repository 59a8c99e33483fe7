//! PURE. What a kernel stack says about where a task waits.

/// What a task waits for, as far as its stack tells.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Wait {
    /// For a machine or a process on the other side of a file system: many nodes may share it, and
    /// whoever runs a pod can make it.
    Remote(&'static str),
    /// For a file system on a disk, or for the disk.
    Local(&'static str),
    /// For its own child or its own core dump: that may take as long as it likes.
    Own,
    /// A lock, say: whoever holds it may wait for anything, a dead mount too.
    Unclear,
}

/// Of functions, without leading underscores, and of modules.
const REMOTE: &[(&str, &str)] = &[
    ("nfs", "NFS"),
    ("rpc_", "NFS"),
    ("xprt_", "NFS"),
    ("nlmclnt", "NFS"),
    ("[nfs", "NFS"),
    ("[sunrpc]", "NFS"),
    ("[lockd]", "NFS"),
    ("cifs", "SMB"),
    ("smb2_", "SMB"),
    ("smb3_", "SMB"),
    ("SMB2_", "SMB"),
    ("smb_", "SMB"),
    ("[cifs]", "SMB"),
    ("ceph_", "Ceph"),
    ("rbd_", "Ceph"),
    ("[ceph]", "Ceph"),
    ("[libceph]", "Ceph"),
    ("[rbd]", "Ceph"),
    ("fuse_", "FUSE"),
    ("[fuse]", "FUSE"),
    ("virtio_fs_", "FUSE"),
    // Of fs/fuse/dev.c.
    ("request_wait_answer", "FUSE"),
    ("p9_", "9p"),
    ("v9fs_", "9p"),
    ("[9p", "9p"),
    // Its functions have prefixes that others use too.
    ("[lustre]", "Lustre"),
    ("[ptlrpc]", "Lustre"),
    ("[obdclass]", "Lustre"),
    ("[osc]", "Lustre"),
    ("[mdc]", "Lustre"),
    ("[lov]", "Lustre"),
    ("[lmv]", "Lustre"),
    ("[mgc]", "Lustre"),
    ("[lnet]", "Lustre"),
    ("[mmfs", "GPFS"),
    ("[beegfs]", "BeeGFS"),
    ("[wekafs", "WekaFS"),
    ("orangefs_", "OrangeFS"),
    ("afs_", "AFS"),
    ("rxrpc_", "AFS"),
    ("coda_", "Coda"),
    ("ocfs2_", "OCFS2"),
    ("gfs2_", "GFS2"),
    ("dlm_", "a cluster's locks"),
    ("nbd_", "NBD"),
    ("drbd_", "DRBD"),
    ("iscsi_", "iSCSI"),
    ("autofs_", "automount"),
    ("autofs4_", "automount"),
    ("handle_userfault", "userfaultfd"),
];

const LOCAL: &[(&str, &str)] = &[
    ("ext4_", "ext4"),
    ("jbd2_", "ext4"),
    ("xfs_", "XFS"),
    ("xlog_", "XFS"),
    ("btrfs_", "btrfs"),
    ("f2fs_", "f2fs"),
    ("blkdev_", "a block device"),
    ("submit_bio_wait", "a block device"),
    ("blk_", "a block device"),
    ("dm_", "a block device"),
    ("md_", "a block device"),
    ("raid", "a block device"),
    ("[ext4]", "ext4"),
    ("[jbd2]", "ext4"),
    ("[xfs]", "XFS"),
    ("[btrfs]", "btrfs"),
    ("[dm_", "a block device"),
    ("nvme_", "a block device"),
    ("scsi_", "a block device"),
];

/// Of the function that went to sleep: `vfork` until the child has its own program, and the threads
/// of a process whose core is dumped.
const OWN: &[&str] = &[
    "kernel_clone",
    "_do_fork",
    "coredump_task_exit",
    "exit_mm",
    "do_exit",
];

/// A frame of a function that nobody knows the name of.
pub(crate) const UNNAMED: &str = "?";

/// `frames`, the innermost first: `name`, `name [module]` or [`UNNAMED`].
pub(super) fn wait(frames: &[String]) -> Wait {
    let find = |table: &[(&str, &'static str)]| {
        let of = |frame: &String| {
            let (name, module) = parts(frame);
            table
                .iter()
                .find(|(sign, _)| name.starts_with(sign) || module.starts_with(sign))
                .map(|&(_, what)| what)
        };
        frames.iter().find_map(of)
    };
    if let Some(what) = find(REMOTE) {
        return Wait::Remote(what);
    }
    let asleep_in = frames.first().map(|frame| parts(frame).0);
    if asleep_in.is_some_and(|name| {
        OWN.iter()
            .any(|own| is_part_of(name, own.trim_start_matches('_')))
    }) {
        return Wait::Own;
    }
    if frames.iter().any(|frame| frame == UNNAMED) {
        return Wait::Unclear;
    }
    find(LOCAL).map_or(Wait::Unclear, Wait::Local)
}

/// Name, without leading underscores, and `[module]`.
fn parts(frame: &str) -> (&str, &str) {
    let (name, module) = frame.split_once(' ').unwrap_or((frame, ""));
    (name.trim_start_matches('_'), module)
}

/// The compiler splits functions: `exit_mm.isra.0`.
fn is_part_of(name: &str, function: &str) -> bool {
    let rest = name.strip_prefix(function);
    rest.is_some_and(|rest| rest.is_empty() || rest.starts_with('.'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn of(stack: &str) -> Wait {
        let frames: Vec<_> = stack.split(" < ").map(str::to_owned).collect();
        wait(&frames)
    }

    #[test]
    fn a_network_file_system_anywhere_in_the_stack_is_remote() {
        for (stack, what) in [
            (
                "rpc_wait_bit_killable [sunrpc] < __rpc_execute [sunrpc] < nfs4_call_sync_sequence [nfsv4]",
                "NFS",
            ),
            (
                "folio_wait_bit_common < filemap_read < nfs_file_read [nfs] < vfs_read",
                "NFS",
            ),
            (
                "__fuse_request_send < fuse_simple_request < fuse_lookup_name < vfs_statx",
                "FUSE",
            ),
            (
                "request_wait_answer < __fuse_simple_request < vfs_statx",
                "FUSE",
            ),
            (
                "wait_for_response [cifs] < compound_send_recv [cifs] < vfs_statx",
                "SMB",
            ),
            ("p9_client_rpc < p9_client_walk < v9fs_vfs_lookup", "9p"),
            ("ll_getattr [lustre] < vfs_statx", "Lustre"),
            ("ceph_mdsc_wait_request < ceph_do_getattr", "Ceph"),
            // A file on a loop device of a file on NFS.
            ("ext4_file_read_iter < nfs_file_read", "NFS"),
        ] {
            assert_eq!(of(stack), Wait::Remote(what), "{stack}");
        }
    }

    #[test]
    fn a_file_system_on_a_disk_and_the_disk_are_local() {
        for (stack, what) in [
            ("jbd2_log_wait_commit < ext4_sync_file < do_fsync", "ext4"),
            (
                "bit_wait_io < folio_wait_bit_common < filemap_read < ext4_file_read_iter",
                "ext4",
            ),
            (
                "xlog_wait_on_iclog [xfs] < xfs_log_force_seq [xfs] < xfs_file_fsync [xfs]",
                "XFS",
            ),
            (
                "submit_bio_wait < blkdev_issue_flush < blkdev_fsync",
                "a block device",
            ),
        ] {
            assert_eq!(of(stack), Wait::Local(what), "{stack}");
        }
    }

    #[test]
    fn a_lock_does_not_say_what_its_holder_waits_for() {
        for stack in [
            "d_alloc_parallel < __lookup_slow < walk_component < path_lookupat < vfs_statx",
            "rwsem_down_read_slowpath < lookup_slow < walk_component < path_lookupat",
            "percpu_rwsem_wait < __percpu_down_read < vfs_write < ksys_write",
            "super_lock < iterate_supers < ksys_sync",
            // A page fault on a file of an unknown file system.
            "folio_wait_bit_common < filemap_fault < __do_fault < handle_mm_fault",
            // These only begin like one.
            "i2c_smbus_xfer < smbus_read < kthread",
            "ll_back_merge_fn < submit_bio",
            "",
        ] {
            assert_eq!(of(stack), Wait::Unclear, "{stack}");
        }
    }

    #[test]
    fn who_waits_for_its_own_child_or_core_is_not_blocked() {
        assert_eq!(
            of("kernel_clone < __do_sys_vfork < do_syscall_64"),
            Wait::Own
        );
        assert_eq!(of("_do_fork.part.0 < __x64_sys_vfork"), Wait::Own);
        assert_eq!(
            of("coredump_task_exit < do_exit < do_group_exit"),
            Wait::Own
        );
        // A thread that starts another one and waits for memory from a disk.
        assert_ne!(
            of("submit_bio_wait < copy_process < kernel_clone"),
            Wait::Own
        );
        assert_ne!(of("kernel_cloned"), Wait::Own);
    }
}
