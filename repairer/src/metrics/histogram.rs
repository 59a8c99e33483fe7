//! PURE. How often something took how long.

use std::time::Duration;

/// From a decision to a repair that took days, in milliseconds.
const BOUNDS: [u64; 14] = [
    1, 5, 10, 50, 100, 1_000, 10_000, 60_000, 300_000, 900_000, 1_800_000, 3_600_000, 21_600_000,
    86_400_000,
];

#[derive(Debug, Default)]
pub(super) struct Histogram {
    /// Each with those of the smaller bounds.
    counts: [u64; BOUNDS.len()],
    pub(super) count: u64,
    pub(super) sum: Duration,
}

impl Histogram {
    pub(super) fn observe(&mut self, value: Duration) {
        for (bound, count) in BOUNDS.iter().zip(&mut self.counts) {
            *count += u64::from(value <= Duration::from_millis(*bound));
        }
        self.count += 1;
        self.sum = self.sum.saturating_add(value);
    }

    pub(super) fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> {
        let bounds = BOUNDS.iter().map(|bound| Duration::from_millis(*bound));
        bounds.zip(self.counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_counts_what_is_not_above_its_bound() {
        let mut histogram = Histogram::default();
        for milliseconds in [1, 3, 100_000_000] {
            histogram.observe(Duration::from_millis(milliseconds));
        }
        let counts: Vec<_> = histogram.buckets().map(|(_, count)| count).collect();
        assert_eq!(counts[..3], [1, 2, 2]);
        assert_eq!((counts[13], histogram.count), (2, 3));
    }
}
