//! PURE. Disks that have requests and complete none: the log says so late, or never.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use super::files::Files;
use super::text::numbers;
use super::{Counter, told};
use crate::reason::Reason;
use crate::signal::{LogFault, What, device_name};

const IN_FLIGHT: &str = "sys/block/*/inflight";
const STAT: &str = "sys/block/*/stat";
/// What a disk is stacked upon: other disks, or partitions of them.
const BELOW: &str = "sys/block/*/slaves/*/dev";

pub(super) struct StuckDisks {
    /// For how long a disk must not have moved.
    patience: Duration,
    disks: BTreeMap<String, Disk>,
    told: BTreeSet<String>,
}

struct Disk {
    completed: u64,
    /// Since when it has been so, with requests in flight at each reading.
    since: Duration,
    readings: u32,
}

/// A thread that was held up has not seen what happened in between.
const LEAST_READINGS: u32 = 3;

impl StuckDisks {
    pub(super) fn new(patience: Duration) -> Self {
        Self {
            patience,
            disks: BTreeMap::new(),
            told: BTreeSet::new(),
        }
    }
}

impl Counter for StuckDisks {
    fn name(&self) -> &'static str {
        "stuck-disks"
    }

    fn wants(&self) -> &'static [&'static str] {
        &[IN_FLIGHT, STAT, BELOW]
    }

    fn look(&mut self, files: &Files, at: Duration) -> Vec<What> {
        let (in_flight, stat) = (files.all(IN_FLIGHT), files.all(STAT));
        let mut stuck = BTreeMap::new();
        let mut disks = BTreeMap::new();
        for (names, text) in &in_flight.files {
            let (Some(name), Some(requests)) = (names.first(), requests(text)) else {
                continue;
            };
            let completed = stat.files.get(names).and_then(|text| completed(text));
            let (Some(name), Some(completed)) = (device_name(name), completed) else {
                continue;
            };
            if requests == 0 {
                continue;
            }
            let (since, before) = match self.disks.get(&name) {
                Some(before) if before.completed == completed => (before.since, before.readings),
                Some(_) | None => (at, 0),
            };
            let readings = before.saturating_add(1);
            if readings >= LEAST_READINGS && since + self.patience <= at {
                stuck.insert(name.clone(), (requests, since));
            }
            let disk = Disk {
                completed,
                since,
                readings,
            };
            disks.insert(name, disk);
        }
        self.disks = disks;
        let named: BTreeMap<_, _> = stuck
            .iter()
            .filter(|(name, _)| !lies_on(files, name, &stuck))
            .collect();
        let over = self.told.iter().filter(|name| !stuck.contains_key(*name));
        let over: Vec<_> = over
            // Not known to be over where it could not be read.
            .filter(|_| !in_flight.cut && !stat.cut)
            .cloned()
            .collect();
        let mut found = Vec::new();
        for name in over {
            self.told.remove(&name);
            let message = format!("{name} completes its requests again");
            found.push(told::over(LogFault::on_device(
                Reason::BlockIoStuck,
                name,
                message,
            )));
        }
        for (name, (requests, since)) in named {
            self.told.insert(name.clone());
            let seconds = at.saturating_sub(*since).as_secs();
            let message = format!(
                "{name} has {requests} requests in flight and has completed none for {seconds} s"
            );
            found.push(told::still(LogFault::on_device(
                Reason::BlockIoStuck,
                name.clone(),
                message,
            )));
        }
        found
    }
}

/// Whether something below it is stuck as well: that is the one to look at.
fn lies_on<T>(files: &Files, name: &str, stuck: &BTreeMap<String, T>) -> bool {
    let below = files.all(BELOW).files.keys();
    let below = below.filter_map(|names| match names.as_slice() {
        [upper, lower] if upper == name => Some(lower),
        _ => None,
    });
    below
        .into_iter()
        .any(|lower| stuck.keys().any(|disk| is_on_disk(lower, disk)))
}

/// `sda1` and `nvme0n1p2` are partitions of `sda` and `nvme0n1`.
fn is_on_disk(name: &str, disk: &str) -> bool {
    name.strip_prefix(disk).is_some_and(|rest| {
        let number = rest.strip_prefix('p').unwrap_or(rest);
        rest.is_empty() || (!number.is_empty() && number.bytes().all(|b| b.is_ascii_digit()))
    })
}

/// Reads and writes that the device has: `       1        0`.
fn requests(text: &str) -> Option<u64> {
    match numbers(text).as_slice() {
        [reads, writes] => Some(reads.saturating_add(*writes)),
        _ => None,
    }
}

