//! PURE. The kernel found a mistake of its own: BUG, oops, KASAN, panic.

use super::super::record::Record;
use super::words::{are_words, comm, function, hex, is_place, is_word, process};
use super::{at_level, number};
use crate::reason::Reason;
use crate::signal::{LogFault, Task};
use crate::text;

/// One entity for every line of an oops, so that they are one finding.
const KERNEL: &str = "kernel";

pub(super) fn read(record: &Record<'_>) -> Option<LogFault> {
    bad_access(record)
        .or_else(|| bad_page(record))
        .or_else(|| bug_at(record))
        .or_else(|| sanitizer(record))
        .or_else(|| atomic(record))
        .or_else(|| died(record))
        .or_else(|| died_on_arm(record))
        .or_else(|| stack(record))
        .or_else(|| panic(record))
}

/// KERN_ALERT (arch/x86/mm/fault.c; with `kernel` before the kind until 5.0; arch/arm64/mm/fault.c).
fn bad_access(record: &Record<'_>) -> Option<LogFault> {
    const KINDS: [&str; 6] = [
        "BUG: kernel NULL pointer dereference, address: ",
        "BUG: unable to handle page fault for address: ",
        "BUG: unable to handle kernel NULL pointer dereference at ",
        "BUG: unable to handle kernel paging request at ",
        "Unable to handle kernel NULL pointer dereference at virtual address ",
        "Unable to handle kernel paging request at virtual address ",
    ];
    let line = at_level(record, 1)?;
    let address = KINDS.iter().find_map(|kind| line.strip_prefix(kind))?;
    if address.trim_start() != "(null)" {
        hex(address)?;
    }
    Some(bug(KERNEL, line))
}

/// KERN_ALERT: `BUG: Bad page state in process comm  pfn:12345` (mm/page_alloc.c), `BUG: Bad page map
/// in process comm  pte:80 pmd:90`, or one level only (mm/memory.c). The name stands between the kernel's words.
fn bad_page(record: &Record<'_>) -> Option<LogFault> {
    let line = at_level(record, 1)?;
    let (kind, rest) = line
        .strip_prefix("BUG: Bad page ")?
        .split_once(" in process ")?;
    let name = match kind {
        "state" | "cache" => {
            let (name, pfn) = rest.rsplit_once("  pfn:")?;
            hex(pfn)?;
            name
        }
        "map" => {
            let (name, entries) = rest.rsplit_once("  ")?;
            for entry in entries.split(' ') {
                let (level, value) = entry.split_once(':')?;
                hex(value)?;
                if !["pte", "pmd", "pud", "p4d", "pgd"].contains(&level) {
                    return None;
                }
            }
            name
        }
        _ => return None,
    };
    comm(name)?;
    Some(bug(&format!("page {kind}"), line))
}

/// `kernel BUG at mm/slub.c:305!`, KERN_CRIT (lib/bug.c).
fn bug_at(record: &Record<'_>) -> Option<LogFault> {
    let line = at_level(record, 2)?;
    let place = line.strip_prefix("kernel BUG at ")?.strip_suffix('!')?;
    is_place(place).then(|| bug(KERNEL, line))
}

/// `BUG: KASAN: slab-use-after-free in f+0x1/0x2 [module]`, KERN_ERR (mm/kasan/report.c,
/// mm/kfence/report.c, mm/kmsan/report.c).
fn sanitizer(record: &Record<'_>) -> Option<LogFault> {
    let line = at_level(record, 3)?;
    let (tool, rest) = line.strip_prefix("BUG: ")?.split_once(": ")?;
    let (kind, symbol) = rest.split_once(" in ")?;
    let known = ["KASAN", "KFENCE", "KMSAN"].contains(&tool) && are_words(kind);
    let function = function(symbol)?;
    known.then(|| bug(&format!("{tool} {function}"), line))
}

/// `BUG: scheduling while atomic: comm/7/0x00000002`, KERN_ERR (kernel/sched/core.c).
fn atomic(record: &Record<'_>) -> Option<LogFault> {
    let line = at_level(record, 3)?;
    let rest = line.strip_prefix("BUG: scheduling while atomic: ")?;
    let (task, count) = rest.rsplit_once("/0x")?;
    hex(count)?;
    let (comm, pid) = process(task, '/')?;
    Some(LogFault {
        task: Some(Task {
            pid,
            comm,
            workload: None,
        }),
        ..bug("scheduling while atomic", line)
    })
}

