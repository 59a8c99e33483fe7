//! PURE. Limits on processes and files that were reached.

use super::fault::{digits, fault, on, shown};
use super::{Record, What, at_level};
use crate::reason::Reason;
use crate::signal::{LogFault, Task, Workload};

pub(super) fn read(record: &Record<'_>) -> Option<What> {
    pids(record).or_else(|| files(record))
}

/// `cgroup: fork rejected by pids controller in /kubepods.slice/...`, KERN_INFO, once for each
/// cgroup (kernel/cgroup/pids.c). A container may have chosen the last names of the path.
fn pids(record: &Record<'_>) -> Option<What> {
    let path = at_level(record, 6)?.strip_prefix("cgroup: fork rejected by pids controller in ")?;
    let is_path = path.starts_with('/') && path.bytes().all(|b| b.is_ascii_graphic());
    let workload = Workload::from_cgroup_path(path).filter(|_| is_path)?;
    let entity = shown(&workload.holder());
    let message = format!("{entity} may have no more processes: a fork was refused");
    Some(What::Logged(LogFault {
        // The line tells no process.
        task: Some(Task {
            workload: Some(workload),
            ..Task::default()
        }),
        ..fault(Reason::PidsLimitReached, entity, &message)
    }))
}

/// `VFS: file-max limit 1000000 reached`, KERN_INFO (fs/file_table.c).
fn files(record: &Record<'_>) -> Option<What> {
    let limit = at_level(record, 6)?
        .strip_prefix("VFS: file-max limit ")?
        .strip_suffix(" reached")?;
    let message = format!("{limit} files are open, which is fs.file-max");
    digits(limit).then(|| on(Reason::FileMaxReached, "host".to_owned(), &message))
}

#[cfg(test)]
mod tests {
    use super::super::check::{forged_by_names, nothing, reads};
    use super::*;

    const UID: &str = "0f7a1c9e-3b7d-4c5e-9f00-1234567890ab";

    #[test]
    fn a_refused_fork_names_pod_and_container() {
        let (slice, id) = (UID.replace('-', "_"), "a".repeat(64));
        let fault = reads(
            6,
            read,
            &format!(
                "cgroup: fork rejected by pids controller in /kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{slice}.slice/cri-containerd-{id}.scope"
            ),
        );
        assert_eq!(fault.reason, Reason::PidsLimitReached);
        assert_eq!(fault.entity, format!("pod {UID} container {id}"));
        let workload = fault.task.unwrap().workload.unwrap();
        assert_eq!(workload.pod_uid.as_deref(), Some(UID));
    }

    #[test]
    fn a_cgroup_that_a_container_made_is_its_containers() {
        let id = "b".repeat(64);
        let fault = reads(
            6,
            read,
            &format!(
                "cgroup: fork rejected by pids controller in /kubepods/pod{UID}/{id}/own;name"
            ),
        );
        assert_eq!(fault.entity, format!("pod {UID} container {id}"));
    }

    #[test]
    fn a_refused_fork_outside_of_pods_is_of_its_cgroup() {
        let fault = reads(
            6,
            read,
            "cgroup: fork rejected by pids controller in /system.slice/a;b.service",
        );
        assert_eq!(fault.entity, "system.slice/a,b.service");
    }

    #[test]
    fn the_limit_on_files_is_the_hosts() {
        let fault = reads(6, read, "VFS: file-max limit 1000000 reached");
        assert_eq!(
            (fault.reason, fault.entity.as_str()),
            (Reason::FileMaxReached, "host")
        );
    }

    #[test]
    fn what_is_not_whole_does_not_count() {
        for text in [
            "VFS: file-max limit 1000000",
            "VFS: file-max limit reached",
            "VFS: file-max limit -1 reached",
            "VFS: file-max limit 1 reached IN=eth0",
            "x VFS: file-max limit 1 reached",
            "cgroup: fork rejected by pids controller in kubepods",
            "cgroup: fork rejected by pids controller in /a b",
            "x cgroup: fork rejected by pids controller in /a",
        ] {
            nothing(6, read, text);
        }
        nothing(4, read, "VFS: file-max limit 1000000 reached");
        nothing(5, read, "cgroup: fork rejected by pids controller in /a");
        forged_by_names(
            read,
            &[
                "cgroup: fork re",
                "cgroup: fork rejected by pids controller in /kubepods/x",
                "VFS: file-max l",
                "VFS: file-max limit 1 reached",
            ],
        );
    }
}
