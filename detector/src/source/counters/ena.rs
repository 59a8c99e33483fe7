//! Packets above what AWS allows an instance, as its network driver counts them.

use std::collections::BTreeMap;
use std::ffi::OsStr;
use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::asked::Asked;
use super::device_ioctl;
use super::files::Files;
use super::rising::{New, Rising};
use super::{Counter, told};
use crate::reason::Reason;
use crate::signal::{LogFault, What};

/// Each with how much of it between two readings is told.
const ALLOWANCES: [(&str, Reason, u64); 5] = [
    ("bw_in_allowance_exceeded", Reason::BandwidthInExceeded, 180),
    (
        "bw_out_allowance_exceeded",
        Reason::BandwidthOutExceeded,
        100,
    ),
    ("pps_allowance_exceeded", Reason::PpsExceeded, 320),
    (
        "conntrack_allowance_exceeded",
        Reason::ConntrackExceeded,
        100,
    ),
    (
        "linklocal_allowance_exceeded",
        Reason::LinkLocalExceeded,
        100,
    ),
];

/// By interface and the name of the statistic.
type Statistics = BTreeMap<(String, String), u64>;

pub(super) struct Ena {
    net: PathBuf,
    driver: Option<Asked<Statistics>>,
    judge: Judge,
}

#[derive(Default)]
struct Judge(Rising<(String, String)>);

impl Ena {
    /// `net`: the host's `/sys/class/net`.
    pub(super) fn new(net: PathBuf) -> Self {
        Self {
            net,
            driver: None,
            judge: Judge::default(),
        }
    }
}

impl Counter for Ena {
    fn name(&self) -> &'static str {
        "ena-allowances"
    }

    fn wants(&self) -> &'static [&'static str] {
        &["sys/bus/pci/drivers/ena/"]
    }

    fn waits_since(&self) -> Option<Duration> {
        Asked::since(self.driver.as_ref())
    }

    fn look(&mut self, files: &Files, _at: Duration) -> Vec<What> {
        if !files.any() {
            return Vec::new();
        }
        let driver = Asked::started(&mut self.driver, "ena", || {
            let net = self.net.clone();
            move || read(&net)
        });
        let statistics = driver.and_then(Asked::take);
        statistics.map_or_else(Vec::new, |statistics| self.judge.look(statistics))
    }
}

impl Judge {
    fn look(&mut self, statistics: Statistics) -> Vec<What> {
        let risen = self.0.step(statistics, New::Unknown, false);
        let told = risen.into_iter().filter_map(|((interface, name), rise)| {
            let (_, reason, much) = ALLOWANCES.iter().find(|(known, ..)| *known == name)?;
            let message = format!("{interface}: {rise} packets were above the allowance ({name})");
            let fault = LogFault::on_interface(*reason, interface, message);
            (rise >= *much).then(|| told::times(fault, 1))
        });
        told.collect()
    }
}

/// Other drivers are not asked: each answer takes the lock that changes of interfaces need.
fn read(net: &Path) -> Statistics {
    let mut found = Statistics::new();
    let Ok(entries) = fs::read_dir(net) else {
        return found;
    };
    for entry in entries.flatten() {
        let driver = fs::read_link(entry.path().join("device/driver"));
        if !driver.is_ok_and(|driver| driver.file_name() == Some(OsStr::new("ena"))) {
            continue;
        }
        let name = entry.file_name().to_string_lossy().into_owned();
        // It may be gone by now.
        for (statistic, value) in device_ioctl::statistics(&name).unwrap_or_default() {
            if ALLOWANCES.iter().any(|(known, ..)| *known == statistic) {
                found.insert((name.clone(), statistic), value);
            }
        }
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::source::counters::told::summary;

    fn one(name: &str, value: u64) -> Statistics {
        [(("eth0".to_owned(), name.to_owned()), value)].into()
    }

    #[test]
    fn each_allowance_is_told_by_its_rise_and_not_by_what_it_was() {
        for (name, reason, much) in ALLOWANCES {
            let mut judge = Judge::default();
            let mut at = |value| summary(&judge.look(one(name, value)));
            assert_eq!(at(11_072), [], "{name}: of a node that is old");
            assert_eq!(at(11_072 + much - 1), [], "{name}");
            let told = [(reason, "eth0".to_owned(), 1)];
            assert_eq!(at(11_072 + 2 * much), told, "{name}");
            assert_eq!(at(0), [], "{name}: the driver was loaded again");
            assert_eq!(at(much), told, "{name}");
        }
    }

    #[test]
    fn other_drivers_are_not_asked() {
        let net = tempfile::tempdir().unwrap();
        for driver in ["ena", "virtio_net"] {
            let device = net.path().join(format!("{driver}0/device"));
            fs::create_dir_all(&device).unwrap();
            let link = format!("../../bus/pci/drivers/{driver}");
            std::os::unix::fs::symlink(link, device.join("driver")).unwrap();
        }
        // No interface of that name: an answer would be an error, and is no statistic.
        assert_eq!(read(net.path()), Statistics::new());
        assert_eq!(read(Path::new("/nowhere")), Statistics::new());
    }
}
