//! Lockups in the kernel log, and what was seen of the CPU meanwhile.

use super::*;
use crate::probe::CpuState;

fn line(core: &mut Core, cpu: u32, second: u64) -> Vec<Output> {
    let what = What::SoftLockup {
        cpu,
        seconds: 26,
        task: Task::default(),
    };
    core.step(signal(what, at(second)), at(second))
}

/// Lines about CPU 1 at these seconds; two seconds later each is answered.
fn severity(core: &mut Core, lines: &[u64], state: CpuState) -> Severity {
    for &second in lines {
        let outputs = line(core, 1, second);
        assert!(outputs.contains(&Output::LookAtCpu { cpu: 1 }), "{second}");
        let now = at(second + 2);
        core.step(Input::Cpu { cpu: 1, state }, now);
    }
    let open = core.open_findings();
    assert_eq!(open.len(), 1, "{open:?}");
    assert_eq!(open[0].reason, Reason::SoftLockup);
    open[0].severity
}

#[test]
fn the_third_lockup_that_was_seen_is_fatal_and_stays_so() {
    let mut core = started();
    let of = severity(&mut core, &[10, 32], CpuState::InKernel);
    assert_eq!(of, Severity::Warning);
    let of = severity(&mut core, &[54], CpuState::InKernel);
    assert_eq!(of, Severity::Fatal);
    let message = &core.open_findings()[0].message;
    assert!(message.starts_with("CPU 1 was stuck in the kernel 3 times"));
    let of = severity(&mut core, &[500], CpuState::Runs);
    assert_eq!(of, Severity::Fatal);
}

#[test]
fn lines_alone_are_never_fatal() {
    for state in [CpuState::Runs, CpuState::Unknown] {
        let mut core = started();
        let lines: Vec<_> = (0..200).map(|number| 10 + number * 3).collect();
        assert_eq!(severity(&mut core, &lines, state), Severity::Warning);
    }
}

#[test]
fn lockups_that_are_far_apart_are_not_fatal() {
    let mut core = started();
    let lines = [10, 310, 620, 930, 1240];
    let of = severity(&mut core, &lines, CpuState::InKernel);
    assert_eq!(of, Severity::Warning);
}

#[test]
fn beside_stolen_time_they_are_not_fatal() {
    let mut core = started();
    let cpus: BTreeMap<_, _> = [(1, 87)].into();
    for second in [10, 40, 70, 100] {
        let stolen = What::Stolen { cpus: cpus.clone() };
        core.step(signal(stolen, at(second)), at(second));
        let of = severity(&mut core, &[second + 1], CpuState::InKernel);
        assert_eq!(of, Severity::Warning);
    }
}

#[test]
fn what_was_before_the_agent_is_not_looked_at() {
    let mut core = started();
    let what = What::SoftLockup {
        cpu: 1,
        seconds: 26,
        task: Task::default(),
    };
    let Input::Signal(mut past) = signal(what, at(2)) else {
        panic!("no signal")
    };
    past.historic = true;
    let outputs = core.step(Input::Signal(past), at(3));
    assert!(!outputs.contains(&Output::LookAtCpu { cpu: 1 }));
    // An answer that nobody asked for changes nothing.
    let state = CpuState::InKernel;
    assert_eq!(core.step(Input::Cpu { cpu: 1, state }, at(4)), []);
}

#[test]
fn a_host_of_very_many_cpus_is_looked_at_a_few_at_a_time() {
    let mut core = started();
    for cpu in 0..100_000 {
        line(&mut core, cpu, 10);
    }
    assert!(core.lockups.len() <= 64);
}
