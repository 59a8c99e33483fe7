//! The kernel log, `/dev/kmsg`: from the start of the boot, record by record. Where the device is
//! refused, the same log by syslog(2).

use std::collections::BTreeMap;
use std::fs::{File, OpenOptions};
use std::io::{self, Read};
use std::os::fd::{AsFd, BorrowedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use anyhow::Context;
use aya::maps::{MapData, RingBuf};
use detector_ebpf::{LINE_BYTES, LineRecord};
use zerocopy::FromBytes;

use self::copies::Copies;
use self::line_clock::LineClock;
use self::record::Record;
use self::syslog::SyslogSource;
use self::tell::Teller;
use super::Source;
use super::bpf::Hook;
use crate::clock;
use crate::rules::LogRules;
use crate::signal::{Signal, SourceName, What};

mod copies;
#[cfg(any(test, fuzzing))]
pub(crate) mod fuzz;
pub(crate) mod grammar;
mod line_clock;
pub(crate) mod record;
mod syslog;
mod tell;

/// New records that are handed over before the other sources have their turn: an OOM kill writes a
/// page of them, and its event in the ring must not wait for the whole page.
const BATCH: usize = 16;

const PATH: &str = "/dev/kmsg";

/// How the kernel log is read.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct KernelLog {
    pub using: &'static str,
    /// Why not by the device.
    pub missing: Option<String>,
}

/// `proc`, `sys`: where the host's are; `told_else`: whose faults tracepoints tell from now on; `ring`:
/// copies of lines from now on.
pub(crate) fn open(
    proc: PathBuf,
    sys: PathBuf,
    told_else: Vec<Hook>,
    ring: Option<RingBuf<MapData>>,
) -> anyhow::Result<(Box<dyn Source + Send>, KernelLog)> {
    let teller = Teller::new(proc, sys, told_else);
    let refused = match open_device() {
        Ok(device) => {
            let log = KernelLog {
                using: PATH,
                missing: None,
            };
            return Ok((Box::new(KmsgSource::new(device, teller, ring)), log));
        }
        Err(refused) => refused,
    };
    let source =
        SyslogSource::open(teller).with_context(|| format!("{refused:#}; instead of it"))?;
    let log = KernelLog {
        using: "syslog(2), once a second",
        missing: Some(format!("{refused:#}")),
    };
    Ok((Box::new(source), log))
}

fn open_device() -> anyhow::Result<File> {
    OpenOptions::new()
        .read(true)
        .custom_flags(libc::O_NONBLOCK | libc::O_CLOEXEC)
        .open(PATH)
        .with_context(|| {
            format!("open {PATH}: run privileged, or with CAP_SYSLOG and the device allowed (kernel.dmesg_restrict)")
        })
}

struct KmsgSource {
    device: File,
    teller: Teller,
    started: Duration,
    /// What the kernel part copied of lines as they were stored, where it does.
    ring: Option<RingBuf<MapData>>,
    copies: Copies,
    line_clock: LineClock,
    /// The past is read: what comes now is new.
    caught_up: bool,
    next_sequence: Option<u64>,
    /// What is older was read by the agent before this one.
    resumed: Option<u64>,
}

impl KmsgSource {
    /// A fresh descriptor stands at the oldest record that the kernel still has.
    fn new(device: File, teller: Teller, ring: Option<RingBuf<MapData>>) -> Self {
        Self {
            device,
            teller,
            started: clock::boot(),
            ring,
            copies: Copies::default(),
            line_clock: LineClock::default(),
            caught_up: false,
            next_sequence: None,
            resumed: None,
        }
    }

    /// Before a record is compared with the copies: its own was made before it could be read.
    fn collect(&mut self) {
        let Some(ring) = &mut self.ring else {
            return;
        };
        while let Some(item) = ring.next() {
            if let Ok((line, _)) = LineRecord::read_from_prefix(&item) {
                let length = usize::try_from(line.length).unwrap_or(LINE_BYTES);
                let text = &line.text[..length.min(LINE_BYTES)];
                self.copies.add(Duration::from_nanos(line.boot_ns), text);
            }
        }
    }

    /// Lines that were overwritten before they could be read. Of a copy nobody knows level and
    /// facility, as of a saved log; no text alone is Fatal.
    fn tell_copies(&mut self, emit: &mut dyn FnMut(Signal)) {
        self.collect();
        for line in self.copies.caught_up() {
            let record = Record {
                facility: 0,
                level: None,
                sequence: 0,
                at: line.at,
                text: &line.text,
            };
            self.teller.tell(&record, line.at, false, emit);
        }
    }

    fn lost(&mut self, sequence: u64) -> u64 {
        let expected = self.next_sequence.replace(sequence.saturating_add(1));
        expected.map_or(0, |expected| sequence.saturating_sub(expected))
    }
}

impl Source for KmsgSource {
    fn name(&self) -> SourceName {
        SourceName::Kmsg
    }

    fn positions(&self) -> BTreeMap<String, u64> {
        let sequence = self.next_sequence.into_iter();
        sequence
            .map(|next| (self.name().name().to_owned(), next))
            .collect()
    }

    fn resume(&mut self, since: Duration, positions: &BTreeMap<String, u64>) {
        let position = positions.get(self.name().name()).copied();
        self.started = since;
        self.next_sequence = position;
        self.resumed = position;
    }

    fn fds(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.device.as_fd()]
    }

    fn drain(&mut self, emit: &mut dyn FnMut(Signal)) -> anyhow::Result<()> {
        // CONSOLE_EXT_LOG_MAX: no record is longer.
        let mut buffer = [0; 8192];
        let mut new = 0;
        while new < BATCH {
            let length = match self.device.read(&mut buffer) {
                Ok(length) => length,
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    self.caught_up = true;
                    self.teller.has_read_past();
                    self.tell_copies(emit);
                    return Ok(());
                }
                // Records were overwritten before they were read: the next sequence number says how many.
                Err(error) if error.raw_os_error() == Some(libc::EPIPE) => continue,
                Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
                Err(error) => return Err(error).with_context(|| format!("read {PATH}")),
            };
            let Some(record) = record::parse(&buffer[..length]) else {
                continue;
            };
            if self
                .resumed
                .is_some_and(|resumed| record.sequence < resumed)
            {
                continue;
            }
            self.collect();
            let copied = self.copies.read(record.text);
            let at = copied.unwrap_or_else(|| self.line_clock.since_boot(record.at));
            self.caught_up |= at >= self.started || self.resumed.is_some();
            new += usize::from(self.caught_up);
            let count = self.lost(record.sequence);
            if count > 0 {
                self.copies.overrun();
                emit(Signal {
                    at,
                    historic: false,
                    what: What::Lost {
                        source: SourceName::Kmsg,
                        count,
                    },
                });
            }
            self.teller.tell(&record, at, !self.caught_up, emit);
        }
        Ok(())
    }

    fn configure(&mut self, rules: &Arc<LogRules>) {
        self.teller.configure(rules);
    }
}
