//! Faults that both a tracepoint and the kernel log tell of.

use super::*;
use crate::signal::LogFault;

fn line(disk: &str, buffer: bool) -> What {
    What::BlockLine {
        disk: disk.to_owned(),
        line: "the line".to_owned(),
        buffer,
    }
}

/// Count and words of the only finding.
fn told(signals: &[(u64, What)]) -> (u64, String) {
    let mut core = started();
    for (second, what) in signals {
        core.step(signal(what.clone(), at(*second)), at(*second));
    }
    let open = core.open_findings();
    assert_eq!(open.len(), 1, "{open:?}");
    assert_eq!(open[0].reason, Reason::BlockIoError);
    (open[0].count, open[0].message.clone())
}

#[test]
fn counts_once_whoever_tells_first_in_the_words_of_the_tracepoint() {
    let (_, words) = told(&[(10, io_error("sda"))]);
    for signals in [
        [(10, io_error("sda")), (11, line("sda", false))],
        [(10, line("sda", false)), (11, io_error("sda"))],
    ] {
        assert_eq!(told(&signals), (1, words.clone()));
    }
}

#[test]
fn the_log_tells_of_fewer_than_there_were() {
    let signals = [
        (10, io_error("sda")),
        (10, io_error("sda")),
        (10, io_error("sda")),
        (10, line("sda", false)),
        (11, io_error("sda")),
    ];
    assert_eq!(told(&signals).0, 4);
}

#[test]
fn without_the_tracepoint_each_line_counts() {
    let signals = [
        (10, line("sda", false)),
        (11, line("sda", false)),
        (90, line("sda", false)),
    ];
    assert_eq!(told(&signals), (3, "the line".to_owned()));
}

#[test]
fn a_line_long_after_the_tracepoint_is_another_request() {
    let signals = [(10, io_error("sda")), (40, line("sda", false))];
    assert_eq!(told(&signals).0, 2);
}

#[test]
fn the_buffers_of_a_failed_request_do_not_count_again() {
    let signals = [
        (10, line("sda", false)),
        (10, line("sda", true)),
        (11, line("sda", true)),
    ];
    assert_eq!(told(&signals).0, 1);
}

#[test]
fn a_buffer_of_a_device_without_requests_is_a_finding_of_its_own() {
    assert_eq!(told(&[(10, line("dm-0", true))]).0, 1);
}

#[test]
fn another_disk_has_a_finding_of_its_own() {
    let mut core = started();
    core.step(signal(io_error("sda"), at(10)), at(10));
    core.step(signal(line("sdb", false), at(10)), at(10));
    assert_eq!(core.open_findings().len(), 2);
}

#[test]
fn memory_is_bounded_under_a_flood_of_disks() {
    let mut core = started();
    for disk in 0..100_000 {
        core.step(signal(line(&format!("d{disk}"), false), at(10)), at(10));
    }
    assert!(core.twice.len() <= MOST_PER_REASON);
}

fn fault(entity: &str, message: &str) -> LogFault {
    LogFault::on_device(Reason::ScsiError, entity.to_owned(), message.to_owned())
}

#[test]
fn a_tracepoint_that_held_faults_back_counts_them_and_a_line_none_again() {
    let traced = |count| What::Traced {
        fault: fault("sda", "traced"),
        count,
    };
    let line = What::Logged(fault("sda", "line"));
    for (signals, count) in [
        (vec![traced(5), line.clone(), line.clone()], 5),
        (vec![line.clone(), line.clone(), traced(5)], 5),
        (vec![line.clone(), traced(1), line.clone(), traced(3)], 4),
        (vec![line.clone(), line.clone()], 2),
    ] {
        let mut core = started();
        for what in signals {
            core.step(signal(what, at(10)), at(10));
        }
        let open = core.open_findings();
        assert_eq!((open.len(), open[0].count), (1, count), "{open:?}");
    }
}

#[test]
fn a_file_system_that_gave_up_is_fatal_only_by_its_evidence() {
    for reason in [
        Reason::XfsShutdown,
        Reason::BtrfsReadOnly,
        Reason::JournalAborted,
    ] {
        let told = LogFault::on_device(reason, "sda1".to_owned(), "x".to_owned());
        let mut core = started();
        let outputs = core.step(signal(What::Logged(told), at(10)), at(10));
        assert_eq!(probes(&outputs), ["sda1"]);
        assert_eq!(conditions(&outputs), None);
        let outputs = core.step(evidence("sda1", read_only(true)), at(11));
        let changes = changes(&outputs);
        let fatal = (Change::Opened, Reason::FilesystemReadOnly, Severity::Fatal);
        assert_eq!(changes, [fatal], "{reason}");
    }
}
