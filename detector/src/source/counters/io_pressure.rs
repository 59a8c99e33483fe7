//! PURE. How long all work of the host waited for disks.

use std::time::Duration;

use super::files::Files;
use super::{Counter, told};
use crate::reason::Reason;
use crate::signal::{HOST, What};

const PRESSURE: &str = "proc/pressure/io";
/// Hundredths of five minutes.
const MUCH: f64 = 20.0;

pub(super) struct IoPressure;

impl Counter for IoPressure {
    fn name(&self) -> &'static str {
        "io-pressure"
    }

    fn wants(&self) -> &'static [&'static str] {
        &[PRESSURE]
    }

    fn look(&mut self, files: &Files, _at: Duration) -> Vec<What> {
        let Some(share) = full(files.one(PRESSURE).unwrap_or_default()) else {
            return Vec::new();
        };
        let message = format!("all work waited for disks for {share:.0} % of the last 5 minutes");
        let fault = told::fault(Reason::IoDelays, HOST, message);
        let much = (share >= MUCH).then(|| told::still(fault));
        much.into_iter().collect()
    }
}

/// `full avg10=0.00 avg60=0.00 avg300=0.00 total=0`
fn full(text: &str) -> Option<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix("full "))?;
    let mut fields = line.split_ascii_whitespace();
    let value = fields.find_map(|field| field.strip_prefix("avg300="))?;
    value.parse().ok().filter(|share: &f64| share.is_finite())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::counters::told::summary;

    #[test]
    fn a_fifth_of_five_minutes_is_much() {
        for (share, told) in [
            ("19.99", false),
            ("20.00", true),
            ("NaN", false),
            ("", false),
        ] {
            let text = format!(
                "some avg10=99.0 avg60=99.0 avg300=99.00 total=9\n\
                 full avg10=50.00 avg60=50.00 avg300={share} total=9\n"
            );
            let files = Files::of(&[(PRESSURE, &[], &text)]);
            let found = summary(&IoPressure.look(&files, Duration::ZERO));
            let expected = told.then(|| (Reason::IoDelays, HOST.to_owned(), 0));
            assert_eq!(found, expected.into_iter().collect::<Vec<_>>(), "{share}");
        }
    }
}
