//! What the core decides, one behaviour a test; properties of any sequence of inputs are in
//! `properties`.

use std::time::Duration;

use jiff::Timestamp;

use super::findings::{MOST_PER_REASON, OTHERS};
use super::*;
use crate::finding::Subject;
use crate::reason::Severity;
use crate::signal::{Disk, SourceName, Task, What, Workload};

mod accelerated;
mod blocked;
mod counted;
mod flood;
mod kubelet;
mod life;
mod lockups;
mod logged;
mod properties;
mod table;
mod twice;

fn at(seconds: u64) -> Now {
    let wall = Timestamp::from_second(1_700_000_000 + i64::try_from(seconds).unwrap()).unwrap();
    Now {
        boot: Duration::from_secs(seconds),
        wall,
    }
}

fn signal(what: What, now: Now) -> Input {
    Input::Signal(Signal {
        at: now.boot,
        historic: false,
        what,
    })
}

fn historic(what: What, now: Now) -> Input {
    Input::Signal(Signal {
        at: now.boot,
        historic: true,
        what,
    })
}

fn oom(pid: u32) -> What {
    What::OomKill {
        victim: Task {
            pid,
            comm: "hog".to_owned(),
            workload: None,
        },
        limit: crate::signal::OomLimit::Unknown,
    }
}

fn io_error(disk: &str) -> What {
    What::BlockError {
        disk: Disk {
            major: 7,
            minor: 0,
            name: Some(disk.to_owned()),
        },
        operation: crate::signal::BlockOperation::Read,
        class: crate::signal::BlockErrorClass::Other,
        errno: 5,
        sector: 8,
        sectors: 8,
        count: 1,
        above: Vec::new(),
    }
}

fn read_only_line(device: &str) -> What {
    What::RemountedReadOnly {
        device: device.to_owned(),
    }
}

fn read_only(critical: bool) -> Evidence {
    let critical = critical.then(|| "/var/lib/kubelet".to_owned());
    Evidence::ReadOnly {
        mount_point: "/var/lib/kubelet".to_owned(),
        critical,
    }
}

fn evidence(device: &str, evidence: Evidence) -> Input {
    Input::Evidence {
        device: device.to_owned(),
        evidence,
    }
}

/// A core that has read its history, found nothing on the Node and published at second 1.
fn started() -> Core {
    let mut core = Core::new(ConditionType::ALL.to_vec());
    core.step(Input::Existing(Vec::new()), at(1));
    core.step(Input::HistoryRead, at(1));
    core
}

fn changes(outputs: &[Output]) -> Vec<(Change, Reason, Severity)> {
    let change = |transition: &Transition| {
        (
            transition.change,
            transition.finding.reason,
            transition.finding.severity,
        )
    };
    outputs
        .iter()
        .filter_map(|output| {
            if let Output::Transition(t) = output {
                Some(change(t))
            } else {
                None
            }
        })
        .collect()
}

fn probes(outputs: &[Output]) -> Vec<&str> {
    outputs
        .iter()
        .filter_map(|output| {
            if let Output::Probe { device } = output {
                Some(device.as_str())
            } else {
                None
            }
        })
        .collect()
}

fn conditions(outputs: &[Output]) -> Option<&[Condition]> {
    outputs.iter().find_map(|output| {
        if let Output::Conditions { conditions, .. } = output {
            Some(conditions.as_slice())
        } else {
            None
        }
    })
}

fn storage(outputs: &[Output]) -> Option<&Condition> {
    conditions(outputs)?
        .iter()
        .find(|condition| condition.kind == ConditionType::StorageReady)
}

#[test]
fn a_fault_opens_one_finding() {
    let mut core = started();
    let outputs = core.step(signal(oom(7), at(2)), at(2));
    assert_eq!(
        changes(&outputs),
        [(Change::Opened, Reason::OomKilling, Severity::Warning)]
    );
}

#[test]
fn a_kill_that_several_lines_and_a_tracepoint_tell_of_is_one() {
    let mut core = started();
    core.step(signal(oom(7), at(2)), at(2));
    assert_eq!(core.step(signal(oom(7), at(3)), at(3)), []);
    let key = (Reason::OomKilling, "pid 7".to_owned());
    assert_eq!(core.findings.get(&key).unwrap().finding.count, 1);
    core.step(signal(oom(7), at(13)), at(13));
    assert_eq!(core.findings.get(&key).unwrap().finding.count, 2);
}

