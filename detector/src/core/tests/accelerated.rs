//! GPUs: one fault is one finding whoever reports it, and only evidence or a reboot ends it.

use super::*;
use crate::judgement::{self, Class};
use crate::signal::{
    Fabric, GpuDetails, GpuState, Links, LogFault, Nvml, Partition, Pcie, Recovery,
};

const GPU: &str = "0000:05:00";
const KIND: ConditionType = ConditionType::AcceleratedHardwareReady;

pub(super) fn line(xid: u32) -> What {
    What::Xid {
        gpu: GPU.to_owned(),
        partition: None,
        xid,
        detail: Some("pid=1, name=x, GPU has fallen off the bus.".to_owned()),
        process: None,
        seen_by: SourceName::Kmsg,
        driver: Some("nvidia".to_owned()),
    }
}

fn event(xid: u32) -> What {
    What::Xid {
        gpu: GPU.to_owned(),
        partition: None,
        xid,
        detail: None,
        process: None,
        seen_by: SourceName::Nvml,
        driver: Some("nvidia".to_owned()),
    }
}

pub(super) fn state(recovery: Recovery) -> What {
    What::Gpu {
        gpu: GPU.to_owned(),
        state: GpuState {
            recovery,
            uncorrected: Some(0),
            ..GpuState::default()
        },
    }
}

pub(super) fn lost() -> What {
    What::Gpu {
        gpu: GPU.to_owned(),
        state: GpuState {
            lost: Some("device fell off the bus".to_owned()),
            ..GpuState::default()
        },
    }
}

pub(super) fn errors(count: u64) -> What {
    What::Gpu {
        gpu: GPU.to_owned(),
        state: GpuState {
            recovery: Recovery::NotNeeded,
            uncorrected: Some(count),
            ..GpuState::default()
        },
    }
}

/// With everything that a state can say, wrong or well.
pub(super) fn gpu(wrong: bool) -> What {
    What::Gpu {
        gpu: GPU.to_owned(),
        state: GpuState {
            uncorrected: Some(0),
            remap_pending: Some(wrong),
            remap_failed: Some(wrong),
            links: Some(Links {
                active: if wrong { 0b101 } else { 0b111 },
                known: 0,
            }),
            hot: Some(wrong),
            power_brake: Some(wrong),
            fabric: Some(Fabric {
                failed: wrong,
                health_mask: if wrong { 0b01 } else { 0b1_1010_1010 },
            }),
            details: Box::new(GpuDetails {
                inforom_corrupted: Some(wrong),
                sram_worn_out: Some(wrong),
                pcie: Some(lanes(if wrong { 8 } else { 16 })),
                ..GpuDetails::default()
            }),
            ..GpuState::default()
        },
    }
}

/// Of a slot that has 32.
fn lanes(lanes: u32) -> Pcie {
    Pcie {
        lanes,
        most_lanes: 32,
        ..Pcie::default()
    }
}

pub(super) fn line_of(xid: u32, pid: u32, name: &str) -> What {
    xid_line(xid, &format!("pid={pid}, name={name}, Ch 00000001"))
}

fn xid_line(xid: u32, text: &str) -> What {
    What::Xid {
        gpu: GPU.to_owned(),
        partition: None,
        xid,
        detail: Some(text.to_owned()),
        process: judgement::xid_line::process(text),
        seen_by: SourceName::Kmsg,
        driver: Some("nvidia".to_owned()),
    }
}

