//! PURE. Which tasks have slept through from one scan to the next.

use std::collections::HashMap;
use std::time::Duration;

/// Sleeping tasks that are remembered until the next scan.
const MOST: usize = 4096;

/// A task, whatever later gets its number.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(super) struct Id {
    pub pid: u32,
    pub started: Duration,
}

pub(super) struct Continuity {
    interval: Duration,
    known: HashMap<Id, Seen>,
    last: Option<Duration>,
    /// Between the last scan and this one.
    gap: Duration,
    scan: u64,
    left_out: usize,
}

struct Seen {
    switches: u64,
    /// Since the first scan that saw it so.
    blocked: Duration,
    scan: u64,
}

impl Continuity {
    pub(super) fn new(interval: Duration) -> Self {
        Self {
            interval,
            known: HashMap::new(),
            last: None,
            gap: Duration::ZERO,
            scan: 0,
            left_out: 0,
        }
    }

    pub(super) fn begin(&mut self, now: Duration) {
        let gap = self
            .last
            .map_or(Duration::ZERO, |last| now.saturating_sub(last));
        // While the machine was paused or suspended no task could have run.
        self.gap = gap.min(self.interval * 2);
        self.last = Some(now);
        self.scan += 1;
        self.left_out = 0;
    }

    /// A task that sleeps now; for how long at least, if it did so in the scan before and has not run
    /// since.
    pub(super) fn see(&mut self, id: Id, switches: u64) -> Option<Duration> {
        let full = self.known.len() >= MOST;
        match self.known.get_mut(&id) {
            Some(seen) => {
                seen.blocked = if seen.switches == switches {
                    seen.blocked + self.gap
                } else {
                    Duration::ZERO
                };
                (seen.switches, seen.scan) = (switches, self.scan);
                (!seen.blocked.is_zero()).then_some(seen.blocked)
            }
            None if full => {
                self.left_out += 1;
                None
            }
            None => {
                let seen = Seen {
                    switches,
                    blocked: Duration::ZERO,
                    scan: self.scan,
                };
                self.known.insert(id, seen);
                None
            }
        }
    }

    /// Forgets whoever did not sleep in this scan; returns how many could not be remembered.
    pub(super) fn end(&mut self) -> usize {
        let scan = self.scan;
        self.known.retain(|_, seen| seen.scan == scan);
        if self.known.is_empty() {
            self.known.shrink_to_fit();
        }
        self.left_out
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const INTERVAL: Duration = Duration::from_secs(30);

    fn id(pid: u32) -> Id {
        Id {
            pid,
            started: Duration::from_secs(1),
        }
    }

    /// What the last of these scans says of one task: when, and its switches, or that it is awake.
    fn after(scans: &[(u64, Option<u64>)]) -> Option<u64> {
        let mut continuity = Continuity::new(INTERVAL);
        let mut last = None;
        for &(at, switches) in scans {
            continuity.begin(Duration::from_secs(at));
            last = switches.and_then(|switches| continuity.see(id(7), switches));
            continuity.end();
        }
        last.map(|blocked| blocked.as_secs())
    }

    #[test]
    fn a_task_that_slept_through_two_scans_is_blocked_since_the_first() {
        assert_eq!(after(&[(0, Some(5))]), None);
        assert_eq!(after(&[(0, Some(5)), (30, Some(5))]), Some(30));
        assert_eq!(
            after(&[(0, Some(5)), (30, Some(5)), (61, Some(5))]),
            Some(61)
        );
    }

    #[test]
    fn a_task_that_has_run_in_between_begins_anew() {
        assert_eq!(after(&[(0, Some(5)), (30, Some(6))]), None);
        assert_eq!(
            after(&[(0, Some(5)), (30, Some(5)), (60, Some(6)), (90, Some(6))]),
            Some(30)
        );
        assert_eq!(after(&[(0, Some(5)), (30, None), (60, Some(5))]), None);
    }

    #[test]
    fn a_later_task_of_the_same_number_is_another_one() {
        let mut continuity = Continuity::new(INTERVAL);
        continuity.begin(Duration::ZERO);
        continuity.see(id(7), 1);
        continuity.end();
        continuity.begin(INTERVAL);
        let other = Id {
            started: Duration::from_secs(20),
            ..id(7)
        };
        assert_eq!(continuity.see(other, 1), None);
    }

    #[test]
    fn the_time_in_which_the_machine_was_paused_does_not_count() {
        assert_eq!(after(&[(0, Some(5)), (7200, Some(5))]), Some(60));
    }

    #[test]
    fn what_is_too_much_to_remember_is_counted() {
        let mut continuity = Continuity::new(INTERVAL);
        for at in [0, 30] {
            continuity.begin(Duration::from_secs(at));
            let mut blocked = 0;
            for pid in 0..100_000 {
                blocked += usize::from(continuity.see(id(pid), 1).is_some());
            }
            assert_eq!(blocked, if at == 0 { 0 } else { MOST });
            assert_eq!(continuity.end(), 100_000 - MOST);
            assert_eq!(continuity.known.len(), MOST);
        }
        continuity.begin(Duration::from_secs(60));
        assert_eq!(continuity.end(), 0);
        assert_eq!(continuity.known.capacity(), 0);
    }
}
