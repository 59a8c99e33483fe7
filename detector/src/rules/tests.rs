//! Which lines mean what.

use proptest::prelude::*;

use super::*;

fn rule(name: &str, origin: Origin, pattern: &str) -> LogRule {
    LogRule {
        name: name.to_owned(),
        origin,
        pattern: pattern.to_owned(),
        reason: "ThingBroken",
        condition: ConditionType::StorageReady,
    }
}

fn file(path: &str) -> Origin {
    Origin::File {
        path: path.to_owned(),
    }
}

fn names(rules: &LogRules, origin: &Origin, line: &[u8]) -> Vec<String> {
    let name = |what| match what {
        What::LogRule { rule, .. } => rule,
        other => panic!("{other:?}"),
    };
    rules.read(origin, line).into_iter().map(name).collect()
}

#[test]
fn a_line_means_what_the_rules_of_its_log_say() {
    let rules = LogRules::new(vec![
        rule("kernel", Origin::KernelLog, "^md: disk .* failed$"),
        rule("a", file("/a"), "disk"),
        rule("b", file("/b"), "disk"),
        rule("both", file("/a"), "failed"),
    ])
    .unwrap();
    let of = |origin: &Origin, line: &[u8]| names(&rules, origin, line);
    let line = b"md: disk sda failed";
    assert_eq!(of(&Origin::KernelLog, line), ["kernel"]);
    assert_eq!(of(&file("/a"), line), ["a", "both"]);
    assert_eq!(of(&file("/b"), line), ["b"]);
    assert!(of(&file("/c"), line).is_empty());
    assert!(of(&Origin::KernelLog, b"x md: disk sda failed").is_empty());
    let kubelet = Origin::Journal {
        unit: "kubelet.service".to_owned(),
    };
    assert!(of(&kubelet, line).is_empty());
}

#[test]
fn what_is_shown_of_a_line_is_bounded_and_escaped() {
    let rules = LogRules::new(vec![rule("x", file("/a"), "x")]).unwrap();
    let mut line = b"x\xff\x1b[31m; FilesystemReadOnly: sda1".to_vec();
    line.resize(10_000, b'y');
    let Some(What::LogRule { line, .. }) = rules.read(&file("/a"), &line).pop() else {
        panic!("no match");
    };
    assert!(line.len() <= LINE_SHOWN, "{}", line.len());
    assert!(line.starts_with(r"x\xff\u{1b}[31m, Filesystem"), "{line}");
}

#[test]
fn a_pattern_that_is_wrong_says_why() {
    let why = |pattern| check_pattern(pattern).unwrap_err();
    assert!(why("(").contains("unclosed group"), "{}", why("("));
    assert!(why("(?=x)").contains("look-around"), "{}", why("(?=x)"));
    assert!(why(r"\w{5000}").contains("larger"), "{}", why(r"\w{5000}"));
    assert_eq!(why("x*"), "matches every line");
}

#[test]
fn a_pattern_that_is_slow_elsewhere_is_linear_here() {
    // Exponential for engines that backtrack: 2^8192 steps would not end.
    let rules = LogRules::new(vec![rule("x", file("/a"), "^(a+)+$")]).unwrap();
    let mut line = vec![b'a'; 8192];
    line.push(b'!');
    assert!(names(&rules, &file("/a"), &line).is_empty());
}

#[test]
fn a_rule_whose_log_is_not_read_is_not_watched_and_makes_nothing_watched() {
    let live = Live {
        kernel_log: true,
        files: false,
        journal: false,
    };
    let journal = Origin::Journal {
        unit: "u".to_owned(),
    };
    let rules = LogRules::new(vec![rule("j", journal, "x"), rule("f", file("/a"), "x")]).unwrap();
    assert!(rules.iter().all(|rule| rule.unwatched(live).is_some()));
    assert!(rules.conditions(live).is_empty());
    for live in [
        Live {
            files: true,
            ..live
        },
        Live {
            journal: true,
            ..live
        },
    ] {
        assert_eq!(
            rules.conditions(live),
            BTreeSet::from([ConditionType::StorageReady])
        );
    }
}

#[test]
fn a_unit_without_a_type_is_a_service() {
    for (name, full) in [
        ("kubelet", "kubelet.service"),
        ("kubelet.service", "kubelet.service"),
        ("init.scope", "init.scope"),
        ("getty@tty1", "getty@tty1.service"),
        ("a.b", "a.b.service"),
    ] {
        assert_eq!(unit_name(name), full);
    }
}

proptest! {
    #[test]
    fn any_line_is_read(line in prop::collection::vec(any::<u8>(), 0..300)) {
        let rules = LogRules::new(vec![rule("x", Origin::KernelLog, r"(?i)a\d+|\bx")]).unwrap();
        for what in rules.read(&Origin::KernelLog, &line) {
            let What::LogRule { line, .. } = what else { panic!() };
            prop_assert!(!line.chars().any(char::is_control));
        }
    }
}