/// `Oops: 0000 [#1] SMP PTI`, `general protection fault, probably for non-canonical address 0x1: 0000
/// [#1] PREEMPT SMP`, since 6.10 with a further `Oops: ` before it; KERN_DEFAULT
/// (arch/x86/kernel/dumpstack.c), which is 4 unless the kernel was built otherwise.
fn died(record: &Record<'_>) -> Option<LogFault> {
    const KINDS: [&str; 17] = [
        "Oops",
        "general protection fault",
        "divide error",
        "invalid opcode",
        "double fault",
        "stack segment",
        "invalid TSS",
        "segment not present",
        "alignment check",
        "bounds",
        "overflow",
        "int3",
        "fpu exception",
        "simd exception",
        "coprocessor segment overrun",
        "control protection fault",
        "stack guard page",
    ];
    let line = at_level(record, 4)?;
    let of = |line| head(line, |code| code.len() == 4);
    let kind = line
        .strip_prefix("Oops: ")
        .and_then(of)
        .or_else(|| of(line))?;
    let (kind, address) = match kind.split_once(", ") {
        Some((kind, address)) => (kind, Some(address)),
        None => (kind, None),
    };
    if let Some(address) = address {
        let address = address
            .strip_prefix("probably for ")
            .or_else(|| address.strip_prefix("maybe for "))?;
        let address = address.strip_prefix("non-canonical ").unwrap_or(address);
        hex(address.strip_prefix("address 0x")?)?;
    }
    KINDS.contains(&kind).then(|| bug(KERNEL, line.trim_end()))
}

/// `Internal error: Oops: 96000004 [#1] SMP`, KERN_EMERG (arch/arm64/kernel/traps.c).
fn died_on_arm(record: &Record<'_>) -> Option<LogFault> {
    let line = at_level(record, 0)?;
    let kind = head(line.strip_prefix("Internal error: ")?, |_| true)?;
    kind.split(" - ")
        .all(are_words)
        .then(|| bug(KERNEL, line.trim_end()))
}

/// The `kind` of `kind: code [#number] FLAGS`.
fn head(line: &str, code_fits: impl Fn(&str) -> bool) -> Option<&str> {
    let (kind, rest) = line.split_once(" [#")?;
    let (kind, code) = kind.rsplit_once(": ")?;
    let (count, flags) = rest.split_once(']')?;
    hex(code)?;
    number(count)?;
    let flag = |word: &str| {
        let (word, mode) = match word.split_once('(') {
            Some((word, mode)) => (word, mode.strip_suffix(')')),
            None => (word, Some("full")),
        };
        let known = [
            "PREEMPT",
            "PREEMPT_RT",
            "SMP",
            "DEBUG_PAGEALLOC",
            "KASAN",
            "PTI",
            "NOPTI",
        ];
        known.contains(&word) && mode.is_some_and(is_word)
    };
    let fits = code_fits(code)
        && (flags.is_empty() || flags.starts_with(' '))
        && flags.split_whitespace().all(flag);
    fits.then_some(kind)
}

/// A stack of the kernel that ran over, KERN_EMERG: `BUG: TASK stack guard page was hit at
/// 0000000012345678 (stack is 0000000012340000..0000000012344000)`, without `TASK` before 5.16
/// (arch/x86/kernel/traps.c); arch/arm64/kernel/traps.c.
fn stack(record: &Record<'_>) -> Option<LogFault> {
    let line = at_level(record, 0)?;
    if line == "Insufficient stack space to handle exception!" {
        return Some(bug(KERNEL, line));
    }
    let rest = line.strip_prefix("BUG: ")?;
    let rest = match rest.strip_prefix("stack guard page was hit at ") {
        Some(rest) => rest,
        None => {
            let (kind, rest) = rest.split_once(" stack guard page was hit at ")?;
            is_word(kind.trim_start_matches('#')).then_some(rest)?
        }
    };
    let (address, range) = rest.strip_suffix(')')?.split_once(" (stack is ")?;
    let (low, high) = range.split_once("..")?;
    for number in [address, low, high] {
        hex(number)?;
    }
    Some(bug(KERNEL, line))
}

/// `Kernel panic - not syncing: text`, KERN_EMERG (kernel/panic.c). Read from a live log it is the
/// text of a kernel that went on to speak; the one that died speaks through pstore.
fn panic(record: &Record<'_>) -> Option<LogFault> {
    let text = at_level(record, 0)?.strip_prefix("Kernel panic - not syncing: ")?;
    (!text.is_empty()).then(|| {
        let message = format!("the kernel panicked: {}", text::part(text, 200));
        LogFault::new(Reason::KernelPanic, KERNEL.to_owned(), message)
    })
}

fn bug(entity: &str, line: &str) -> LogFault {
    let message = format!("the kernel found itself broken: {}", text::part(line, 200));
    LogFault::new(Reason::KernelBug, entity.to_owned(), message)
}

#[cfg(test)]
mod tests {
    use super::super::tests::{logged, logged_at};
    use super::*;

