//! The life of a finding: its threshold, its hysteresis, flapping, and what settings change in it.

use super::*;
use crate::core::findings::FLAP_HOLD;
use crate::finding::FLAPS;

fn configured(name: &str, over: Override) -> Core {
    let mut core = started();
    let settings = Settings {
        overrides: BTreeMap::from([(name.to_owned(), over)]),
        ..Settings::default()
    };
    core.step(Input::Settings(settings), at(1));
    core
}

fn faults(core: &mut Core, seconds: &[u64]) -> Vec<usize> {
    let step = |&s: &u64| changes(&core.step(signal(io_error("sda"), at(s)), at(s))).len();
    seconds.iter().map(step).collect()
}

fn read_only_at(core: &mut Core, second: u64) -> Vec<Output> {
    core.step(signal(read_only_line("sda1"), at(second)), at(second));
    core.step(evidence("sda1", read_only(true)), at(second))
}

/// Writable for two readings in a row, and then left alone.
fn mended_at(core: &mut Core, second: u64) -> Vec<Output> {
    core.step(Input::Wake, at(second));
    let mut outputs = core.step(evidence("sda1", Evidence::Writable), at(second));
    outputs.extend(core.step(Input::Wake, at(second + 10)));
    outputs.extend(core.step(evidence("sda1", Evidence::Writable), at(second + 10)));
    outputs.extend(core.step(Input::Wake, at(second + 15)));
    outputs
}

const THRICE_A_MINUTE: Threshold = Threshold {
    count: 3,
    window: Duration::from_secs(60),
};

#[test]
fn a_finding_opens_at_its_threshold_with_the_faults_that_led_to_it() {
    let over = Override {
        threshold: Some(THRICE_A_MINUTE),
        ..Override::default()
    };
    let mut core = configured("BlockDeviceIOError", over);
    assert_eq!(faults(&mut core, &[10, 20, 30]), [0, 0, 1]);
    let key = (Reason::BlockIoError, "sda".to_owned());
    assert_eq!(core.findings.get(&key).unwrap().finding.count, 3);
}

#[test]
fn faults_that_are_too_far_apart_open_nothing() {
    let over = Override {
        threshold: Some(THRICE_A_MINUTE),
        ..Override::default()
    };
    let mut core = configured("BlockDeviceIOError", over);
    assert_eq!(faults(&mut core, &[10, 20, 81, 82, 83]), [0, 0, 0, 0, 1]);
}

#[test]
fn entities_below_their_threshold_take_bounded_memory() {
    let over = Override {
        threshold: Some(THRICE_A_MINUTE),
        ..Override::default()
    };
    let mut core = configured("OOMKilling", over);
    for pid in 0..100_000 {
        core.step(signal(oom(pid), at(2)), at(2));
    }
    assert!(core.findings.below_threshold().len() <= 1025);
    assert!(core.findings.iter().count() <= MOST_PER_REASON + 1);
}

#[test]
fn a_disabled_reason_opens_nothing_and_what_was_open_clears() {
    let disabled = Settings {
        overrides: BTreeMap::from([(
            "BlockDeviceIOError".to_owned(),
            Override {
                enabled: Some(false),
                ..Override::default()
            },
        )]),
        ..Settings::default()
    };
    let mut core = started();
    faults(&mut core, &[2]);
    let outputs = core.step(Input::Settings(disabled), at(3));
    assert_eq!(
        changes(&outputs),
        [(Change::Cleared, Reason::BlockIoError, Severity::Warning)]
    );
    assert_eq!(faults(&mut core, &[4]), [0]);
}

#[test]
fn a_promoted_reason_turns_its_condition_also_while_it_is_open() {
    let mut core = started();
    faults(&mut core, &[2]);
    let over = Override {
        severity: Some(Severity::Fatal),
        ..Override::default()
    };
    let settings = Settings {
        overrides: BTreeMap::from([("BlockDeviceIOError".to_owned(), over)]),
        ..Settings::default()
    };
    let outputs = core.step(Input::Settings(settings), at(5));
    assert!(!storage(&outputs).unwrap().healthy);
    let outputs = core.step(Input::Settings(Settings::default()), at(6));
    assert!(storage(&outputs).unwrap().healthy);
}