#[test]
fn the_same_fault_again_is_counted_not_told() {
    let mut core = started();
    core.step(signal(io_error("sda"), at(2)), at(2));
    let outputs = core.step(signal(io_error("sda"), at(3)), at(3));
    assert_eq!(outputs, []);
    let open = core
        .findings
        .get(&(Reason::BlockIoError, "sda".to_owned()))
        .unwrap();
    assert_eq!(open.finding.count, 2);
}

#[test]
fn faults_of_two_entities_are_two_findings() {
    let mut core = started();
    core.step(signal(io_error("sda"), at(2)), at(2));
    let outputs = core.step(signal(io_error("sdb"), at(2)), at(2));
    assert_eq!(
        changes(&outputs),
        [(Change::Opened, Reason::BlockIoError, Severity::Warning)]
    );
}

#[test]
fn a_repeat_is_told_when_the_count_has_doubled_after_a_minute() {
    let mut core = started();
    core.step(signal(io_error("sda"), at(10)), at(10));
    assert_eq!(core.step(signal(io_error("sda"), at(69)), at(69)), []);
    let outputs = core.step(signal(io_error("sda"), at(70)), at(70));
    assert_eq!(
        changes(&outputs),
        [(Change::Repeated, Reason::BlockIoError, Severity::Warning)]
    );
    // Three were told; the next word comes with the sixth.
    let later =
        [200, 300, 400].map(|s| changes(&core.step(signal(io_error("sda"), at(s)), at(s))).len());
    assert_eq!(later, [0, 0, 1]);
}

#[test]
fn a_quiet_finding_clears_when_its_time_has_come_and_not_before() {
    let mut core = started();
    core.step(signal(oom(7), at(2)), at(2));
    assert_eq!(core.wake_at(), Some(at(602).boot));
    assert_eq!(core.step(Input::Wake, at(601)), []);
    let outputs = core.step(Input::Wake, at(602));
    assert_eq!(
        changes(&outputs),
        [(Change::Cleared, Reason::OomKilling, Severity::Warning)]
    );
    assert_eq!(core.wake_at(), None);
}

#[test]
fn a_new_signal_keeps_a_quiet_finding_open() {
    let mut core = started();
    core.step(signal(io_error("sda"), at(2)), at(2));
    core.step(signal(io_error("sda"), at(500)), at(500));
    assert_eq!(changes(&core.step(Input::Wake, at(602))), []);
}

#[test]
fn a_read_only_line_is_a_question_and_no_finding() {
    let mut core = started();
    let outputs = core.step(signal(read_only_line("sda1"), at(2)), at(2));
    assert_eq!(
        (changes(&outputs).len(), probes(&outputs)),
        (0, vec!["sda1"])
    );
}

#[test]
fn evidence_under_a_critical_path_makes_storage_not_ready() {
    let mut core = started();
    core.step(signal(read_only_line("sda1"), at(2)), at(2));
    let outputs = core.step(evidence("sda1", read_only(true)), at(3));
    assert_eq!(
        changes(&outputs),
        [(Change::Opened, Reason::FilesystemReadOnly, Severity::Fatal)]
    );
    let condition = storage(&outputs).unwrap();
    assert_eq!(
        (condition.healthy, &*condition.reason),
        (false, "FilesystemReadOnly")
    );
    assert!(
        condition.message.contains("sda1") && condition.message.contains("/var/lib/kubelet"),
        "{}",
        condition.message
    );
}

#[test]
fn a_condition_carries_the_time_of_the_fault_that_changed_it() {
    let mut core = started();
    core.step(signal(read_only_line("sda1"), at(2)), at(2));
    let outputs = core.step(evidence("sda1", read_only(true)), at(3));
    let fault = outputs.iter().find_map(|output| {
        if let Output::Conditions { fault, .. } = output {
            *fault
        } else {
            None
        }
    });
    assert_eq!(fault, Some(at(2).boot));
}

#[test]
fn evidence_elsewhere_is_a_warning_and_storage_stays_ready() {
    let mut core = started();
    core.step(signal(read_only_line("sda1"), at(2)), at(2));
    let outputs = core.step(evidence("sda1", read_only(false)), at(3));
    assert_eq!(
        changes(&outputs),
        [(
            Change::Opened,
            Reason::FilesystemReadOnly,
            Severity::Warning
        )]
    );
    assert!(storage(&outputs).is_none_or(|condition| condition.healthy));
}

#[test]
fn a_line_that_the_evidence_contradicts_is_nothing() {
    let mut core = started();
    core.step(signal(read_only_line("sda1"), at(2)), at(2));
    let outputs = core.step(evidence("sda1", Evidence::Writable), at(3));
    assert_eq!(changes(&outputs), []);
    assert_eq!(core.wake_at(), None);
}

