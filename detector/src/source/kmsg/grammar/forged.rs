//! Lines that a stranger had the kernel print: what begins them proves nothing.

use proptest::prelude::*;

use super::super::record::Record;
use super::machine;
use crate::reason::Reason;

/// One true line of each rule, and its level.
pub(super) const TRUE: [(u32, &str); 36] = [
    (0, "watchdog: Watchdog detected hard LOCKUP on cpu 3"),
    (3, "rcu: INFO: rcu_sched self-detected stall on CPU"),
    (
        0,
        "BUG: workqueue lockup - pool cpus=0 node=0 flags=0x0 nice=0 stuck for 33s!",
    ),
    (4, "WARNING: CPU: 1 PID: 7 at mm/slub.c:305 f+0x1/0x2"),
    (4, "WARNING: mm/slub.c:305 at f+0x1/0x2, CPU#0: x/7"),
    (
        1,
        "BUG: kernel NULL pointer dereference, address: 0000000000000078",
    ),
    (1, "BUG: Bad page state in process x  pfn:12345"),
    (2, "kernel BUG at mm/slub.c:305!"),
    (3, "BUG: KASAN: slab-use-after-free in f+0x1/0x2"),
    (3, "BUG: scheduling while atomic: x/7/0x00000002"),
    (4, "Oops: 0000 [#1] SMP PTI"),
    (4, "general protection fault: 0000 [#1] SMP"),
    (0, "Internal error: Oops: 0000000096000004 [#1] SMP"),
    (0, "Kernel panic - not syncing: Fatal exception"),
    (
        0,
        "mce: [Hardware Error]: CPU 3: Machine Check: 0 Bank 5: be00000000800400",
    ),
    (
        0,
        "[Hardware Error]: CPU:2 (17:31:0) MC1_STATUS[-|CE]: 0xdc2040000000011b",
    ),
    (6, "mce: [Hardware Error]: Machine check events logged"),
    (0, "{1}[Hardware Error]: event severity: fatal"),
    (6, "[Hardware Error]: event severity: fatal"),
    (
        3,
        "nvme 0000:01:00.0: PCIe Bus Error: severity=Uncorrected (Fatal), type=Physical Layer, (Receiver ID)",
    ),
    (4, "EDAC MC0: 1 UE on DIMM_A1 (page:0x0 offset:0x0 grain:8)"),
    (
        3,
        "Memory failure: 0x12345: recovery action for dirty LRU page: Recovered",
    ),
    (
        3,
        "MCE: Killing x:7 due to hardware memory corruption fault at 7f",
    ),
    (
        4,
        "x: page allocation failure: order:4, mode:0xcc0(GFP_KERNEL)",
    ),
    (
        4,
        "CPU7: Core temperature is above threshold, cpu clock is throttled (total events = 1)",
    ),
    (
        0,
        "thermal thermal_zone0: acpitz: critical temperature reached",
    ),
    (
        4,
        "clocksource: timekeeping watchdog on CPU0: Marking clocksource 'tsc' as unstable because the skew is too large:",
    ),
    (6, "tsc: Marking TSC unstable due to clocksource watchdog"),
    (
        4,
        "EDAC DEVICE0: CE: l2 instance: l20 block: L2 count: 1 'L2 error'",
    ),
    (
        0,
        "EDAC DEVICE0: UE: l2 instance: l20 block: L2 count: 1 'L2 error'",
    ),
    (0, "NMI: PCI system error (SERR) for reason b1 on CPU 0."),
    (0, "Uhhuh. NMI received for unknown reason 2d on CPU 3."),
    (0, "BUG: TASK stack guard page was hit at 0 (stack is 0..1)"),
    (
        3,
        "XFS: x(7) possible memory allocation deadlock in f (mode:0x1)",
    ),
    (6, "x[7]: segfault at 0 ip 0 sp 0 error 4"),
    (6, "traps: x[7] trap invalid opcode ip:0 sp:0 error:0"),
];

/// Longest names of a process, and prefixes of a firewall's LOG.
const COMM: usize = 15;
const PREFIX: usize = 127;

/// Lines that begin with a process' name, in front of which nothing stands.
const OF_A_PROCESS: [&str; 6] = [
    "[77]: segfault at 0 ip 0000 sp 0000 error 4 in x[400000+1000]",
    "[77] bad frame in sigreturn frame:00000000 ip:0 sp:0 orax:0",
    " invoked oom-killer: gfp_mask=0xcc0(GFP_KERNEL), order=0, oom_score_adj=985",
    " (77): drop_caches: 3",
    ": page allocation failure: order:4, mode:0xcc0(GFP_KERNEL), nodemask=(null),cpuset=/,mems_allowed=0",
    "/77 is using a deprecated interface",
];

