//! PURE. Durations in the API: `90s`, `5m`, `1h30m`.

use std::borrow::Cow;
use std::fmt;
use std::str::FromStr;
use std::time::Duration;

use schemars::{JsonSchema, Schema, SchemaGenerator, json_schema};
use serde::{Deserialize, Serialize};

const PATTERN: &str = "^([0-9]+(s|m|h))+$";
/// What the pattern lets through but nobody means is cut to this.
const LONGEST: Duration = Duration::from_secs(365 * 24 * 3600);

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize, Serialize)]
#[serde(try_from = "String", into = "String")]
pub struct Wait(pub Duration);

impl Wait {
    pub const fn seconds(seconds: u64) -> Self {
        Self(Duration::from_secs(seconds))
    }

    pub const fn minutes(minutes: u64) -> Self {
        Self::seconds(minutes * 60)
    }
}

impl FromStr for Wait {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let malformed = || format!("`{text}` is no duration: write it like 90s, 5m or 1h30m");
        let mut seconds: u64 = 0;
        let mut rest = text;
        while !rest.is_empty() {
            let digits = rest.bytes().take_while(u8::is_ascii_digit).count();
            let (number, after) = rest.split_at(digits);
            let unit = match after.bytes().next() {
                Some(b's') => 1,
                Some(b'm') => 60,
                Some(b'h') => 3600,
                _ => return Err(malformed()),
            };
            if number.is_empty() {
                return Err(malformed());
            }
            // Only overflow is left as an error.
            let number = number.parse::<u64>().unwrap_or(u64::MAX);
            seconds = seconds.saturating_add(number.saturating_mul(unit));
            rest = &after[1..];
        }
        if text.is_empty() {
            return Err(malformed());
        }
        Ok(Self(Duration::from_secs(seconds).min(LONGEST)))
    }
}

impl TryFrom<String> for Wait {
    type Error = String;

    fn try_from(text: String) -> Result<Self, Self::Error> {
        text.parse()
    }
}

impl From<Wait> for String {
    fn from(wait: Wait) -> Self {
        wait.to_string()
    }
}

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let total = self.0.as_secs();
        let parts = [
            (total / 3600, "h"),
            (total / 60 % 60, "m"),
            (total % 60, "s"),
        ];
        let mut written = false;
        for (number, unit) in parts {
            if number > 0 {
                write!(f, "{number}{unit}")?;
                written = true;
            }
        }
        if written { Ok(()) } else { f.write_str("0s") }
    }
}

impl JsonSchema for Wait {
    fn schema_name() -> Cow<'static, str> {
        "Wait".into()
    }

    fn inline_schema() -> bool {
        true
    }

    fn json_schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": PATTERN, "maxLength": 32})
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn reads_and_writes_what_people_write() {
        for (text, seconds) in [("90s", 90), ("5m", 300), ("1h30m", 5400), ("0s", 0)] {
            assert_eq!(text.parse(), Ok(Wait::seconds(seconds)), "{text}");
        }
        assert_eq!(Wait::seconds(90).to_string(), "1m30s");
    }

    #[test]
    fn anything_else_is_an_error_that_shows_how_to_write_it() {
        for text in ["", "5", "m", "5d", "-5m", "5 m", "1.5h", "5m5"] {
            let error = text.parse::<Wait>().unwrap_err();
            assert!(error.contains("90s, 5m or 1h30m"), "{text}: {error}");
        }
    }

    proptest! {
        #[test]
        fn whatever_the_schema_admits_can_be_read(text in "([0-9]{1,30}[smh]){1,3}") {
            prop_assert!(text.parse::<Wait>().is_ok());
        }

        #[test]
        fn survives_a_round_trip(seconds in 0..31_536_000u64) {
            let wait = Wait::seconds(seconds);
            prop_assert_eq!(wait.to_string().parse(), Ok(wait));
        }
    }
}
