//! Answers of devices, asked on a thread of its own: a device that hangs must delay nobody else.

use std::io;
use std::sync::mpsc::{self, Receiver, SyncSender, TrySendError};
use std::sync::{Arc, Mutex, PoisonError};
use std::thread;
use std::time::Duration;

use tracing::{info, warn};

use crate::clock;

/// Asked again with each look, or each so many, if the last answer has come.
pub(super) struct Asked<T> {
    answers: Receiver<T>,
    ask: SyncSender<()>,
    /// Since when the devices have been asked and have not answered.
    since: Arc<Mutex<Option<Duration>>>,
    /// Looks until they are asked again.
    rest: u32,
    /// The last error, which has been said.
    trouble: Option<String>,
}

impl<T: Send + 'static> Asked<T> {
    pub(super) fn start(
        name: &str,
        mut ask_devices: impl FnMut() -> T + Send + 'static,
    ) -> io::Result<Self> {
        let (sender, answers) = mpsc::sync_channel(1);
        let (ask, asks) = mpsc::sync_channel(0);
        let since = Arc::new(Mutex::new(None));
        let asking = Arc::clone(&since);
        let set = move |since| *asking.lock().unwrap_or_else(PoisonError::into_inner) = since;
        let work = move || {
            while asks.recv().is_ok() {
                set(Some(clock::boot()));
                let answer = ask_devices();
                set(None);
                if sender.send(answer).is_err() {
                    return;
                }
            }
        };
        thread::Builder::new().name(name.to_owned()).spawn(work)?;
        Ok(Self {
            answers,
            ask,
            since,
            rest: 0,
            trouble: None,
        })
    }

    pub(super) fn since(slot: Option<&Self>) -> Option<Duration> {
        let since = &slot?.since;
        *since.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From when it is needed: most hosts do not have the devices.
    pub(super) fn started<'a, Ask>(
        slot: &'a mut Option<Self>,
        name: &str,
        ask: impl FnOnce() -> Ask,
    ) -> Option<&'a mut Self>
    where
        Ask: FnMut() -> T + Send + 'static,
    {
        if slot.is_none() {
            *slot = Self::start(name, ask())
                .inspect_err(|error| warn!(name, %error, "no thread: its devices are not asked"))
                .ok();
        }
        slot.as_mut()
    }

    /// What the devices said when they were asked last; None while they do not answer.
    pub(super) fn take(&mut self) -> Option<T> {
        self.take_each(1)
    }

    /// The same of devices that are asked with each `every`th look alone.
    fn take_each(&mut self, every: u32) -> Option<T> {
        let answer = self.answers.try_recv().ok();
        self.rest = self.rest.saturating_sub(1);
        if self.rest == 0 {
            match self.ask.try_send(()) {
                Ok(()) => self.rest = every,
                // Full: it is still waiting for the devices.
                Err(TrySendError::Full(()) | TrySendError::Disconnected(())) => {}
            }
        }
        answer
    }
}

impl<T: Send + 'static> Asked<Result<T, String>> {
    /// The same where they may fail: of errors that are alike, one after the other, the first is said.
    pub(super) fn take_well(&mut self, what: &str) -> Option<T> {
        self.take_well_each(1, what)
    }

    pub(super) fn take_well_each(&mut self, every: u32, what: &str) -> Option<T> {
        match self.take_each(every)? {
            Ok(answer) => {
                if self.trouble.take().is_some() {
                    info!("{what} can be read again");
                }
                Some(answer)
            }
            Err(error) => {
                if self.trouble.as_ref() != Some(&error) {
                    warn!(error, "{what} could not be read");
                    self.trouble = Some(error);
                }
                None
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::{AtomicU32, Ordering};
    use std::sync::{Arc, mpsc};
    use std::time::Duration;

    use super::*;

    #[test]
    fn a_device_that_hangs_holds_up_nobody_and_is_not_asked_again() {
        let asked = Arc::new(AtomicU32::new(0));
        let count = Arc::clone(&asked);
        let (release, hangs) = mpsc::channel::<()>();
        let mut device = Asked::start("test", move || {
            count.fetch_add(1, Ordering::Relaxed);
            hangs.recv().ok()
        })
        .unwrap();
        for _ in 0..50 {
            assert_eq!(device.take(), None);
            thread::sleep(Duration::from_millis(2));
        }
        assert_eq!(asked.load(Ordering::Relaxed), 1);
        assert!(Asked::since(Some(&device)).is_some());
        release.send(()).unwrap();
        let answered = (0..500).any(|_| {
            thread::sleep(Duration::from_millis(2));
            device.take() == Some(Some(()))
        });
        assert!(answered);
    }

    #[test]
    fn one_that_is_asked_rarely_has_its_answer_soon() {
        for (every, answers) in [(u32::MAX, 1), (3, 4)] {
            let asked = Arc::new(AtomicU32::new(0));
            let count = Arc::clone(&asked);
            let mut device =
                Asked::start("test", move || count.fetch_add(1, Ordering::Relaxed)).unwrap();
            let (mut looks, mut told) = (0, 0);
            while told < answers {
                looks += 1;
                assert!(looks < 5000, "{told} answers");
                thread::sleep(Duration::from_millis(2));
                told += u32::from(device.take_each(every).is_some());
            }
            let asked = asked.load(Ordering::Relaxed);
            assert!(asked <= looks / every + 1, "{asked} times in {looks} looks");
        }
    }

    #[test]
    fn an_error_is_no_answer_and_is_kept_until_it_is_over() {
        let mut answers = vec![Ok(2), Err("away".to_owned()), Err("away".to_owned())];
        let mut device = Asked::start("test", move || answers.pop().unwrap_or(Ok(3))).unwrap();
        let mut seen = Vec::new();
        let known = (0..500).any(|_| {
            thread::sleep(Duration::from_millis(2));
            let answer = device.take_well("a device");
            seen.extend(device.trouble.clone());
            answer == Some(2)
        });
        assert!(known);
        assert!(!seen.is_empty() && seen.iter().all(|error| error == "away"));
        assert_eq!(device.trouble, None);
    }
}
