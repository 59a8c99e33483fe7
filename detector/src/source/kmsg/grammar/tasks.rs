//! PURE. Tasks that were killed for memory, or that hang: what tracepoints tell better, for the time
//! in which nobody listened to them, and for hosts that have none.

use super::super::record::Record;
use super::{at_level, number};
use crate::signal::{OomLimit, Task, What, Workload};
use crate::text;

pub(super) fn read(record: &Record<'_>) -> Option<What> {
    victim(record)
        .or_else(|| killed(record))
        .or_else(|| hung(record))
}

/// `oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=x,mems_allowed=0,oom_memcg=/a,
/// task_memcg=/a/b,task=x,pid=7,uid=0`, KERN_INFO (mm/oom_kill.c, 4.19 and later).
fn victim(record: &Record<'_>) -> Option<What> {
    let rest = at_level(record, 6)?.strip_prefix("oom-kill:constraint=CONSTRAINT_")?;
    // From the end: a process chose its name, and a container the names of its cgroups.
    let (rest, uid) = rest.rsplit_once(",uid=")?;
    number(uid)?;
    let (rest, pid) = rest.rsplit_once(",pid=")?;
    let (rest, comm) = rest.rsplit_once(",task=")?;
    let (constraint, cgroup) = rest.split_once(",task_memcg=")?;
    Some(What::OomKill {
        victim: Task {
            workload: Workload::from_cgroup_path(cgroup),
            ..task(pid, comm)?
        },
        limit: limit(constraint, cgroup),
    })
}

/// `...,oom_memcg=/kubepods/pod1` for a cgroup above the victim's, or its own; `...,global_oom`.
fn limit(constraint: &str, cgroup: &str) -> OomLimit {
    if constraint.ends_with(",global_oom") {
        return OomLimit::Node;
    }
    let Some((_, full)) = constraint.rsplit_once(",oom_memcg=") else {
        return OomLimit::Unknown;
    };
    let names: Vec<_> = cgroup
        .rsplit('/')
        .filter(|name| !name.is_empty())
        .map(str::to_owned)
        .collect();
    let depth = full.split('/').filter(|name| !name.is_empty()).count();
    match names.len().checked_sub(depth) {
        Some(level) if cgroup.starts_with(full) => OomLimit::of_cgroup(&names, level),
        _ => OomLimit::Unknown,
    }
}

/// `Memory cgroup out of memory: Killed process 7 (x) total-vm:1kB, ...`, `Out of memory: Killed
/// process ...`, KERN_ERR (mm/oom_kill.c).
fn killed(record: &Record<'_>) -> Option<What> {
    let text = at_level(record, 3)?;
    let rest = [
        "Memory cgroup out of memory: ",
        "Out of memory: ",
        "Out of memory (oom_kill_allocating_task): ",
    ]
    .into_iter()
    .find_map(|beginning| text.strip_prefix(beginning))
    .unwrap_or(text)
    .strip_prefix("Killed process ")?;
    let (pid, rest) = rest.split_once(" (")?;
    let (comm, end) = rest.rsplit_once(')')?;
    let sizes = end.strip_prefix(" total-vm:").is_some_and(is_sizes);
    let victim = task(pid, comm)?;
    (sizes || matches!(end, "" | ".")).then_some(What::OomKill {
        victim,
        limit: OomLimit::Unknown,
    })
}

/// `1460016kB, anon-rss:1414008kB, file-rss:4kB`, and more of them since.
fn is_sizes(text: &str) -> bool {
    text.starts_with(|c: char| c.is_ascii_digit()) && text.contains("kB, anon-rss:")
}

/// `INFO: task x:7 blocked for more than 120 seconds.`, KERN_ERR (kernel/hung_task.c).
fn hung(record: &Record<'_>) -> Option<What> {
    let rest = at_level(record, 3)?.strip_prefix("INFO: task ")?;
    let (who, seconds) = rest
        .strip_suffix(" seconds.")?
        .rsplit_once(" blocked for more than ")?;
    number(seconds)?;
    let (comm, pid) = who.rsplit_once(':')?;
    Some(What::HungTask {
        task: task(pid, comm)?,
    })
}

fn task(pid: &str, comm: &str) -> Option<Task> {
    Some(Task {
        pid: number(pid)?,
        comm: text::part(comm, 64),
        workload: None,
    })
}

#[cfg(test)]
mod tests {
    use super::super::super::record;
    use super::super::check::{forged_by_names, nothing};
    use super::*;

    fn of(level: u32, text: &str) -> Option<What> {
        read(&record::parse(format!("{level},1,2,-;{text}").as_bytes()).unwrap())
    }

