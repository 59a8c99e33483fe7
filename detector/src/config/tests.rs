//! The format: what is read, what is refused and how that is said.

use std::fmt::Write;

use proptest::prelude::*;

use super::*;
use crate::core::{Override, Threshold};
use crate::reason::{ConditionType, Reason, Severity};
use crate::rules::Origin;
use crate::signal::{BlockErrorClass, BlockOperation, Disk, LogFault};

fn good(text: &str) -> Config {
    parse(text.as_bytes()).unwrap_or_else(|errors| panic!("{errors:#?}"))
}

fn wrong(text: &str) -> String {
    let errors = parse(text.as_bytes()).expect_err("was accepted");
    errors.iter().fold(String::new(), |mut all, error| {
        writeln!(all, "{error}").unwrap();
        all
    })
}

const DOCUMENTATION: &str = include_str!("../../../docs/configuration.md");

fn examples() -> Vec<&'static str> {
    let blocks = DOCUMENTATION.split("```yaml\n").skip(1);
    blocks
        .map(|block| block.split_once("```").unwrap().0)
        .collect()
}

#[test]
fn every_example_of_the_documentation_is_valid() {
    assert!(!examples().is_empty());
    for example in examples() {
        good(example);
    }
}

#[test]
fn the_example_uses_every_key() {
    let example = examples()[0];
    for key in KEYS {
        assert!(example.contains(&format!("\n{key}:")), "{key}");
    }
}

#[test]
fn the_error_that_the_documentation_shows_is_what_is_said() {
    let said =
        wrong("reasons:\n  OOMKillling: {enabled: false}\n  SoftLockup: {severity: fatal}\n");
    for line in said.lines() {
        let (_, message) = line.split_once(": ").unwrap();
        assert!(DOCUMENTATION.contains(message), "{message}");
    }
}

#[test]
fn an_empty_file_changes_nothing() {
    for text in ["", "\n# nothing\n", "---\n", "{}", "reasons:\n", "~"] {
        let config = good(text);
        assert_eq!(config.settings, Settings::default(), "{text:?}");
        assert_eq!(config.at_start, AtStart::default());
        assert_eq!(config.critical_mounts, None);
    }
}

#[test]
fn a_reason_is_overridden_by_name_family_or_member() {
    let config = good(
        "reasons:\n\
         \x20 OOMKilling: {threshold: {count: 3, window: 10m}, clearAfter: 1h}\n\
         \x20 NvidiaXID<n>Error: {severity: Warning}\n\
         \x20 NvidiaXID31Warning: {enabled: false}\n",
    );
    let of = |reason| config.settings.of(reason);
    let expected = Override {
        threshold: Some(Threshold {
            count: 3,
            window: Duration::from_secs(600),
        }),
        clear_after: Some(Duration::from_secs(3600)),
        ..Override::default()
    };
    assert_eq!(of(Reason::OomKilling), expected);
    let severity = of(Reason::NvidiaXidError(48)).severity;
    assert_eq!(severity, Some(Severity::Warning));
    let enabled = [31, 32].map(|xid| config.settings.is_enabled(Reason::NvidiaXidWarning(xid)));
    assert_eq!(enabled, [false, true]);
}

#[test]
fn an_xid_changes_its_family_with_its_severity() {
    let config = good(
        "xids:\n\
         \x20 43: {severity: Fatal, clearAfter: 1h}\n\
         \x20 48: {severity: Warning}\n\
         \x20 79: {severity: Info}\n\
         \x20 31: {enabled: false}\n",
    );
    let settings = &config.settings;
    assert_eq!(settings.of_xid(43), Reason::NvidiaXidError(43));
    assert_eq!(settings.of_xid(48), Reason::NvidiaXidWarning(48));
    let clear_after = settings.of(Reason::NvidiaXidError(43)).clear_after;
    assert_eq!(clear_after, Some(Duration::from_secs(3600)));
    let info = settings.severity(settings.of_xid(79), Severity::Warning);
    assert_eq!(info, Severity::Info);
    assert!(!settings.is_enabled(Reason::NvidiaXidWarning(31)));
}

