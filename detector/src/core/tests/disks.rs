//! A failed request that both the tracepoint and the kernel log tell of.

use super::*;

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
    assert!(core.disks.len() <= MOST_PER_REASON);
}
