//! What a database has done since it was opened, for metrics: counted by whoever writes, the core's thread or the committer's, and
//! read by any.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// Numbers by size: how many were up to each bound, how many above, and their sum. Counting one is two relaxed additions;
/// nothing is locked.
#[derive(Debug)]
pub struct Distribution {
    /// Ascending.
    bounds: &'static [u64],
    /// One more than there are bounds: the last counts what is above all of them.
    counts: Vec<AtomicU64>,
    sum: AtomicU64,
}

impl Distribution {
    /// An empty one with these bounds, which must ascend.
    #[must_use]
    pub fn new(bounds: &'static [u64]) -> Self {
        assert!(bounds.is_sorted(), "bounds ascend");
        Distribution {
            bounds,
            counts: (0..=bounds.len()).map(|_| AtomicU64::new(0)).collect(),
            sum: AtomicU64::new(0),
        }
    }

    /// Counts a number.
    pub fn count(&self, number: u64) {
        let at = self.bounds.partition_point(|bound| *bound < number);
        self.counts[at].fetch_add(1, Ordering::Relaxed);
        self.sum.fetch_add(number, Ordering::Relaxed);
    }

    /// Counts a duration in whole microseconds.
    pub fn count_us(&self, duration: Duration) {
        self.count(u64::try_from(duration.as_micros()).unwrap_or(u64::MAX));
    }

    /// How many were within each bound and above the one before; the last has no bound.
    pub fn buckets(&self) -> impl Iterator<Item = (Option<u64>, u64)> {
        let bounds = self.bounds.iter().copied().map(Some).chain([None]);
        bounds.zip(
            self.counts
                .iter()
                .map(|count| count.load(Ordering::Relaxed)),
        )
    }

    /// The sum of all.
    #[must_use]
    pub fn sum(&self) -> u64 {
        self.sum.load(Ordering::Relaxed)
    }
}

/// Microseconds; a sync takes 100 on good flash and tens of thousands on a busy disk.
const WRITE_BOUNDS_US: &[u64] = &[
    50, 100, 200, 500, 1_000, 2_000, 5_000, 10_000, 20_000, 50_000, 100_000, 500_000, 2_000_000,
];

const BATCH_BOUNDS: &[u64] = &[1, 2, 4, 8, 16, 32, 64, 128, 256, 1024];

/// See the [module](self).
#[derive(Debug)]
pub struct Counters {
    /// Batches committed.
    pub commits: AtomicU64,
    /// Bytes of their keys and values.
    pub commit_bytes: AtomicU64,
    /// Writes that waited for the disk, and syncs without a write.
    pub syncs: AtomicU64,
    /// How many batches shared a write.
    pub batches_per_write: Distribution,
    /// What each write without a sync took, in microseconds.
    pub unsynced_us: Distribution,
    /// What each write with its sync took, and each sync alone.
    pub synced_us: Distribution,
}

impl Default for Counters {
    fn default() -> Self {
        Counters {
            commits: AtomicU64::new(0),
            commit_bytes: AtomicU64::new(0),
            syncs: AtomicU64::new(0),
            batches_per_write: Distribution::new(BATCH_BOUNDS),
            unsynced_us: Distribution::new(WRITE_BOUNDS_US),
            synced_us: Distribution::new(WRITE_BOUNDS_US),
        }
    }
}

impl Counters {
    pub(super) fn wrote(&self, batches: usize, bytes: usize, sync: bool, took: Duration) {
        self.commits.fetch_add(batches as u64, Ordering::Relaxed);
        self.commit_bytes.fetch_add(bytes as u64, Ordering::Relaxed);
        self.batches_per_write.count(batches as u64);
        if sync {
            self.synced(took);
        } else {
            self.unsynced_us.count_us(took);
        }
    }

    pub(super) fn synced(&self, took: Duration) {
        self.syncs.fetch_add(1, Ordering::Relaxed);
        self.synced_us.count_us(took);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_counted_up_to_and_including_their_bound() {
        let sizes = Distribution::new(&[1, 10]);
        for number in [0, 1, 2, 10, 11, 5_000] {
            sizes.count(number);
        }
        let buckets: Vec<_> = sizes.buckets().collect();
        assert_eq!(buckets, [(Some(1), 2), (Some(10), 2), (None, 2)]);
        assert_eq!(sizes.sum(), 5_024);
    }
}