fn read(level: Option<u32>, text: &str) -> Option<Reason> {
    let record = Record {
        facility: 0,
        level,
        sequence: 1,
        at: std::time::Duration::ZERO,
        text,
    };
    Some(machine(&record)?.reason)
}

/// None too: a saved log may not tell.
fn levels() -> impl Iterator<Item = Option<u32>> {
    (0..8).map(Some).chain([None])
}

fn beginnings(text: &str, longest: usize) -> impl Iterator<Item = &str> {
    (0..=text.len().min(longest)).map(|end| &text[..end])
}

fn is_harmless(reason: Option<Reason>) -> bool {
    matches!(
        reason,
        None | Some(Reason::AppCrash | Reason::PageAllocationFailure)
    )
}

/// Each of them, so that the tests below are about lines that would count.
#[test]
fn the_true_lines_count() {
    for (level, text) in TRUE {
        assert!(read(Some(level), text).is_some(), "{text}");
        assert!(read(None, text).is_some(), "{text}");
    }
}

#[test]
fn the_true_lines_do_not_count_at_another_level_unless_they_are_known_there() {
    for (level, text) in TRUE {
        let of_others = (0..8).filter(|other| *other != level);
        let counted: Vec<_> = of_others
            .filter(|other| read(Some(*other), text).is_some())
            .collect();
        // Machine checks' firmware has three levels, heat two.
        let known: &[u32] = match text {
            _ if text.starts_with("{1}") => &[3, 4],
            _ if text.starts_with("CPU7") => &[2],
            _ => &[],
        };
        assert_eq!(counted, known, "{text}");
    }
}

#[test]
fn a_process_named_like_the_beginning_of_a_true_line_makes_no_other_finding() {
    for (_, text) in TRUE {
        for (name, rest) in
            beginnings(text, COMM).flat_map(|name| OF_A_PROCESS.map(|rest| (name, rest)))
        {
            let line = format!("{name}{rest}");
            for level in levels() {
                let reason = read(level, &line);
                assert!(is_harmless(reason), "{level:?} {line}: {reason:?}");
            }
        }
    }
}

#[test]
fn a_firewall_whose_prefix_is_the_beginning_of_a_true_line_makes_no_finding() {
    for (_, text) in TRUE {
        for prefix in beginnings(text, PREFIX) {
            for packet in [
                "IN=eth0 OUT= MAC=aa:bb SRC=10.0.0.1 DST=10.0.0.2 LEN=60",
                " IN= OUT=lo SRC=127.0.0.1 DST=127.0.0.1 LEN=60 PROTO=TCP",
            ] {
                let line = format!("{prefix}{packet}");
                for level in levels() {
                    assert_eq!(read(level, &line), None, "{level:?} {line}");
                }
            }
        }
    }
}

#[test]
fn a_true_line_with_something_before_it_makes_no_other_finding() {
    for (level, text) in TRUE {
        let line = format!("x {text}");
        let reason = read(Some(level), &line);
        assert!(is_harmless(reason), "{line}: {reason:?}");
    }
}

#[test]
fn a_true_line_at_another_facility_makes_no_finding() {
    for (level, text) in TRUE {
        let raw = format!("{},1,2,-;{text}", 8 + level);
        let record = super::super::record::parse(raw.as_bytes()).unwrap();
        assert_eq!(super::read(&record), None, "{text}");
    }
}

proptest! {
    #[test]
    fn whatever_its_name_a_process_makes_no_other_finding(
        name in ".{0,15}",
        line in prop::sample::select(&OF_A_PROCESS[..]),
    ) {
        let line = format!("{name}{line}");
        for level in levels() {
            prop_assert!(is_harmless(read(level, &line)), "{level:?} {line}");
        }
    }

    #[test]
    fn what_is_shown_of_any_line_is_bounded_and_printable(
        at in 0..TRUE.len(),
        cut in any::<prop::sample::Index>(),
        noise in ".{0,300}",
    ) {
        let (level, text) = TRUE[at];
        let line = format!("{}{noise}{}", &text[..cut.index(text.len())], &text[cut.index(text.len())..]);
        let record = Record {
            facility: 0,
            level: Some(level),
            sequence: 1,
            at: std::time::Duration::ZERO,
            text: &line,
        };
        if let Some(fault) = machine(&record) {
            for shown in [&fault.entity, &fault.message] {
                prop_assert!(shown.len() <= 700, "{shown}");
                prop_assert!(!shown.contains(|c: char| c.is_control() || c == ';'), "{shown}");
            }
        }
    }
}
