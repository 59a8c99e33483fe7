//! PURE. The kernel met a state that its authors had ruled out, and went on.

use super::super::record::Record;
use super::words::{function, is_place, process};
use super::{at_level, number};
use crate::reason::Reason;
use crate::signal::{LogFault, Task};

/// KERN_WARNING (kernel/panic.c). `WARNING: CPU: 1 PID: 7 at mm/x.c:1 f+0x1/0x2 [module]`; since 6.19
/// `WARNING: [condition] mm/x.c:1 at f+0x1/0x2, CPU#1: comm/7`. Both can lack the place.
pub(super) fn read(record: &Record<'_>) -> Option<LogFault> {
    let rest = at_level(record, 4)?.strip_prefix("WARNING: ")?;
    let (place, symbol, pid, name) = match rest.strip_prefix("CPU: ") {
        Some(rest) => {
            let (cpu, rest) = rest.split_once(" PID: ")?;
            let (pid, rest) = rest.split_once(" at ")?;
            number(cpu)?;
            let (place, symbol) = match rest.split_once(' ') {
                Some((place, symbol)) if is_place(place) => (place, symbol),
                _ => ("", rest),
            };
            (place, symbol, number(pid)?, String::new())
        }
        None => {
            let (rest, task) = rest.split_once(", CPU#")?;
            let (cpu, task) = task.split_once(": ")?;
            number(cpu)?;
            let (name, pid) = process(task, '/')?;
            let (place, symbol) = match rest.strip_prefix("at ") {
                Some(symbol) => ("", symbol),
                None => rest.rsplit_once(" at ")?,
            };
            let place = match place.strip_prefix('[') {
                Some(condition) => condition.rsplit_once("] ")?.1,
                None => place,
            };
            (place, symbol, pid, name)
        }
    };
    let function = function(symbol)?;
    if !place.is_empty() && !is_place(place) {
        return None;
    }
    let entity = if place.is_empty() { function } else { place };
    let message = format!("the kernel warned about itself at {entity} in {function}");
    Some(LogFault {
        task: Some(Task {
            pid,
            comm: name,
            workload: None,
        }),
        ..LogFault::new(Reason::KernelWarning, entity.to_owned(), message)
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{logged, logged_at};
    use super::*;

    #[test]
    fn a_warning_names_its_place_and_process_in_both_wordings() {
        for (text, place, pid, comm) in [
            (
                "WARNING: CPU: 1 PID: 1234 at net/sched/sch_generic.c:525 dev_watchdog+0x23a/0x250 [e1000e]",
                "net/sched/sch_generic.c:525",
                1234,
                "",
            ),
            (
                "WARNING: CPU: 1 PID: 0 at dev_watchdog+0x23a/0x250",
                "dev_watchdog",
                0,
                "",
            ),
            (
                "WARNING: kernel/sched/core.c:8511 at sched_init+0x20/0x410, CPU#0: swapper/0/0",
                "kernel/sched/core.c:8511",
                0,
                "swapper/0",
            ),
            (
                "WARNING: [a[0] == 0] kernel/sched/core.c:8511 at sched_init+0x20/0x410, CPU#0: a b/7",
                "kernel/sched/core.c:8511",
                7,
                "a b",
            ),
            (
                "WARNING: at sched_init+0x20/0x410, CPU#0: x/7",
                "sched_init",
                7,
                "x",
            ),
        ] {
            let fault = logged(4, text);
            let task = fault.task.unwrap();
            assert_eq!(
                (
                    fault.reason,
                    fault.entity.as_str(),
                    task.pid,
                    task.comm.as_str()
                ),
                (Reason::KernelWarning, place, pid, comm),
                "{text}"
            );
        }
    }

    #[test]
    fn what_only_resembles_a_warning_does_not_count() {
        for (level, text) in [
            (4, "WARNING: CPU: 1 PID: 2 at x"),
            (4, "WARNING: CPU: 1 PID: -2 at mm/x.c:1 f+0x1/0x2"),
            (4, "WARNING: mm/x.c:1 at f+0x1/0x2, CPU#0: x"),
            (3, "WARNING: CPU: 1 PID: 2 at mm/x.c:1 f+0x1/0x2"),
            (4, "CPU: 24 PID: 1364 Comm: khungtaskd Tainted: P OE 5.15.0"),
        ] {
            assert_eq!(logged_at(level, text), None, "{text}");
        }
    }
}
