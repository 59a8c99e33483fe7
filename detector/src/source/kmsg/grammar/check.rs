//! What the tests of every family of lines ask.

use proptest::prelude::*;

use super::super::record;
use super::{Record, What, read as read_all};
use crate::signal::LogFault;

type Read = fn(&Record<'_>) -> Option<What>;

/// The line at its level, and in a saved log that tells no level.
pub(super) fn reads(level: u32, read: Read, text: &str) -> LogFault {
    let raw = format!("{level},1,2,-;{text}");
    let mut record = record::parse(raw.as_bytes()).unwrap();
    let what = read(&record);
    let Some(What::Logged(fault)) = what.clone() else {
        panic!("{text}: {what:?}");
    };
    assert_eq!(read_all(&record), what, "{text}: not by the whole grammar");
    record.level = None;
    assert_eq!(read(&record), what, "{text}: without a level");
    assert!(!fault.message.contains(';'), "{}", fault.message);
    assert!(fault.message.len() <= 240, "{}", fault.message);
    // Whoever writes to /dev/kmsg gets another facility.
    nothing(8 + level, read_all, text);
    fault
}

pub(super) fn nothing(priority: u32, read: Read, text: &str) {
    let raw = format!("{priority},1,2,-;{text}");
    let record = record::parse(raw.as_bytes()).unwrap();
    assert_eq!(read(&record), None, "{text}");
}

/// A crash of a process of this name, and a firewall's LOG prefix, at any level and at none.
pub(super) fn forged_by_names(read: Read, beginnings: &[&str]) {
    for beginning in beginnings {
        for rest in [
            "[18398]: segfault at 0 ip 00007f2a sp 00007ffc error 4 in x[400000+1000]",
            "IN=eth0 OUT= MAC=02:42 SRC=10.0.0.1 DST=10.0.0.2 LEN=60 TOS=0x00 PROTO=TCP SPT=1 DPT=2",
            " IN=eth0 OUT= MAC=02:42 SRC=10.0.0.1 DST=10.0.0.2 LEN=60 TOS=0x00 PROTO=TCP SPT=1 DPT=2",
        ] {
            let text = format!("{beginning}{rest}");
            for level in 0..8 {
                nothing(level, read, &text);
            }
            let raw = format!("0,1,2,-;{text}");
            let mut record = record::parse(raw.as_bytes()).unwrap();
            record.level = None;
            assert_eq!(read(&record), None, "{text}");
        }
    }
}

proptest! {
    /// Whatever follows a beginning that a rule looks for.
    #[test]
    fn what_is_said_of_any_line_is_bounded_and_printable(
        line in r"(XFS \(sda1\): |BTRFS (error|critical) \(device sda1\): |nvme nvme0: |sd 0:0:0:0: \[sda\] |ata1(\.00)?: |md/raid1:md0: |device-mapper: thin: |nfs: server |NETDEV WATCHDOG: |TCP: |cgroup: fork rejected by pids controller in /|I/O error, dev |pcieport )?(log I/O error -5|Shutting down filesystem|corrupt leaf: block=1 |failed command: |Disk failure on )?\PC{0,300}",
        level in 0..8_u32,
    ) {
        let raw = format!("{level},1,2,-;{line}");
        let mut record = record::parse(raw.as_bytes()).unwrap();
        for level in [Some(level), None] {
            record.level = level;
            if let Some(What::Logged(fault)) = read_all(&record) {
                for text in [&fault.message, &fault.entity] {
                    prop_assert!(text.len() <= 1024, "{text}");
                    prop_assert!(!text.contains(|c: char| c.is_control() || c == ';'), "{text}");
                }
            }
        }
    }
}