/// What was looked at before the line says nothing about it.
#[test]
fn a_line_that_comes_while_the_evidence_is_read_is_asked_about_again() {
    let mut core = started();
    core.step(signal(read_only_line("sda1"), at(2)), at(2));
    core.step(signal(read_only_line("sda1"), at(3)), at(3));
    let outputs = core.step(evidence("sda1", Evidence::Writable), at(4));
    assert_eq!(probes(&outputs), ["sda1"]);
    let outputs = core.step(evidence("sda1", read_only(true)), at(5));
    assert_eq!(changes(&outputs).len(), 1);
    assert_eq!(probes(&outputs), Vec::<&str>::new());
}

#[test]
fn only_evidence_ends_a_read_only_finding() {
    let mut core = started();
    core.step(signal(read_only_line("sda1"), at(2)), at(2));
    core.step(evidence("sda1", read_only(true)), at(3));
    // An hour later it is still asked for, and still there.
    let outputs = core.step(Input::Wake, at(3600));
    assert_eq!(
        (changes(&outputs).len(), probes(&outputs)),
        (0, vec!["sda1"])
    );
    assert_eq!(
        changes(&core.step(evidence("sda1", Evidence::NotMounted), at(3601))),
        [],
        "once is not enough"
    );
    assert_eq!(probes(&core.step(Input::Wake, at(3611))), ["sda1"]);
    core.step(evidence("sda1", Evidence::NotMounted), at(3611));
    let outputs = core.step(Input::Wake, at(3616));
    assert_eq!(
        changes(&outputs),
        [(Change::Cleared, Reason::FilesystemReadOnly, Severity::Fatal)]
    );
    assert!(storage(&outputs).unwrap().healthy);
}

#[test]
fn evidence_is_read_again_every_ten_seconds_and_one_at_a_time() {
    let mut core = started();
    core.step(signal(read_only_line("sda1"), at(2)), at(2));
    assert_eq!(core.wake_at(), None, "the answer is awaited");
    assert_eq!(
        probes(&core.step(signal(read_only_line("sda1"), at(3)), at(3))),
        [""; 0]
    );
    core.step(evidence("sda1", read_only(true)), at(4));
    assert_eq!(core.wake_at(), Some(at(14).boot));
}

#[test]
fn the_same_evidence_again_is_no_repeat() {
    let mut core = started();
    core.step(signal(read_only_line("sda1"), at(2)), at(2));
    core.step(evidence("sda1", read_only(true)), at(3));
    core.step(Input::Wake, at(13));
    assert_eq!(core.step(evidence("sda1", read_only(true)), at(14)), []);
}

#[test]
fn an_answer_that_does_not_come_changes_nothing() {
    let mut core = started();
    core.step(signal(read_only_line("sda1"), at(2)), at(2));
    core.step(evidence("sda1", read_only(true)), at(3));
    core.step(Input::Wake, at(13));
    assert_eq!(core.step(evidence("sda1", Evidence::Late), at(18)), []);
    assert_eq!(core.wake_at(), Some(at(28).boot), "it is asked for again");
}

#[test]
fn evidence_that_nobody_asked_for_changes_nothing() {
    let mut core = started();
    assert_eq!(core.step(evidence("sda1", read_only(true)), at(2)), []);
}

#[test]
fn what_was_over_before_the_start_is_no_news_and_what_was_not_is_a_warning() {
    let lockup = || What::SoftLockup {
        cpu: 3,
        seconds: 23,
        task: Task::default(),
    };
    let mut core = Core::new(ConditionType::ALL.to_vec());
    assert_eq!(core.step(historic(lockup(), at(1)), at(1801)), []);
    let outputs = core.step(historic(lockup(), at(2)), at(1801));
    assert_eq!(
        changes(&outputs),
        [(Change::Opened, Reason::SoftLockup, Severity::Warning)]
    );
    assert_eq!(core.wake_at(), Some(at(1802).boot));
}

#[test]
fn what_happens_now_is_told_though_it_had_happened_before_the_start() {
    let mut core = started();
    let lockup = || What::SoftLockup {
        cpu: 3,
        seconds: 23,
        task: Task::default(),
    };
    core.step(historic(lockup(), at(2)), at(9));
    assert_eq!(core.step(historic(lockup(), at(3)), at(9)), []);
    let outputs = core.step(signal(lockup(), at(10)), at(10));
    assert_eq!(
        changes(&outputs),
        [(Change::Opened, Reason::SoftLockup, Severity::Warning)]
    );
}

