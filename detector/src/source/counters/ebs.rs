//! Time that EBS volumes and the instance were above what was paid for, as EBS's controllers count it.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::asked::Asked;
use super::device_ioctl::{self, LOG_PAGE};
use super::files::Files;
use super::rising::{New, Rising};
use super::{Counter, told};
use crate::reason::Reason;
use crate::signal::{LogFault, What};

const MODEL: &str = "Amazon Elastic Block Store";
const STATISTICS: u8 = 0xD0;
const MAGIC: u32 = 0x3C23_B510;
/// Microseconds between two readings.
const MUCH: u64 = 5_000_000;

/// Where each stands in the page, and whose limit it is.
const EXCEEDED: [(usize, Reason, &str); 4] = [
    (56, Reason::EbsVolumeIopsExceeded, "the volume's IOPS"),
    (
        64,
        Reason::EbsVolumeThroughputExceeded,
        "the volume's throughput",
    ),
    (72, Reason::EbsInstanceIopsExceeded, "the instance's IOPS"),
    (
        80,
        Reason::EbsInstanceThroughputExceeded,
        "the instance's throughput",
    ),
];

/// By disk and offset in the page.
type Times = BTreeMap<(String, usize), u64>;

pub(super) struct Ebs {
    nvme: PathBuf,
    dev: PathBuf,
    controllers: Option<Asked<Times>>,
    judge: Judge,
}

#[derive(Default)]
struct Judge(Rising<(String, usize)>);

impl Ebs {
    /// `nvme`: `/sys/class/nvme`; `dev`: the host's `/dev`.
    pub(super) fn new(nvme: PathBuf, dev: PathBuf) -> Self {
        Self {
            nvme,
            dev,
            controllers: None,
            judge: Judge::default(),
        }
    }
}

impl Counter for Ebs {
    fn name(&self) -> &'static str {
        "ebs-limits"
    }

    fn wants(&self) -> &'static [&'static str] {
        &["sys/class/nvme/nvme*/model"]
    }

    fn waits_since(&self) -> Option<Duration> {
        Asked::since(self.controllers.as_ref())
    }

    fn look(&mut self, files: &Files, _at: Duration) -> Vec<What> {
        if !files.any() {
            return Vec::new();
        }
        let controllers = Asked::started(&mut self.controllers, "ebs", || {
            let (nvme, dev) = (self.nvme.clone(), self.dev.clone());
            move || read(&nvme, &dev)
        });
        let times = controllers.and_then(Asked::take);
        times.map_or_else(Vec::new, |times| self.judge.look(times))
    }
}

impl Judge {
    fn look(&mut self, times: Times) -> Vec<What> {
        let risen = self.0.step(times, New::Unknown, false);
        let told = risen.into_iter().filter_map(|((disk, offset), rise)| {
            let (_, reason, limit) = EXCEEDED.iter().find(|(known, ..)| *known == offset)?;
            let seconds = Duration::from_micros(rise).as_secs();
            let message =
                format!("{disk} was above {limit} for {seconds} s since the last reading");
            let fault = LogFault::on_device(*reason, disk, message);
            (rise >= MUCH).then(|| told::times(fault, 1))
        });
        told.collect()
    }
}

/// The controllers that are EBS's.
pub(super) fn volumes(nvme: &Path) -> impl Iterator<Item = String> {
    let entries = fs::read_dir(nvme).into_iter().flatten().flatten();
    entries.filter_map(|entry| {
        let model = fs::read_to_string(entry.path().join("model")).ok()?;
        let name = entry.file_name().to_string_lossy().into_owned();
        (model.trim() == MODEL).then_some(name)
    })
}

fn read(nvme: &Path, dev: &Path) -> Times {
    let mut found = Times::new();
    for controller in volumes(nvme) {
        let disk = format!("{controller}n1");
        // Detached by now, or not allowed.
        let Ok(device) = File::open(dev.join(&disk)) else {
            continue;
        };
        let page = device_ioctl::log_page(&device, STATISTICS);
        for (offset, value) in page
            .ok()
            .and_then(|page| parse(&page))
            .into_iter()
            .flatten()
        {
            found.insert((disk.clone(), offset), value);
        }
    }
    found
}

/// None: a volume that does not keep them.
fn parse(page: &[u8; LOG_PAGE]) -> Option<[(usize, u64); 4]> {
    let magic = page.first_chunk().map(|magic| u32::from_le_bytes(*magic));
    if magic != Some(MAGIC) {
        return None;
    }
    let value = |offset: usize| {
        let bytes = page[offset..].first_chunk().copied();
        (offset, bytes.map_or(0, u64::from_le_bytes))
    };
    Some(EXCEEDED.map(|(offset, ..)| value(offset)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::counters::told::summary;

    fn page(offset: usize, value: u64) -> [u8; LOG_PAGE] {
        let mut page = [0; LOG_PAGE];
        page[..4].copy_from_slice(&MAGIC.to_le_bytes());
        page[offset..offset + 8].copy_from_slice(&value.to_le_bytes());
        page
    }

    #[test]
    fn each_limit_is_told_by_its_rise_and_not_by_what_it_was() {
        for (offset, reason, _) in EXCEEDED {
            let mut judge = Judge::default();
            let mut at = |value| {
                let times = parse(&page(offset, value)).unwrap();
                let times = times.map(|(offset, value)| (("nvme1n1".to_owned(), offset), value));
                summary(&judge.look(times.into()))
            };
            assert_eq!(at(50_000_001), [], "of a volume that is old");
            assert_eq!(at(50_000_001 + MUCH - 1), []);
            assert_eq!(
                at(50_000_001 + 2 * MUCH),
                [(reason, "nvme1n1".to_owned(), 1)]
            );
            assert_eq!(at(0), [], "begun anew");
        }
    }

    #[test]
    fn a_page_of_somebody_else_is_none() {
        assert_eq!(parse(&[0; LOG_PAGE]), None);
        assert_eq!(parse(&[0xff; LOG_PAGE]), None);
    }
}
