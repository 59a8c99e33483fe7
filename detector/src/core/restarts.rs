//! PURE. Services that systemd starts again: the journal tells of each restart at once, systemd itself of
//! their number, now and then. Each counts once.

use std::collections::BTreeMap;
use std::time::Duration;

use crate::finding::{Sighting, Subject};
use crate::host_log;
use crate::reason::Reason;
use crate::signal::{Signal, What};
use crate::state::SavedRestarts;

/// Services whose lines are remembered, and lines of each: between two readings there are few.
const MOST_UNITS: usize = 256;
const MOST_LINES: usize = 64;

#[derive(Default)]
pub(super) struct Restarts {
    read: Option<Reading>,
    /// When the journal told of a restart that no reading has counted yet.
    lines: BTreeMap<String, Vec<Duration>>,
}

struct Reading {
    /// Of the first one: what was before is in no number that was told.
    first: Duration,
    at: Duration,
    units: BTreeMap<String, u64>,
}

impl Restarts {
    /// Whether it is a line of the journal about a restart that has been counted.
    pub(super) fn knows(&mut self, signal: &Signal) -> bool {
        let What::Logged(fault) = &signal.what else {
            return false;
        };
        let (Reason::UnitRepeatedRestart(_) | Reason::NpaRepeatedlyRestart) = fault.reason else {
            return false;
        };
        let at = signal.at;
        let counted = |read: &Reading| read.first < at && at <= read.at;
        if self.read.as_ref().is_some_and(counted) {
            return true;
        }
        if self.lines.contains_key(&fault.entity) || self.lines.len() < MOST_UNITS {
            let lines = self.lines.entry(fault.entity.clone()).or_default();
            if lines.len() == MOST_LINES {
                lines.remove(0);
            }
            lines.push(at);
        }
        false
    }

    /// Of the restarts since the reading before, those of which the journal has not told.
    pub(super) fn read(&mut self, at: Duration, units: BTreeMap<String, u64>) -> Vec<Sighting> {
        let mut told = BTreeMap::new();
        self.lines.retain(|unit, lines| {
            let counted = lines
                .extract_if(.., |line: &mut Duration| *line <= at)
                .count();
            told.insert(unit.clone(), u64::try_from(counted).unwrap_or(u64::MAX));
            !lines.is_empty()
        });
        let first = self.read.as_ref().map_or(at, |before| before.first);
        let read = Reading { first, at, units };
        let Some(before) = self.read.replace(read) else {
            return Vec::new();
        };
        let units = self.read.iter().flat_map(|read| &read.units);
        let risen = units.filter_map(|(unit, &now)| {
            // It begins anew when somebody starts the service.
            let since = before.units.get(unit).filter(|&&before| before <= now);
            let risen = now - since.copied().unwrap_or_default();
            let count = risen.saturating_sub(told.get(unit).copied().unwrap_or_default());
            let reason = host_log::restarted(unit)?;
            (count > 0).then(|| Sighting {
                reason,
                entity: unit.clone(),
                severity: reason.row().severity,
                message: format!("systemd has started {unit} again, {now} times in all"),
                subject: Subject::default(),
                count,
                at,
            })
        });
        risen.collect()
    }

    pub(super) fn save(&self) -> Option<SavedRestarts> {
        let read = self.read.as_ref()?;
        Some(SavedRestarts {
            first: read.first,
            at: read.at,
            units: read.units.clone(),
            lines: self.lines.clone(),
        })
    }

