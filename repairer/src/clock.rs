//! The only place that reads the wall clock.

use jiff::Timestamp;

#[expect(clippy::disallowed_methods, reason = "the loop gets its `now` here")]
pub fn now() -> Timestamp {
    Timestamp::now()
}
