//! What counters tell, alone and beside the kernel log.

use super::*;
use crate::signal::{Counted, LogFault};

const CONTAINER: &str = "pod 0f7a1c9e-3b7d-4c5e-9f00-1234567890ab container abc";
const POD: &str = "pod 0f7a1c9e-3b7d-4c5e-9f00-1234567890ab";

fn fault(reason: Reason, entity: &str) -> LogFault {
    LogFault::new(reason, entity.to_owned(), "m".to_owned())
}

fn line(reason: Reason, entity: &str) -> What {
    What::Logged(fault(reason, entity))
}

fn counted(reason: Reason, entity: &str, counted: Counted) -> What {
    let fault = fault(reason, entity);
    What::Counted { fault, counted }
}

/// Entity and count of what is open.
fn told(signals: &[(u64, What)]) -> Vec<(String, u64)> {
    let mut core = started();
    for (second, what) in signals {
        core.step(signal(what.clone(), at(*second)), at(*second));
    }
    let open = core.open_findings().into_iter();
    open.map(|finding| (finding.entity, finding.count))
        .collect()
}

#[test]
fn a_line_and_the_reading_after_it_tell_of_the_same() {
    let reason = Reason::ConntrackExceededKernel;
    let (line, counter) = (
        || line(reason, "conntrack"),
        |count| counted(reason, "conntrack", Counted::Times(count)),
    );
    for (signals, count) in [
        (vec![(10, line()), (38, counter(500))], 500),
        (vec![(10, counter(500)), (11, line())], 500),
        (vec![(10, line()), (11, line()), (38, counter(1))], 2),
        // The reading after the next one tells of others.
        (vec![(10, line()), (60, counter(500))], 501),
        (vec![(10, counter(500)), (40, counter(7))], 507),
    ] {
        assert_eq!(
            told(&signals),
            [("conntrack".to_owned(), count)],
            "{signals:?}"
        );
    }
}

#[test]
fn lines_that_no_counter_tells_of_are_as_far_apart_as_before() {
    let reason = Reason::AtaError;
    let traced = What::Traced {
        fault: fault(reason, "ata1"),
        count: 1,
    };
    let signals = [(10, traced), (35, line(reason, "ata1"))];
    assert_eq!(told(&signals), [("ata1".to_owned(), 2)]);
}

#[test]
fn a_pods_limit_is_the_fault_of_the_container_that_the_log_names() {
    let reason = Reason::PidsLimitReached;
    let times = Counted::Times(9);
    let signals = [
        (10, line(reason, CONTAINER)),
        (30, counted(reason, POD, times)),
    ];
    assert_eq!(told(&signals), [(CONTAINER.to_owned(), 9)]);
    let other = POD.replace("0f7a", "1111");
    let signals = [
        (10, line(reason, CONTAINER)),
        (30, counted(reason, &other, times)),
    ];
    assert_eq!(told(&signals).len(), 2);
    assert_eq!(
        told(&[(30, counted(reason, POD, times))]),
        [(POD.to_owned(), 9)]
    );
}

#[test]
fn the_hosts_conntrack_table_has_two_names() {
    let reason = Reason::ConntrackExceededKernel;
    let counter = || counted(reason, "netns 40", Counted::Times(9));
    let log = |entity| line(reason, entity);
    for (signals, expected) in [
        ([(10, log("conntrack")), (30, counter())], ("conntrack", 9)),
        ([(10, counter()), (11, log("conntrack"))], ("netns 40", 9)),
        ([(10, log("netns 40")), (30, counter())], ("netns 40", 9)),
    ] {
        assert_eq!(told(&signals), [(expected.0.to_owned(), expected.1)]);
    }
    // A pod's own.
    let signals = [(10, counter()), (11, log("netns 77"))];
    assert_eq!(told(&signals).len(), 2);
}

#[test]
fn a_state_that_is_told_again_is_no_repeat_and_keeps_its_finding_open() {
    let reason = Reason::FileMaxReached;
    let still = || counted(reason, "host", Counted::Still);
    let mut core = started();
    for step in 0..200 {
        let second = 10 + step * 30;
        core.step(signal(still(), at(second)), at(second));
        core.step(Input::Wake, at(second));
    }
    let open = core.open_findings();
    assert_eq!((open.len(), open[0].count), (1, 1), "{open:?}");
}

