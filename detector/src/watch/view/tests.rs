//! What the view looks like: each picture is a golden file.

use std::time::Duration;

use super::*;
use crate::finding::{Now, Subject};
use crate::signal::Workload;
use crate::source::bpf::Hook;

fn at(seconds: u32) -> Now {
    let start: Timestamp = "2026-01-02T03:04:05Z".parse().unwrap();
    let since = Duration::from_secs(seconds.into());
    Now {
        boot: since,
        wall: start + since,
    }
}

fn finding(reason: Reason, severity: Severity, entity: &str, opened: Now) -> Finding {
    Finding {
        reason,
        entity: entity.to_owned(),
        severity,
        message: format!("something happened to {entity}"),
        subject: Subject::default(),
        count: 1,
        flaps: 0,
        historic: false,
        opened,
        last_seen: opened.boot,
    }
}

fn transition(change: Change, finding: &Finding, found: Now) -> Output {
    Output::Transition(Transition {
        change,
        finding: finding.clone(),
        fault: found.boot,
        found,
    })
}

fn conditions(kinds: &[ConditionType], bad: &[(ConditionType, Reason)], found: Now) -> Output {
    let condition = |&kind: &ConditionType| {
        let bad = bad.iter().find(|(sick, _)| *sick == kind);
        Condition {
            kind,
            healthy: bad.is_none(),
            reason: bad.map_or(Cow::Borrowed(kind.healthy_reason()), |(_, reason)| {
                reason.name()
            }),
            message: String::new(),
            transition: if bad.is_some() { found } else { at(0) }.wall,
        }
    };
    Output::Conditions {
        conditions: kinds.iter().map(condition).collect(),
        fault: None,
        found,
    }
}

const WATCHED: [ConditionType; 3] = [
    ConditionType::KernelReady,
    ConditionType::StorageReady,
    ConditionType::NetworkingReady,
];

fn hooks() -> Vec<HookStatus> {
    let attached = |hook: Hook| HookStatus {
        hook,
        using: Some(format!("tp_btf {}", hook.name())),
        missing: None,
        absent: false,
    };
    let hooks = [Hook::Oom, Hook::BlockIo, Hook::NetDrop, Hook::HungTask];
    hooks.map(attached).into()
}

fn counts(counts: [(SourceName, u64, u64); 2]) -> BTreeMap<SourceName, Source> {
    let source = |(name, signals, lost)| {
        let source = Source { signals, lost };
        (name, source)
    };
    counts.into_iter().map(source).collect()
}

/// A node without a GPU that has been watched for a while.
fn view() -> View {
    let why = "the kernel module nvidia is not loaded".to_owned();
    let mut view = View::new(hooks(), BTreeMap::from([(SourceName::Nvml, why)]));
    view.take(conditions(&WATCHED, &[], at(0)));
    view.count(counts([(SourceName::Bpf, 12, 0), (SourceName::Kmsg, 3, 0)]));
    view
}

/// A file system read-only, a container that hits its limit, and something to know.
fn three() -> View {
    let mut view = view();
    let mut oom = finding(Reason::OomKilling, Severity::Warning, "hog", at(60));
    oom.message = "the kernel killed hog (pid 4711) for memory".to_owned();
    oom.subject.workload = Some(Workload {
        cgroup: "kubepods.slice/x".to_owned(),
        pod_uid: Some("0f7a1c9e-3b7d-4c5e-9f00-1234567890ab".to_owned()),
        container_id: None,
    });
    let mut read_only = finding(Reason::FilesystemReadOnly, Severity::Fatal, "vdb", at(90));
    read_only.message = "vdb, mounted at /var/lib/kubelet, is read-only".to_owned();
    let gap = finding(Reason::MonitoringGap, Severity::Info, "agent", at(1));
    for finding in [&gap, &oom, &read_only] {
        view.take(transition(Change::Opened, finding, finding.opened));
    }
    oom.count = 12;
    view.take(Output::Open(vec![gap, oom, read_only]));
    let bad = (ConditionType::StorageReady, Reason::FilesystemReadOnly);
    view.take(conditions(&WATCHED, &[bad], at(90)));
    view
}

/// Like a terminal of this size.
fn picture(view: &View, width: usize, height: usize) -> String {
    let rows = view.render(width, height);
    assert!(rows.len() <= height, "{} rows", rows.len());
    let rows: Vec<_> = rows.iter().map(Row::plain).collect();
    rows.join("\n")
}

