//! GPUs: one fault is one finding whoever reports it, and only evidence or a reboot ends it.

use super::*;
use crate::signal::{GpuState, Nvml, Recovery};

const GPU: &str = "0000:05:00";
const KIND: ConditionType = ConditionType::AcceleratedHardwareReady;

pub(super) fn line(xid: u32) -> What {
    What::Xid {
        gpu: GPU.to_owned(),
        xid,
        detail: Some("pid=1, name=x, GPU has fallen off the bus.".to_owned()),
        seen_by: SourceName::Kmsg,
        driver: Some("nvidia".to_owned()),
    }
}

fn event(xid: u32) -> What {
    What::Xid {
        gpu: GPU.to_owned(),
        xid,
        detail: None,
        seen_by: SourceName::Nvml,
        driver: Some("nvidia".to_owned()),
    }
}

pub(super) fn state(recovery: Recovery) -> What {
    What::Gpu {
        gpu: GPU.to_owned(),
        state: GpuState {
            lost: None,
            recovery,
            uncorrected: Some(0),
        },
    }
}

pub(super) fn lost() -> What {
    What::Gpu {
        gpu: GPU.to_owned(),
        state: GpuState {
            lost: Some("device fell off the bus".to_owned()),
            recovery: Recovery::Unknown,
            uncorrected: None,
        },
    }
}

pub(super) fn errors(count: u64) -> What {
    What::Gpu {
        gpu: GPU.to_owned(),
        state: GpuState {
            lost: None,
            recovery: Recovery::NotNeeded,
            uncorrected: Some(count),
        },
    }
}

fn step(core: &mut Core, what: What, second: u64) -> Vec<Output> {
    core.step(signal(what, at(second)), at(second))
}

fn condition(outputs: &[Output]) -> Option<Condition> {
    let conditions = conditions(outputs)?;
    conditions
        .iter()
        .find(|condition| condition.kind == KIND)
        .cloned()
}

fn count(core: &Core, xid: u32) -> u64 {
    core.findings
        .get(&(Settings::default().of_xid(xid), GPU.to_owned()))
        .unwrap()
        .finding
        .count
}

#[test]
fn a_fatal_xid_makes_the_condition_false_under_its_number() {
    let mut core = started();
    let outputs = step(&mut core, line(79), 2);
    let condition = condition(&outputs).unwrap();
    assert_eq!(
        (condition.healthy, &*condition.reason),
        (false, "NvidiaXID79Error")
    );
    assert!(condition.message.contains(GPU), "{}", condition.message);
}

#[test]
fn another_xid_is_a_warning() {
    let mut core = started();
    let outputs = step(&mut core, line(31), 2);
    assert_eq!(
        changes(&outputs),
        [(
            Change::Opened,
            Reason::NvidiaXidWarning(31),
            Severity::Warning
        )]
    );
    assert_eq!(condition(&outputs), None);
}

#[test]
fn a_line_about_a_device_that_the_driver_does_not_have_is_nothing() {
    for driver in [None, Some("vfio-pci".to_owned())] {
        let mut core = started();
        let mut forged = line(79);
        if let What::Xid { driver: has, .. } = &mut forged {
            *has = driver;
        }
        assert_eq!(step(&mut core, forged, 2), []);
    }
}

#[test]
fn what_both_sources_see_is_one_fault_in_either_order() {
    for (first, second) in [(line(79), event(79)), (event(79), line(79))] {
        let mut core = started();
        step(&mut core, first, 2);
        assert_eq!(changes(&step(&mut core, second, 11)), []);
        assert_eq!(count(&core, 79), 1);
        let open = core.findings.iter().next().unwrap().1;
        assert!(
            open.finding.message.contains("fallen off the bus"),
            "{}",
            open.finding.message
        );
    }
}

#[test]
fn one_source_twice_or_both_far_apart_are_two_faults() {
    for (second, later) in [(line(48), 3), (event(48), 13)] {
        let mut core = started();
        step(&mut core, line(48), 2);
        step(&mut core, second, later);
        assert_eq!(count(&core, 48), 2);
    }
}

#[test]
fn an_xid_clears_when_its_gpu_has_been_seen_to_recover() {
    let mut core = started();
    step(&mut core, state(Recovery::NotNeeded), 2);
    step(&mut core, line(95), 3);
    step(&mut core, state(Recovery::Needed), 4);
    let outputs = step(&mut core, state(Recovery::NotNeeded), 14);
    assert_eq!(
        changes(&outputs),
        [(Change::Cleared, Reason::NvidiaXidError(95), Severity::Fatal)]
    );
    assert!(condition(&outputs).unwrap().healthy);
}

#[test]
fn an_xid_stays_while_nothing_says_that_its_gpu_has_recovered() {
    for word in [Recovery::NotNeeded, Recovery::Unknown] {
        let mut core = started();
        step(&mut core, line(95), 3);
        assert_eq!(changes(&step(&mut core, state(word), 4)), []);
        assert_eq!(changes(&core.step(Input::Wake, at(100_000))), []);
    }
}

#[test]
fn a_lost_gpu_is_a_finding_until_it_answers() {
    let mut core = started();
    let outputs = step(&mut core, lost(), 2);
    assert_eq!(
        &*condition(&outputs).unwrap().reason,
        "NvidiaDeviceCountMismatch"
    );
    let outputs = step(&mut core, state(Recovery::Unknown), 12);
    assert_eq!(condition(&outputs), None, "for a moment is not enough");
    let outputs = core.step(Input::Wake, at(22));
    assert!(condition(&outputs).unwrap().healthy);
}

