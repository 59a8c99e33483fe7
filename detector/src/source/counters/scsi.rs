//! PURE. SCSI commands that failed or were not answered, where no tracepoint tells of them.

use std::time::Duration;

use super::files::Files;
use super::rising::{Baseline, New, Rising};
use super::text::prefixed_hex;
use super::{Counter, told};
use crate::reason::Reason;
use crate::signal::{LogFault, What, device_name};
use crate::source::bpf::Hook;

const FAILED: &str = "sys/block/*/device/ioerr_cnt";
/// Since 6.1.
const TIMED_OUT: &str = "sys/block/*/device/iotmo_cnt";
const VENDOR: &str = "sys/block/*/device/vendor";
/// What every SATA disk is called. Each command that fails on one goes the way of a timeout, and is told
/// by its port in the log.
const SATA: &str = "ATA";

/// What a disk does not know (as SMART tools ask) is counted as failed, too: a few are no fault.
const MANY: u64 = 10;

#[derive(Default)]
pub(super) struct Scsi {
    failed: Rising<String>,
    timed_out: Rising<String>,
}

impl Counter for Scsi {
    fn name(&self) -> &'static str {
        "scsi-errors"
    }

    fn wants(&self) -> &'static [&'static str] {
        &[FAILED, TIMED_OUT, VENDOR]
    }

    fn spared_by(&self) -> &'static [Hook] {
        &[Hook::ScsiError, Hook::ScsiTimeout]
    }

    fn baselines(&mut self) -> Vec<&mut dyn Baseline> {
        vec![&mut self.failed, &mut self.timed_out]
    }

    fn look(&mut self, files: &Files, _at: Duration) -> Vec<What> {
        let step = |before: &mut Rising<String>, pattern| {
            let found = files.all(pattern);
            let vendors = &files.all(VENDOR).files;
            let sata = |names| {
                vendors
                    .get(names)
                    .is_some_and(|vendor| vendor.trim() == SATA)
            };
            let scsi = found.files.iter().filter(|(names, _)| !sata(*names));
            let values = scsi.filter_map(|(names, text)| {
                Some((device_name(names.first()?)?, prefixed_hex(text)?))
            });
            before.step(values, New::Zero, found.cut)
        };
        let failed = step(&mut self.failed, FAILED);
        let timed_out = step(&mut self.timed_out, TIMED_OUT);
        let devices = failed.keys().chain(timed_out.keys());
        let mut devices: Vec<_> = devices.cloned().collect();
        devices.sort_unstable();
        devices.dedup();
        let found = devices.into_iter().filter_map(|device| {
            let of = |counts: &std::collections::BTreeMap<String, u64>| {
                counts.get(&device).copied().unwrap_or(0)
            };
            let (failed, timed_out) = (of(&failed), of(&timed_out));
            let message = format!(
                "{failed} SCSI commands of {device} failed and {timed_out} were not answered in their time"
            );
            // A command that was given up has failed as well.
            let count = failed.max(timed_out);
            let fault = LogFault::on_device(Reason::ScsiError, device, message);
            (timed_out > 0 || failed >= MANY).then(|| told::times(fault, count))
        });
        found.collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::counters::told::summary;

    #[test]
    fn each_timeout_is_told_and_errors_when_they_are_many() {
        let mut counter = Scsi::default();
        let mut look = |failed: &str, timed_out: &str| {
            let files = Files::of(&[
                (FAILED, &["sda"], failed),
                (TIMED_OUT, &["sda"], timed_out),
                (FAILED, &["bad name"], failed),
                (TIMED_OUT, &["sdb"], timed_out),
                (VENDOR, &["sdb"], "ATA     \n"),
                (VENDOR, &["sda"], "Amazon  \n"),
            ]);
            summary(&counter.look(&files, Duration::ZERO))
        };
        assert_eq!(look("0x3\n", "0x0\n"), []);
        assert_eq!(look("0xc\n", "0x0\n"), []);
        let reason = Reason::ScsiError;
        assert_eq!(look("0x16\n", "0x0\n"), [(reason, "sda".to_owned(), 10)]);
        assert_eq!(look("0x17\n", "0x1\n"), [(reason, "sda".to_owned(), 1)]);
        assert_eq!(look("12", "0xzz"), []);
    }
}
