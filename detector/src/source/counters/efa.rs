//! PURE. Errors that Elastic Fabric Adapters count.

use std::collections::BTreeMap;
use std::time::Duration;

use super::files::Files;
use super::rising::{New, Rising};
use super::text::number;
use super::{Counter, told};
use crate::reason::Reason;
use crate::signal::{LogFault, What};

const VENDOR: &str = "sys/class/infiniband/*/device/vendor";
const DEVICE: &str = "sys/class/infiniband/*/device/device";
const AMAZON: &str = "0x1d0f";
const EFA: &str = "0xefa";

/// Each with how much of it between two readings is told.
const COUNTERS: [(&str, u64); 8] = [
    ("sys/class/infiniband/*/ports/*/hw_counters/rx_drops", 100),
    (
        "sys/class/infiniband/*/ports/*/hw_counters/rdma_write_wr_err",
        100,
    ),
    (
        "sys/class/infiniband/*/ports/*/hw_counters/rdma_read_wr_err",
        100,
    ),
    (
        "sys/class/infiniband/*/ports/*/hw_counters/unresponsive_remote_events",
        100,
    ),
    (
        "sys/class/infiniband/*/ports/*/hw_counters/impaired_remote_conn_events",
        100,
    ),
    (
        "sys/class/infiniband/*/ports/*/hw_counters/retrans_timeout_events",
        100,
    ),
    (
        "sys/class/infiniband/*/ports/*/hw_counters/retrans_pkts",
        1_000,
    ),
    (
        "sys/class/infiniband/*/ports/*/hw_counters/retrans_bytes",
        1_000_000,
    ),
];

#[derive(Default)]
pub(super) struct Efa(Rising<(usize, Vec<String>)>);

impl Counter for Efa {
    fn name(&self) -> &'static str {
        "efa"
    }

    fn wants(&self) -> &'static [&'static str] {
        const WANTS: [&str; 10] = {
            let mut wants = [VENDOR; 10];
            wants[1] = DEVICE;
            let mut index = 0;
            while index < COUNTERS.len() {
                wants[index + 2] = COUNTERS[index].0;
                index += 1;
            }
            wants
        };
        &WANTS
    }

    fn look(&mut self, files: &Files, _at: Duration) -> Vec<What> {
        let is_efa = |device: &String| {
            let of = |pattern| {
                let text = files.all(pattern).files.get([device.clone()].as_slice());
                text.map(|text| text.trim())
            };
            of(VENDOR) == Some(AMAZON) && of(DEVICE).is_some_and(|id| id.starts_with(EFA))
        };
        let mut now: BTreeMap<(usize, Vec<String>), u64> = BTreeMap::new();
        let mut cut = false;
        for (index, (pattern, _)) in COUNTERS.iter().enumerate() {
            let found = files.all(pattern);
            cut |= found.cut;
            for (names, text) in &found.files {
                if let Some(value) = number(text)
                    && names.first().is_some_and(is_efa)
                {
                    now.insert((index, names.clone()), value);
                }
            }
        }
        let risen = self.0.step(now, New::Unknown, cut);
        let told = risen.into_iter().filter_map(|((index, names), rise)| {
            let (pattern, much) = COUNTERS.get(index)?;
            if rise < *much {
                return None;
            }
            let (device, port) = (names.first()?, names.get(1)?);
            let counter = pattern.rsplit('/').next()?;
            let message = format!("{device} port {port} counted {rise} {counter}");
            let fault = LogFault::new(Reason::EfaErrorMetric, device.clone(), message);
            Some(told::times(fault, 1))
        });
        told.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::counters::told::summary;

    fn look(efa: &mut Efa, vendor: &str, device: &str, counter: usize, value: u64) -> usize {
        let value = value.to_string();
        let files = Files::of(&[
            (VENDOR, &["rdmap0"], vendor),
            (DEVICE, &["rdmap0"], device),
            (COUNTERS[counter].0, &["rdmap0", "1"], &value),
        ]);
        summary(&efa.look(&files, Duration::ZERO)).len()
    }

    #[test]
    fn each_counter_is_told_by_its_rise_and_not_by_what_it_was() {
        for (counter, (name, much)) in COUNTERS.iter().enumerate() {
            let mut efa = Efa::default();
            let mut at = |value| look(&mut efa, "0x1d0f\n", "0xefa2\n", counter, value);
            assert_eq!(at(1_000_000_000), 0, "{name}: of a node that is old");
            assert_eq!(at(1_000_000_000 + much - 1), 0, "{name}");
            assert_eq!(at(1_000_000_000 + 2 * much), 1, "{name}");
            assert_eq!(at(5), 0, "{name}: begun anew");
        }
    }

    #[test]
    fn other_cards_do_not_count() {
        for (vendor, device) in [("0x15b3", "0xefa2"), ("0x1d0f", "0xec20"), ("", "")] {
            let mut efa = Efa::default();
            look(&mut efa, vendor, device, 0, 0);
            assert_eq!(look(&mut efa, vendor, device, 0, 1_000_000_000), 0);
        }
    }
}
