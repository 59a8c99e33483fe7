//! PURE. How many calls AWS takes: a bucket of tokens that fills up again, for all actions together.

use std::time::Duration;

use jiff::Timestamp;

#[derive(Clone, Debug)]
pub(super) struct Rate {
    burst: f64,
    /// For one token.
    refill: Duration,
    tokens: f64,
    filled: Timestamp,
}

impl Rate {
    pub(super) fn new(burst: u32, refill: Duration, now: Timestamp) -> Self {
        let burst = f64::from(burst);
        Self {
            burst,
            refill,
            tokens: burst,
            filled: now,
        }
    }

    pub(super) fn lets_through(&mut self, now: Timestamp) -> bool {
        let since = now.duration_since(self.filled).unsigned_abs();
        let filled = self.tokens + since.div_duration_f64(self.refill);
        (self.tokens, self.filled) = (filled.min(self.burst), now);
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}