    const VICTIM: &str = "oom-kill:constraint=CONSTRAINT_MEMCG,nodemask=(null),cpuset=a,mems_allowed=0,oom_memcg=/kubepods/burstable/pod0f7a1c9e-3b7d-4c5e-9f00-1234567890ab,task_memcg=/kubepods/burstable/pod0f7a1c9e-3b7d-4c5e-9f00-1234567890ab/b,task=memory, hog,pid=812,uid=0";

    #[test]
    fn the_victim_has_a_name_a_number_and_a_pod() {
        let Some(What::OomKill { victim, limit }) = of(6, VICTIM) else {
            panic!("not read");
        };
        assert_eq!(limit, OomLimit::Pod);
        assert_eq!((victim.pid, victim.comm.as_str()), (812, "memory, hog"));
        assert_eq!(
            victim.workload.unwrap().pod_uid.as_deref(),
            Some("0f7a1c9e-3b7d-4c5e-9f00-1234567890ab")
        );
    }

    #[test]
    fn the_line_says_whose_memory_ran_out() {
        let pod = "/kubepods/burstable/pod0f7a1c9e-3b7d-4c5e-9f00-1234567890ab";
        for (constraint, task, limit) in [
            (
                format!("MEMCG,nodemask=(null),cpuset=a,mems_allowed=0,oom_memcg={pod}/b"),
                format!("{pod}/b"),
                OomLimit::Container,
            ),
            (
                format!("MEMCG,nodemask=(null),cpuset=a,mems_allowed=0,oom_memcg={pod}/b/c"),
                format!("{pod}/b/c"),
                OomLimit::Container,
            ),
            (
                "MEMCG,nodemask=(null),cpuset=a,mems_allowed=0,oom_memcg=/kubepods".to_owned(),
                format!("{pod}/b"),
                OomLimit::AllPods,
            ),
            (
                "MEMCG,nodemask=(null),cpuset=a,mems_allowed=0,oom_memcg=/system.slice/x.service"
                    .to_owned(),
                "/system.slice/x.service".to_owned(),
                OomLimit::Cgroup("x.service".to_owned()),
            ),
            (
                "NONE,nodemask=(null),cpuset=a,mems_allowed=0,global_oom".to_owned(),
                format!("{pod}/b"),
                OomLimit::Node,
            ),
            (
                "MEMCG,nodemask=(null),cpuset=a,mems_allowed=0,oom_memcg=/other".to_owned(),
                format!("{pod}/b"),
                OomLimit::Unknown,
            ),
        ] {
            let text = format!(
                "oom-kill:constraint=CONSTRAINT_{constraint},task_memcg={task},task=x,pid=7,uid=0"
            );
            let Some(What::OomKill { limit: read, .. }) = of(6, &text) else {
                panic!("not read: {text}");
            };
            assert_eq!(read, limit, "{text}");
        }
    }

    #[test]
    fn every_wording_of_a_kill_counts() {
        for text in [
            "Memory cgroup out of memory: Killed process 19636 (evil-program2) total-vm:1460016kB, anon-rss:1414008kB, file-rss:4kB, shmem-rss:0kB, UID:0 pgtables:2900kB oom_score_adj:0",
            "Out of memory: Killed process 9876 (nginx).",
            "Killed process 7777 (foo-bar) total-vm:200000kB, anon-rss:180000kB, file-rss:20kB",
        ] {
            assert!(matches!(of(3, text), Some(What::OomKill { .. })), "{text}");
        }
    }

    #[test]
    fn a_hung_task_may_have_any_name() {
        let text = "INFO: task a:b blocked for more than 1 seconds.:812 blocked for more than 120 seconds.";
        let Some(What::HungTask { task }) = of(3, text) else {
            panic!("not read");
        };
        assert_eq!(task.pid, 812);
    }

    #[test]
    fn what_only_begins_like_one_does_not_count() {
        for text in [
            "x invoked oom-killer: gfp_mask=0xcc0, order=0, oom_score_adj=0",
            "Out of memory: Killed process x (nginx).",
            "Out of memory: Killed process 9876 (nginx) and more",
            "INFO: task x:7 blocked for more than 120 seconds",
            "oom-kill:constraint=CONSTRAINT_MEMCG,task=x,pid=7,uid=0",
        ] {
            nothing(3, read, text);
            nothing(6, read, text);
        }
        nothing(6, read, "INFO: task x:7 blocked for more than 120 seconds.");
        forged_by_names(
            read,
            &["oom-kill:constr", "INFO: task x:7 ", "Killed process "],
        );
    }
}
