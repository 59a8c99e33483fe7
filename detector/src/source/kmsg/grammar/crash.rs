//! PURE. Processes that a fatal signal ended. Their names come first on the line: whatever they are,
//! no other family may read such a line as its own.

use super::super::record::Record;
use super::words::{comm, hex};
use super::{at_level, number};
use crate::reason::Reason;
use crate::signal::{LogFault, Task};
use crate::text;

/// Not `int3`, which is how debuggers and JITs work.
const TRAPS: [&str; 12] = [
    "general protection fault",
    "trap invalid opcode",
    "trap divide error",
    "trap overflow",
    "trap bounds",
    "trap stack segment",
    "trap alignment check",
    "trap invalid TSS",
    "trap segment not present",
    "trap coprocessor segment overrun",
    "trap fpu exception",
    "trap simd exception",
];

/// KERN_INFO; KERN_EMERG for a segfault of PID 1. The kernel prints only what has no handler.
pub(super) fn read(record: &Record<'_>) -> Option<LogFault> {
    if record.level == Some(0) {
        let of_init = |fault: &LogFault| fault.task.as_ref().is_some_and(|task| task.pid == 1);
        return segfault(record.text).filter(of_init);
    }
    let line = at_level(record, 6)?;
    if let Some(line) = line.strip_prefix("traps: ") {
        return trap(line);
    }
    segfault(line).or_else(|| on_arm(line))
}

/// `comm[7]: segfault at 0 ip 0000000000000000 sp 00007ffeaf0ff420 error 14 in dash[561ac3c57000+4000]`,
/// since 6.2 ` likely on CPU 0 (core 0, socket 0)` (arch/x86/mm/fault.c, `show_signal_msg`).
fn segfault(line: &str) -> Option<LogFault> {
    let (process, rest) = line.split_once("]: segfault at ")?;
    let (address, rest) = rest.split_once(" ip ")?;
    let (ip, rest) = rest.split_once(" sp ")?;
    let (sp, rest) = rest.split_once(" error ")?;
    for number in [address, ip, sp] {
        hex(number)?;
    }
    let place = of_error(rest)?;
    crash(process, &format!("segfault at {address}{place}"))
}

/// `comm[7] trap invalid opcode ip:7f sp:7f error:0 in x[7f+1]` (arch/x86/kernel/traps.c).
fn trap(line: &str) -> Option<LogFault> {
    line.match_indices("] ").find_map(|(end, _)| {
        let rest = &line[end + 2..];
        let kind = TRAPS.iter().find(|kind| rest.starts_with(**kind))?;
        let rest = rest[kind.len()..].strip_prefix(" ip:")?;
        let (ip, rest) = rest.split_once(" sp:")?;
        let (sp, rest) = rest.split_once(" error:")?;
        hex(ip)?;
        hex(sp)?;
        let place = of_error(rest)?;
        let kind = kind.strip_prefix("trap ").unwrap_or(kind);
        crash(&line[..end], &format!("{kind}{place}"))
    })
}

/// `comm[7]: unhandled exception: DABT (lower EL), ESR 0x92000006, level 2 translation fault in
/// x[400000+1000]` (arch/arm64/kernel/traps.c, with `debug.exception-trace`).
fn on_arm(line: &str) -> Option<LogFault> {
    let (process, rest) = line.split_once("]: unhandled exception: ")?;
    let (_, rest) = rest.split_once(", ESR 0x")?;
    let (esr, what) = rest.split_once(", ")?;
    hex(esr)?;
    crash(process, &text::part(what, 120))
}

/// What stands behind the error code: the file that the process ran, whose name is its choice.
fn of_error(rest: &str) -> Option<String> {
    let (code, place) = match rest.split_once(' ') {
        Some((code, place)) => (code, Some(place)),
        None => (rest, None),
    };
    hex(code)?;
    match place {
        None => Some(String::new()),
        Some(place) if place.starts_with("in ") || place.starts_with("likely on CPU ") => {
            Some(format!(" {}", text::part(place, 120)))
        }
        Some(_) => None,
    }
}

fn crash(process: &str, how: &str) -> Option<LogFault> {
    let (name, pid) = process.rsplit_once('[')?;
    let (name, pid) = (comm(name)?, number(pid)?);
    let message = format!("process {name} (pid {pid}) crashed: {how}");
    let reason = if how.contains(" in libnccl.so") {
        Reason::NvidiaNcclError
    } else {
        Reason::AppCrash
    };
    Some(LogFault {
        task: Some(Task {
            pid,
            comm: name.clone(),
            workload: None,
        }),
        ..LogFault::new(reason, name, message)
    })
}

