//! PURE. Events that wait for the API server: bounded, and the last one of each reason stays.

use std::borrow::Cow;
use std::collections::{HashSet, VecDeque};

use super::event::Pending;

/// An hour without an API server on a node with a lot to say.
const MOST_EVENTS: usize = 512;

#[derive(Default)]
pub(super) struct Queue {
    waiting: VecDeque<Pending>,
}

impl Queue {
    /// Returns what had to go for it: the oldest one whose reason has another one behind it; where
    /// there is none, the oldest.
    pub(super) fn push(&mut self, pending: Pending) -> Option<Pending> {
        self.waiting.push_back(pending);
        (self.waiting.len() > MOST_EVENTS)
            .then(|| victim(self.waiting.iter().map(Pending::reason)))
            .and_then(|index| self.waiting.remove(index))
    }

    pub(super) fn front_mut(&mut self) -> Option<&mut Pending> {
        self.waiting.front_mut()
    }

    pub(super) fn pop(&mut self) {
        self.waiting.pop_front();
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = &Pending> {
        self.waiting.iter()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.waiting.is_empty()
    }

    pub(super) fn len(&self) -> usize {
        self.waiting.len()
    }
}

fn victim<'a>(reasons: impl DoubleEndedIterator<Item = Cow<'a, str>> + ExactSizeIterator) -> usize {
    let mut later = HashSet::new();
    let mut oldest = 0;
    for (index, reason) in reasons.enumerate().rev() {
        if !later.insert(reason) {
            oldest = index;
        }
    }
    oldest
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use jiff::Timestamp;

    use super::super::event::{News, Notice};
    use super::*;
    use crate::finding::Now;

    fn pending(reason: &'static str) -> Pending {
        let at = Now {
            boot: Duration::ZERO,
            wall: Timestamp::UNIX_EPOCH,
        };
        let note = String::new();
        Pending::of(News::Notice(Notice { reason, note, at }), 0)
    }

    fn goes(reasons: &[&'static str]) -> usize {
        victim(reasons.iter().map(|&reason| Cow::Borrowed(reason)))
    }

    #[test]
    fn a_flood_of_one_reason_pushes_out_its_own_events_only() {
        assert_eq!(goes(&["rare", "flood", "flood", "flood"]), 1);
        assert_eq!(goes(&["flood", "rare", "flood"]), 0);
    }

    #[test]
    fn the_oldest_goes_where_every_reason_waits_once() {
        assert_eq!(goes(&["a", "b", "c"]), 0);
    }

    #[test]
    fn an_hour_of_one_reason_leaves_the_only_event_of_another() {
        let mut queue = Queue::default();
        queue.push(pending("rare"));
        let dropped = (0..5000).filter_map(|_| queue.push(pending("flood")));
        assert!(
            dropped
                .map(|gone| gone.reason().into_owned())
                .all(|gone| gone == "flood")
        );
        assert_eq!(queue.len(), MOST_EVENTS);
        let first = queue.front_mut().unwrap().reason().into_owned();
        assert_eq!(first, "rare");
    }
}
