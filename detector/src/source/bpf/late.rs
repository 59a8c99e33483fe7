//! Hooks of modules that are not loaded yet. Whether they are is looked at once a minute: by far
//! most nodes load none after they have joined.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use anyhow::Context;
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

use super::traced::Event;

const INTERVAL: Timespec = Timespec {
    tv_sec: 60,
    tv_nsec: 0,
};

pub(super) struct Late {
    waiting: Vec<&'static Event>,
    modules: PathBuf,
    timer: OwnedFd,
}

impl Late {
    /// `None` where nothing is waited for.
    pub(super) fn start(
        waiting: Vec<&'static Event>,
        host_sys: &Path,
    ) -> anyhow::Result<Option<Self>> {
        if waiting.is_empty() {
            return Ok(None);
        }
        let timer = timerfd_create(
            TimerfdClockId::Boottime,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )
        .context("make a timer")?;
        let every = Itimerspec {
            it_interval: INTERVAL,
            it_value: INTERVAL,
        };
        timerfd_settime(&timer, TimerfdTimerFlags::empty(), &every).context("set a timer")?;
        Ok(Some(Self {
            waiting,
            modules: host_sys.join("module"),
            timer,
        }))
    }

    pub(super) fn timer(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }

    /// The events whose modules have appeared, once each; empty between two looks.
    pub(super) fn loaded(&mut self) -> anyhow::Result<Vec<&'static Event>> {
        match rustix::io::read(&self.timer, &mut [0; 8]) {
            Ok(_) => {}
            Err(Errno::AGAIN | Errno::INTR) => return Ok(Vec::new()),
            Err(error) => return Err(error).context("read the timer"),
        }
        let is_loaded = |event: &&'static Event| {
            let module = event.module.unwrap_or(event.category);
            self.modules.join(module).is_dir()
        };
        let (loaded, waiting) = self.waiting.iter().partition(|&event| is_loaded(event));
        self.waiting = waiting;
        Ok(loaded)
    }
}