/// Reads, writes, and where the kernel counts them discards and flushes.
fn completed(text: &str) -> Option<u64> {
    let values = numbers(text);
    if values.len() < 11 {
        return None;
    }
    let kinds = [0, 4, 11, 15].iter().filter_map(|&index| values.get(index));
    Some(kinds.fold(0u64, |sum, value| sum.wrapping_add(*value)))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::signal::Counted;

    const PATIENCE: Duration = Duration::from_secs(60);

    fn stat(reads: u64, writes: u64, flushes: u64) -> String {
        format!("{reads} 0 8 1 {writes} 0 8 1 1 5 6 0 0 0 0 {flushes} 0\n")
    }

    fn at(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    fn told(found: &[What]) -> Vec<(&str, bool)> {
        found
            .iter()
            .map(|what| match what {
                What::Counted { fault, counted } => {
                    (fault.entity.as_str(), *counted == Counted::Still)
                }
                other => panic!("{other:?}"),
            })
            .collect()
    }

    fn one(
        counter: &mut StuckDisks,
        second: u64,
        requests: &str,
        stat: &str,
    ) -> Vec<(String, bool)> {
        let files = Files::of(&[(IN_FLIGHT, &["sda"], requests), (STAT, &["sda"], stat)]);
        let found = counter.look(&files, at(second));
        let told = told(&found).into_iter();
        told.map(|(name, so)| (name.to_owned(), so)).collect()
    }

    #[test]
    fn a_disk_that_completes_nothing_is_told_until_it_moves() {
        let mut counter = StuckDisks::new(PATIENCE);
        let still = stat(5, 5, 1);
        assert_eq!(one(&mut counter, 0, "1 0", &still), []);
        assert_eq!(one(&mut counter, 30, "1 2", &still), []);
        for second in [60, 90] {
            let stuck = ("sda".to_owned(), true);
            assert_eq!(one(&mut counter, second, "1 2", &still), [stuck]);
        }
        let over = ("sda".to_owned(), false);
        assert_eq!(one(&mut counter, 120, "1 2", &stat(5, 6, 1)), [over]);
        assert_eq!(one(&mut counter, 150, "1 2", &stat(5, 6, 1)), []);
    }

    #[test]
    fn any_completion_and_any_idle_reading_begin_anew() {
        for moved in [stat(6, 5, 1), stat(5, 6, 1), stat(5, 5, 2)] {
            let mut counter = StuckDisks::new(PATIENCE);
            one(&mut counter, 0, "1 0", &stat(5, 5, 1));
            one(&mut counter, 30, "1 0", &moved);
            assert_eq!(one(&mut counter, 60, "1 0", &moved), []);
            assert_eq!(one(&mut counter, 90, "1 0", &moved).len(), 1);
        }
        let mut counter = StuckDisks::new(PATIENCE);
        let still = stat(5, 5, 1);
        one(&mut counter, 0, "1 0", &still);
        one(&mut counter, 30, "0 0", &still);
        assert_eq!(one(&mut counter, 60, "1 0", &still), []);
    }

    #[test]
    fn a_disk_that_has_gone_is_stuck_no_more_and_one_that_could_not_be_read_is() {
        let mut counter = StuckDisks::new(PATIENCE);
        let still = stat(5, 5, 1);
        one(&mut counter, 0, "1 0", &still);
        // Two readings are too few, however far apart.
        assert_eq!(one(&mut counter, 80, "1 0", &still), []);
        assert_eq!(one(&mut counter, 85, "1 0", &still).len(), 1);
        let unread = Files::of(&[(IN_FLIGHT, &["sdb"], "0 0"), (STAT, &["sdb"], "")]).cut();
        assert_eq!(counter.look(&unread, at(90)), []);
        let found = counter.look(&Files::of(&[]), at(120));
        assert_eq!(told(&found), [("sda", false)]);
    }

    #[test]
    fn what_is_stacked_upon_a_stuck_disk_is_not_told_beside_it() {
        let still = stat(5, 5, 1);
        let look = |lower: &str| {
            let mut counter = StuckDisks::new(PATIENCE);
            let files = Files::of(&[
                (IN_FLIGHT, &["dm-0"], "1 0"),
                (STAT, &["dm-0"], &still),
                (IN_FLIGHT, &["nvme0n1"], lower),
                (STAT, &["nvme0n1"], &still),
                (BELOW, &["dm-0", "nvme0n1p2"], "259:2"),
            ]);
            counter.look(&files, at(0));
            counter.look(&files, at(30));
            let found = counter.look(&files, at(60));
            let told: Vec<_> = told(&found)
                .iter()
                .map(|(name, _)| (*name).to_owned())
                .collect();
            told
        };
        assert_eq!(look("1 0"), ["nvme0n1"]);
        // All paths are gone: what waits, waits above.
        assert_eq!(look("0 0"), ["dm-0"]);
        assert!(is_on_disk("sda1", "sda") && !is_on_disk("sdaa1", "sda"));
        assert!(!is_on_disk("nvme0n1p", "nvme0n1"));
    }

    #[test]
    fn what_is_no_statistic_says_nothing() {
        for (requests, stat) in [
            ("1", "1 2 3"),
            ("x y", ""),
            ("1 0", "1 2 3 4 5"),
            ("1 0", "x"),
        ] {
            let mut counter = StuckDisks::new(PATIENCE);
            one(&mut counter, 0, requests, stat);
            one(&mut counter, 30, requests, stat);
            assert_eq!(
                one(&mut counter, 60, requests, stat),
                [],
                "{requests} {stat}"
            );
        }
    }

    proptest! {
        /// However readings come: what is told had not moved, and each end had a beginning.
        #[test]
        fn only_what_has_not_moved_is_told(
            readings in prop::collection::vec((1..40_u64, 0..3_u64, 0..2_u64), 0..60),
        ) {
            let mut counter = StuckDisks::new(PATIENCE);
            let (mut second, mut is_told) = (0, false);
            let mut history: Vec<(u64, u64, u64)> = Vec::new();
            for (pause, requests, completed) in readings {
                second += pause;
                history.push((second, requests, completed));
                let unmoved = history.iter().rev();
                let unmoved = unmoved.take_while(|(_, r, c)| *r > 0 && *c == completed);
                let unmoved: Vec<_> = unmoved.map(|(then, ..)| *then).collect();
                let long = unmoved.last().is_some_and(|first| second - first >= 60);
                let stuck = long && unmoved.len() >= 3;
                let found = one(&mut counter, second, &format!("{requests} 0"), &stat(completed, 0, 0));
                let expected = (stuck || is_told).then(|| ("sda".to_owned(), stuck));
                prop_assert_eq!(found, Vec::from_iter(expected));
                is_told = stuck;
            }
        }
    }
}