    #[test]
    fn every_line_of_an_oops_is_the_same_finding() {
        for (level, text) in [
            (
                1,
                "BUG: kernel NULL pointer dereference, address: 0000000000000078",
            ),
            (
                1,
                "BUG: unable to handle page fault for address: ffffa0c1c0000000",
            ),
            (
                1,
                "BUG: unable to handle kernel NULL pointer dereference at 0000000000000078",
            ),
            (
                1,
                "BUG: unable to handle kernel NULL pointer dereference at           (null)",
            ),
            (
                1,
                "BUG: unable to handle kernel paging request at ffffa0c1c0000000",
            ),
            (
                1,
                "Unable to handle kernel paging request at virtual address ffffa0c1c0000000",
            ),
            (2, "kernel BUG at mm/slub.c:305!"),
            (4, "Oops: 0000 [#1] SMP PTI"),
            (4, "Oops: Oops: 0002 [#1] SMP NOPTI"),
            (
                4,
                "Oops: general protection fault, probably for non-canonical address 0xdead000000000100: 0000 [#2] PREEMPT(voluntary) SMP KASAN NOPTI",
            ),
            (4, "general protection fault: 0000 [#1] SMP"),
            (4, "divide error: 0000 [#1] SMP "),
            (4, "invalid opcode: 0000 [#1] PREEMPT SMP NOPTI"),
            (4, "Oops: stack guard page: 0000 [#1] PREEMPT SMP NOPTI"),
            (
                0,
                "BUG: #DF stack guard page was hit at 0000000040b441e1 (stack is 00000000a1788787..000000008e7f4216)",
            ),
            (0, "Internal error: Oops: 0000000096000004 [#1] SMP"),
            (0, "Insufficient stack space to handle exception!"),
            (
                0,
                "BUG: TASK stack guard page was hit at 00000000a1b2c3d4 (stack is 00000000a1b20000..00000000a1b24000)",
            ),
            (
                0,
                "BUG: stack guard page was hit at 00000000a1b2c3d4 (stack is 00000000a1b20000..00000000a1b24000)",
            ),
            (
                0,
                "Internal error: Oops - BUG: 00000000f2000800 [#1] PREEMPT SMP",
            ),
        ] {
            let fault = logged(level, text);
            assert_eq!(
                (fault.reason, fault.entity.as_str()),
                (Reason::KernelBug, "kernel"),
                "{text}"
            );
        }
    }

    #[test]
    fn a_bad_page_a_sanitizer_and_a_sleeper_are_bugs() {
        for (level, text, entity) in [
            (
                1,
                "BUG: Bad page state in process kworker/0:1  pfn:12345",
                "page state",
            ),
            (
                1,
                "BUG: Bad page map in process a  pte:80000001 pmd:90000001",
                "page map",
            ),
            (
                3,
                "BUG: KASAN: slab-use-after-free in foo+0x1/0x2",
                "KASAN foo",
            ),
            (
                3,
                "BUG: KFENCE: out-of-bounds read in foo+0x1/0x2 [bar]",
                "KFENCE foo",
            ),
            (
                3,
                "BUG: scheduling while atomic: swapper/3/0/0x00000002",
                "scheduling while atomic",
            ),
        ] {
            let fault = logged(level, text);
            assert_eq!(
                (fault.reason, fault.entity.as_str()),
                (Reason::KernelBug, entity),
                "{text}"
            );
        }
    }

    #[test]
    fn a_panic_says_why() {
        let fault = logged(0, "Kernel panic - not syncing: hung_task: blocked tasks");
        assert_eq!(fault.reason, Reason::KernelPanic);
        assert_eq!(
            fault.message,
            "the kernel panicked: hung_task: blocked tasks"
        );
    }

    #[test]
    fn a_process_name_cannot_begin_a_part_of_the_condition() {
        let fault = logged(1, "BUG: Bad page state in process a; b: c  pfn:12345");
        assert!(!fault.message.contains(';'), "{}", fault.message);
    }

    #[test]
    fn what_only_resembles_a_bug_does_not_count() {
        for (level, text) in [
            (1, "BUG: something bad happened"),
            (0, "BUG: stack guard page was hit at 0 (stack is 0..x)"),
            (0, "BUG: a b stack guard page was hit at 0 (stack is 0..1)"),
            (0, "Insufficient stack space to handle exception! x"),
            (4, "Insufficient stack space to handle exception!"),
            (
                1,
                "BUG: unable to handle kernel NULL pointer dereference at TESTING",
            ),
            (1, "x BUG: kernel NULL pointer dereference, address: 0"),
            (6, "BUG: kernel NULL pointer dereference, address: 0"),
            (1, "BUG: Bad page state in process   pfn:xyz"),
            (2, "kernel BUG at passwd:305!"),
            (2, "kernel BUG at mm/slub.c:305"),
            (3, "BUG: KASAN: x in y"),
            (3, "BUG: EVIL: x in foo+0x1/0x2"),
            (3, "BUG: scheduling while atomic: x/0x2"),
            (4, "Oops: 0000 [#1] D 0 1234 1 0x0000"),
            (4, "Oops: 0000 [#1][77]: segfault at 0 ip 0 sp 0 error 4"),
            (4, "traps: x[1] general protection fault ip:0 sp:0 error:0"),
            (4, "general protection fault, by chance: 0000 [#1] SMP"),
            (0, "Kernel panic - not syncing: "),
            (0, "---[ end Kernel panic - not syncing: x ]---"),
            (4, "Kernel panic - not syncing: x"),
        ] {
            assert_eq!(logged_at(level, text), None, "{text}");
        }
    }
}
