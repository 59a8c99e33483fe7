//! The kernel log by syslog(2), where `/dev/kmsg` is refused: asked once a second for its end.
//!
//! It has no sequence numbers: what is new comes after the line that was read last. Where that line
//! is gone nobody knows how many went with it.

use std::collections::BTreeMap;
use std::io;
use std::os::fd::{AsFd, BorrowedFd};
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, ensure};

use self::text::Line;
use super::line_clock::LineClock;
use super::record::Record;
use super::tell::Teller;
use crate::clock;
use crate::rules::LogRules;
use crate::signal::{Signal, SourceName, What};
use crate::source::Source;
use crate::source::timer::Timer;

mod text;

#[cfg(any(test, fuzzing))]
pub(super) use text::fuzz;

const INTERVAL: Duration = Duration::from_secs(1);

/// What is mostly enough for a second.
const FIRST_WINDOW: usize = 16 << 10;

/// A short record takes more room with its priority and its time than in the kernel's buffer.
const WITH_PREFIXES: usize = 4;

/// In the state file, beside the sequence number of `/dev/kmsg`: the microsecond that was read last.
const POSITION: &str = "kernelLogTime";

pub(super) struct SyslogSource {
    timer: Timer,
    teller: Teller,
    line_clock: LineClock,
    /// Bytes that hold the whole log.
    whole: usize,
    started: Duration,
    /// The last line that was read, as it was.
    last: Option<Vec<u8>>,
    read_until: Option<Duration>,
    /// What is not newer was read by the agent before this one.
    resumed: Option<Duration>,
}

impl SyslogSource {
    pub(super) fn open(teller: Teller) -> anyhow::Result<Self> {
        let size = size().context("syslog(2): it needs CAP_SYSLOG (kernel.dmesg_restrict), and a seccomp profile that allows it")?;
        let whole = size.saturating_mul(WITH_PREFIXES);
        let log = read_end(whole).context("syslog(2)")?;
        ensure!(
            log.is_empty() || text::lines(&log).next().is_some(),
            "syslog(2): the kernel writes no times: boot with printk.time=1"
        );
        Ok(Self {
            timer: Timer::every(INTERVAL)?,
            teller,
            line_clock: LineClock::default(),
            whole,
            started: clock::boot(),
            last: None,
            read_until: None,
            resumed: None,
        })
    }

    /// What came after the last line, and whether that line is gone.
    fn read_new(&self) -> io::Result<(Vec<u8>, bool)> {
        let Some(last) = &self.last else {
            return Ok((read_end(self.whole)?, false));
        };
        let mut window = FIRST_WINDOW.min(self.whole);
        loop {
            let log = read_end(window)?;
            if let Some(new) = text::after(&log, last) {
                return Ok((new.to_vec(), false));
            }
            if window == self.whole {
                let gone = !log.is_empty();
                return Ok((log, gone));
            }
            window = window.saturating_mul(8).min(self.whole);
        }
    }
}

impl Source for SyslogSource {
    fn name(&self) -> SourceName {
        SourceName::Kmsg
    }

    fn positions(&self) -> BTreeMap<String, u64> {
        let until = self.read_until.map(|until| until.as_micros());
        let until = until.and_then(|micros| u64::try_from(micros).ok());
        until
            .map(|micros| (POSITION.to_owned(), micros))
            .into_iter()
            .collect()
    }

    fn resume(&mut self, since: Duration, positions: &BTreeMap<String, u64>) {
        self.started = since;
        self.resumed = positions.get(POSITION).copied().map(Duration::from_micros);
        self.read_until = self.resumed;
    }

    fn fds(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.timer.as_fd()]
    }

    fn drain(&mut self, emit: &mut dyn FnMut(Signal)) -> anyhow::Result<()> {
        // The first time is that of the past.
        if !self.timer.has_ticked()? && self.last.is_some() {
            return Ok(());
        }
        let (new, gone) = self.read_new().context("syslog(2)")?;
        if gone {
            emit(Signal {
                at: clock::boot(),
                historic: false,
                what: What::Overrun {
                    source: SourceName::Kmsg,
                },
            });
        }
        // What comes after the past is new, whatever its time says.
        let of_the_past = self.resumed.is_none() && !self.teller.is_past_read();
        for line in text::records(&new) {
            if self.resumed.is_some_and(|resumed| line.at <= resumed) {
                continue;
            }
            let Line {
                priority, at, text, ..
            } = &line;
            self.read_until = self.read_until.max(Some(*at));
            let record = Record {
                facility: priority >> 3,
                level: Some(priority & 7),
                sequence: 0,
                at: *at,
                text,
            };
            let at = self.line_clock.since_boot(*at);
            let historic = of_the_past && at < self.started;
            self.teller.tell(&record, at, historic, emit);
        }
        if let Some(last) = text::last(&new) {
            self.last = Some(last.to_owned());
        }
        self.teller.has_read_past();
        Ok(())
    }

    fn configure(&mut self, rules: &Arc<LogRules>) {
        self.teller.configure(rules);
    }
}

// include/linux/syslog.h
const SYSLOG_ACTION_READ_ALL: libc::c_int = 3;
const SYSLOG_ACTION_SIZE_BUFFER: libc::c_int = 10;

/// Of the kernel's buffer.
fn size() -> io::Result<usize> {
    #[expect(unsafe_code, reason = "klogctl is a C function")]
    // SAFETY: this action takes no buffer.
    let size = unsafe { libc::klogctl(SYSLOG_ACTION_SIZE_BUFFER, std::ptr::null_mut(), 0) };
    usize::try_from(size).map_err(|_negative| io::Error::last_os_error())
}

/// The newest whole records that fit. Takes nothing away from other readers.
fn read_end(most: usize) -> io::Result<Vec<u8>> {
    let mut buffer = vec![0; most];
    let length = libc::c_int::try_from(buffer.len()).unwrap_or(libc::c_int::MAX);
    #[expect(unsafe_code, reason = "klogctl is a C function")]
    // SAFETY: the buffer has at least `length` bytes.
    let read = unsafe { libc::klogctl(SYSLOG_ACTION_READ_ALL, buffer.as_mut_ptr().cast(), length) };
    let read = usize::try_from(read).map_err(|_negative| io::Error::last_os_error())?;
    buffer.truncate(read);
    Ok(buffer)
}
