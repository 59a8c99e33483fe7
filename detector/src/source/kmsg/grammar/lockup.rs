//! PURE. CPUs and threads of the kernel that do not get on: hard lockups, RCU stalls, work queues.
//! Their lines name no process.

use super::super::record::Record;
use super::words::{is_word, only};
use super::{at_level, number};
use crate::reason::Reason;
use crate::signal::LogFault;
use crate::text;

pub(super) fn read(record: &Record<'_>) -> Option<LogFault> {
    hard_lockup(record)
        .or_else(|| rcu_stall(record))
        .or_else(|| workqueue_lockup(record))
}

/// KERN_EMERG. `NMI watchdog: Watchdog detected hard LOCKUP on cpu 3` (kernel/watchdog_hld.c, up to
/// 6.4), `watchdog: Watchdog detected ...` (kernel/watchdog.c, since 6.5), and in 7.2 with the CPU
/// that noticed: `watchdog: CPU2: Watchdog detected ...`.
fn hard_lockup(record: &Record<'_>) -> Option<LogFault> {
    let line = at_level(record, 0)?;
    let rest = line
        .strip_prefix("NMI watchdog: ")
        .or_else(|| line.strip_prefix("watchdog: "))?;
    let rest = match rest.strip_prefix("CPU") {
        Some(rest) => {
            let (other, rest) = rest.split_once(": ")?;
            number(other)?;
            rest
        }
        None => rest,
    };
    let cpu = number(rest.strip_prefix("Watchdog detected hard LOCKUP on cpu ")?)?;
    Some(LogFault::new(
        Reason::HardLockup,
        format!("cpu {cpu}"),
        format!("CPU {cpu} has not taken an interrupt for longer than the watchdog's limit"),
    ))
}

/// `rcu: INFO: rcu_sched self-detected stall on CPU` and its kin, KERN_ERR (kernel/rcu/tree_stall.h,
/// tree_exp.h, tasks.h; without `rcu: ` before 4.20).
fn rcu_stall(record: &Record<'_>) -> Option<LogFault> {
    let line = at_level(record, 3)?;
    let rest = line.strip_prefix("rcu: ").unwrap_or(line);
    let (flavor, rest) = rest.strip_prefix("INFO: ")?.split_once(' ')?;
    if !flavor.starts_with("rcu_") || !is_word(flavor) {
        return None;
    }
    let whose = match rest {
        "self-detected stall on CPU" => "a CPU found itself stalled".to_owned(),
        "detected stalls on CPUs/tasks:" => "CPUs or tasks are stalled".to_owned(),
        "detected stalls on tasks:" => "tasks are stalled".to_owned(),
        _ => {
            let whose = rest.strip_prefix("detected expedited stalls on CPUs/tasks: {")?;
            let fits = whose.is_empty()
                || only(whose, |b| {
                    b.is_ascii_alphanumeric() || b" .-!|/:=,}".contains(&b)
                });
            fits.then(|| {
                format!(
                    "CPUs or tasks are stalled (expedited): {}",
                    text::part(whose.trim(), 80)
                )
            })?
        }
    };
    Some(LogFault::new(
        Reason::RcuStall,
        flavor.to_owned(),
        format!("a grace period of {flavor} does not end: {whose}"),
    ))
}

/// `BUG: workqueue lockup - pool cpus=0 node=0 flags=0x0 nice=0 stuck for 33s!`, KERN_EMERG
/// (kernel/workqueue.c; CONFIG_WQ_WATCHDOG).
fn workqueue_lockup(record: &Record<'_>) -> Option<LogFault> {
    let rest = at_level(record, 0)?.strip_prefix("BUG: workqueue lockup - pool ")?;
    let (pool, seconds) = rest.split_once(" stuck for ")?;
    let seconds = number(seconds.strip_suffix("s!")?)?;
    let cpus = pool.split(' ').next()?.strip_prefix("cpus=")?;
    let fits = |b: u8| b.is_ascii_alphanumeric() || b" =,-".contains(&b);
    (pool.len() <= 200 && only(pool, fits)).then(|| {
        LogFault::new(
            Reason::WorkqueueLockup,
            format!("cpus {}", text::part(cpus, 60)),
            format!("a worker pool has made no progress for {seconds} s: {pool}"),
        )
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{logged, logged_at};
    use super::*;

    #[test]
    fn a_hard_lockup_counts_in_all_wordings() {
        for text in [
            "NMI watchdog: Watchdog detected hard LOCKUP on cpu 3",
            "watchdog: Watchdog detected hard LOCKUP on cpu 3",
            "watchdog: CPU2: Watchdog detected hard LOCKUP on cpu 3",
        ] {
            let fault = logged(0, text);
            assert_eq!(
                (fault.reason, fault.entity.as_str()),
                (Reason::HardLockup, "cpu 3"),
                "{text}"
            );
        }
    }

    #[test]
    fn an_rcu_stall_names_the_kind_of_rcu() {
        for text in [
            "rcu: INFO: rcu_sched self-detected stall on CPU",
            "rcu: INFO: rcu_sched detected stalls on CPUs/tasks:",
            "rcu: INFO: rcu_sched detected expedited stalls on CPUs/tasks: { 3-...D P23 } 21012 jiffies s: 1 root: 0x8/.",
            "INFO: rcu_sched self-detected stall on CPU",
        ] {
            let fault = logged(3, text);
            assert_eq!(
                (fault.reason, fault.entity.as_str()),
                (Reason::RcuStall, "rcu_sched"),
                "{text}"
            );
        }
    }

    #[test]
    fn a_workqueue_lockup_names_its_cpus() {
        let fault = logged(
            0,
            "BUG: workqueue lockup - pool cpus=0-3 node=0 flags=0x0 nice=-20 stuck for 33s!",
        );
        assert_eq!(fault.reason, Reason::WorkqueueLockup);
        assert_eq!(fault.entity, "cpus 0-3");
        assert!(fault.message.contains("33 s"), "{}", fault.message);
    }

    #[test]
    fn what_only_resembles_a_lockup_does_not_count() {
        for (level, text) in [
            (0, "x watchdog: Watchdog detected hard LOCKUP on cpu 3"),
            (0, "watchdog: Watchdog detected hard LOCKUP on cpu 3!"),
            (0, "watchdog: CPUx: Watchdog detected hard LOCKUP on cpu 3"),
            (4, "watchdog: Watchdog detected hard LOCKUP on cpu 3"),
            (
                3,
                "rcu: INFO: rcu_sched[12]: segfault at 0 ip 0 sp 0 error 4",
            ),
            (3, "rcu: INFO: name self-detected stall on CPU"),
            (6, "rcu: INFO: rcu_sched self-detected stall on CPU"),
            (
                3,
                "rcu: INFO: rcu_sched detected expedited stalls on CPUs/tasks: { `x` }",
            ),
            (0, "BUG: workqueue lockup - pool cpus=0 stuck for +3s!"),
            (0, "BUG: workqueue lockup - pool"),
        ] {
            assert_eq!(logged_at(level, text), None, "{text}");
        }
    }
}
