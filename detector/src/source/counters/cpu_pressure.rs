//! PURE. A host on which somebody always waits for a CPU.

use std::time::Duration;

use super::files::Files;
use super::{Counter, told};
use crate::reason::Reason;
use crate::signal::What;

const PRESSURE: &str = "proc/pressure/cpu";
const LOAD: &str = "proc/loadavg";
const STAT: &str = "proc/stat";

/// Of five minutes, in hundredths of a percent.
const NEARLY_ALWAYS: u64 = 9500;
/// Threads for each CPU in the same time: a node that only has enough to do has fewer.
const MANY: u64 = 5;

pub(super) struct CpuPressure;

impl Counter for CpuPressure {
    fn name(&self) -> &'static str {
        "cpu-pressure"
    }

    fn wants(&self) -> &'static [&'static str] {
        &[PRESSURE, LOAD, STAT]
    }

    fn look(&mut self, files: &Files, _at: Duration) -> Vec<What> {
        let stat = files.one(STAT).unwrap_or_default();
        let share = files.one(PRESSURE).and_then(share);
        let load = files.one(LOAD).and_then(load);
        let (Some(share), Some(load)) = (share, load) else {
            return Vec::new();
        };
        let cpus = cpus(stat);
        let message = format!(
            "in the last five minutes, some process waited for a CPU {}.{:02} % of the time, with a load of {load} on {cpus} CPUs",
            share / 100,
            share % 100
        );
        let fault = told::fault(Reason::CpuStarved, "host", message);
        let many = cpus > 0 && load >= cpus.saturating_mul(MANY);
        let starved = (share >= NEARLY_ALWAYS && many).then(|| told::still(fault));
        starved.into_iter().collect()
    }
}

/// Of five minutes, whole: `9.50 12.05 1.00 3/234 5678`.
fn load(text: &str) -> Option<u64> {
    let word = text.split_ascii_whitespace().nth(1)?;
    word.split_once('.')?.0.parse().ok()
}

fn cpus(stat: &str) -> u64 {
    let lines = stat.lines().map_while(|line| line.strip_prefix("cpu"));
    let named = lines.filter(|line| line.starts_with(|c: char| c.is_ascii_digit()));
    named.map(|_| 1).sum()
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

    const TWO_CPUS: &str = "cpu  1 2 3\ncpu0 1 2 3\ncpu1 1 2 3\nintr 1 2 3\n";

    fn is_told(pressure: &str, load: &str, stat: &str) -> bool {
        let files = Files::of(&[
            (PRESSURE, &[], pressure),
            (LOAD, &[], load),
            (STAT, &[], stat),
        ]);
        !CpuPressure.look(&files, Duration::ZERO).is_empty()
    }

    #[test]
    fn only_a_host_that_is_never_free_and_has_far_too_much_to_do_is_starved() {
        let never_free = "some avg10=99.00 avg60=99.00 avg300=95.00 total=1\nfull avg10=0.00";
        let load = "1.00 10.00 1.00 3/234 5678\n";
        assert!(is_told(never_free, load, TWO_CPUS));
        for pressure in [
            "some avg10=99.00 avg60=99.00 avg300=94.99 total=1\n",
            "full avg10=99.00 avg60=99.00 avg300=99.00 total=1\n",
            "some avg300=99\n",
            "some avg300=99999999999999999999.00\n",
            "",
        ] {
            assert!(!is_told(pressure, load, TWO_CPUS), "{pressure}");
        }
        for load in ["20.00 9.99 9.99 1/1 1", "10.00", "x y z", "1.0 -10.0", ""] {
            assert!(!is_told(never_free, load, TWO_CPUS), "{load}");
        }
        for stat in ["", "cpu  1 2 3\n", "cpu0 1\ncpu1 1\ncpu2 1\n"] {
            assert!(!is_told(never_free, "1.00 10.00 1.00", stat), "{stat}");
        }
    }
}