#[test]
fn a_historic_read_only_line_counts_if_the_evidence_says_that_it_is_still_so() {
    let mut core = Core::new(ConditionType::ALL.to_vec());
    assert_eq!(
        probes(&core.step(historic(read_only_line("sda1"), at(1)), at(9))),
        ["sda1"]
    );
    let outputs = core.step(evidence("sda1", read_only(true)), at(9));
    assert_eq!(
        changes(&outputs),
        [(Change::Opened, Reason::FilesystemReadOnly, Severity::Fatal)]
    );
}

#[test]
fn nothing_is_published_before_the_node_and_the_history_are_known() {
    let mut core = Core::new(ConditionType::ALL.to_vec());
    assert_eq!(conditions(&core.step(Input::HistoryRead, at(1))), None);
    assert!(conditions(&core.step(Input::Existing(Vec::new()), at(2))).is_some());
    let mut core = Core::new(ConditionType::ALL.to_vec());
    assert_eq!(
        conditions(&core.step(Input::Existing(Vec::new()), at(1))),
        None
    );
    assert!(conditions(&core.step(Input::HistoryRead, at(2))).is_some());
}

#[test]
fn a_condition_whose_evidence_is_awaited_is_not_published_and_the_others_are() {
    let mut core = Core::new(ConditionType::ALL.to_vec());
    core.step(historic(read_only_line("sda1"), at(1)), at(9));
    core.step(Input::Existing(Vec::new()), at(9));
    let outputs = core.step(Input::HistoryRead, at(9));
    let kinds: Vec<_> = conditions(&outputs)
        .unwrap()
        .iter()
        .map(|condition| condition.kind)
        .collect();
    assert_eq!(
        kinds,
        [
            ConditionType::KernelReady,
            ConditionType::NetworkingReady,
            ConditionType::ContainerRuntimeReady,
            ConditionType::AcceleratedHardwareReady
        ]
    );
    assert!(storage(&core.step(evidence("sda1", Evidence::Late), at(14))).is_none());
    assert!(
        storage(&core.step(evidence("sda1", Evidence::Writable), at(20)))
            .unwrap()
            .healthy
    );
}

#[test]
fn a_condition_that_was_published_stands_while_new_evidence_is_awaited() {
    let mut core = started();
    let outputs = core.step(signal(read_only_line("sda1"), at(2)), at(2));
    assert_eq!(conditions(&outputs), None);
}

#[test]
fn a_read_only_file_system_that_only_the_node_remembers_is_asked_for() {
    let mut core = started();
    core.step(signal(read_only_line("sda1"), at(2)), at(2));
    let outputs = core.step(evidence("sda1", read_only(true)), at(3));
    let left = storage(&outputs).unwrap();
    let existing = Existing {
        kind: left.kind,
        healthy: left.healthy,
        transition: left.transition,
        message: left.message.clone(),
    };
    // The next agent, whose kernel log has been overwritten.
    let mut core = Core::new(ConditionType::ALL.to_vec());
    core.step(Input::HistoryRead, at(100));
    let outputs = core.step(Input::Existing(vec![existing]), at(100));
    assert_eq!(probes(&outputs), ["sda1"]);
    assert_eq!(storage(&outputs), None, "unknown is not healthy");
    let outputs = core.step(evidence("sda1", read_only(true)), at(101));
    let condition = storage(&outputs).unwrap();
    assert_eq!(
        (condition.healthy, condition.transition),
        (false, at(3).wall)
    );
}

#[test]
fn the_transition_time_is_that_of_the_status() {
    let mut core = started();
    core.step(signal(read_only_line("sda1"), at(2)), at(2));
    core.step(evidence("sda1", read_only(true)), at(3));
    core.step(signal(read_only_line("sdb1"), at(4)), at(4));
    let outputs = core.step(evidence("sdb1", read_only(true)), at(5));
    let condition = storage(&outputs).unwrap();
    assert!(condition.message.contains("sdb1"), "{}", condition.message);
    assert_eq!(
        condition.transition,
        at(3).wall,
        "the text is new, the status is not"
    );
}

#[test]
fn a_restart_keeps_the_transition_time_of_an_unchanged_status() {
    let healthy = |kind| Existing {
        kind,
        healthy: true,
        transition: at(5).wall,
        message: String::new(),
    };
    let mut core = Core::new(vec![ConditionType::KernelReady]);
    core.step(
        Input::Existing(vec![healthy(ConditionType::KernelReady)]),
        at(100),
    );
    let outputs = core.step(Input::HistoryRead, at(100));
    assert_eq!(conditions(&outputs).unwrap()[0].transition, at(5).wall);
}

