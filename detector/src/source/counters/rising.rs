//! PURE. Counters that only rise, until they begin anew.

use std::collections::BTreeMap;

use serde::Serialize;

/// What one that was not there before has risen from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum New {
    /// It begins with what it counts: a cgroup, a device.
    Zero,
    /// It may have been there all the time: a CPU that was off.
    Unknown,
}

/// The reading before; none at first.
#[derive(Debug)]
pub(super) struct Rising<K>(Option<BTreeMap<K, u64>>);

impl<K> Default for Rising<K> {
    fn default() -> Self {
        Self(None)
    }
}

impl<K: Ord + Clone> Rising<K> {
    /// Those that have risen, and by how much. `cut`: not all could be read, so that one that is
    /// missing may come back, and one that is new may be old.
    pub(super) fn step(
        &mut self,
        now: impl IntoIterator<Item = (K, u64)>,
        new: New,
        cut: bool,
    ) -> BTreeMap<K, u64> {
        let mut now: BTreeMap<K, u64> = now.into_iter().collect();
        let Some(before) = self.0.take() else {
            self.0 = Some(now);
            return BTreeMap::new();
        };
        let risen = now.iter().filter_map(|(key, &value)| {
            let from = match before.get(key) {
                Some(&from) => from,
                None if new == New::Zero && !cut => 0,
                None => return None,
            };
            let rise = rise(from, value);
            (rise > 0).then(|| (key.clone(), rise))
        });
        let risen = risen.collect();
        if cut {
            for (key, value) in before {
                now.entry(key).or_insert(value);
            }
        }
        self.0 = Some(now);
        risen
    }
}

/// What an agent leaves for the next one, so that the time without either is compared, too.
pub(super) trait Baseline {
    /// Each counter's key as text, and what it was at the last reading.
    fn save(&self) -> Vec<(String, u64)>;

    /// The next reading is compared with these. One that lies ahead of what has been read meanwhile is
    /// of a counter that began anew; one that is new has no other than the first reading.
    fn restore(&mut self, saved: &dyn Fn(&str) -> Option<u64>);
}

impl<K: Ord + Serialize> Baseline for Rising<K> {
    fn save(&self) -> Vec<(String, u64)> {
        let all = self.0.iter().flatten();
        all.filter_map(|(key, value)| Some((text(key)?, *value)))
            .collect()
    }

    fn restore(&mut self, saved: &dyn Fn(&str) -> Option<u64>) {
        for (key, value) in self.0.iter_mut().flatten() {
            if let Some(before) = text(key).and_then(|key| saved(&key)) {
                *value = before.min(*value);
            }
        }
    }
}

fn text<K: Serialize>(key: &K) -> Option<String> {
    serde_json::to_string(key).ok()
}

/// A counter of 32 bits that was near its end has gone round; any other that falls begins anew.
fn rise(from: u64, to: u64) -> u64 {
    const ROUND: u64 = 1 << 32;
    const NEAR: u64 = 1 << 28;
    if to >= from {
        to - from
    } else if (ROUND - NEAR..ROUND).contains(&from) && to < NEAR {
        to + ROUND - from
    } else {
        0
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn step(rising: &mut Rising<char>, now: &[(char, u64)]) -> Vec<(char, u64)> {
        let risen = rising.step(now.iter().copied(), New::Zero, false);
        risen.into_iter().collect()
    }

    #[test]
    fn the_first_reading_says_nothing_and_the_next_by_how_much() {
        let mut rising = Rising::default();
        assert_eq!(step(&mut rising, &[('a', 7)]), []);
        assert_eq!(step(&mut rising, &[('a', 9)]), [('a', 2)]);
        assert_eq!(step(&mut rising, &[('a', 9)]), []);
    }

    #[test]
    fn what_falls_begins_anew_and_what_was_near_its_end_has_gone_round() {
        let mut rising = Rising::default();
        step(&mut rising, &[('a', 100), ('b', u64::from(u32::MAX) - 1)]);
        assert_eq!(step(&mut rising, &[('a', 3), ('b', 4)]), [('b', 6)]);
        assert_eq!(step(&mut rising, &[('a', 5)]), [('a', 2)]);
    }

    #[test]
    fn what_is_new_has_risen_from_nothing_or_from_who_knows_where() {
        let mut rising = Rising::default();
        step(&mut rising, &[('a', 1)]);
        assert_eq!(step(&mut rising, &[('b', 5)]), [('b', 5)]);
        let mut rising = Rising::default();
        rising.step([('a', 1)], New::Unknown, false);
        assert!(rising.step([('b', 5)], New::Unknown, false).is_empty());
        let risen = rising.step([('b', 6)], New::Unknown, false);
        assert_eq!(risen, [('b', 1)].into());
    }

    #[test]
    fn what_could_not_be_read_once_is_not_new_when_it_is_back() {
        let mut rising = Rising::default();
        step(&mut rising, &[('a', 50), ('b', 1)]);
        assert!(
            rising
                .step([('b', 1), ('c', 9)], New::Zero, true)
                .is_empty()
        );
        let back = [('a', 51), ('b', 1), ('c', 9)];
        assert_eq!(step(&mut rising, &back), [('a', 1)]);
    }

    #[test]
    fn the_next_agent_compares_with_what_the_one_before_has_read() {
        let mut before = Rising::default();
        step(&mut before, &[('a', 5), ('b', 7), ('c', 9)]);
        let left: BTreeMap<_, _> = before.save().into_iter().collect();
        let mut next = Rising::default();
        // c began anew; d was not there.
        step(&mut next, &[('a', 6), ('b', 7), ('c', 1), ('d', 4)]);
        next.restore(&|key| left.get(key).copied());
        let now = [('a', 8), ('b', 7), ('c', 2), ('d', 5)];
        assert_eq!(step(&mut next, &now), [('a', 3), ('c', 1), ('d', 1)]);
    }

    proptest! {
        /// Whatever is read: no more is told than is counted now, but for one round of 32 bits.
        #[test]
        fn nothing_rises_by_more_than_it_counts(
            readings in prop::collection::vec(
                (prop::collection::btree_map(0..5_u8, any::<u64>(), 0..5), any::<bool>()),
                0..20,
            ),
        ) {
            let mut rising = Rising::default();
            for (index, (now, cut)) in readings.into_iter().enumerate() {
                let risen = rising.step(now.clone(), New::Zero, cut);
                prop_assert!(index > 0 || risen.is_empty());
                for (key, rise) in risen {
                    prop_assert!(rise <= now[&key] || rise < 1 << 29);
                }
            }
        }
    }
}
