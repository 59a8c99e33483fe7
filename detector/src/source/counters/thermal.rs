//! PURE. CPUs that ran at a lower clock because of heat; the log tells of one in five minutes.

use std::collections::BTreeMap;
use std::time::Duration;

use super::files::Files;
use super::rising::{New, Rising};
use super::text::number;
use super::{Counter, told};
use crate::reason::Reason;
use crate::signal::What;

const CORE: &str = "sys/devices/system/cpu/cpu*/thermal_throttle/core_throttle_count";
const PACKAGE: &str = "sys/devices/system/cpu/cpu*/thermal_throttle/package_throttle_count";

#[derive(Default)]
pub(super) struct Throttled {
    cores: Rising<u64>,
    packages: Rising<u64>,
}

impl Counter for Throttled {
    fn name(&self) -> &'static str {
        "thermal-throttle"
    }

    fn wants(&self) -> &'static [&'static str] {
        &[CORE, PACKAGE]
    }

    fn look(&mut self, files: &Files, _at: Duration) -> Vec<What> {
        let step = |before: &mut Rising<u64>, pattern| {
            let (values, cut) = counts(files, pattern);
            before.step(values, New::Unknown, cut)
        };
        let cores = step(&mut self.cores, CORE).into_iter().map(|(cpu, rise)| {
            let message = format!("CPU {cpu} was too hot and ran at a lower clock {rise} times");
            (format!("cpu {cpu}"), message, rise)
        });
        // Each CPU of it counts the same.
        let packages = step(&mut self.packages, PACKAGE);
        let package = packages.into_iter().max_by_key(|(_, rise)| *rise);
        let package = package.map(|(cpu, rise)| {
            let message = format!(
                "all CPUs beside CPU {cpu} were too hot and ran at a lower clock {rise} times"
            );
            ("package".to_owned(), message, rise)
        });
        let found = cores.chain(package).map(|(entity, message, rise)| {
            told::times(told::fault(Reason::CpuThrottled, &entity, message), rise)
        });
        found.collect()
    }
}

fn counts(files: &Files, pattern: &str) -> (BTreeMap<u64, u64>, bool) {
    let found = files.all(pattern);
    let values = found.files.iter().filter_map(|(names, text)| {
        let cpu = number(names.first()?.strip_prefix("cpu")?)?;
        Some((cpu, number(text)?))
    });
    (values.collect(), found.cut)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::counters::told::summary;

    #[test]
    fn cores_are_told_each_and_a_package_once_as_the_log_does() {
        let mut counter = Throttled::default();
        let mut look = |core: &str, package: &str| {
            let files = Files::of(&[
                (CORE, &["cpu0"], "0\n"),
                (CORE, &["cpu12"], core),
                (CORE, &["cpufreq"], "9\n"),
                (PACKAGE, &["cpu0"], package),
                (PACKAGE, &["cpu12"], package),
            ]);
            summary(&counter.look(&files, Duration::ZERO))
        };
        assert_eq!(look("200", "300"), []);
        let reason = Reason::CpuThrottled;
        assert_eq!(look("219", "300"), [(reason, "cpu 12".to_owned(), 19)]);
        assert_eq!(look("219", "305"), [(reason, "package".to_owned(), 5)]);
        assert_eq!(look("x", ""), []);
    }
}
