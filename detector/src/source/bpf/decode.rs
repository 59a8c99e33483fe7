//! PURE. Ring records to typed values. Total over any bytes: what is no record is `None`.

use std::time::Duration;

use detector_ebpf::{BlockRecord, CGROUP_LEVELS, DropsRecord, Header, Kind, TaskRecord};
use zerocopy::FromBytes;

use crate::signal::{BlockErrorClass, BlockOperation, Task, Workload};
use crate::text;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub at: Duration,
    pub what: What,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum What {
    OomKill(Task),
    HungTask(Task),
    BlockError {
        major: u32,
        minor: u32,
        operation: BlockOperation,
        class: BlockErrorClass,
        errno: i32,
        sector: u64,
        sectors: u32,
    },
    PacketDrops {
        reason: u32,
        count: u64,
        window: Duration,
        ifindex: u32,
        port: u16,
        netns: u32,
    },
}

pub(super) fn record(bytes: &[u8]) -> Option<Record> {
    let (header, _) = Header::read_from_prefix(bytes).ok()?;
    let kind = Kind::ALL
        .into_iter()
        .find(|&kind| kind as u32 == header.kind)?;
    let what = match kind {
        // The process, not the thread, is what the OOM killer ends.
        Kind::OomKill => task(bytes, |record| {
            if record.tgid == 0 {
                record.pid
            } else {
                record.tgid
            }
        })
        .map(What::OomKill)?,
        Kind::HungTask => task(bytes, |record| record.pid).map(What::HungTask)?,
        Kind::BlockError => block(bytes)?,
        Kind::PacketDrops => drops(bytes)?,
    };
    Some(Record {
        at: Duration::from_nanos(header.boot_ns),
        what,
    })
}

pub(super) fn task(bytes: &[u8], pid: impl Fn(&TaskRecord) -> u32) -> Option<Task> {
    let (record, _) = TaskRecord::read_from_prefix(bytes).ok()?;
    // Of a deep tree the outermost levels are there.
    let levels = record.levels as usize;
    let names: Vec<_> = (levels.saturating_sub(CGROUP_LEVELS)..levels)
        .map(|depth| c_string(&record.cgroup[depth % CGROUP_LEVELS], 128))
        .collect();
    Some(Task {
        pid: pid(&record),
        comm: c_string(&record.comm, 64),
        workload: Workload::from_cgroup_names(&names),
    })
}

fn block(bytes: &[u8]) -> Option<What> {
    let (record, _) = BlockRecord::read_from_prefix(bytes).ok()?;
    let errno = record.error.checked_neg()?;
    Some(What::BlockError {
        // The kernel's dev_t has 20 bits of minor.
        major: record.dev >> 20,
        minor: record.dev & 0xf_ffff,
        operation: operation(&record.rwbs),
        class: class(errno),
        errno,
        sector: record.sector,
        sectors: record.sectors,
    })
}

fn drops(bytes: &[u8]) -> Option<What> {
    let (record, _) = DropsRecord::read_from_prefix(bytes).ok()?;
    Some(What::PacketDrops {
        reason: record.reason,
        count: record.count,
        window: Duration::from_nanos(record.window_ns),
        ifindex: record.ifindex,
        port: record.port,
        netns: record.netns,
    })
}

/// The letters of `blk_fill_rwbs`; a leading F is a preflush of whatever follows.
fn operation(rwbs: &[u8]) -> BlockOperation {
    let letters = rwbs.split(|&byte| byte == 0).next().unwrap_or_default();
    match letters.iter().find(|&&letter| letter != b'F') {
        Some(b'R') => BlockOperation::Read,
        Some(b'W') => BlockOperation::Write,
        Some(b'D') => BlockOperation::Discard,
        None if !letters.is_empty() => BlockOperation::Flush,
        Some(_) | None => BlockOperation::Other,
    }
}

/// The errno of each `blk_status_t` (block/blk-core.c, `blk_errors`).
fn class(errno: i32) -> BlockErrorClass {
    match errno {
        61 => BlockErrorClass::Medium,
        110 => BlockErrorClass::Timeout,
        67 | 19 => BlockErrorClass::Transport,
        28 => BlockErrorClass::Space,
        84 => BlockErrorClass::Integrity,
        _ => BlockErrorClass::Other,
    }
}

pub(super) fn c_string(bytes: &[u8], limit: usize) -> String {
    text::printable(
        bytes.split(|&byte| byte == 0).next().unwrap_or_default(),
        limit,
    )
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use zerocopy::IntoBytes;

    use super::*;

    #[test]
    fn a_block_error_names_device_class_and_operation() {
        let record = BlockRecord {
            header: Header {
                kind: Kind::BlockError as u32,
                cpu: 1,
                boot_ns: 5,
            },
            sector: 8192,
            sectors: 8,
            dev: 7 << 20 | 3,
            error: -28,
            rwbs: *b"WS\0\0\0\0\0\0",
            reserved: 0,
        };
        assert_eq!(
            super::record(record.as_bytes()),
            Some(Record {
                at: Duration::from_nanos(5),
                what: What::BlockError {
                    major: 7,
                    minor: 3,
                    operation: BlockOperation::Write,
                    class: BlockErrorClass::Space,
                    errno: 28,
                    sector: 8192,
                    sectors: 8
                }
            })
        );
    }

    #[test]
    fn of_a_deep_tree_the_outermost_cgroups_are_read() {
        let mut bytes = TaskRecord {
            header: Header {
                kind: Kind::OomKill as u32,
                cpu: 0,
                boot_ns: 1,
            },
            pid: 8,
            tgid: 7,
            comm: *b"hog\0\0\0\0\0\0\0\0\0\0\0\0\0",
            levels: 10,
            reserved: 0,
            cgroup: [[0; 128]; CGROUP_LEVELS],
        };
        for depth in 2u8..10 {
            bytes.cgroup[usize::from(depth) % CGROUP_LEVELS][0] = b'0' + depth;
        }
        let Some(Record {
            what: What::OomKill(victim),
            ..
        }) = record(bytes.as_bytes())
        else {
            panic!("not read")
        };
        assert_eq!((victim.pid, victim.comm.as_str()), (7, "hog"));
        assert_eq!(victim.workload.unwrap().cgroup, "9/8/7/6/5/4/3/2");
    }

    #[test]
    fn flush_letters_do_not_hide_the_operation() {
        assert_eq!(operation(b"FWS\0"), BlockOperation::Write);
        assert_eq!(operation(b"F\0"), BlockOperation::Flush);
        assert_eq!(operation(b"\0"), BlockOperation::Other);
    }

    proptest! {
        #[test]
        fn any_bytes_are_a_record_or_none(mut bytes in prop::collection::vec(any::<u8>(), 0..1200), kind in 0u8..6) {
            if let Some(first) = bytes.first_mut() {
                *first = kind;
            }
            if bytes.len() > 4 {
                bytes[1..4].fill(0);
            }
            let _ = record(&bytes);
        }
    }
}