/// Which of its two an SXid is, its line says: so each is overridden by its own name.
#[test]
fn an_sxid_is_overridden_by_its_family_or_its_own_name() {
    let config = good(
        "reasons:\n\
         \x20 NvidiaSXID20034Error: {severity: Warning, threshold: {count: 2, window: 10m}}\n\
         \x20 NvidiaSXID<n>Warning: {enabled: false}\n\
         \x20 NvidiaSXID12028Warning: {enabled: true}\n",
    );
    let settings = &config.settings;
    let severity = |sxid| settings.severity(Reason::NvidiaSxidError(sxid), Severity::Fatal);
    assert_eq!(
        [20034, 11001].map(severity),
        [Severity::Warning, Severity::Fatal]
    );
    let threshold = settings.of(Reason::NvidiaSxidError(20034)).threshold;
    let twice = Threshold {
        count: 2,
        window: Duration::from_secs(600),
    };
    assert_eq!(threshold, Some(twice));
    let enabled = |sxid| settings.is_enabled(Reason::NvidiaSxidWarning(sxid));
    assert_eq!([12028, 11012].map(enabled), [true, false]);
}

#[test]
fn sources_are_turned_off_one_by_one() {
    let config = good(
        "sources:\n\
         \x20 kernelLog: {enabled: false}\n\
         \x20 bpf: {hooks: {oom: {enabled: false}, net-drop: {enabled: true}}}\n\
         \x20 counters: {enabled: false, allowedFilterChains: [filter/MINE]}\n\
         \x20 nvml: {library: /opt/nvml.so, interval: 30s}\n",
    );
    let at_start = config.at_start;
    assert_eq!(at_start.disabled_hooks, [Hook::Oom]);
    assert!(!at_start.kernel_log && !at_start.counters && at_start.nvml.enabled);
    assert_eq!(at_start.allowed_filter_chains, ["filter/MINE"]);
    assert_eq!(at_start.nvml.library.as_deref(), Some("/opt/nvml.so"));
    assert_eq!(at_start.nvml.interval, Some(Duration::from_secs(30)));
    let all = good("sources: {bpf: {enabled: false}}").at_start;
    assert_eq!(all.disabled_hooks, Hook::ALL);
}

#[test]
fn what_waits_for_a_restart_is_named() {
    let running = AtStart::default();
    let new =
        good("coexistence: Refuse\nsources: {nvml: {interval: 30s}}\nownFatalReasons: false\n");
    assert_eq!(
        running.differs_in(&new.at_start),
        ["sources.nvml", "coexistence"]
    );
}

#[test]
fn critical_processes_are_named() {
    let config = good("criticalProcesses: [kubelet, containerd]");
    let names: Vec<_> = config.settings.critical_processes.into_iter().collect();
    assert_eq!(names, ["containerd", "kubelet"]);
}

fn io_error(name: Option<&str>) -> What {
    What::BlockError {
        disk: Disk {
            major: 7,
            minor: 0,
            name: name.map(str::to_owned),
        },
        operation: BlockOperation::Read,
        class: BlockErrorClass::Medium,
        errno: 5,
        sector: 0,
        sectors: 8,
        count: 1,
        above: Vec::new(),
    }
}

fn drops(interface: Option<&str>) -> What {
    What::PacketDrops {
        reason: "NOMEM".to_owned(),
        count: 100,
        window: Duration::from_secs(1),
        interface: interface.map(str::to_owned),
        local_port: None,
        netns: None,
        workload: None,
    }
}

#[test]
fn a_list_of_disks_says_nothing_about_devices_of_the_bus() {
    let scope = good("devices: {include: [sda]}\n").scope;
    let of = |reason, device: &str| {
        scope.admits(&What::Logged(LogFault {
            reason,
            entity: device.to_owned(),
            message: String::new(),
            device: Some(device.to_owned()),
            interface: None,
            task: None,
            mild: false,
        }))
    };
    assert!(of(Reason::PcieFatalError, "0000:01:00.0"));
    assert!(of(Reason::FilesystemError, "sda"));
    assert!(!of(Reason::FilesystemError, "sdb"));
}

#[test]
fn devices_and_interfaces_out_of_scope_do_not_count() {
    let scope = good("devices: {exclude: [loop*]}\ninterfaces: {include: [eth*]}\n").scope;
    let counted = [
        io_error(Some("loop0")),
        io_error(Some("sda")),
        io_error(None),
        drops(Some("lo")),
        drops(Some("eth0")),
        drops(None),
        What::RemountedReadOnly {
            device: "loop3".to_owned(),
        },
    ]
    .map(|what| scope.admits(&what));
    assert_eq!(counted, [false, true, true, false, true, true, false]);
}

