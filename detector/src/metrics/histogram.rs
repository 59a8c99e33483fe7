//! PURE. How often something took how long.

use std::time::Duration;

/// From a quiet host to an API server that was away for an hour, in microseconds.
pub(super) const BOUNDS: [u64; 16] = [
    1_000,
    2_500,
    5_000,
    10_000,
    25_000,
    50_000,
    100_000,
    250_000,
    500_000,
    1_000_000,
    2_500_000,
    5_000_000,
    10_000_000,
    60_000_000,
    600_000_000,
    3_600_000_000,
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
            *count += u64::from(value <= Duration::from_micros(*bound));
        }
        self.count += 1;
        self.sum = self.sum.saturating_add(value);
    }

    pub(super) fn buckets(&self) -> impl Iterator<Item = (Duration, u64)> {
        let bounds = BOUNDS.iter().map(|bound| Duration::from_micros(*bound));
        bounds.zip(self.counts)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_counts_what_is_not_above_its_bound() {
        let mut histogram = Histogram::default();
        for milliseconds in [1, 3, 7_200_000] {
            histogram.observe(Duration::from_millis(milliseconds));
        }
        let counts: Vec<_> = histogram.buckets().map(|(_, count)| count).collect();
        assert_eq!(counts[..3], [1, 1, 2]);
        assert_eq!((counts[15], histogram.count), (2, 3));
    }
}
