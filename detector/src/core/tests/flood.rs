//! A flood: bounded memory, exact counts, and a Fatal finding that it does not hold up.

use super::*;
use crate::signal::{LogFault, SourceName};

/// Ten seconds of 10,000 a second.
const SIGNALS: u32 = 100_000;

/// Of a thousand entities at first, then of as many as there are signals.
fn flood(core: &mut Core, entities: u32) {
    for number in 0..SIGNALS {
        let second = 2 + u64::from(number) / 10_000;
        let disk = io_error(&format!("d{}", number % entities));
        core.step(signal(disk, at(second)), at(second));
    }
}

fn counted(core: &Core) -> u64 {
    let findings = core.findings.iter();
    findings
        .filter(|((reason, _), _)| *reason == Reason::BlockIoError)
        .map(|(_, open)| open.finding.count)
        .sum()
}

#[test]
fn every_signal_is_in_a_count_and_the_findings_stay_few() {
    for entities in [1, 1000, u32::MAX] {
        let mut core = started();
        flood(&mut core, entities);
        assert_eq!(counted(&core), u64::from(SIGNALS));
        assert!(core.findings.iter().count() <= MOST_PER_REASON + 1);
        assert!(core.findings.openings().len() <= 1024);
    }
}

#[test]
fn what_was_lost_on_the_way_is_counted_beside() {
    let mut core = started();
    flood(&mut core, 1000);
    let lost = What::Lost {
        source: SourceName::Bpf,
        count: 4711,
    };
    core.step(signal(lost, at(20)), at(20));
    let lost = core
        .findings
        .iter()
        .find(|((reason, _), _)| *reason == Reason::SignalsLost);
    assert_eq!(
        lost.unwrap().1.finding.count + counted(&core),
        u64::from(SIGNALS) + 4711
    );
}

#[test]
fn in_a_flood_a_fatal_finding_turns_its_condition_at_once() {
    let mut core = started();
    flood(&mut core, u32::MAX);
    core.step(signal(read_only_line("sda1"), at(12)), at(12));
    let outputs = core.step(evidence("sda1", read_only(true)), at(12));
    assert!(!storage(&outputs).unwrap().healthy);
}

/// One signal for each of 100,000 pids, cgroups, devices and network namespaces.
#[test]
fn memory_is_bounded_whatever_there_are_many_of() {
    let in_pod = |number: u32| Task {
        pid: number,
        comm: format!("c{number}"),
        workload: Some(Workload {
            cgroup: format!("kubepods/pod{number}"),
            pod_uid: Some(format!("{number}")),
            container_id: None,
        }),
    };
    let floods: [fn(u32, Task) -> What; 6] = [
        |_, victim| What::OomKill {
            victim,
            limit: crate::signal::OomLimit::Container,
        },
        |_, task| What::Crash {
            task,
            signal: 11,
            count: 1,
        },
        |_, task| What::HungTask { task },
        |number, _| io_error(&format!("d{number}")),
        |number, _| What::Traced {
            fault: LogFault::on_device(Reason::ScsiError, format!("d{number}"), "m".to_owned()),
            count: 1,
        },
        |number, _| What::PacketDrops {
            reason: "NOMEM".to_owned(),
            count: 100,
            window: Duration::from_secs(1),
            interface: None,
            local_port: None,
            netns: Some(number),
            workload: None,
        },
    ];
    for (kind, flood) in floods.into_iter().enumerate() {
        let mut core = started();
        let mut sent = 0;
        for number in 0..SIGNALS {
            let what = flood(number, in_pod(number));
            sent += if matches!(what, What::PacketDrops { .. }) {
                100
            } else {
                1
            };
            core.step(signal(what, at(10)), at(10));
        }
        let findings = core.findings.iter();
        let told: u64 = findings.map(|(_, open)| open.finding.count).sum();
        assert_eq!(told, sent, "{kind}");
        assert!(
            core.findings.iter().count() <= MOST_PER_REASON + 1,
            "{kind}"
        );
        assert!(core.twice.len() <= MOST_PER_REASON, "{kind}");
        assert!(core.findings.openings().len() <= 1024, "{kind}");
    }
}
