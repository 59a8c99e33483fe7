//! PURE. Whether the lease may be taken, renewed or waited for. kube-rs has no leader election; the
//! rules are those of client-go: times on the lease are only compared for change, and waited out
//! by the reader's own clock.

use std::time::Duration;

mod hold;

pub(crate) use self::hold::NAME;
pub use self::hold::{Leadership, Lease, Term};

/// client-go's defaults.
pub const DURATION: Duration = Duration::from_secs(15);
/// A leader that could not renew for so long stops acting, well before anybody may take over.
pub const RENEW_DEADLINE: Duration = Duration::from_secs(10);
pub const RETRY: Duration = Duration::from_secs(2);

/// What the lease said when it last changed, and when that was by our clock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Seen {
    pub holder: String,
    /// Anything that differs when the holder has renewed.
    pub version: String,
    /// The holder's own promise.
    pub duration: Duration,
    pub at: Duration,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Claim {
    /// Nobody holds it, its holder has let go, or has not renewed it for its whole duration.
    Take,
    /// It is ours already.
    Renew,
    /// Somebody holds it.
    Wait,
}

pub fn evaluate(seen: Option<&Seen>, me: &str, now: Duration) -> Claim {
    match seen {
        None => Claim::Take,
        Some(seen) if seen.holder == me => Claim::Renew,
        Some(seen) if seen.holder.is_empty() || seen.at + seen.duration <= now => Claim::Take,
        Some(_) => Claim::Wait,
    }
}

/// Takes in the lease as it was just read.
pub fn observe(
    before: Option<Seen>,
    holder: &str,
    version: &str,
    duration: Duration,
    now: Duration,
) -> Seen {
    match before {
        Some(seen) if seen.version == version => seen,
        Some(_) | None => Seen {
            holder: holder.to_owned(),
            version: version.to_owned(),
            duration,
            at: now,
        },
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn seen(holder: &str, second: u64) -> Seen {
        observe(None, holder, "1", DURATION, at(second))
    }

    #[test]
    fn a_lease_that_nobody_holds_is_taken() {
        assert_eq!(evaluate(None, "me", at(0)), Claim::Take);
        assert_eq!(evaluate(Some(&seen("", 0)), "me", at(0)), Claim::Take);
    }

    #[test]
    fn ours_is_renewed() {
        assert_eq!(evaluate(Some(&seen("me", 0)), "me", at(1000)), Claim::Renew);
    }

    #[test]
    fn anothers_is_waited_for_until_it_has_not_changed_for_its_duration() {
        let first = seen("other", 100);
        assert_eq!(evaluate(Some(&first), "me", at(114)), Claim::Wait);
        assert_eq!(evaluate(Some(&first), "me", at(115)), Claim::Take);
        let renewed = observe(Some(first), "other", "2", DURATION, at(114));
        assert_eq!(evaluate(Some(&renewed), "me", at(115)), Claim::Wait);
        let unchanged = observe(Some(renewed), "other", "2", DURATION, at(128));
        assert_eq!(evaluate(Some(&unchanged), "me", at(129)), Claim::Take);
    }

    #[test]
    fn a_leader_stops_before_another_may_begin() {
        assert!(RENEW_DEADLINE + RETRY < DURATION);
    }
}
