//! PURE. What must be so in two readings before it is told; then it is told until it is not so.

use std::collections::{BTreeMap, BTreeSet};

pub(super) struct Again<K> {
    before: BTreeSet<K>,
    told: BTreeSet<K>,
}

impl<K> Default for Again<K> {
    fn default() -> Self {
        Self {
            before: BTreeSet::new(),
            told: BTreeSet::new(),
        }
    }
}

impl<K: Ord + Clone> Again<K> {
    /// What is so now and was at the reading before; and what had been told and is over.
    pub(super) fn step<V>(&mut self, now: BTreeMap<K, V>) -> (BTreeMap<K, V>, Vec<K>) {
        let keys: BTreeSet<K> = now.keys().cloned().collect();
        let over = self.told.extract_if(.., |key| !keys.contains(key));
        let over: Vec<K> = over.collect();
        let before = std::mem::replace(&mut self.before, keys);
        let still: BTreeMap<K, V> = now
            .into_iter()
            .filter(|(key, _)| before.contains(key))
            .collect();
        self.told.extend(still.keys().cloned());
        (still, over)
    }
}