pub(super) fn sxid_line(sxid: u32, text: &str) -> What {
    What::Sxid {
        switch: GPU.to_owned(),
        sxid,
        detail: text.to_owned(),
        driver: Some("nvidia-nvswitch".to_owned()),
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

/// Who repairs reads one reason, and asks no more of a node than it needs, nor less.
#[test]
fn of_several_faults_the_one_with_the_strongest_advice_speaks() {
    let mut core = started();
    let told = |outputs: &[Output]| {
        let condition = condition(outputs).unwrap();
        (condition.reason.into_owned(), condition.transition)
    };
    // Wants a person; a reset; a replacement.
    let (first, since) = told(&step(&mut core, line(54), 2));
    let (second, still) = told(&step(&mut core, line(48), 3));
    let (third, _) = told(&step(&mut core, line(79), 4));
    assert_eq!(
        [first, second, third],
        ["NvidiaXID54Error", "NvidiaXID48Error", "NvidiaXID79Error"]
    );
    assert_eq!(since, still);
    // No news for whoever waits for its time.
    let message = condition(&step(&mut core, line(63), 80)).unwrap().message;
    assert!(message.starts_with("NvidiaXID79Error: "), "{message}");
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
    let outputs = step(
        &mut core,
        What::Nvml(Nvml::Watching {
            gpus: 8,
            untold: Vec::new(),
        }),
        2,
    );
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
        gpu: None,
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

fn open(core: &Core) -> Vec<Reason> {
    let open = core.findings.iter();
    open.map(|((reason, _), _)| *reason).collect()
}

fn message(core: &Core, reason: Reason) -> String {
    let open = core.findings.get(&(reason, GPU.to_owned())).unwrap();
    open.finding.message.clone()
}

#[test]
fn every_xid_of_the_table_opens_what_its_row_says_and_tells_its_meaning_and_advice() {
    for row in judgement::xids() {
        let mut core = started();
        step(&mut core, line(row.code), 2);
        let reason = Settings::default().of_xid(row.code);
        assert_eq!(open(&core), [reason], "{row:?}");
        assert_eq!(reason.row().severity, row.severity, "{row:?}");
        assert_eq!(reason.action(), Some(row.action), "{row:?}");
        let message = message(&core, reason);
        for part in [
            row.meaning,
            row.action.advice(),
            "GPU has fallen off the bus.",
        ] {
            assert!(message.contains(part), "{message}");
        }
    }
}

#[test]
fn an_xid_that_is_not_in_the_table_is_a_warning() {
    let mut core = started();
    step(&mut core, line(998), 2);
    assert_eq!(open(&core), [Reason::NvidiaXidWarning(998)]);
}

#[test]
fn the_sub_code_of_an_nvlink_error_says_how_bad_it_is_unless_the_configuration_does() {
    let fatal = "SAW_MVB Fatal XC0 i0 Link 00 (0x00000001 0x00000002 0x00000000 0x00000000)";
    let mild = "SAW_MVB Nonfatal XC0 i0 Link 00 (0x00000001 0x00000001 0x00000000 0x00000000)";
    for (text, reason) in [
        (fatal, Reason::NvidiaXidError(144)),
        (mild, Reason::NvidiaXidWarning(144)),
    ] {
        let mut core = started();
        step(&mut core, xid_line(144, text), 2);
        assert_eq!(open(&core), [reason]);
    }
    let decided = Settings {
        decided_xids: [144].into(),
        ..Settings::default()
    };
    let as_eks = Settings {
        own_fatal_reasons: false,
        ..Settings::default()
    };
    for settings in [decided, as_eks] {
        let mut core = started();
        core.step(Input::Settings(settings), at(1));
        step(&mut core, xid_line(144, fatal), 2);
        assert_eq!(open(&core), [Reason::NvidiaXidWarning(144)]);
    }
}

#[test]
fn channels_that_are_cleaned_up_after_an_error_are_told_with_it() {
    let mut core = started();
    step(&mut core, line(95), 2);
    for second in 3..20 {
        assert_eq!(changes(&step(&mut core, line(45), second)), []);
    }
    assert_eq!(open(&core), [Reason::NvidiaXidError(95)]);
    let message = message(&core, Reason::NvidiaXidError(95));
    assert_eq!(message.matches("then XID 45").count(), 1, "{message}");
}

#[test]
fn channels_that_are_cleaned_up_without_an_error_or_long_after_it_are_told() {
    let mut core = started();
    step(&mut core, line(45), 2);
    assert_eq!(open(&core), [Reason::NvidiaXidWarning(45)]);
    let mut core = started();
    step(&mut core, line(95), 2);
    step(&mut core, line(45), 63);
    assert!(open(&core).contains(&Reason::NvidiaXidWarning(45)));
}

#[test]
fn the_details_of_a_double_bit_error_are_told_with_it() {
    let mut core = started();
    step(&mut core, line(48), 2);
    for xid in [63, 64, 171, 172] {
        assert_eq!(changes(&step(&mut core, line(xid), 3)), [], "{xid}");
    }
    assert_eq!(open(&core), [Reason::NvidiaXidError(48)]);
    let message = message(&core, Reason::NvidiaXidError(48));
    for xid in [63, 64, 171, 172] {
        assert!(message.contains(&format!("then XID {xid}")), "{message}");
    }
}

#[test]
fn a_consequence_that_is_worse_than_what_caused_it_is_told() {
    let mut core = started();
    let settings = Settings {
        fatal_xids: [64].into(),
        ..Settings::default()
    };
    core.step(Input::Settings(settings), at(1));
    step(&mut core, line(48), 2);
    step(&mut core, line(64), 3);
    assert!(open(&core).contains(&Reason::NvidiaXidError(64)));
}

#[test]
fn consequences_on_another_gpu_are_told() {
    let mut core = started();
    step(&mut core, line(95), 2);
    let mut other = line(45);
    if let What::Xid { gpu, .. } = &mut other {
        *gpu = "0000:06:00".to_owned();
    }
    step(&mut core, other, 3);
    assert!(open(&core).contains(&Reason::NvidiaXidWarning(45)));
}

#[test]
fn a_storm_of_one_error_is_one_finding_and_few_events() {
    let mut core = started();
    let mut told = 0;
    for n in 0..20_000 {
        let now = at(2 + n / 100);
        told += changes(&core.step(signal(line(95), now), now)).len();
    }
    assert_eq!(count(&core, 95), 20_000);
    assert!(told <= 5, "{told}");
}

#[test]
fn different_programs_that_fail_on_one_gpu_make_it_a_suspect_and_never_more_than_a_warning() {
    for row in judgement::xids() {
        let mut core = started();
        for (pid, name) in [(1, "train"), (2, "train"), (3, "infer")] {
            step(&mut core, line_of(row.code, pid, name), 2);
        }
        let suspected = open(&core).contains(&Reason::NvidiaGpuSuspected);
        let by_programs = row.class == Class::Application && row.code != 45;
        assert_eq!(suspected, by_programs, "{row:?}");
        if by_programs {
            let published = core.published.as_ref().unwrap();
            assert!(
                published.iter().all(|condition| condition.healthy),
                "{row:?}"
            );
        }
    }
}

#[test]
fn the_driver_says_in_the_log_that_a_gpu_needs_recovery_and_that_it_has_recovered() {
    let changed = |from: &str, to: &str| {
        xid_line(
            154,
            &format!("GPU recovery action changed from {from} to {to}"),
        )
    };
    let mut core = started();
    let outputs = step(
        &mut core,
        changed("0x0 (None)", "0x2 (Node Reboot Required)"),
        2,
    );
    assert_eq!(
        &*condition(&outputs).unwrap().reason,
        "NvidiaGPURecoveryNeeded"
    );
    assert!(message(&core, Reason::NvidiaGpuRecoveryNeeded).contains("reboot the node"));
    let outputs = step(
        &mut core,
        changed("0x2 (Node Reboot Required)", "0x0 (None)"),
        12,
    );
    assert!(condition(&outputs).unwrap().healthy);
    step(&mut core, changed("0x0 (None)", "0x3 (Drain P2P)"), 20);
    let published = core.published.as_ref().unwrap();
    assert!(published.iter().all(|now| now.healthy), "a Warning");
}

#[test]
fn an_xid_ends_when_the_log_says_that_its_gpu_has_recovered() {
    let mut core = started();
    step(&mut core, line(95), 2);
    let recovered = "GPU recovery action changed from 0x1 (GPU Reset Required) to 0x0 (None)";
    let outputs = step(&mut core, xid_line(154, recovered), 12);
    assert_eq!(
        changes(&outputs),
        [(Change::Cleared, Reason::NvidiaXidError(95), Severity::Fatal)]
    );
}

#[test]
fn a_gpu_that_fell_off_is_one_fault_with_its_xid_and_one_without_it() {
    let fallen = |nvidia| What::FallenOff {
        gpu: GPU.to_owned(),
        detail: "GPU has fallen off the bus.".to_owned(),
        nvidia,
    };
    let mut core = started();
    step(&mut core, line(79), 2);
    assert_eq!(changes(&step(&mut core, fallen(true), 2)), []);
    assert_eq!(count(&core, 79), 1);
    let mut core = started();
    step(&mut core, fallen(true), 2);
    assert_eq!(open(&core), [Reason::NvidiaXidError(79)]);
    let mut core = started();
    assert_eq!(step(&mut core, fallen(false), 2), []);
}

#[test]
fn the_three_lines_of_an_sxid_are_one_error_and_any_of_them_alone_is_one() {
    let lines = [
        "Fatal, Link 30 LTSSM Fault Up",
        "Severity 1 Engine instance 30 Sub-engine instance 00",
        "Data {0x10000000, 0x00000000}",
    ];
    let mut core = started();
    for text in lines {
        step(&mut core, sxid_line(20034, text), 2);
    }
    let key = (Reason::NvidiaSxidError(20034), GPU.to_owned());
    assert_eq!(core.findings.get(&key).unwrap().finding.count, 1);
    assert_eq!(open(&core).len(), 1);
    for text in lines {
        let mut core = started();
        step(&mut core, sxid_line(20034, text), 2);
        assert_eq!(open(&core), [Reason::NvidiaSxidError(20034)], "{text}");
    }
}

#[test]
fn every_sxid_is_as_bad_as_its_line_says_and_else_as_its_row_does() {
    for row in judgement::sxids() {
        for (text, severity) in [
            ("Fatal, Link 1 x", Severity::Fatal),
            ("Non-fatal, Link 1 x", Severity::Warning),
            ("x", row.severity),
        ] {
            let mut core = started();
            let outputs = step(&mut core, sxid_line(row.code, text), 2);
            let opened = changes(&outputs);
            assert_eq!(opened.len(), 1);
            assert_eq!(opened[0].2, severity, "{row:?}");
        }
    }
    let mut core = started();
    let outputs = step(&mut core, sxid_line(26008, "SOE Watchdog error"), 2);
    assert_eq!(
        changes(&outputs)[0].2,
        Severity::Warning,
        "not in the table"
    );
}

#[test]
fn an_sxid_of_a_device_that_no_switch_driver_has_is_nothing() {
    for driver in [None, Some("nvidia".to_owned())] {
        let mut core = started();
        let mut forged = sxid_line(20034, "Fatal, x");
        if let What::Sxid { driver: has, .. } = &mut forged {
            *has = driver;
        }
        assert_eq!(step(&mut core, forged, 2), []);
    }
}

#[test]
fn a_remap_that_is_pending_stays_until_the_gpu_was_reset() {
    let mut core = started();
    step(&mut core, gpu(true), 2);
    let key = (Reason::NvidiaPageRetirement, GPU.to_owned());
    step(&mut core, gpu(true), 1000);
    core.step(Input::Wake, at(100_000));
    // Lost: nothing is known.
    step(&mut core, lost(), 100_001);
    assert!(core.findings.get(&key).is_some());
    step(&mut core, gpu(false), 100_002);
    assert!(core.findings.get(&key).is_none());
}

#[test]
fn a_link_that_was_never_active_is_not_missed_and_one_that_was_is_until_it_is_back() {
    let links = |active| What::Gpu {
        gpu: GPU.to_owned(),
        state: GpuState {
            links: Some(Links { active, known: 0 }),
            ..GpuState::default()
        },
    };
    let mut core = started();
    step(&mut core, links(0b0011), 2);
    assert_eq!(open(&core), []);
    step(&mut core, links(0b0001), 3);
    assert!(message(&core, Reason::NvidiaNvlinkError).contains("NVLinks: 1 "));
    step(&mut core, links(0b0000), 4);
    step(&mut core, links(0b0011), 5);
    core.step(Input::Wake, at(15));
    assert_eq!(open(&core), []);
}

#[test]
fn counters_that_stand_still_or_begin_anew_are_no_error() {
    let counters = |replays, link_errors| What::Gpu {
        gpu: GPU.to_owned(),
        state: GpuState {
            pcie_replays: Some(replays),
            link_errors: Some(link_errors),
            ..GpuState::default()
        },
    };
    let mut core = started();
    for (second, (replays, link_errors)) in [(500, 500), (500, 500), (0, 0), (7, 7)]
        .into_iter()
        .enumerate()
    {
        step(
            &mut core,
            counters(replays, link_errors),
            2 + 10 * second as u64,
        );
    }
    assert_eq!(open(&core), []);
    step(&mut core, counters(15, 15), 42);
    assert_eq!(
        open(&core),
        [Reason::NvidiaNvlinkWarning, Reason::NvidiaPcieError]
    );
}

#[test]
fn each_fault_of_the_fabric_is_told_and_what_is_not_supported_is_none() {
    for (mask, wrong) in [
        (0, false),
        (0b1_1010_1010, false),
        (0b1_0000_0000, false),
        (0b01, true),
        (0b01 << 2, true),
        (0b01 << 4, true),
        (0b01 << 6, true),
        (0b10 << 8, true),
        (0b101 << 8, true),
    ] {
        let mut core = started();
        let fabric = Fabric {
            failed: false,
            health_mask: mask,
        };
        let state = GpuState {
            fabric: Some(fabric),
            ..GpuState::default()
        };
        let gpu = GPU.to_owned();
        step(&mut core, What::Gpu { gpu, state }, 2);
        assert_eq!(
            open(&core).contains(&Reason::NvidiaFabricError),
            wrong,
            "{mask:b}"
        );
    }
}

#[test]
fn what_the_agent_before_said_of_a_link_or_a_switch_is_not_forgotten() {
    for (what, reason) in [
        (sxid_line(20034, "Fatal, x"), Reason::NvidiaSxidError(20034)),
        (state(Recovery::Needed), Reason::NvidiaGpuRecoveryNeeded),
    ] {
        let mut before = started();
        let condition = condition(&step(&mut before, what, 50)).unwrap();
        let existing = Existing {
            kind: condition.kind,
            healthy: condition.healthy,
            transition: condition.transition,
            message: condition.message,
        };
        let mut core = Core::new(ConditionType::ALL.to_vec());
        core.step(Input::HistoryRead, at(100));
        core.step(Input::Existing(vec![existing]), at(100));
        assert_eq!(open(&core), [reason]);
    }
}

#[test]
fn fewer_gpus_than_the_instance_type_has_are_missed_until_they_are_back() {
    let present = |gpus| {
        What::Nvml(Nvml::Present {
            gpus,
            expected: 8,
            instance_type: "p5.48xlarge".to_owned(),
        })
    };
    let mut core = started();
    assert_eq!(changes(&step(&mut core, present(8), 2)), []);
    let outputs = step(&mut core, present(7), 12);
    let condition = condition(&outputs).unwrap();
    assert_eq!(&*condition.reason, "NvidiaDeviceCountMismatch");
    assert!(
        condition.message.contains("7 GPUs, of 8"),
        "{}",
        condition.message
    );
    step(&mut core, present(8), 22);
    core.step(Input::Wake, at(32));
    assert_eq!(open(&core), []);
}

#[test]
fn each_state_of_a_gpu_that_is_wrong_opens_its_reason() {
    let mut core = started();
    step(&mut core, gpu(false), 2);
    step(&mut core, gpu(true), 12);
    assert_eq!(
        open(&core),
        [
            Reason::NvidiaRowRemapFailure,
            Reason::NvidiaSramThresholdExceeded,
            Reason::NvidiaPageRetirement,
            Reason::NvidiaNvlinkError,
            Reason::NvidiaFabricError,
            Reason::FabricManagerNotRunning,
            Reason::NvidiaThermalError,
            Reason::NvidiaPowerError,
            Reason::NvidiaPcieLinkDegraded,
            Reason::NvidiaInforomCorrupted,
        ]
    );
}

#[test]
fn a_message_has_an_end_however_many_hold_a_gpu() {
    let mut core = started();
    let shared = What::Gpu {
        gpu: GPU.to_owned(),
        state: GpuState {
            holders: vec!["x".repeat(200); 28],
            ..GpuState::default()
        },
    };
    step(&mut core, shared, 2);
    step(&mut core, line(79), 3);
    let message = message(&core, Reason::NvidiaXidError(79));
    assert!(message.len() < 1024, "{message}");
}

/// A virtual machine does not see that the slot has fewer than the GPU.
#[test]
fn lanes_that_a_gpu_never_had_are_not_missed() {
    let with = |pcie| What::Gpu {
        gpu: GPU.to_owned(),
        state: GpuState {
            details: Box::new(GpuDetails {
                pcie,
                ..GpuDetails::default()
            }),
            ..GpuState::default()
        },
    };
    let mut core = started();
    step(&mut core, with(Some(lanes(8))), 2);
    step(&mut core, with(Some(lanes(16))), 62);
    assert_eq!(open(&core), []);
    step(&mut core, with(Some(lanes(8))), 122);
    let told = message(&core, Reason::NvidiaPcieLinkDegraded);
    assert!(told.contains("has 8 PCIe lanes, of 16"), "{told}");
}

#[test]
fn an_xid_of_a_mig_instance_names_it_and_who_holds_that_alone() {
    let partition = |instance: u32| Partition {
        instance,
        uuid: format!("MIG-{instance}"),
        holders: vec![format!("ml/pod-{instance} container main")],
    };
    let divided = What::Gpu {
        gpu: GPU.to_owned(),
        state: GpuState {
            holders: vec!["all of them".to_owned()],
            details: Box::new(GpuDetails {
                index: Some(3),
                serial: Some("163".to_owned()),
                partitions: vec![partition(5), partition(6)],
                ..GpuDetails::default()
            }),
            ..GpuState::default()
        },
    };
    let mut core = started();
    step(&mut core, divided, 2);
    let mut of_instance = line(95);
    if let What::Xid { partition, .. } = &mut of_instance {
        *partition = Some(6);
    }
    step(&mut core, of_instance, 3);
    step(&mut core, line(79), 4);
    for (reason, end) in [
        (
            Reason::NvidiaXidError(95),
            ", index 3, serial 163, MIG instance 6, MIG-6, held by ml/pod-6 container main",
        ),
        (
            Reason::NvidiaXidError(79),
            ", index 3, serial 163, held by all of them",
        ),
    ] {
        let message = message(&core, reason);
        assert!(message.ends_with(end), "{message}");
    }
}

#[test]
fn a_gpu_that_says_it_is_well_or_says_nothing_opens_none() {
    let silent = What::Gpu {
        gpu: GPU.to_owned(),
        state: GpuState::default(),
    };
    for what in [gpu(false), silent, state(Recovery::NotNeeded)] {
        let mut core = started();
        assert_eq!(changes(&step(&mut core, what.clone(), 2)), []);
        assert_eq!(changes(&step(&mut core, what, 12)), []);
    }
}

#[test]
fn what_a_neuron_device_said_ends_with_the_boot() {
    let fault = LogFault::new(
        Reason::NeuronDmaError,
        "neuron0".to_owned(),
        "Neuron device neuron0 reported DMA_ERROR: nd-id=0".to_owned(),
    );
    let mut before = started();
    let told = condition(&step(&mut before, What::Logged(fault), 50)).unwrap();
    let existing = || Existing {
        kind: told.kind,
        healthy: told.healthy,
        transition: told.transition,
        message: told.message.clone(),
    };
    let after = |boot| {
        let mut core = Core::new(ConditionType::ALL.to_vec());
        core.step(Input::HistoryRead, at(100));
        let now = Now {
            boot: Duration::from_secs(boot),
            wall: at(100).wall,
        };
        core.step(Input::Existing(vec![existing()]), now);
        open(&core)
    };
    assert_eq!(after(100), [Reason::NeuronDmaError]);
    assert_eq!(after(20), []);
}

#[test]
fn a_finding_names_its_gpu_for_good_and_who_holds_it() {
    let mut core = started();
    let held = |lost: Option<String>| What::Gpu {
        gpu: GPU.to_owned(),
        state: GpuState {
            lost,
            uuid: Some("GPU-8f".to_owned()),
            holders: vec!["ml/train container main".to_owned()],
            ..GpuState::default()
        },
    };
    step(&mut core, held(None), 2);
    step(&mut core, line(79), 3);
    step(&mut core, held(Some("it fell off".to_owned())), 4);
    for reason in [
        Reason::NvidiaXidError(79),
        Reason::NvidiaDeviceCountMismatch,
    ] {
        let message = message(&core, reason);
        let identity = ", GPU-8f, held by ml/train container main";
        assert!(message.ends_with(identity), "{message}");
    }
}
