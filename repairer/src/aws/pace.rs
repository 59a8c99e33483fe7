//! How fast calls are made that change anything: a bucket of tokens for all repairs, and after a
//! throttling a pause that doubles, of random length, so that what was refused together does not
//! come back together.

use std::hash::{BuildHasher, Hasher, RandomState};
use std::sync::PoisonError;
use std::time::Duration;

use tokio::time::Instant;

use super::Aws;

/// Calls at once; then one for each `REFILL`.
const BURST: f64 = 5.0;
const REFILL: Duration = Duration::from_secs(2);
const FIRST_PAUSE: Duration = Duration::from_secs(1);
const LONGEST_PAUSE: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Pace {
    spent: f64,
    filled: Option<Instant>,
    /// Throttlings in a row.
    throttled: u32,
    not_before: Option<Instant>,
}

impl Pace {
    /// `None`: now, and a token is spent on it.
    pub(super) fn wait(&mut self, now: Instant) -> Option<Duration> {
        let pause = self.not_before.map(|at| at.saturating_duration_since(now));
        if let Some(pause) = pause.filter(|pause| !pause.is_zero()) {
            return Some(pause);
        }
        let since = self.filled.map_or(Duration::ZERO, |at| now - at);
        self.spent = (self.spent - since.div_duration_f64(REFILL)).max(0.0);
        self.filled = Some(now);
        if self.spent + 1.0 > BURST {
            return Some(REFILL.mul_f64(self.spent + 1.0 - BURST));
        }
        self.spent += 1.0;
        None
    }

    pub(super) fn learn(&mut self, throttled: bool, now: Instant) {
        if !throttled {
            self.throttled = 0;
            return;
        }
        self.throttled = self.throttled.saturating_add(1);
        let most = longest(self.throttled);
        self.not_before = Some(now + most.mul_f64(chance()));
    }
}

/// After so many throttlings in a row.
fn longest(throttled: u32) -> Duration {
    let doubled = FIRST_PAUSE.saturating_mul(1 << throttled.min(16));
    doubled.min(LONGEST_PAUSE)
}

/// Between 0 and 1.
fn chance() -> f64 {
    let random = RandomState::new().build_hasher().finish();
    f64::from(u32::try_from(random >> 32).unwrap_or_default()) / f64::from(u32::MAX)
}

impl Aws {
    pub(super) fn pace<T>(&self, ask: impl FnOnce(&mut Pace) -> T) -> T {
        ask(&mut self.pace.lock().unwrap_or_else(PoisonError::into_inner))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_burst_is_let_through_and_then_one_at_a_time() {
        let start = Instant::now();
        let mut pace = Pace::default();
        let at = |seconds| start + Duration::from_secs(seconds);
        let passed = (0..20).filter(|_| pace.wait(at(0)).is_none()).count();
        assert_eq!(passed, 5);
        assert_eq!(pace.wait(at(0)), Some(REFILL));
        assert_eq!(pace.wait(at(2)), None);
        assert!(pace.wait(at(3)).is_some());
        assert_eq!(
            (100..200).filter(|s| pace.wait(at(*s)).is_none()).count(),
            54
        );
    }

    #[test]
    fn throttlings_pause_everything_longer_and_longer_and_never_for_ever() {
        let start = Instant::now();
        let mut longest_seen = Duration::ZERO;
        for _ in 0..200 {
            let mut pace = Pace::default();
            for _ in 0..50 {
                pace.learn(true, start);
            }
            longest_seen = longest_seen.max(pace.wait(start).unwrap_or_default());
            pace.learn(false, start);
            assert_eq!(pace.throttled, 0);
            assert_eq!(pace.wait(start + LONGEST_PAUSE), None);
        }
        // Random, up to the longest: 200 draws are not all short.
        assert!(
            (LONGEST_PAUSE / 2..=LONGEST_PAUSE).contains(&longest_seen),
            "{longest_seen:?}"
        );
        let pauses: Vec<_> = (1..=8).map(|n| longest(n).as_secs()).collect();
        assert_eq!(pauses, [2, 4, 8, 16, 32, 60, 60, 60]);
    }
}
