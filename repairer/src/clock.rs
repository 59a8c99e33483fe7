//! The only place that reads the wall clock.

use jiff::Timestamp;

/// To the microsecond, which is what the API can store: a time that is stored and read back must
/// be the same, or the record would seem to have changed.
pub fn now() -> Timestamp {
    #[expect(clippy::disallowed_methods, reason = "the loop gets its `now` here")]
    let now = Timestamp::now();
    Timestamp::from_microsecond(now.as_microsecond()).unwrap_or(now)
}

#[cfg(test)]
mod tests {
    use k8s_openapi::apimachinery::pkg::apis::meta::v1::MicroTime;

    use super::*;

    #[test]
    fn survives_being_stored() {
        let now = MicroTime(now());
        let read: MicroTime = serde_json::from_str(&serde_json::to_string(&now).unwrap()).unwrap();
        assert_eq!(read, now);
    }
}
