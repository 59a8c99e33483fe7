//! Whether the kernel's clock is synchronised, as whoever does it tells the kernel.

use std::time::Duration;

use super::files::Files;
use super::{Counter, told};
use crate::clock;
use crate::reason::Reason;
use crate::signal::{HOST, What};

/// A daemon that starts anew, or that has lost its server for a moment.
const PATIENCE: Duration = Duration::from_secs(600);

#[derive(Default)]
pub(super) struct ClockSync(Judge);

#[derive(Default)]
struct Judge {
    /// Some time sources never say it: then its absence means nothing.
    was_synchronised: bool,
    since: Option<Duration>,
}

impl Counter for ClockSync {
    fn name(&self) -> &'static str {
        "clock-synchronised"
    }

    fn wants(&self) -> &'static [&'static str] {
        // For `check`: it is there wherever this runs.
        &["proc/uptime"]
    }

    fn look(&mut self, _files: &Files, at: Duration) -> Vec<What> {
        let synchronised = clock::is_synchronised();
        synchronised
            .and_then(|yes| self.0.look(yes, at))
            .into_iter()
            .collect()
    }
}

impl Judge {
    fn look(&mut self, synchronised: bool, at: Duration) -> Option<What> {
        if synchronised {
            (self.was_synchronised, self.since) = (true, None);
            return None;
        }
        let since = *self.since.get_or_insert(at);
        let lost = at.saturating_sub(since);
        let message = format!(
            "the clock was synchronised, and has not been for {} minutes",
            lost.as_secs() / 60
        );
        let fault = told::fault(Reason::ClockUnsynchronized, HOST, message);
        (self.was_synchronised && lost >= PATIENCE).then(|| told::still(fault))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clock_that_was_never_synchronised_is_somebody_elses() {
        let mut judge = Judge::default();
        for seconds in [0, 10_000] {
            assert_eq!(judge.look(false, Duration::from_secs(seconds)), None);
        }
    }

    #[test]
    fn a_clock_that_was_synchronised_is_missed_after_ten_minutes() {
        let mut judge = Judge::default();
        let mut look = |yes, seconds| judge.look(yes, Duration::from_secs(seconds)).is_some();
        assert!(!look(true, 0));
        assert!(!look(false, 30));
        assert!(!look(false, 629));
        assert!(look(false, 630));
        assert!(!look(true, 660));
        assert!(!look(false, 690), "the time begins anew");
    }

    #[test]
    fn the_kernel_answers() {
        assert!(clock::is_synchronised().is_some());
    }
}
