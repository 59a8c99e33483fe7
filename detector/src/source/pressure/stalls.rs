//! PURE. When stalls of the whole host are many enough to be told.

use std::collections::VecDeque;
use std::time::Duration;

use crate::reason::Reason;
use crate::signal::{Counted, LogFault, What};

/// Windows with a stall: a single one is a moment of a busy node.
const MANY: usize = 5;
const WITHIN: Duration = Duration::from_secs(60);

#[derive(Default)]
pub(super) struct Stalls(VecDeque<Duration>);

impl Stalls {
    /// The trigger has fired.
    pub(super) fn stalled(&mut self, at: Duration) -> Option<What> {
        self.0.retain(|then| *then + WITHIN > at);
        if self.0.len() >= MANY * 12 {
            self.0.pop_front();
        }
        self.0.push_back(at);
        let windows = self.0.len();
        let message = format!(
            "all processes together waited for memory, in {windows} windows of 2 s within a minute for at least 15 % of the time"
        );
        let fault = LogFault::new(Reason::MemoryStall, "host".to_owned(), message);
        (windows >= MANY).then_some(What::Counted {
            fault,
            counted: Counted::Still,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stalls_that_do_not_end_are_told_and_single_ones_are_not() {
        let mut stalls = Stalls::default();
        for second in [0, 2, 4, 6] {
            assert_eq!(stalls.stalled(Duration::from_secs(second)), None);
        }
        assert!(stalls.stalled(Duration::from_secs(8)).is_some());
        assert!(stalls.stalled(Duration::from_secs(10)).is_some());
        let mut stalls = Stalls::default();
        for minute in 0..20 {
            assert_eq!(stalls.stalled(Duration::from_secs(minute * 20)), None);
        }
        for _ in 0..10_000 {
            stalls.stalled(Duration::from_secs(500));
        }
        assert!(stalls.0.len() <= MANY * 12);
    }
}