#[cfg(test)]
mod tests {
    use super::super::tests::{logged, logged_at};
    use super::*;

    #[test]
    fn a_crash_names_the_process() {
        for (text, name, pid) in [
            (
                "kexec[896]: segfault at 0 ip 0000000000000000 sp 00007ffeaf0ff420 error 14 in dash[561ac3c57000+4000]",
                "kexec",
                896,
            ),
            (
                "Web Content[17593]: segfault at 0 ip 00007f0000000000 sp 00007f0000000000 error 4 in libc.so.6[7f0000000000+1000] likely on CPU 0 (core 0, socket 0)",
                "Web Content",
                17593,
            ),
            ("a[1]: b[9]: segfault at 0 ip 0 sp 0 error 4", "a[1]: b", 9),
            (
                "traps: python3[123] trap invalid opcode ip:7f0000000000 sp:7f0000000000 error:0 in x[400000+1000]",
                "python3",
                123,
            ),
            (
                "traps: a[1] b[123] general protection fault ip:7f0000000000 sp:7f0000000000 error:0",
                "a[1] b",
                123,
            ),
            (
                "a.out[123]: unhandled exception: DABT (lower EL), ESR 0x92000006, level 2 translation fault in a.out[400000+1000]",
                "a.out",
                123,
            ),
        ] {
            let fault = logged(6, text);
            let task = fault.task.unwrap();
            assert_eq!(
                (fault.reason, task.comm.as_str(), task.pid),
                (Reason::AppCrash, name, pid),
                "{text}"
            );
        }
    }

    #[test]
    fn a_crash_inside_nccl_is_told_as_that() {
        for text in [
            "pt_main_thread[2536443]: segfault at 7f797fe00000 ip 00007f7c7ac69996 sp 00007f7c12fd7c30 error 4 in libnccl.so.2[7f7c7ac00000+d3d3000]",
            "traps: pt_main_thread[7] general protection fault ip:7f sp:7f error:0 in libnccl.so.2.26.2[7f+1]",
        ] {
            let fault = logged(6, text);
            assert_eq!(
                (fault.reason, fault.entity.as_str()),
                (Reason::NvidiaNcclError, "pt_main_thread")
            );
        }
        let named = logged(
            6,
            "in libnccl.so[7]: segfault at 0 ip 0 sp 0 error 4 in x[1+1]",
        );
        assert_eq!(named.reason, Reason::AppCrash);
    }

    #[test]
    fn a_crash_of_pid_1_is_told_as_an_emergency() {
        let fault = logged(0, "systemd[1]: segfault at 0 ip 0 sp 0 error 4");
        assert_eq!(fault.task.unwrap().pid, 1);
    }

    #[test]
    fn a_breakpoint_of_a_debugger_is_no_crash() {
        assert_eq!(
            logged_at(
                6,
                "traps: gdb[7] trap int3 ip:401000 sp:7ffe00000000 error:0"
            ),
            None
        );
    }

    #[test]
    fn a_process_name_cannot_begin_a_part_of_the_condition() {
        let fault = logged(
            6,
            "a; b: c[7]: segfault at 0 ip 0 sp 0 error 4 in d; e: f[1+1]",
        );
        assert!(
            !fault.message.contains(';') && !fault.entity.contains(';'),
            "{fault:?}"
        );
    }

    #[test]
    fn what_only_resembles_a_crash_does_not_count() {
        for (level, text) in [
            (
                6,
                "segfault at 7f797fe00000 ip 00007f7c7ac69996 sp 00007f7c12fd7c30 error 4 in libnccl.so",
            ),
            (6, "x[7]: segfault at home ip 0 sp 0 error 4"),
            (6, "x[7]: segfault at 0 ip 0 sp 0 error 4 and more"),
            (6, "x[-7]: segfault at 0 ip 0 sp 0 error 4"),
            (0, "x[7]: segfault at 0 ip 0 sp 0 error 4"),
            (6, "[7]: segfault at 0 ip 0 sp 0 error 4"),
            (3, "x[7]: segfault at 0 ip 0 sp 0 error 4"),
            (6, "traps: x[7] trap of mine ip:0 sp:0 error:0"),
            (
                6,
                "a name that is longer than any name of a process can be, escapes and all[7]: segfault at 0 ip 0 sp 0 error 4",
            ),
        ] {
            assert_eq!(logged_at(level, text), None, "{text}");
        }
    }
}
