//! PURE. When to try again after the API server did not take something.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(250);
const LAST: Duration = Duration::from_secs(30);

/// Doubling delays; what failed stays wanted.
#[derive(Debug, Default)]
pub(super) struct Retry {
    delay: Option<Duration>,
    not_before: Duration,
}

impl Retry {
    /// The delay until the next try. `jitter` (0 to 1) keeps a fleet from trying in step.
    pub(super) fn failed(&mut self, now: Duration, jitter: f64) -> Duration {
        let delay = self.delay.map_or(FIRST, |last| (last * 2).min(LAST));
        self.delay = Some(delay);
        let jittered = delay.mul_f64(0.5 + jitter.clamp(0.0, 1.0));
        self.not_before = now + jittered;
        jittered
    }

    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// Something new does not wait because something old failed; the delays stay as long as they are.
    pub(super) fn hurry(&mut self) {
        self.not_before = Duration::ZERO;
    }

    pub(super) fn not_before(&self) -> Duration {
        self.not_before
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Duration = Duration::from_secs(1000);

    #[test]
    fn delays_double_up_to_their_limit() {
        let mut retry = Retry::default();
        let delays: Vec<_> = (0..10)
            .map(|_| retry.failed(NOW, 0.5).as_millis())
            .collect();
        assert_eq!(
            delays,
            [250, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]
        );
    }

    #[test]
    fn after_a_success_the_first_delay_is_short_again() {
        let mut retry = Retry::default();
        retry.failed(NOW, 0.5);
        retry.failed(NOW, 0.5);
        retry.succeeded();
        assert_eq!(retry.not_before(), Duration::ZERO);
        assert_eq!(retry.failed(NOW, 0.5), FIRST);
    }

    #[test]
    fn something_new_is_tried_at_once_but_does_not_shorten_the_delays() {
        let mut retry = Retry::default();
        retry.failed(NOW, 0.5);
        retry.hurry();
        assert_eq!(retry.not_before(), Duration::ZERO);
        assert_eq!(retry.failed(NOW, 0.5), FIRST * 2);
    }
}
