//! PURE. Ring records to typed values. Total over any bytes: what is no record is `None`.

use std::time::Duration;

use detector_ebpf::{
    BlockRecord, CGROUP_LEVELS, DropsRecord, EventRecord, Header, Kind, LIMIT_UNKNOWN, NO_LIMIT,
    TaskRecord,
};
use zerocopy::FromBytes;

use crate::signal::{BlockErrorClass, BlockOperation, OomLimit, Task, Workload};
use crate::text;

#[derive(Debug, PartialEq, Eq)]
pub(super) struct Record {
    pub at: Duration,
    pub what: What,
}

#[derive(Debug, PartialEq, Eq)]
pub(super) enum What {
    OomKill {
        victim: Task,
        limit: OomLimit,
    },
    HungTask(Task),
    Crash {
        task: Task,
        signal: u32,
        count: u64,
    },
    /// Two texts of the kernel.
    RcuStall {
        data: Box<[u8]>,
        count: u64,
    },
    /// A tracepoint's own record.
    Copied {
        kind: Kind,
        data: Box<[u8]>,
        count: u64,
    },
    BlockError {
        /// Major and minor number.
        device: (u32, u32),
        operation: BlockOperation,
        class: BlockErrorClass,
        errno: i32,
        sector: u64,
        sectors: u32,
        count: u64,
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
        .iter()
        .copied()
        .find(|&kind| kind as u32 == header.kind)?;
    let what = match kind {
        Kind::OomKill => What::OomKill {
            limit: limit(&task_record(bytes)?),
            victim: process(bytes)?,
        },
        Kind::HungTask => {
            let record = task_record(bytes)?;
            What::HungTask(task(&record, record.pid))
        }
        Kind::Crash => {
            let record = task_record(bytes)?;
            What::Crash {
                signal: record.signal,
                count: record.count,
                task: process(bytes)?,
            }
        }
        Kind::BlockError => block(bytes)?,
        Kind::PacketDrops => drops(bytes)?,
        Kind::RcuStall => {
            let (data, count) = event(bytes)?;
            What::RcuStall { data, count }
        }
        Kind::Ext4Error
        | Kind::Ext4Shutdown
        | Kind::XfsShutdown
        | Kind::WritebackError
        | Kind::NvmeError
        | Kind::ScsiError
        | Kind::ScsiTimeout
        | Kind::AtaError
        | Kind::MachineCheck
        | Kind::MemoryController
        | Kind::Aer
        | Kind::FirmwareError
        | Kind::ArmError
        | Kind::PoisonedPage
        | Kind::CxlUncorrectable
        | Kind::TransmitTimeout
        | Kind::DevlinkHealth
        | Kind::ThermalTrip => {
            let (data, count) = event(bytes)?;
            What::Copied { kind, data, count }
        }
    };
    Some(Record {
        at: Duration::from_nanos(header.boot_ns),
        what,
    })
}

fn event(bytes: &[u8]) -> Option<(Box<[u8]>, u64)> {
    let (record, _) = EventRecord::read_from_prefix(bytes).ok()?;
    Some((record.data.into(), record.count))
}

pub(super) fn task_record(bytes: &[u8]) -> Option<TaskRecord> {
    let (record, _) = TaskRecord::read_from_prefix(bytes).ok()?;
    Some(record)
}

/// The process, not the thread: it is what ends as a whole.
fn process(bytes: &[u8]) -> Option<Task> {
    let record = task_record(bytes)?;
    let pid = match record.tgid {
        0 => record.pid,
        process => process,
    };
    Some(task(&record, pid))
}

pub(super) fn task(record: &TaskRecord, pid: u32) -> Task {
    Task {
        pid,
        comm: c_string(&record.comm, 64),
        workload: Workload::from_cgroup_names(&cgroup_names(record)),
    }
}

/// From the innermost outwards: of a deep tree the outermost levels are there.
fn cgroup_names(record: &TaskRecord) -> Vec<String> {
    let levels = record.levels as usize;
    (levels.saturating_sub(CGROUP_LEVELS)..levels)
        .map(|depth| c_string(&record.cgroup[depth % CGROUP_LEVELS], 128))
        .collect()
}

fn limit(record: &TaskRecord) -> OomLimit {
    match record.limit_level {
        LIMIT_UNKNOWN => OomLimit::Unknown,
        NO_LIMIT => OomLimit::Node,
        level => {
            let missing = (record.levels as usize).saturating_sub(CGROUP_LEVELS);
            // A level that is not there is inside of the innermost that is.
            let level = (level as usize - 1).saturating_sub(missing);
            OomLimit::of_cgroup(&cgroup_names(record), level)
        }
    }
}

fn block(bytes: &[u8]) -> Option<What> {
    let (record, _) = BlockRecord::read_from_prefix(bytes).ok()?;
    let errno = record.error.checked_neg()?;
    Some(What::BlockError {
        // The kernel's dev_t has 20 bits of minor.
        device: (record.dev >> 20, record.dev & 0xf_ffff),
        operation: operation(&record.rwbs),
        class: class(errno),
        errno,
        sector: record.sector,
        sectors: record.sectors,
        count: record.count,
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
            count: 3,
        };
        assert_eq!(
            super::record(record.as_bytes()),
            Some(Record {
                at: Duration::from_nanos(5),
                what: What::BlockError {
                    device: (7, 3),
                    operation: BlockOperation::Write,
                    class: BlockErrorClass::Space,
                    errno: 28,
                    sector: 8192,
                    sectors: 8,
                    count: 3,
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
            signal: 0,
            count: 1,
            limit_level: 3,
            reserved: 0,
            cgroup: [[0; 128]; CGROUP_LEVELS],
        };
        for depth in 2u8..10 {
            bytes.cgroup[usize::from(depth) % CGROUP_LEVELS][0] = b'0' + depth;
        }
        let Some(Record {
            what: What::OomKill { victim, limit },
            ..
        }) = record(bytes.as_bytes())
        else {
            panic!("not read")
        };
        assert_eq!((victim.pid, victim.comm.as_str()), (7, "hog"));
        // The third level of ten is the first of the eight that are here.
        assert_eq!(limit, OomLimit::Cgroup("2".to_owned()));
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
        fn any_bytes_are_a_record_or_none(mut bytes in prop::collection::vec(any::<u8>(), 0..1200), kind in 0u8..30) {
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