    pub(super) fn restore(&mut self, saved: Option<SavedRestarts>) {
        let Some(saved) = saved else {
            return;
        };
        self.read = Some(Reading {
            first: saved.first,
            at: saved.at,
            units: saved.units,
        });
        self.lines = saved.lines;
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::signal::LogFault;

    const UNIT: &str = "kubelet.service";

    fn at(second: u64) -> Duration {
        Duration::from_secs(second)
    }

    fn line(restarts: &mut Restarts, second: u64) -> u64 {
        let reason = host_log::restarted(UNIT).unwrap();
        let fault = LogFault::new(reason, UNIT.to_owned(), "m".to_owned());
        let signal = Signal {
            at: at(second),
            historic: false,
            what: What::Logged(fault),
        };
        u64::from(!restarts.knows(&signal))
    }

    fn read(restarts: &mut Restarts, second: u64, number: u64) -> u64 {
        let units = [(UNIT.to_owned(), number)].into();
        let told = restarts.read(at(second), units).into_iter();
        told.map(|sighting| sighting.count).sum()
    }

    #[test]
    fn the_first_reading_tells_nothing_and_the_next_by_how_much_it_rose() {
        let mut restarts = Restarts::default();
        assert_eq!(read(&mut restarts, 10, 9), 0);
        assert_eq!(read(&mut restarts, 40, 9), 0);
        assert_eq!(read(&mut restarts, 70, 12), 3);
        assert_eq!(read(&mut restarts, 100, 2), 2, "it was started anew");
        assert_eq!(restarts.read(at(130), BTreeMap::new()), []);
        assert_eq!(read(&mut restarts, 160, 1), 1, "new, or begun again");
    }

    #[test]
    fn a_line_and_the_reading_that_counts_it_tell_of_one_restart_in_either_order() {
        let mut restarts = Restarts::default();
        assert_eq!(line(&mut restarts, 5), 1, "nobody else told");
        assert_eq!(read(&mut restarts, 10, 1), 0);
        assert_eq!(line(&mut restarts, 20), 1);
        assert_eq!(read(&mut restarts, 40, 3), 1, "one of two was told");
        assert_eq!(line(&mut restarts, 30), 0, "it comes late");
        assert_eq!(line(&mut restarts, 9), 1, "in no number that was told");
        // Asked at 70, and told after the line of 80.
        assert_eq!(line(&mut restarts, 80), 1);
        assert_eq!(read(&mut restarts, 70, 3), 0);
        assert_eq!(read(&mut restarts, 100, 4), 0);
    }

    #[test]
    fn the_next_agent_goes_on_from_what_was_read_and_told() {
        let mut before = Restarts::default();
        read(&mut before, 10, 5);
        line(&mut before, 20);
        let mut next = Restarts::default();
        next.restore(before.save());
        assert_eq!(read(&mut next, 300, 9), 3, "while nobody watched");
        assert_eq!(line(&mut next, 200), 0);
        let mut new = Restarts::default();
        new.restore(None);
        assert_eq!(read(&mut new, 300, 9), 0);
    }

    #[test]
    fn what_is_no_restart_is_not_looked_at_and_what_is_remembered_is_bounded() {
        let mut restarts = Restarts::default();
        let fault = LogFault::new(Reason::KubeletFailed, UNIT.to_owned(), String::new());
        let signal = |what| Signal {
            at: at(7),
            historic: false,
            what,
        };
        read(&mut restarts, 1, 1);
        read(&mut restarts, 10, 1);
        assert!(!restarts.knows(&signal(What::Logged(fault))));
        for second in 0..1000 {
            line(&mut restarts, 100 + second);
        }
        assert_eq!(restarts.lines[UNIT].len(), MOST_LINES);
        for unit in 0..1000 {
            let name = format!("u{unit}.service");
            let reason = host_log::restarted("kubelet.service").unwrap();
            let mut one = signal(What::Logged(LogFault::new(reason, name, String::new())));
            one.at = at(5000);
            restarts.knows(&one);
        }
        assert_eq!(restarts.lines.len(), MOST_UNITS);
    }

    proptest! {
        /// Whoever tells of a restart first, and whenever somebody reads: each is told once.
        #[test]
        fn every_restart_is_told_once(
            steps in prop::collection::vec((0..3u8, any::<bool>()), 0..40),
        ) {
            let (mut restarts, mut number, mut second, mut told) = (Restarts::default(), 0, 10, 0);
            read(&mut restarts, 1, 0);
            let mut late = Vec::new();
            for (step, in_time) in steps {
                second += 1;
                match step {
                    0 => told += read(&mut restarts, second, number),
                    _ if in_time => {
                        number += 1;
                        told += line(&mut restarts, second);
                    }
                    _ => {
                        number += 1;
                        late.push(second);
                    }
                }
            }
            told += read(&mut restarts, second + 1, number);
            for second in late {
                told += line(&mut restarts, second);
            }
            prop_assert_eq!(told, number);
        }
    }
}