#[test]
fn a_name_that_a_stranger_chose_begins_no_part_of_a_condition() {
    let fatal = Override {
        severity: Some(Severity::Fatal),
        ..Override::default()
    };
    let mut core = configured("FilesystemError", fatal);
    let line = What::Ext4Error {
        device: "sda1".to_owned(),
        detail: "f:1: comm x; FilesystemReadOnly: sdb1, mounted at /".to_owned(),
    };
    let outputs = core.step(signal(line, at(2)), at(2));
    let message = &storage(&outputs).unwrap().message;
    assert_eq!(message.split("; ").count(), 1, "{message}");
}

#[test]
fn another_time_to_clear_holds_for_quiet_and_for_evidence() {
    let minute = Override {
        clear_after: Some(Duration::from_secs(60)),
        ..Override::default()
    };
    let mut core = configured("BlockDeviceIOError", minute.clone());
    faults(&mut core, &[2]);
    assert_eq!(core.wake_at(), Some(at(62).boot));

    let mut core = configured("FilesystemReadOnly", minute);
    read_only_at(&mut core, 2);
    assert_eq!(changes(&mended_at(&mut core, 12)), []);
    for second in [32, 42, 52, 62] {
        core.step(Input::Wake, at(second));
        core.step(evidence("sda1", Evidence::Writable), at(second));
    }
    assert_eq!(changes(&core.step(Input::Wake, at(72))).len(), 1);
}

#[test]
fn one_good_reading_between_two_bad_ones_changes_nothing() {
    let mut core = started();
    read_only_at(&mut core, 2);
    core.step(Input::Wake, at(12));
    core.step(evidence("sda1", Evidence::Writable), at(12));
    core.step(Input::Wake, at(22));
    let outputs = core.step(evidence("sda1", read_only(true)), at(22));
    assert_eq!((changes(&outputs), conditions(&outputs)), (vec![], None));
    // The clock of being well starts anew.
    assert_eq!(changes(&core.step(Input::Wake, at(31))), []);
    assert!(core.findings.wake_at().is_none());
}

#[test]
fn a_line_after_a_good_reading_is_asked_about_again_before_anything_clears() {
    let mut core = started();
    read_only_at(&mut core, 2);
    core.step(Input::Wake, at(12));
    core.step(evidence("sda1", Evidence::Writable), at(12));
    core.step(signal(read_only_line("sda1"), at(13)), at(13));
    core.step(evidence("sda1", Evidence::Late), at(18));
    let outputs = core.step(Input::Wake, at(28));
    assert_eq!(
        (changes(&outputs), probes(&outputs)),
        (vec![], vec!["sda1"])
    );
}

fn hung(pid: u32) -> What {
    let task = Task {
        pid,
        ..Task::default()
    };
    What::HungTask { task }
}

fn asleep(started: u64, switches: u64) -> TaskState {
    TaskState::Blocked(Sleep { started, switches })
}

fn task(pid: u32, state: TaskState) -> Input {
    Input::Task { pid, state }
}

#[test]
fn a_hung_task_is_looked_at_and_clears_when_it_is_free_and_not_by_silence() {
    let mut core = started();
    let outputs = core.step(signal(hung(7), at(2)), at(2));
    assert!(outputs.contains(&Output::LookAtTask { pid: 7 }));
    core.step(task(7, asleep(1, 5)), at(2));
    for second in [3600, 7200] {
        let outputs = core.step(Input::Wake, at(second));
        assert_eq!(outputs, [Output::LookAtTask { pid: 7 }]);
        core.step(task(7, asleep(1, 5)), at(second));
    }
    core.step(Input::Wake, at(7210));
    core.step(task(7, TaskState::Free), at(7210));
    let outputs = core.step(Input::Wake, at(7225));
    assert_eq!(
        changes(&outputs),
        [(Change::Cleared, Reason::AppBlocked, Severity::Warning)]
    );
    assert_eq!(core.wake_at(), None);
}

#[test]
fn another_task_of_the_same_number_is_not_the_one_that_hung() {
    let mut core = started();
    core.step(signal(hung(7), at(2)), at(2));
    core.step(task(7, asleep(1, 5)), at(2));
    core.step(Input::Wake, at(12));
    core.step(task(7, asleep(2, 5)), at(12));
    assert_eq!(changes(&core.step(Input::Wake, at(27))).len(), 1);
}

