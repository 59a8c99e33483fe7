//! A journal file in memory, whole or damaged, and fields that journald has compressed.

use std::cell::Cell;
use std::io;

use super::entry::{Line, MESSAGE_LIMIT};
use super::format::{Bytes, Unreadable};
use super::log::{Log, Now, Seen};
use super::payload::{self, Compression, MOST_INPUT};
use super::place::{self, Place};
use crate::fuzz;
use crate::rules::{LogRules, Origin};

pub(super) const BOOT: &str = "0123456789abcdef0123456789abcdef";

/// Counts its reads.
pub(super) struct Memory {
    pub(super) bytes: Vec<u8>,
    pub(super) reads: Cell<usize>,
}

impl Bytes for Memory {
    fn read_at(&self, offset: u64, buffer: &mut [u8]) -> io::Result<usize> {
        self.reads.set(self.reads.get() + 1);
        let begin = usize::try_from(offset).unwrap_or(usize::MAX);
        let rest = self.bytes.get(begin..).unwrap_or_default();
        let length = rest.len().min(buffer.len());
        buffer[..length].copy_from_slice(&rest[..length]);
        Ok(length)
    }

    fn length(&self) -> io::Result<u64> {
        Ok(self.bytes.len() as u64)
    }
}

pub(super) fn open(bytes: Vec<u8>) -> Result<Log<Memory>, Unreadable> {
    let reads = Cell::new(0);
    Log::new(Memory { bytes, reads })
}

/// All that is there, the number of losses, and how often the file was read from.
pub(super) fn read(bytes: Vec<u8>, wanted: &[&str]) -> Result<(Vec<Line>, u64, usize), Unreadable> {
    let mut log = open(bytes)?;
    let now = Now {
        boot: place::id(BOOT).unwrap_or_default(),
        monotonic: 6_000_000,
    };
    let (mut lines, mut lost, mut place) = (Vec::new(), 0, None::<Place>);
    let wanted = |unit: &str| wanted.contains(&unit);
    let mut see = |seen| match seen {
        Seen::Line { line, .. } => lines.push(line),
        Seen::Lost { count, .. } => lost += count,
    };
    while log.read(now, &mut place, wanted, &mut see)? {}
    let reads = log.bytes().reads.get();
    Ok((lines, lost, reads))
}

/// A whole file.
pub(crate) fn journal(bytes: &[u8]) {
    // It is taken to have as many entries as fit, each of 64 bytes and with 1,024 fields at most.
    let entries = bytes.len() / 64 + 1;
    let units = ["kubelet.service", "init.scope"];
    let Ok((lines, lost, reads)) = read(bytes.to_vec(), &units) else {
        return;
    };
    assert!(lines.len() as u64 + lost <= entries as u64);
    assert!(reads <= 64 * 64 + entries * 1100 * 4, "{reads} reads");
    let rules = LogRules::default().with_host_logs();
    let mut told = Vec::new();
    for line in lines {
        assert!(line.message.len() <= MESSAGE_LIMIT);
        for unit in line.units {
            assert!(units.contains(&&*unit), "of {unit}");
            told.extend(rules.read(&Origin::Journal { unit }, &line.message));
        }
    }
    fuzz::tell(told);
}

/// The first byte says how much of it is wanted.
pub(crate) fn field(bytes: &[u8]) {
    let Some((&limit, compressed)) = bytes.split_first() else {
        return;
    };
    let compressed = &compressed[..compressed.len().min(MOST_INPUT)];
    let limit = 64 * usize::from(limit);
    for how in [Compression::Lz4, Compression::Zstd] {
        let Some(unpacked) = payload::beginning(compressed, how, limit) else {
            continue;
        };
        assert!(unpacked.len() <= limit);
        let half = payload::beginning(compressed, how, limit / 2);
        assert_eq!(
            half.as_deref(),
            unpacked.get(..(limit / 2).min(unpacked.len()))
        );
    }
}
