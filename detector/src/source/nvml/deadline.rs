//! One call at a time, and a timer that becomes readable when it has not returned in time.

use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::Context;
use rustix::io::Errno;
use rustix::time::{
    Itimerspec, TimerfdClockId, TimerfdFlags, TimerfdTimerFlags, Timespec, timerfd_create,
    timerfd_settime,
};
use tracing::warn;

use crate::signal::Nvml;

pub(super) struct Deadline {
    timer: OwnedFd,
    /// Never held across a call.
    call: Mutex<Option<Call>>,
}

struct Call {
    name: &'static str,
    /// That it is about.
    gpu: Option<String>,
    limit: Duration,
    /// It has been told that it hangs.
    hung: bool,
}

impl Deadline {
    pub(super) fn new() -> anyhow::Result<Self> {
        let timer = timerfd_create(
            TimerfdClockId::Monotonic,
            TimerfdFlags::NONBLOCK | TimerfdFlags::CLOEXEC,
        )
        .context("make a timerfd")?;
        Ok(Self {
            timer,
            call: Mutex::new(None),
        })
    }

    /// Makes the call; the flag says that it came back only after it was told that it hangs.
    pub(super) fn watch<T>(
        &self,
        name: &'static str,
        gpu: Option<&str>,
        limit: Duration,
        call: impl FnOnce() -> T,
    ) -> (T, bool) {
        {
            let mut current = self.lock();
            *current = Some(Call {
                name,
                gpu: gpu.map(str::to_owned),
                limit,
                hung: false,
            });
            self.set(limit);
        }
        let result = call();
        let mut current = self.lock();
        self.set(Duration::ZERO);
        (result, current.take().is_some_and(|call| call.hung))
    }

    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.timer.as_fd()
    }

    /// The call whose time has passed, once.
    pub(super) fn passed(&self) -> anyhow::Result<Option<Nvml>> {
        // Locked first: the timer is then that of the call.
        let mut current = self.lock();
        match rustix::io::read(&self.timer, &mut [0; 8]) {
            Ok(_) => {}
            Err(Errno::AGAIN) => return Ok(None),
            Err(error) => return Err(error).context("read the timer of NVML"),
        }
        Ok(current.as_mut().map(|call| {
            call.hung = true;
            Nvml::Hung {
                call: call.name,
                gpu: call.gpu.clone(),
                limit: call.limit,
            }
        }))
    }

    fn lock(&self) -> MutexGuard<'_, Option<Call>> {
        self.call.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Zero disarms it. What it said before is forgotten.
    fn set(&self, limit: Duration) {
        let time = Itimerspec {
            it_interval: Timespec::default(),
            it_value: Timespec::try_from(limit).unwrap_or_default(),
        };
        if let Err(error) = timerfd_settime(&self.timer, TimerfdTimerFlags::empty(), &time) {
            warn!(%error, "the deadline of a call to NVML could not be set");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::thread;

    use super::*;

    const LIMIT: Duration = Duration::from_millis(10);

    #[test]
    fn a_call_that_returns_in_time_is_not_told() {
        let deadline = Deadline::new().unwrap();
        let (answer, hung) = deadline.watch("nvmlInit_v2", None, Duration::from_secs(60), || 7);
        assert_eq!((answer, hung), (7, false));
        assert_eq!(deadline.passed().unwrap(), None);
    }

    #[test]
    fn a_call_that_hangs_is_told_once_and_its_return_as_well() {
        let deadline = Deadline::new().unwrap();
        let ((first, second), hung) =
            deadline.watch("nvmlInit_v2", Some("0000:05:00"), LIMIT, || {
                thread::sleep(LIMIT * 10);
                (deadline.passed().unwrap(), deadline.passed().unwrap())
            });
        let hangs = Nvml::Hung {
            call: "nvmlInit_v2",
            gpu: Some("0000:05:00".to_owned()),
            limit: LIMIT,
        };
        assert_eq!((first, second), (Some(hangs), None));
        assert!(hung);
    }

    #[test]
    fn the_deadline_of_an_earlier_call_says_nothing_about_a_later_one() {
        let deadline = Deadline::new().unwrap();
        deadline.watch("nvmlInit_v2", None, LIMIT, || thread::sleep(LIMIT * 10));
        let (passed, _) = deadline.watch("nvmlShutdown", None, Duration::from_secs(60), || {
            deadline.passed().unwrap()
        });
        assert_eq!(passed, None);
    }
}
