//! PURE. When to try again after the API server did not take something.

use std::time::Duration;

const FIRST: Duration = Duration::from_millis(250);
const LAST: Duration = Duration::from_secs(30);
/// A delay that only several failures in a row lead to.
const LONG: Duration = Duration::from_secs(4);

/// Doubling delays; what failed stays wanted.
/// No server may silence us for longer, whatever it asks for.
const LONGEST_ASKED: Duration = Duration::from_secs(60);

#[derive(Debug, Default)]
pub(super) struct Retry {
    delay: Option<Duration>,
    not_before: Duration,
    /// What the server asked for (`Retry-After`); nothing hurries past it.
    asked: Duration,
}

impl Retry {
    /// The delay until the next try. `jitter` (0 to 1) keeps a fleet from trying in step; `asked`
    /// is what the server wants at least.
    pub(super) fn failed(
        &mut self,
        now: Duration,
        asked: Option<Duration>,
        jitter: f64,
    ) -> Duration {
        let jitter = jitter.clamp(0.0, 1.0);
        let delay = self.delay.map_or(FIRST, |last| (last * 2).min(LAST));
        self.delay = Some(delay);
        let mut wait = delay.mul_f64(0.5 + jitter);
        if let Some(asked) = asked {
            // All were told the same number at the same time.
            let asked = asked.min(LONGEST_ASKED).mul_f64(1.0 + jitter / 2.0);
            self.asked = now + asked;
            wait = wait.max(asked);
        }
        self.not_before = now + wait;
        wait
    }

    pub(super) fn succeeded(&mut self) {
        *self = Self::default();
    }

    /// Whether the server was away long enough for a whole fleet to have come to wait for it.
    pub(super) fn was_long(&self) -> bool {
        self.delay.is_some_and(|delay| delay >= LONG)
    }

    /// Something new does not wait because something old failed; the delays stay as long as they are.
    pub(super) fn hurry(&mut self) {
        self.not_before = self.asked;
    }

    /// The server has answered something else: try at `at`, if that is sooner.
    pub(super) fn not_later_than(&mut self, at: Duration) {
        self.not_before = self.not_before.min(at).max(self.asked);
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
            .map(|_| retry.failed(NOW, None, 0.5).as_millis())
            .collect();
        assert_eq!(
            delays,
            [250, 500, 1000, 2000, 4000, 8000, 16000, 30000, 30000, 30000]
        );
    }

    #[test]
    fn after_a_success_the_first_delay_is_short_again() {
        let mut retry = Retry::default();
        retry.failed(NOW, None, 0.5);
        retry.failed(NOW, None, 0.5);
        retry.succeeded();
        assert_eq!(retry.not_before(), Duration::ZERO);
        assert_eq!(retry.failed(NOW, None, 0.5), FIRST);
    }

    #[test]
    fn something_new_is_tried_at_once_but_does_not_shorten_the_delays() {
        let mut retry = Retry::default();
        retry.failed(NOW, None, 0.5);
        retry.hurry();
        assert_eq!(retry.not_before(), Duration::ZERO);
        assert_eq!(retry.failed(NOW, None, 0.5), FIRST * 2);
    }

    #[test]
    fn what_the_server_asks_for_is_waited_for_even_by_what_is_new() {
        let mut retry = Retry::default();
        let asked = Duration::from_secs(7);
        assert_eq!(retry.failed(NOW, Some(asked), 0.0), asked);
        retry.hurry();
        retry.not_later_than(NOW);
        assert_eq!(retry.not_before(), NOW + asked);
    }

    #[test]
    fn a_server_that_asks_for_a_day_gets_a_minute_or_so() {
        let day = Duration::from_secs(86400);
        let wait = Retry::default().failed(NOW, Some(day), 1.0);
        assert_eq!(wait, Duration::from_secs(90));
    }

    #[test]
    fn two_that_were_asked_to_wait_the_same_time_do_not_come_back_together() {
        let asked = Some(Duration::from_secs(10));
        let [first, second] = [0.0, 1.0].map(|jitter| Retry::default().failed(NOW, asked, jitter));
        assert_eq!([first.as_secs(), second.as_secs()], [10, 15]);
    }
}
