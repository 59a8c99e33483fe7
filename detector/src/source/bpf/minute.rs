//! What is looked at once a minute: the only thing that ticks.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use anyhow::Context;
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};

const MINUTE: Timespec = Timespec {
    tv_sec: 60,
    tv_nsec: 0,
};

pub(super) struct Minute(OwnedFd);

impl Minute {
    pub(super) fn start() -> anyhow::Result<Self> {
        let timer = timerfd_create(
            TimerfdClockId::Boottime,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )
        .context("make a timer")?;
        let every = Itimerspec {
            it_interval: MINUTE,
            it_value: MINUTE,
        };
        timerfd_settime(&timer, TimerfdTimerFlags::empty(), &every).context("set a timer")?;
        Ok(Self(timer))
    }

    pub(super) fn has_passed(&self) -> anyhow::Result<bool> {
        match rustix::io::read(&self.0, &mut [0; 8]) {
            Ok(_) => Ok(true),
            Err(Errno::AGAIN | Errno::INTR) => Ok(false),
            Err(error) => Err(error).context("read the timer"),
        }
    }
}

impl AsFd for Minute {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.0.as_fd()
    }
}
