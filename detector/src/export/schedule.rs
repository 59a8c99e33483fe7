//! PURE. When a write is due: status changes at once within a budget, text and heartbeats rarely.

use std::time::Duration;

use crate::core::Condition;

/// Tokens that refill with time; the oldest way to allow a burst and forbid a stream.
#[derive(Debug, Clone)]
pub(crate) struct Bucket {
    capacity: u32,
    refill: Duration,
    tokens: u32,
    since: Duration,
}

impl Bucket {
    pub(crate) fn new(capacity: u32, refill: Duration) -> Self {
        Self {
            capacity,
            refill,
            tokens: capacity,
            since: Duration::ZERO,
        }
    }

    /// Takes a token, or says when there will be one.
    pub(crate) fn take(&mut self, now: Duration) -> Result<(), Duration> {
        let refilled = now.saturating_sub(self.since).as_nanos() / self.refill.as_nanos().max(1);
        if let Ok(refilled) = u32::try_from(refilled) {
            self.tokens = self.tokens.saturating_add(refilled).min(self.capacity);
            self.since += self.refill * refilled;
        } else {
            self.tokens = self.capacity;
        }
        if self.tokens == self.capacity {
            self.since = now;
        }
        match self.tokens.checked_sub(1) {
            Some(left) => {
                self.tokens = left;
                Ok(())
            }
            None => Err(self.since + self.refill),
        }
    }

    /// What was taken led to nothing.
    pub(super) fn give_back(&mut self) {
        self.tokens = self.tokens.saturating_add(1).min(self.capacity);
    }
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Intervals {
    pub heartbeat: Duration,
    /// While a Fatal finding is open, so that a reader can tell a live word from a dead one.
    pub fatal_heartbeat: Duration,
    pub text: Duration,
}

/// The part of a heartbeat's interval that passes before the next one. A fleet that has written in
/// step (it was started together, or waited for the same server) is spread over the whole interval
/// first. `random` is 0 to 1.
pub(super) fn share(in_step: bool, random: f64) -> f64 {
    let random = random.clamp(0.0, 1.0);
    if in_step {
        0.1 + 0.9 * random
    } else {
        0.9 + 0.2 * random
    }
}

/// When the wanted conditions must be written, given what was written last and when. `share` is
/// that of [`share`].
pub(crate) fn due(
    wanted: &[Condition],
    written: Option<(&[Condition], Duration)>,
    intervals: &Intervals,
    share: f64,
    now: Duration,
) -> (Due, Duration) {
    let Some((last, at)) = written else {
        return (Due::Status, now);
    };
    let status = |conditions: &[Condition]| -> Vec<_> {
        conditions.iter().map(|c| (c.kind, c.healthy)).collect()
    };
    if status(wanted) != status(last) {
        return (Due::Status, now);
    }
    let fatal = wanted.iter().any(|condition| !condition.healthy);
    let interval = if fatal {
        intervals.fatal_heartbeat
    } else {
        intervals.heartbeat
    };
    let heartbeat = at + interval.mul_f64(share.clamp(0.1, 1.1));
    if wanted != last && at + intervals.text < heartbeat {
        return (Due::Text, at + intervals.text);
    }
    (Due::Heartbeat, heartbeat)
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Due {
    Status,
    Text,
    Heartbeat,
}

#[cfg(test)]
mod tests {
    use jiff::Timestamp;

    use super::*;
    use crate::reason::ConditionType;

    const INTERVALS: Intervals = Intervals {
        heartbeat: Duration::from_secs(300),
        fatal_heartbeat: Duration::from_secs(60),
        text: Duration::from_secs(60),
    };

    fn storage(healthy: bool, message: &str) -> Vec<Condition> {
        vec![Condition {
            kind: ConditionType::StorageReady,
            healthy,
            reason: "X".into(),
            message: message.to_owned(),
            transition: Timestamp::UNIX_EPOCH,
        }]
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    #[test]
    fn a_changed_status_is_due_at_once() {
        let (old, new) = (storage(true, ""), storage(false, ""));
        assert_eq!(
            due(&new, Some((&old, at(100))), &INTERVALS, 1.0, at(101)),
            (Due::Status, at(101))
        );
        assert_eq!(
            due(&new, None, &INTERVALS, 1.0, at(7)),
            (Due::Status, at(7))
        );
    }

    #[test]
    fn changed_text_waits_a_minute() {
        let (old, new) = (storage(true, "a"), storage(true, "b"));
        assert_eq!(
            due(&new, Some((&old, at(100))), &INTERVALS, 1.0, at(101)),
            (Due::Text, at(160))
        );
    }

    #[test]
    fn the_heartbeat_is_faster_while_a_fatal_finding_is_open() {
        let (bad, good) = (storage(false, ""), storage(true, ""));
        assert_eq!(
            due(&good, Some((&good, at(100))), &INTERVALS, 1.0, at(101)),
            (Due::Heartbeat, at(400))
        );
        assert_eq!(
            due(&bad, Some((&bad, at(100))), &INTERVALS, 1.0, at(101)),
            (Due::Heartbeat, at(160))
        );
    }

    #[test]
    fn a_fleet_that_wrote_in_step_is_spread_over_the_whole_interval() {
        let beat = |share| {
            due(
                &storage(true, ""),
                Some((&storage(true, ""), at(0))),
                &INTERVALS,
                share,
                at(1),
            )
        };
        let shares = [(true, 0.0), (true, 1.0), (false, 0.0), (false, 1.0)];
        let seconds = shares.map(|(in_step, random)| beat(share(in_step, random)).1.as_secs());
        assert_eq!(seconds, [30, 300, 270, 330]);
    }

    #[test]
    fn a_bucket_allows_its_burst_and_then_one_per_refill() {
        let mut bucket = Bucket::new(2, at(30));
        assert_eq!(
            [bucket.take(at(100)), bucket.take(at(100))],
            [Ok(()), Ok(())]
        );
        assert_eq!(bucket.take(at(101)), Err(at(130)));
        assert_eq!(bucket.take(at(130)), Ok(()));
        assert_eq!(bucket.take(at(131)), Err(at(160)));
        assert_eq!(bucket.take(at(10_000)), Ok(()));
    }
}