#[test]
fn a_log_rule_brings_a_reason_with_its_settings() {
    let config = good(
        "logRules:\n\
         - {name: a, source: file, path: /var/log/x.log, pattern: 'broken \\d+', reason: ThingBroken, condition: StorageReady, severity: Fatal, clearAfter: 30m}\n",
    );
    let rule = config.rules.iter().next().unwrap();
    let path = "/var/log/x.log".to_owned();
    assert_eq!(rule.origin, Origin::File { path });
    let reason = Reason::Custom {
        name: rule.reason,
        condition: rule.condition,
    };
    assert_eq!(rule.condition, ConditionType::StorageReady);
    let settings = config.settings;
    assert_eq!(
        settings.severity(reason, reason.row().severity),
        Severity::Fatal
    );
    let clear_after = settings.of(reason).clear_after;
    assert_eq!(clear_after, Some(Duration::from_secs(1800)));
}

#[test]
fn everything_that_can_be_wrong_with_settings() {
    insta::assert_snapshot!(wrong(include_str!("tests/settings.yaml")));
}

#[test]
fn everything_that_can_be_wrong_with_log_rules() {
    insta::assert_snapshot!(wrong(include_str!("tests/log-rules.yaml")));
}

#[test]
fn what_is_no_yaml_is_told_with_its_line() {
    let cases = [
        "reasons: [\n",
        "a: b: c",
        "a: {b: *nowhere}",
        "\tx: 1",
        "- a\nb: 1\n",
        "5",
    ];
    let said: String = cases.iter().map(|text| wrong(text)).collect();
    insta::assert_snapshot!(said);
}

#[test]
fn two_documents_are_not_one_configuration() {
    assert!(wrong("{}\n---\nownFatalReasons: false\n").contains("not valid YAML"));
}

#[test]
fn a_document_that_unfolds_to_more_than_anybody_writes_is_refused() {
    let mut text = "a: &a [x,x,x,x,x,x,x,x,x,x]\n".to_owned();
    for (from, to) in ('a'..='h').zip('b'..) {
        writeln!(
            text,
            "{to}: &{to} [{}]",
            [format!("*{from}").as_str(); 10].join(",")
        )
        .unwrap();
    }
    wrong(&text);
}

#[test]
fn deep_nesting_is_refused() {
    wrong(&"[".repeat(100_000));
    wrong(&"{a: ".repeat(10_000));
}

#[test]
fn a_file_that_is_too_large_or_no_text_is_refused() {
    let large = vec![b'#'; FILE_LIMIT + 1];
    assert!(parse(&large).unwrap_err()[0].message.contains("larger"));
    assert!(parse(b"\xff").unwrap_err()[0].message.contains("UTF-8"));
}

#[test]
fn only_so_many_errors_are_told() {
    let keys: String = (0..250).map(|n| format!("k{n}: 1\n")).collect();
    let errors = parse(keys.as_bytes()).unwrap_err();
    assert_eq!(errors.len(), 101);
    assert_eq!(errors[100].message, "and 150 more errors");
}

#[test]
fn a_summary_fits_an_event() {
    let keys: String = (0..250).map(|n| format!("k{n}: 1\n")).collect();
    let errors = parse(keys.as_bytes()).unwrap_err();
    assert!(summary(&errors).len() <= 700);
}

/// A valid file with some of its bytes changed reaches further than noise does.
fn damaged() -> impl Strategy<Value = Vec<u8>> {
    let example = examples()[0].as_bytes().to_vec();
    let damage = prop::collection::vec((0..example.len(), any::<u8>()), 0..8);
    damage.prop_map(move |damage| {
        let mut bytes = example.clone();
        for (at, byte) in damage {
            bytes[at] = byte;
        }
        bytes
    })
}

proptest! {
    #[test]
    fn any_bytes_are_a_configuration_or_errors(
        bytes in prop_oneof![prop::collection::vec(any::<u8>(), 0..200), damaged()],
    ) {
        if let Err(errors) = parse(&bytes) {
            prop_assert!(!errors.is_empty());
            for error in errors {
                prop_assert!(!error.message.is_empty());
                prop_assert!(!error.to_string().contains('\n'));
            }
        }
    }
}
