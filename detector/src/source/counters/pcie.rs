//! PURE. PCIe errors as each device counts them, where no tracepoint tells of them.

use std::time::Duration;

use super::files::Files;
use super::rising::{Baseline, New, Rising};
use super::text::number;
use super::{Counter, told};
use crate::reason::Reason;
use crate::signal::{LogFault, What};
use crate::source::bpf::Hook;

const KINDS: [(&str, Reason, &str, &str); 3] = [
    (
        "sys/bus/pci/devices/*/aer_dev_correctable",
        Reason::PcieCorrectedError,
        "TOTAL_ERR_COR",
        "corrected",
    ),
    (
        "sys/bus/pci/devices/*/aer_dev_nonfatal",
        Reason::PcieNonFatalError,
        "TOTAL_ERR_NONFATAL",
        "not fatal",
    ),
    (
        "sys/bus/pci/devices/*/aer_dev_fatal",
        Reason::PcieFatalError,
        "TOTAL_ERR_FATAL",
        "fatal",
    ),
];

#[derive(Default)]
pub(super) struct Pcie([Rising<String>; 3]);

impl Counter for Pcie {
    fn name(&self) -> &'static str {
        "pcie-errors"
    }

    fn wants(&self) -> &'static [&'static str] {
        &[KINDS[0].0, KINDS[1].0, KINDS[2].0]
    }

    fn spared_by(&self) -> &'static [Hook] {
        &[Hook::PcieError]
    }

    fn baselines(&mut self) -> Vec<&mut dyn Baseline> {
        self.0
            .iter_mut()
            .map(|kind| kind as &mut dyn Baseline)
            .collect()
    }

    fn look(&mut self, files: &Files, _at: Duration) -> Vec<What> {
        let kinds = KINDS.iter().zip(&mut self.0);
        let found = kinds.flat_map(|(&(pattern, reason, total, severity), before)| {
            let found = files.all(pattern);
            let values = found
                .files
                .iter()
                .filter_map(|(names, text)| Some((address(names.first()?)?, count(text, total)?)));
            let risen = before.step(values, New::Zero, found.cut).into_iter();
            risen.map(move |(device, rise)| {
                let message = format!("{rise} PCIe errors of {device}: {severity}");
                told::times(LogFault::on_device(reason, device, message), rise)
            })
        });
        found.collect()
    }
}

/// `0000:00:1c.0`
fn address(name: &str) -> Option<String> {
    let fits = name.len() <= 20
        && name
            .bytes()
            .all(|b| b.is_ascii_hexdigit() || matches!(b, b':' | b'.'));
    fits.then(|| name.to_ascii_lowercase())
}

/// `RxErr 0`, and so on for each kind of error, then the sum.
fn count(text: &str, total: &str) -> Option<u64> {
    let mut lines = text.lines();
    number(lines.find_map(|line| line.strip_prefix(total)?.strip_prefix(' '))?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::counters::told::summary;

    #[test]
    fn each_severity_of_each_device_is_told_by_its_sum() {
        let mut counter = Pcie::default();
        let mut look = |corrected: u32, fatal: u32| {
            let texts = [
                format!("RxErr {corrected}\nBadTLP 0\nTOTAL_ERR_COR {corrected}\n"),
                format!("Undefined 0\nTOTAL_ERR_FATAL {fatal}\n"),
            ];
            let files = Files::of(&[
                (KINDS[0].0, &["0000:00:1C.0"], &texts[0]),
                (KINDS[2].0, &["0000:00:1c.0"], &texts[1]),
                (KINDS[2].0, &["not/an address"], &texts[1]),
            ]);
            summary(&counter.look(&files, Duration::ZERO))
        };
        let device = || "0000:00:1c.0".to_owned();
        assert_eq!(look(5, 0), []);
        assert_eq!(look(7, 0), [(Reason::PcieCorrectedError, device(), 2)]);
        assert_eq!(look(7, 1), [(Reason::PcieFatalError, device(), 1)]);
        assert_eq!(look(0, 0), []);
    }

    #[test]
    fn what_has_no_sum_says_nothing() {
        for text in [
            "",
            "RxErr 7",
            "TOTAL_ERR_COR",
            "TOTAL_ERR_COR x",
            "TOTAL_ERR_COR7",
        ] {
            assert_eq!(count(text, "TOTAL_ERR_COR"), None, "{text}");
        }
    }
}