#[test]
fn uncorrected_errors_count_by_how_much_the_counter_rises() {
    let mut core = started();
    step(&mut core, errors(0), 2);
    let outputs = step(&mut core, errors(3), 12);
    assert_eq!(
        changes(&outputs),
        [(
            Change::Opened,
            Reason::NvidiaDoubleBitError,
            Severity::Fatal
        )]
    );
    step(&mut core, errors(5), 22);
    let key = (Reason::NvidiaDoubleBitError, GPU.to_owned());
    assert_eq!(core.findings.get(&key).unwrap().finding.count, 5);
    assert!(condition(&step(&mut core, errors(0), 32)).unwrap().healthy);
}

#[test]
fn uncorrected_errors_from_before_the_start_are_a_warning() {
    let mut core = started();
    let outputs = step(&mut core, errors(3), 2);
    assert_eq!(
        changes(&outputs),
        [(
            Change::Opened,
            Reason::NvidiaDoubleBitError,
            Severity::Warning
        )]
    );
}

#[test]
fn an_xid_from_before_the_start_is_as_bad_as_its_gpu_is_now() {
    for (now, left) in [
        (lost(), Some(Severity::Fatal)),
        (state(Recovery::Needed), Some(Severity::Fatal)),
        (state(Recovery::Unknown), Some(Severity::Warning)),
        (state(Recovery::NotNeeded), None),
    ] {
        let mut core = Core::new(ConditionType::ALL.to_vec());
        core.step(historic(line(79), at(1)), at(100));
        core.step(Input::HistoryRead, at(100));
        core.step(Input::Existing(Vec::new()), at(100));
        step(&mut core, now, 101);
        let severity = core
            .findings
            .get(&(Reason::NvidiaXidError(79), GPU.to_owned()))
            .map(|open| open.finding.severity);
        assert_eq!(severity, left);
    }
}

/// What the Node says after a fatal XID at this second.
fn broken(second: u64) -> Existing {
    let mut core = started();
    let condition = condition(&step(&mut core, line(63), second)).unwrap();
    Existing {
        kind: condition.kind,
        healthy: condition.healthy,
        transition: condition.transition,
        message: condition.message,
    }
}

#[test]
fn a_restart_of_the_agent_neither_heals_nor_forgets_an_xid() {
    let mut core = Core::new(ConditionType::ALL.to_vec());
    core.step(Input::HistoryRead, at(100));
    let outputs = core.step(Input::Existing(vec![broken(50)]), at(100));
    assert_eq!(changes(&outputs), [], "its Event has gone out");
    let now = condition(&outputs).unwrap();
    assert_eq!(
        (now.healthy, &*now.reason, now.transition),
        (false, "NvidiaXID63Error", at(50).wall)
    );
    assert_eq!(now.message, broken(50).message);
    step(&mut core, state(Recovery::NotNeeded), 101);
    assert_eq!(
        count(&core, 63),
        1,
        "a GPU that is well now may not have been reset"
    );
}

#[test]
fn a_new_boot_ends_an_xid() {
    let mut core = Core::new(ConditionType::ALL.to_vec());
    core.step(Input::HistoryRead, at(100));
    let booted = Now {
        boot: Duration::from_secs(20),
        wall: at(100).wall,
    };
    let outputs = core.step(Input::Existing(vec![broken(50)]), booted);
    assert!(condition(&outputs).unwrap().healthy);
}

#[test]
fn the_condition_comes_and_goes_with_nvml_where_there_was_no_driver() {
    let mut core = Core::new(vec![ConditionType::KernelReady]);
    core.step(Input::Existing(Vec::new()), at(1));
    core.step(Input::HistoryRead, at(1));
    let outputs = step(&mut core, What::Nvml(Nvml::Watching { gpus: 8 }), 2);
    assert!(condition(&outputs).unwrap().healthy);
    let gone = Nvml::Unavailable {
        why: "the driver has been unloaded".to_owned(),
        driver: false,
    };
    let outputs = step(&mut core, What::Nvml(gone), 3);
    assert_eq!(condition(&outputs), None, "unwatched is absent");
    assert_eq!(conditions(&outputs).unwrap().len(), 1);
    assert_eq!(
        changes(&outputs),
        [(Change::Opened, Reason::NvmlError, Severity::Warning)]
    );
}

#[test]
fn a_broken_gpu_is_not_forgotten_when_its_driver_goes() {
    let mut core = started();
    step(&mut core, line(79), 2);
    let gone = Nvml::Unavailable {
        why: "the driver has been unloaded".to_owned(),
        driver: false,
    };
    step(&mut core, What::Nvml(gone), 3);
    let published = core.published.as_ref().unwrap();
    assert!(published.iter().any(|now| now.kind == KIND && !now.healthy));
}

#[test]
fn nvml_that_hangs_is_a_warning_until_it_answers() {
    let mut core = started();
    let hung = Nvml::Hung {
        call: "nvmlEventSetWait_v2",
        limit: Duration::from_secs(15),
    };
    let opened = changes(&step(&mut core, What::Nvml(hung), 2));
    assert_eq!(
        opened,
        [(Change::Opened, Reason::NvmlHung, Severity::Warning)]
    );
    let cleared = changes(&step(&mut core, What::Nvml(Nvml::Answered), 3));
    assert_eq!(
        cleared,
        [(Change::Cleared, Reason::NvmlHung, Severity::Warning)]
    );
}
