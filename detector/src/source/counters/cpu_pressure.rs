//! PURE. A host on which somebody always waits for a CPU.

use std::time::Duration;

use super::files::Files;
use super::{Counter, told};
use crate::reason::Reason;
use crate::signal::What;

const PRESSURE: &str = "proc/pressure/cpu";

/// Of five minutes, in hundredths of a percent. A busy node is well below.
const NEARLY_ALWAYS: u64 = 9500;

pub(super) struct CpuPressure;

impl Counter for CpuPressure {
    fn name(&self) -> &'static str {
        "cpu-pressure"
    }

    fn wants(&self) -> &'static [&'static str] {
        &[PRESSURE]
    }

    fn look(&mut self, files: &Files, _at: Duration) -> Vec<What> {
        let Some(share) = files.one(PRESSURE).and_then(share) else {
            return Vec::new();
        };
        let message = format!(
            "in the last five minutes, some process waited for a CPU {}.{:02} % of the time",
            share / 100,
            share % 100
        );
        let fault = told::fault(Reason::CpuStarved, "host", message);
        let starved = (share >= NEARLY_ALWAYS).then(|| told::still(fault));
        starved.into_iter().collect()
    }
}

/// `some avg10=10.31 avg60=22.03 avg300=47.19 total=2117352468`, in hundredths of a percent.
fn share(pressure: &str) -> Option<u64> {
    let line = pressure
        .lines()
        .find_map(|line| line.strip_prefix("some "))?;
    let mut words = line.split_ascii_whitespace();
    let (whole, part) = words
        .find_map(|word| word.strip_prefix("avg300="))?
        .split_once('.')?;
    let (whole, part): (u64, u64) = (whole.parse().ok()?, part.parse().ok()?);
    (whole <= 100 && part <= 99).then_some(whole * 100 + part)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_a_host_that_is_never_free_is_starved() {
        for (text, told) in [
            (
                "some avg10=99.00 avg60=99.00 avg300=95.00 total=1\nfull avg10=0.00",
                true,
            ),
            ("some avg10=99.00 avg60=99.00 avg300=94.99 total=1\n", false),
            ("full avg10=99.00 avg60=99.00 avg300=99.00 total=1\n", false),
            ("some avg300=99\n", false),
            ("some avg300=99999999999999999999.00\n", false),
            ("", false),
        ] {
            let files = Files::of(&[(PRESSURE, &[], text)]);
            let found = CpuPressure.look(&files, Duration::ZERO);
            assert_eq!(!found.is_empty(), told, "{text}");
        }
    }
}
