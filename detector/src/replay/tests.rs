//! Saved logs, and what a node would have said.

use proptest::prelude::*;

use super::*;
use crate::source::kmsg::grammar::properties::WHOLE;

fn said(log: &str, config: &Config, evidence: bool) -> Vec<Value> {
    let mut replay = Replay::new(config, evidence);
    let lines = Saved::new(log.as_bytes());
    lines
        .flat_map(|line| replay.read(&line.unwrap()))
        .map(|said| said.json())
        .collect()
}

fn brief(said: &[Value]) -> Vec<(&str, &str, &str, Option<u64>)> {
    said.iter()
        .map(|said| {
            (
                said["transition"].as_str().unwrap(),
                said["reason"].as_str().unwrap(),
                said["severity"].as_str().unwrap(),
                said["input"].as_u64(),
            )
        })
        .collect()
}

const REMOUNT: &str = "[    5.000000] usb 1-1: new device\n\
    [   12.500000] EXT4-fs (sda1): Remounting filesystem read-only\n";

#[test]
fn a_line_is_said_with_its_number_and_its_time() {
    let said = said(REMOUNT, &Config::default(), true);
    assert_eq!(
        brief(&said),
        [("opened", "FilesystemReadOnly", "Fatal", Some(2))]
    );
    assert_eq!(said[0]["at"], 12.5);
    assert_eq!(said[0]["condition"], "StorageReady");
}

#[test]
fn without_evidence_a_text_alone_is_nothing() {
    assert_eq!(said(REMOUNT, &Config::default(), false), [] as [Value; 0]);
}

#[test]
fn time_that_passes_clears_without_a_line() {
    let log = "[   10.0] watchdog: BUG: soft lockup - CPU#3 stuck for 26s! [x:1]\n\
        [ 1811.0] usb 1-1: new device\n";
    assert_eq!(
        brief(&said(log, &Config::default(), true)),
        [
            ("opened", "SoftLockup", "Warning", Some(1)),
            ("cleared", "SoftLockup", "Warning", None),
        ]
    );
}

#[test]
fn the_lines_of_an_oops_are_one_finding() {
    let log = "[   12.0] BUG: kernel NULL pointer dereference, address: 0000000000000000\n\
        [   12.0] #PF: supervisor read access in kernel mode\n\
        [   12.0] Oops: 0000 [#1] SMP PTI\n\
        [   12.0] CPU: 1 PID: 7 Comm: x Not tainted 6.1.0\n";
    assert_eq!(
        brief(&said(log, &Config::default(), true)),
        [("opened", "KernelBug", "Warning", Some(1))]
    );
}

#[test]
fn an_hour_of_silence_does_not_end_what_only_evidence_ends() {
    let log = format!("{REMOUNT}[ 9000.0] usb 1-1: new device\n");
    assert_eq!(said(&log, &Config::default(), true).len(), 1);
}

#[test]
fn a_clock_that_goes_back_is_followed_by_none() {
    let log = "[   10.0] EXT4-fs error (device sda1): f:1: x\n\
        [    1.0] EXT4-fs error (device sdb1): f:1: x\n";
    let said = said(log, &Config::default(), true);
    assert_eq!(said[1]["at"], 10.0);
}

#[test]
fn log_rules_of_a_configuration_hold() {
    let config = crate::config::parse(
        b"logRules:\n- name: evictions\n  source: journal\n  unit: kubelet\n  \
          pattern: 'evicting pod \\S+'\n  reason: PodEvicted\n  condition: ContainerRuntimeReady\n",
    )
    .unwrap();
    let log = r#"{"source":"journal","unit":"kubelet","line":"evicting pod a/b","at":3}"#;
    assert_eq!(
        brief(&said(log, &config, true)),
        [("opened", "PodEvicted", "Warning", Some(1))]
    );
}

#[test]
fn an_io_error_of_a_saved_log_is_said_once_with_its_buffers() {
    let log = "[   10.0] nvme nvme1: I/O 22 QID 5 timeout, reset controller\n\
        [   11.0] I/O error, dev nvme1n1, sector 8 op 0x1:(WRITE) flags 0x800 phys_seg 1 prio class 2\n\
        [   11.0] Buffer I/O error on dev nvme1n1p1, logical block 1, lost async page write\n\
        [   11.0] XFS (nvme1n1p2): log I/O error -5\n";
    assert_eq!(
        brief(&said(log, &Config::default(), true)),
        [
            ("opened", "NVMeTimeout", "Warning", Some(1)),
            ("opened", "BlockDeviceIOError", "Warning", Some(2)),
            ("opened", "XFSShutdown", "Warning", Some(4)),
            ("opened", "FilesystemReadOnly", "Fatal", Some(4)),
        ]
    );
}

fn worst(log: &str) -> Option<String> {
    let said = said(log, &Config::default(), false);
    let fatal = said.iter().find(|said| said["severity"] == "Fatal");
    fatal.map(Value::to_string)
}

/// However often, one after the other, at any level: nothing but the host itself makes it Fatal.
#[test]
fn no_text_alone_is_fatal() {
    let mut log = String::new();
    for _ in 0..3 {
        for (level, text) in WHOLE {
            for level in [format!("<{level}>"), String::new()] {
                log += &format!("{level}[   10.0] {text}\n");
            }
        }
    }
    assert!(said(&log, &Config::default(), false).len() > 30);
    assert_eq!(worst(&log), None);
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    #[test]
    fn no_part_of_a_line_and_no_other_text_is_fatal(
        at in any::<prop::sample::Index>(),
        cut in any::<prop::sample::Index>(),
        noise in ".{0,100}",
    ) {
        let (level, text) = WHOLE[at.index(WHOLE.len())];
        let part = &text[..cut.index(text.len())];
        let log = format!("<{level}>[ 1.5] {part}\n<{level}>[ 1.5] {part}{noise}\n{noise}{text}\n");
        prop_assert_eq!(worst(&log), None);
    }
}
