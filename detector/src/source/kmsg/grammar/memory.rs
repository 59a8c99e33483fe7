//! PURE. Pages that were given up, and allocations that failed.

use super::super::record::Record;
use super::words::{comm, hex, is_word, only, process};
use super::{at_level, number};
use crate::reason::Reason;
use crate::signal::{LogFault, Task};
use crate::text;

pub(super) fn read(record: &Record<'_>) -> Option<LogFault> {
    poisoned(record)
        .or_else(|| killed_by_access(record))
        .or_else(|| allocation(record))
        .or_else(|| of_xfs(record))
}

/// KERN_ERR (mm/memory-failure.c). One page gives a line for each process that is killed, and one of
/// what became of it: `Memory failure: 0x12345: recovery action for dirty LRU page: Recovered`.
fn poisoned(record: &Record<'_>) -> Option<LogFault> {
    let rest = at_level(record, 3)?.strip_prefix("Memory failure: 0x")?;
    let (page, rest) = rest.split_once(": ")?;
    let page = hex(page)?;
    let (what, task) = if let Some(rest) = rest.strip_prefix("recovery action for ") {
        let (kind, result) = rest.split_once(": ")?;
        let known = ["Ignored", "Failed", "Delayed", "Recovered"].contains(&result);
        let fits =
            kind.len() <= 64 && only(kind, |b| b.is_ascii_alphanumeric() || b" -/".contains(&b));
        if !known || !fits {
            return None;
        }
        (format!("a {kind}: {result}"), None)
    } else if rest == "already hardware poisoned" {
        ("used again though already poisoned".to_owned(), None)
    } else {
        let victim = rest
            .strip_prefix("Sending SIGBUS to ")
            .or_else(|| rest.strip_prefix("Killing "))
            .and_then(|rest| rest.strip_suffix(" due to hardware memory corruption"))
            .or_else(|| {
                rest.strip_prefix("forcibly killing ")?
                    .strip_suffix(" because of failure to unmap corrupted page")
            })?;
        let task = task(victim)?;
        let what = format!(
            "used by process {} (pid {}), which was sent SIGBUS",
            task.comm, task.pid
        );
        (what, Some(task))
    };
    let message = format!("the hardware cannot keep the memory page {page:#x}: {what}");
    Some(LogFault {
        task,
        ..LogFault::new(
            Reason::MemoryPagePoisoned,
            format!("page {page:#x}"),
            message,
        )
    })
}

/// `MCE: Killing comm:7 due to hardware memory corruption fault at 7f0000000000`, KERN_ERR
/// (arch/x86/mm/fault.c).
fn killed_by_access(record: &Record<'_>) -> Option<LogFault> {
    let rest = at_level(record, 3)?.strip_prefix("MCE: Killing ")?;
    let (victim, address) = rest.rsplit_once(" due to hardware memory corruption fault at ")?;
    hex(address)?;
    let task = task(victim)?;
    let (comm, pid) = (&task.comm, task.pid);
    let message = format!(
        "process {comm} (pid {pid}) was killed for touching a memory page that the hardware cannot keep"
    );
    Some(LogFault {
        task: Some(task.clone()),
        ..LogFault::new(
            Reason::MemoryPagePoisoned,
            format!("process {comm}"),
            message,
        )
    })
}

fn task(text: &str) -> Option<Task> {
    let (comm, pid) = process(text, ':')?;
    Some(Task {
        pid,
        comm,
        workload: None,
    })
}

/// `comm: page allocation failure: order:4, mode:0xcc0(GFP_KERNEL), nodemask=(null),cpuset=/,
/// mems_allowed=0`, KERN_WARNING (mm/page_alloc.c, `warn_alloc`). The process' name comes first, but
/// is too short to hold the rest.
fn allocation(record: &Record<'_>) -> Option<LogFault> {
    let line = at_level(record, 4)?;
    let (name, rest) = line.split_once(": page allocation failure: order:")?;
    let (order, rest) = rest.split_once(", mode:0x")?;
    let (mode, rest) = rest.split_once('(')?;
    let (flags, rest) = rest.split_once(')')?;
    let order = number(order).filter(|order| *order <= 64)?;
    hex(mode)?;
    let flag = |b: u8| b.is_ascii_alphanumeric() || b"_|".contains(&b);
    let fits = flags.len() <= 400
        && only(flags, flag)
        && (rest.is_empty() || rest.starts_with(", nodemask="));
    let name = comm(name).filter(|_| fits)?;
    let message = format!(
        "process {name} could not be given {} contiguous pages (order {order}, {})",
        1_u128 << order,
        text::part(flags, 100)
    );
    Some(LogFault::new(
        Reason::PageAllocationFailure,
        format!("process {name}"),
        message,
    ))
}

