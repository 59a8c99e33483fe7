//! Memory pressure: the kernel itself watches it and tells, by a trigger of `/proc/pressure/memory`.

use std::fs::{File, OpenOptions};
use std::io::Write;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;
use std::time::Duration;

use anyhow::Context;
use rustix::event::epoll;

use super::Source;
use crate::clock;
use crate::signal::{Signal, SourceName};

mod stalls;

use self::stalls::Stalls;

/// In each window of two seconds, for how long nobody got on because of memory. Other windows than
/// whole multiples of two seconds need CAP_SYS_RESOURCE.
const TRIGGER: &[u8] = b"full 300000 2000000\0";

pub(crate) struct PressureSource {
    /// The reader polls for input, and the trigger's descriptor always has some: only this one is
    /// readable when the trigger has fired. That takes the news away: whoever is woken has it.
    events: OwnedFd,
    _trigger: File,
    stalls: Stalls,
    /// The reader drains each source once before it waits for any.
    waited: bool,
}

impl PressureSource {
    /// `Ok(None)`: this kernel does not measure pressure.
    pub(crate) fn open(proc: &Path) -> anyhow::Result<Option<Self>> {
        let path = proc.join("pressure/memory");
        let file = OpenOptions::new()
            .read(true)
            .write(true)
            .custom_flags(libc::O_NONBLOCK)
            .open(&path);
        let mut trigger = match file {
            Ok(file) => file,
            Err(error)
                if error.kind() == std::io::ErrorKind::NotFound
                    // Built in, but turned off: psi=1 turns it on.
                    || error.raw_os_error() == Some(libc::EOPNOTSUPP) =>
            {
                return Ok(None);
            }
            Err(error) => return Err(error).with_context(|| format!("open {}", path.display())),
        };
        trigger
            .write_all(TRIGGER)
            .with_context(|| format!("set a trigger in {}", path.display()))?;
        let events = epoll::create(epoll::CreateFlags::CLOEXEC).context("make an epoll")?;
        epoll::add(
            &events,
            &trigger,
            epoll::EventData::new_u64(0),
            epoll::EventFlags::PRI,
        )
        .with_context(|| format!("wait for {}", path.display()))?;
        Ok(Some(Self {
            events,
            _trigger: trigger,
            stalls: Stalls::default(),
            waited: false,
        }))
    }
}

impl Source for PressureSource {
    fn name(&self) -> SourceName {
        SourceName::Counters
    }

    fn fds(&self) -> Vec<BorrowedFd<'_>> {
        vec![self.events.as_fd()]
    }

    fn drain(&mut self, emit: &mut dyn FnMut(Signal)) -> anyhow::Result<()> {
        if !std::mem::replace(&mut self.waited, true) {
            return Ok(());
        }
        let at: Duration = clock::boot();
        if let Some(what) = self.stalls.stalled(at) {
            emit(Signal {
                at,
                historic: false,
                what,
            });
        }
        Ok(())
    }
}
