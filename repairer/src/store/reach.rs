//! Whether the API server answers our watches. While it does not, what is known grows old.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use jiff::Timestamp;
use kube::runtime::utils::Backoff;

/// From a failure to the next try, doubled up to the longest.
const FIRST: Duration = Duration::from_millis(500);
const LONGEST: Duration = Duration::from_secs(5);
/// A watch that has nothing to tell is silent, whether it works or not: one without a failure for
/// so long works, because it would have been tried again, and have failed, by then.
const CALM: Duration = Duration::from_secs(15);

#[derive(Clone, Default)]
pub(super) struct Reach(Arc<Mutex<BTreeMap<&'static str, Failing>>>);

#[derive(Clone, Copy)]
struct Failing {
    since: Timestamp,
    last: Timestamp,
}

impl Reach {
    pub(super) fn failed(&self, what: &'static str, now: Timestamp) {
        let mut failing = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let entry = failing.entry(what).or_insert(Failing {
            since: now,
            last: now,
        });
        entry.last = now;
    }

    pub(super) fn answered(&self, what: &'static str) {
        let mut failing = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        failing.remove(what);
    }

    /// Since when some watch fails, if one does.
    pub(super) fn lost_since(&self, now: Timestamp) -> Option<Timestamp> {
        let mut failing = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        failing.retain(|_, entry| now.duration_since(entry.last).unsigned_abs() < CALM);
        failing.values().map(|entry| entry.since).min()
    }
}

/// How long to wait before the next try.
pub(super) struct Retry(Duration);

pub(super) fn backoff() -> Retry {
    Retry(FIRST)
}

impl Iterator for Retry {
    type Item = Duration;

    fn next(&mut self) -> Option<Duration> {
        let wait = self.0;
        self.0 = (wait * 2).min(LONGEST);
        Some(wait)
    }
}

impl Backoff for Retry {
    fn reset(&mut self) {
        self.0 = FIRST;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::decide::fixture::at;

    #[test]
    fn it_is_lost_from_the_first_failure_until_the_answer_or_a_calm() {
        let reach = Reach::default();
        assert_eq!(reach.lost_since(at(0)), None);
        reach.failed("nodes", at(10));
        reach.failed("repairpolicies", at(12));
        reach.failed("nodes", at(14));
        assert_eq!(reach.lost_since(at(15)), Some(at(10)));
        reach.answered("nodes");
        assert_eq!(
            reach.lost_since(at(16)),
            Some(at(12)),
            "the other one fails"
        );
        assert_eq!(reach.lost_since(at(26)), Some(at(12)));
        assert_eq!(reach.lost_since(at(27)), None, "calm for 15 s");
        reach.failed("nodes", at(40));
        assert_eq!(reach.lost_since(at(41)), Some(at(40)), "another failure");
    }

    #[test]
    fn a_watch_that_fails_is_tried_again_within_the_calm() {
        assert!(backoff().take(20).all(|wait| wait * 2 < CALM));
    }
}
