//! What the counters were at the last reading, for the agent after this one.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::Counter;

/// Each counter's name is after this, in the positions of all sources.
const PREFIX: &str = "counter ";

#[derive(Default)]
pub(super) struct Left(Mutex<Inner>);

#[derive(Default)]
struct Inner {
    positions: BTreeMap<String, u64>,
    /// They are the agent's before this one, and nothing was compared with them yet.
    resumed: bool,
}

impl Left {
    pub(super) fn positions(&self) -> BTreeMap<String, u64> {
        self.lock().positions.clone()
    }

    /// Until the next reading these stay what is left: an agent that is killed before loses nothing.
    pub(super) fn resume(&self, positions: &BTreeMap<String, u64>) {
        let ours = positions
            .iter()
            .filter(|(name, _)| name.starts_with(PREFIX));
        let ours: BTreeMap<_, _> = ours.map(|(name, value)| (name.clone(), *value)).collect();
        if !ours.is_empty() {
            *self.lock() = Inner {
                positions: ours,
                resumed: true,
            };
        }
    }

    pub(super) fn restore<'a>(&self, counters: impl Iterator<Item = &'a mut Box<dyn Counter>>) {
        let mut inner = self.lock();
        if !std::mem::take(&mut inner.resumed) {
            return;
        }
        for counter in counters {
            let name = counter.name();
            for (index, baseline) in counter.baselines().into_iter().enumerate() {
                baseline.restore(&|key| inner.positions.get(&position(name, index, key)).copied());
            }
        }
    }

    /// Of a counter that is not among them, as one that hangs, what was kept before stays.
    pub(super) fn keep<'a>(&self, counters: impl Iterator<Item = &'a mut Box<dyn Counter>>) {
        let mut inner = self.lock();
        if inner.resumed {
            return;
        }
        for counter in counters {
            let name = counter.name();
            let baselines = counter.baselines();
            if baselines.is_empty() {
                continue;
            }
            let own = format!("{PREFIX}{name} ");
            inner.positions.retain(|key, _| !key.starts_with(&own));
            for (index, baseline) in baselines.into_iter().enumerate() {
                let saved = baseline.save().into_iter();
                let saved = saved.map(|(key, value)| (position(name, index, &key), value));
                inner.positions.extend(saved);
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn position(counter: &str, index: usize, key: &str) -> String {
    format!("{PREFIX}{counter} {index} {key}")
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::super::files::Files;
    use super::super::neighbours::Neighbours;
    use super::super::told::summary;
    use super::*;
    use crate::reason::Reason;

    fn look(counters: &mut [Box<dyn Counter>], full: u64) -> Vec<(Reason, String, u64)> {
        let table = format!("entries  table_fulls\n00000010 {full:08x}\n");
        let files = Files::of(&[("proc/1/net/stat/arp_cache", &[], &table)]);
        summary(&counters[0].look(&files, Duration::ZERO))
    }

    fn agent() -> (Left, Vec<Box<dyn Counter>>) {
        (Left::default(), vec![Box::new(Neighbours::default())])
    }

    #[test]
    fn what_rose_between_two_agents_is_told_by_the_second() {
        let (left, mut counters) = agent();
        assert_eq!(look(&mut counters, 5), []);
        left.keep(counters.iter_mut());
        let saved = left.positions();
        assert_eq!(saved.len(), 1);

        let (left, mut counters) = agent();
        assert_eq!(look(&mut counters, 7), []);
        left.keep(counters.iter_mut());
        left.resume(&saved);
        // Killed now, it would leave what it was left.
        left.keep(counters.iter_mut());
        assert_eq!(left.positions(), saved);
        left.restore(counters.iter_mut());
        let told = (Reason::NeighbourTableFull, "arp_cache".to_owned(), 3);
        assert_eq!(look(&mut counters, 8), [told]);
        left.keep(counters.iter_mut());
        assert_ne!(left.positions(), saved);
        left.restore(counters.iter_mut());
        assert_eq!(look(&mut counters, 8), [], "told twice");
    }

    #[test]
    fn positions_of_logs_are_not_taken_for_counters() {
        let (left, mut counters) = agent();
        look(&mut counters, 5);
        left.keep(counters.iter_mut());
        left.resume(&[("kernelLog".to_owned(), 4711)].into());
        assert_eq!(left.positions().into_values().next(), Some(5));
    }
}