#[test]
fn a_disk_that_was_stuck_before_the_restart_clears_unless_it_still_is() {
    let stuck = || counted(Reason::BlockIoStuck, "sda", Counted::Still);
    let left = || {
        let mut before = started();
        before.step(signal(stuck(), at(10)), at(10));
        let mut state = State::new(String::new(), at(20), at(1).boot);
        before.save(&mut state);
        let mut core = Core::new(Vec::new());
        core.restore(&state, at(30));
        core
    };
    let mut core = left();
    core.step(Input::Wake, at(149));
    let of = |core: &Core| {
        let open = core.open_findings().into_iter();
        open.filter(|finding| finding.reason == Reason::BlockIoStuck)
            .count()
    };
    assert_eq!(of(&core), 1);
    core.step(Input::Wake, at(150));
    assert_eq!(of(&core), 0);
    let mut core = left();
    core.step(signal(stuck(), at(90)), at(90));
    core.step(Input::Wake, at(3600));
    assert_eq!(of(&core), 1);
}

fn lockup(cpu: u32) -> What {
    What::SoftLockup {
        cpu,
        seconds: 26,
        task: Task::default(),
    }
}

fn stolen(cpu: u32, percent: u8) -> What {
    let cpus = [(cpu, percent)].into();
    What::Stolen { cpus }
}

/// The message of the only finding.
fn message(signals: &[(u64, What)]) -> String {
    let mut core = started();
    for (second, what) in signals {
        core.step(signal(what.clone(), at(*second)), at(*second));
    }
    let open = core.open_findings();
    assert_eq!(open.len(), 1, "{open:?}");
    open[0].message.clone()
}

#[test]
fn a_lockup_beside_stolen_time_is_said_to_be_the_hypervisors() {
    const WHY: &str = "; at that time the hypervisor took 87 % of the time of CPU 1";
    for signals in [
        [(10, stolen(1, 87)), (40, lockup(1))],
        [(10, lockup(1)), (38, stolen(1, 87))],
    ] {
        let message = message(&signals);
        assert!(message.ends_with(WHY), "{message}");
    }
    let twice = [(10, lockup(1)), (38, stolen(1, 87)), (68, stolen(1, 50))];
    assert_eq!(message(&twice).matches(WHY).count(), 1);
    for signals in [
        vec![(10, stolen(2, 87)), (40, lockup(1))],
        vec![(10, stolen(1, 87)), (101, lockup(1))],
        vec![(10, lockup(1)), (101, stolen(1, 87))],
        vec![
            (10, line(Reason::KernelWarning, "cpu 1")),
            (11, stolen(1, 87)),
        ],
    ] {
        let message = message(&signals);
        assert!(!message.contains("hypervisor"), "{message}");
    }
    let stall = [
        (10, line(Reason::RcuStall, "rcu_sched")),
        (20, stolen(3, 40)),
    ];
    assert!(message(&stall).ends_with("40 % of the time of CPU 3"));
}

/// An agent that has just started cannot say that what it never saw is over.
#[test]
fn a_state_that_no_counter_tells_after_a_restart_is_over_in_time_and_one_that_is_told_is_not() {
    let down = |so| counted(Reason::InterfaceNotUp, "eth1", so);
    for again in [false, true] {
        let mut core = started();
        core.step(signal(down(Counted::Still), at(10)), at(10));
        let mut state = State::new(String::new(), at(20), at(1).boot);
        core.save(&mut state);
        let mut core = started();
        core.restore(&state, at(30));
        if again {
            let told = core.step(signal(down(Counted::Still), at(90)), at(90));
            assert_eq!(changes(&told), [], "no flap: nobody said that it was over");
        }
        let minutes = |minutes: u64| at(30 + 60 * minutes);
        core.step(Input::Wake, minutes(19));
        let open = |core: &Core| {
            let open = core.open_findings();
            open.iter()
                .any(|finding| finding.reason == Reason::InterfaceNotUp)
        };
        assert!(open(&core));
        core.step(Input::Wake, minutes(25));
        assert_eq!(open(&core), again);
        if again {
            core.step(signal(down(Counted::Over), minutes(26)), minutes(26));
            core.step(Input::Wake, minutes(30));
            assert!(!open(&core));
        }
    }
}