/// `XFS: comm(7) possible memory allocation deadlock size 65552 in kmem_alloc (mode:0x2400240)`, KERN_ERR
/// (fs/xfs/kmem.c, until 6.9; without the size of fs/xfs/xfs_buf.c): XFS asks again and again for what
/// the kernel cannot give it.
fn of_xfs(record: &Record<'_>) -> Option<LogFault> {
    let rest = at_level(record, 3)?.strip_prefix("XFS: ")?;
    // From the end: a process chose its name.
    let (task, rest) = rest.rsplit_once(") possible memory allocation deadlock ")?;
    let (name, pid) = task.rsplit_once('(')?;
    let (place, mode) = rest.strip_suffix(')')?.split_once(" (mode:0x")?;
    let (size, function) = match place.strip_prefix("size ") {
        Some(sized) => sized.split_once(" in ")?,
        None => ("1", place.strip_prefix("in ")?),
    };
    hex(mode)?;
    number(size)?;
    let (name, pid) = (comm(name)?, number(pid)?);
    let message =
        format!("XFS cannot get the memory that it needs for process {name} and keeps trying");
    is_word(function).then(|| LogFault {
        task: Some(Task {
            pid,
            comm: name.clone(),
            workload: None,
        }),
        ..LogFault::new(
            Reason::PageAllocationFailure,
            format!("process {name}"),
            message,
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{logged, logged_at};
    use super::*;

    #[test]
    fn a_poisoned_page_is_one_entity_whoever_used_it() {
        for text in [
            "Memory failure: 0x12345: recovery action for dirty LRU page: Recovered",
            "Memory failure: 0x12345: recovery action for reserved kernel page: Ignored",
            "Memory failure: 0x12345: Sending SIGBUS to a:b:812 due to hardware memory corruption",
            "Memory failure: 0x12345: Killing x:812 due to hardware memory corruption",
            "Memory failure: 0x12345: forcibly killing x:812 because of failure to unmap corrupted page",
            "Memory failure: 0x12345: already hardware poisoned",
        ] {
            let fault = logged(3, text);
            assert_eq!(
                (fault.reason, fault.entity.as_str()),
                (Reason::MemoryPagePoisoned, "page 0x12345"),
                "{text}"
            );
        }
    }

    #[test]
    fn a_process_that_was_killed_for_a_page_is_named() {
        let text = "MCE: Killing a:b:812 due to hardware memory corruption fault at 7f0000000000";
        let task = logged(3, text).task.unwrap();
        assert_eq!((task.comm.as_str(), task.pid), ("a:b", 812));
    }

    #[test]
    fn a_failed_allocation_names_the_process_and_the_order() {
        for (text, name) in [
            (
                "kworker/0:1: page allocation failure: order:4, mode:0xcc0(GFP_KERNEL), nodemask=(null),cpuset=/,mems_allowed=0",
                "process kworker/0:1",
            ),
            (
                "a b: page allocation failure: order:4, mode:0x24040c0(GFP_KERNEL|__GFP_COMP)",
                "process a b",
            ),
        ] {
            let fault = logged(4, text);
            assert_eq!(
                (fault.reason, fault.entity.as_str()),
                (Reason::PageAllocationFailure, name)
            );
            assert!(fault.message.contains("16 contiguous"), "{}", fault.message);
        }
    }

    #[test]
    fn xfs_that_waits_for_memory_is_a_failed_allocation() {
        for text in [
            "XFS: a(b (812) possible memory allocation deadlock size 65552 in kmem_alloc (mode:0x2400240)",
            "XFS: a(b (812) possible memory allocation deadlock in xfs_buf_allocate_memory (mode:0x2400240)",
        ] {
            let fault = logged(3, text);
            assert_eq!(
                (fault.reason, fault.entity.as_str()),
                (Reason::PageAllocationFailure, "process a(b ")
            );
            assert_eq!(fault.task.unwrap().pid, 812);
        }
    }

    #[test]
    fn what_only_resembles_a_memory_error_does_not_count() {
        for (level, text) in [
            (
                3,
                "XFS: x(7) possible memory allocation deadlock size 65552 in a b (mode:0x1)",
            ),
            (
                3,
                "XFS: x(7) possible memory allocation deadlock in f (mode:0x1) x",
            ),
            (
                3,
                "XFS: x(y) possible memory allocation deadlock in f (mode:0x1)",
            ),
            (
                4,
                "XFS: x(7) possible memory allocation deadlock in f (mode:0x1)",
            ),
            (
                3,
                "Memory failure: 0x1z: recovery action for dirty LRU page: Recovered",
            ),
            (
                3,
                "Memory failure: 0x1: recovery action for dirty LRU page: Great",
            ),
            (
                3,
                "Memory failure: 0x1: Sending SIGBUS to x due to hardware memory corruption",
            ),
            (6, "Memory failure: 0x12345: already hardware poisoned"),
            (
                3,
                "MCE: Killing x:812 due to hardware memory corruption fault at home",
            ),
            (4, "x: page allocation failure: order:4"),
            (4, "x: page allocation failure: order:99, mode:0x0()"),
            (
                4,
                ": page allocation failure: order:4, mode:0xcc0(GFP_KERNEL)",
            ),
            (
                6,
                "x: page allocation failure: order:4, mode:0xcc0(GFP_KERNEL)",
            ),
        ] {
            assert_eq!(logged_at(level, text), None, "{text}");
        }
    }

    /// The victim's own line tells of it.
    #[test]
    fn what_is_beside_the_victim_of_an_oom_kill_is_no_second_finding() {
        for (level, text) in [
            (
                4,
                "python3 invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=985",
            ),
            (
                6,
                "oom_reaper: reaped process 7 (python3), now anon-rss:0kB, file-rss:0kB",
            ),
        ] {
            assert_eq!(logged_at(level, text), None, "{text}");
        }
    }
}