#[test]
fn a_reboot_that_mended_it_is_a_new_status() {
    let broken = Existing {
        kind: ConditionType::StorageReady,
        healthy: false,
        transition: at(5).wall,
        message: "x".to_owned(),
    };
    let mut core = Core::new(vec![ConditionType::StorageReady]);
    core.step(Input::Existing(vec![broken]), at(100));
    let outputs = core.step(Input::HistoryRead, at(100));
    let condition = storage(&outputs).unwrap();
    assert_eq!(
        (condition.healthy, condition.transition),
        (true, at(100).wall)
    );
}

#[test]
fn what_a_reboot_ended_is_told_once_it_is_known_to_be_over() {
    let broken = || Existing {
        kind: ConditionType::StorageReady,
        healthy: false,
        transition: Timestamp::from_second(1_600_000_000).unwrap(),
        message: "FilesystemReadOnly: sda1, mounted at /, is read-only (since x)".to_owned(),
    };
    for (answer, told) in [(Evidence::Writable, 1), (read_only(true), 0)] {
        let mut core = Core::new(vec![ConditionType::StorageReady]);
        core.step(Input::HistoryRead, at(100));
        let outputs = core.step(Input::Existing(vec![broken()]), at(100));
        assert_eq!(changes(&outputs), [], "unknown is not over");
        let outputs = core.step(evidence("sda1", answer), at(101));
        let cleared = changes(&outputs)
            .into_iter()
            .filter(|(change, ..)| *change == Change::Cleared);
        assert_eq!(cleared.count(), told);
    }
}

#[test]
fn the_oldest_fatal_finding_speaks_for_the_condition() {
    let mut core = started();
    for (device, second) in [("sdb1", 2), ("sda1", 4)] {
        core.step(signal(read_only_line(device), at(second)), at(second));
        core.step(evidence(device, read_only(true)), at(second + 1));
    }
    let message = &core
        .published
        .as_ref()
        .unwrap()
        .iter()
        .find(|c| !c.healthy)
        .unwrap()
        .message;
    assert!(
        message.find("sdb1").unwrap() < message.find("sda1").unwrap(),
        "{message}"
    );
}

#[test]
fn a_condition_without_sources_is_absent() {
    let mut core = Core::new(vec![ConditionType::StorageReady]);
    core.step(Input::Existing(Vec::new()), at(1));
    let outputs = core.step(Input::HistoryRead, at(1));
    let kinds: Vec<_> = conditions(&outputs)
        .unwrap()
        .iter()
        .map(|condition| condition.kind)
        .collect();
    assert_eq!(kinds, [ConditionType::StorageReady]);
}

#[test]
fn conditions_are_sent_when_they_change_and_not_else() {
    let mut core = started();
    assert_eq!(
        conditions(&core.step(signal(oom(7), at(2)), at(2))),
        None,
        "a Warning changes no condition"
    );
    assert_eq!(
        conditions(&core.step(Input::Existing(Vec::new()), at(3))),
        None
    );
}

#[test]
fn more_entities_than_the_limit_share_one_finding() {
    let mut core = started();
    for pid in 0..1000 {
        core.step(signal(oom(pid), at(2)), at(2));
    }
    assert_eq!(core.findings.iter().count(), MOST_PER_REASON + 1);
    let others = core
        .findings
        .get(&(Reason::OomKilling, OTHERS.to_owned()))
        .unwrap();
    assert_eq!(
        others.finding.count,
        1000 - u64::try_from(MOST_PER_REASON).unwrap()
    );
    assert_eq!(others.finding.subject, Subject::default());
}

#[test]
fn a_flood_of_one_reason_leaves_room_for_the_others() {
    let mut core = started();
    for pid in 0..1000 {
        core.step(signal(oom(pid), at(2)), at(2));
    }
    let outputs = core.step(signal(io_error("sda"), at(3)), at(3));
    assert_eq!(
        changes(&outputs),
        [(Change::Opened, Reason::BlockIoError, Severity::Warning)]
    );
}

#[test]
fn what_a_source_lost_is_a_finding_with_its_number() {
    let mut core = started();
    let outputs = core.step(
        signal(
            What::Lost {
                source: SourceName::Kmsg,
                count: 637,
            },
            at(2),
        ),
        at(2),
    );
    assert_eq!(
        changes(&outputs),
        [(Change::Opened, Reason::SignalsLost, Severity::Warning)]
    );
    assert_eq!(core.findings.iter().next().unwrap().1.finding.count, 637);
}