#[test]
fn nothing_wrong() {
    insta::assert_snapshot!(picture(&view(), 80, 24));
}

#[test]
fn before_the_past_is_read_nothing_is_called_healthy_or_absent() {
    let view = View::new(hooks(), BTreeMap::new());
    insta::assert_snapshot!(picture(&view, 80, 24));
}

#[test]
fn three_findings_of_different_severity_the_worst_first() {
    insta::assert_snapshot!(picture(&three(), 80, 30));
}

#[test]
fn in_a_wide_window_a_finding_is_one_row() {
    insta::assert_snapshot!(picture(&three(), 140, 24));
}

#[test]
fn a_narrow_window_keeps_status_reason_and_message() {
    insta::assert_snapshot!(picture(&three(), 40, 30));
}

#[test]
fn findings_that_do_not_fit_are_counted() {
    let mut view = view();
    for index in 0..20 {
        let disk = format!("sd{index}");
        let finding = finding(
            Reason::BlockIoError,
            Severity::Warning,
            &disk,
            at(60 + index),
        );
        view.take(transition(Change::Opened, &finding, finding.opened));
    }
    insta::assert_snapshot!(picture(&view, 80, 24));
}

#[test]
fn a_low_window_keeps_conditions_and_the_worst_finding() {
    insta::assert_snapshot!(picture(&three(), 80, 12));
}

#[test]
fn losses_and_what_is_not_watched() {
    let mut hooks = hooks();
    hooks[2].using = None;
    hooks[2].missing = Some("skb:kfree_skb has no reason before Linux 5.17".to_owned());
    let missing = BTreeMap::from([
        (SourceName::Kmsg, "open /dev/kmsg: denied".to_owned()),
        (SourceName::Nvml, "turned off".to_owned()),
    ]);
    let mut view = View::new(hooks, missing);
    view.take(conditions(&[], &[], at(0)));
    view.count(counts([
        (SourceName::Bpf, 10_000, 512),
        (SourceName::File, 1, 2),
    ]));
    view.log(" WARN log rules look at a log that is not watched\n".to_owned());
    insta::assert_snapshot!(picture(&view, 80, 24));
}

#[test]
fn a_condition_that_went_absent_and_a_finding_that_cleared() {
    let mut view = three();
    let read_only = finding(Reason::FilesystemReadOnly, Severity::Fatal, "vdb", at(90));
    view.take(transition(Change::Cleared, &read_only, at(200)));
    view.take(conditions(&WATCHED[..2], &[], at(200)));
    insta::assert_snapshot!(picture(&view, 80, 30));
}

#[test]
fn no_window_is_too_small() {
    for width in 0..120 {
        for height in 0..40 {
            let rows = three().render(width, height);
            assert!(rows.len() <= height);
            let widest = rows.iter().map(|row| row.plain().len()).max();
            assert!(widest.unwrap_or(0) <= width, "{width}x{height}");
        }
    }
}

#[test]
fn what_a_stranger_wrote_stays_text() {
    let mut view = view();
    let mut evil = finding(Reason::OomKilling, Severity::Warning, "e", at(1));
    evil.message = "\x1b[2J\x1b]0;owned\x07\nnext \u{202e}line".to_owned();
    view.take(transition(Change::Opened, &evil, at(1)));
    view.log("\x1b[31mred".to_owned());
    let rows: Vec<_> = view.render(200, 24).iter().map(Row::coloured).collect();
    let styles = ["\x1b[0m", "\x1b[1m", "\x1b[2m", "\x1b[32m", "\x1b[33m"];
    for row in rows {
        let text = styles
            .iter()
            .fold(row.clone(), |row, style| row.replace(style, ""));
        assert!(!text.contains(char::is_control), "{row:?}");
        assert!(!text.contains('\u{202e}'), "{row:?}");
    }
}

#[test]
fn only_the_newest_transitions_are_kept() {
    let mut view = view();
    for second in 0..1000 {
        let finding = finding(Reason::OomKilling, Severity::Warning, "e", at(second));
        view.take(transition(Change::Opened, &finding, at(second)));
        view.take(transition(Change::Repeated, &finding, at(second)));
    }
    assert_eq!(view.last.len(), MOST_TRANSITIONS);
    assert_eq!(view.last[0].found, at(999));
}