#[test]
fn a_task_that_has_run_in_between_is_not_the_one_that_hung() {
    let mut core = started();
    core.step(signal(hung(7), at(2)), at(2));
    for (second, switches) in [(2, 5), (12, 6), (22, 6)] {
        core.step(Input::Wake, at(second));
        core.step(task(7, asleep(1, switches)), at(second));
    }
    assert_eq!(changes(&core.step(Input::Wake, at(27))).len(), 1);

    // Until it is said to hang again.
    core.step(signal(hung(7), at(30)), at(30));
    core.step(task(7, asleep(1, 6)), at(30));
    for second in [40, 50, 60] {
        assert_eq!(changes(&core.step(Input::Wake, at(second))), []);
        core.step(task(7, asleep(1, 6)), at(second));
    }
}

#[test]
fn a_task_that_nobody_can_look_at_stays_what_it_was() {
    let mut core = started();
    core.step(signal(hung(7), at(2)), at(2));
    core.step(task(7, TaskState::Unknown), at(2));
    assert_eq!(changes(&core.step(Input::Wake, at(9000))), []);
}

#[test]
fn what_many_tasks_share_clears_after_a_while_without_a_signal() {
    let mut core = started();
    for pid in 0..1000 {
        core.step(signal(hung(pid), at(2)), at(2));
    }
    let others = (Reason::AppBlocked, OTHERS.to_owned());
    assert!(core.findings.get(&others).is_some());
    core.step(Input::Wake, at(602));
    assert!(core.findings.get(&others).is_none());
}

#[test]
fn the_third_opening_within_an_hour_is_flapping_and_is_said() {
    let mut core = started();
    for second in [100, 200] {
        assert_eq!(changes(&read_only_at(&mut core, second)).len(), 1);
        assert_eq!(changes(&mended_at(&mut core, second + 20)).len(), 1);
    }
    let outputs = read_only_at(&mut core, 300);
    let message = &storage(&outputs).unwrap().message;
    assert!(
        message.contains("flapping: 3 times within an hour"),
        "{message}"
    );
}

#[test]
fn a_flapping_finding_stays_open_until_it_has_been_well_for_ten_minutes() {
    let mut core = started();
    for second in [100, 200] {
        read_only_at(&mut core, second);
        mended_at(&mut core, second + 20);
    }
    read_only_at(&mut core, 300);
    // It comes and goes: the condition stays as it is, and so does its time.
    for second in [320, 420] {
        assert_eq!(changes(&mended_at(&mut core, second)), []);
        core.step(Input::Wake, at(second + 20));
        let outputs = core.step(evidence("sda1", read_only(true)), at(second + 20));
        assert!(storage(&outputs).is_none_or(|storage| storage.transition == at(300).wall));
    }
    core.step(Input::Wake, at(500));
    core.step(evidence("sda1", Evidence::Writable), at(500));
    let cleared = core.findings.wake_at().unwrap();
    assert_eq!(cleared, at(500).boot + FLAP_HOLD);
    assert_eq!(changes(&core.step(Input::Wake, at(1099))), []);
    let outputs = core.step(Input::Wake, at(1100));
    assert!(storage(&outputs).unwrap().healthy);
}

#[test]
fn flapping_is_told_again_when_it_has_doubled() {
    let mut core = started();
    for second in [100, 200] {
        read_only_at(&mut core, second);
        mended_at(&mut core, second + 20);
    }
    read_only_at(&mut core, 300);
    let mut told = Vec::new();
    for round in 1..=9 {
        let second = 300 + round * 20;
        core.step(Input::Wake, at(second));
        core.step(evidence("sda1", Evidence::Writable), at(second));
        core.step(Input::Wake, at(second + 10));
        let outputs = core.step(evidence("sda1", read_only(true)), at(second + 10));
        told.push(changes(&outputs).len());
    }
    assert_eq!(told, [0, 0, 1, 0, 0, 0, 0, 0, 1]);
    assert_eq!(FLAPS, 3);
}

#[test]
fn openings_of_more_than_an_hour_ago_are_not_flapping() {
    let mut core = started();
    for second in [100, 2000, 3800] {
        read_only_at(&mut core, second);
        assert_eq!(changes(&mended_at(&mut core, second + 20)).len(), 1);
    }
}
