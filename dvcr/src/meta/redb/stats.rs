//! Counters of one [`RedbMeta`](super::RedbMeta), for metrics.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
use std::time::Duration;

/// Upper bounds of the buckets of [`MetaStats::commit_buckets`], in microseconds; one more bucket takes what is longer.
///
/// From a fast NVMe device (0.2 ms for two fsyncs) to a disk that other work keeps busy.
pub const COMMIT_BUCKET_MICROS: [u64; 12] = [
    250, 500, 1_000, 2_500, 5_000, 10_000, 25_000, 50_000, 100_000, 250_000, 1_000_000, 5_000_000,
];

/// What the writer did since the store was opened. Each figure is read alone; together they are not a snapshot.
#[derive(Debug, Default)]
pub struct MetaStats {
    pub(super) batches: AtomicU64,
    pub(super) transactions: AtomicU64,
    pub(super) conflicts: AtomicU64,
    pub(super) failures: AtomicU64,
    pub(super) reopens: AtomicU64,
    pub(super) walks: AtomicU64,
    pub(super) queued: AtomicU64,
    commit_micros_sum: AtomicU64,
    commit_micros_max: AtomicU64,
    commit_buckets: [AtomicU64; COMMIT_BUCKET_MICROS.len() + 1],
}

impl MetaStats {
    /// Durable commits of the database; each answered one or more transactions.
    pub fn batches(&self) -> u64 {
        self.batches.load(Relaxed)
    }

    /// Transactions that ended applied.
    pub fn transactions(&self) -> u64 {
        self.transactions.load(Relaxed)
    }

    /// Transactions that ended as a conflict.
    pub fn conflicts(&self) -> u64 {
        self.conflicts.load(Relaxed)
    }

    /// Transactions that ended with an error.
    pub fn failures(&self) -> u64 {
        self.failures.load(Relaxed)
    }

    /// Times that the database was reopened after a failure.
    pub fn reopens(&self) -> u64 {
        self.reopens.load(Relaxed)
    }

    /// Times that opening had to walk the whole file. Stays 0: every commit saves the allocator state.
    pub fn walks(&self) -> u64 {
        self.walks.load(Relaxed)
    }

    /// Transactions that wait for the writer now.
    pub fn queued(&self) -> u64 {
        self.queued.load(Relaxed)
    }

    /// Total time spent in durable commits, mostly fsync.
    pub fn commit_time(&self) -> Duration {
        Duration::from_micros(self.commit_micros_sum.load(Relaxed))
    }

    /// The longest durable commit.
    pub fn commit_time_max(&self) -> Duration {
        Duration::from_micros(self.commit_micros_max.load(Relaxed))
    }

    /// Durable commits by duration: one count for each of [`COMMIT_BUCKET_MICROS`] (at most that long, and longer than
    /// the bound before it), then those longer than all of them.
    pub fn commit_buckets(&self) -> [u64; COMMIT_BUCKET_MICROS.len() + 1] {
        std::array::from_fn(|at| self.commit_buckets[at].load(Relaxed))
    }

    pub(super) fn commit_took(&self, time: Duration) {
        let micros = u64::try_from(time.as_micros()).unwrap_or(u64::MAX);
        let bucket = COMMIT_BUCKET_MICROS.partition_point(|bound| *bound < micros);
        self.batches.fetch_add(1, Relaxed);
        self.commit_micros_sum.fetch_add(micros, Relaxed);
        self.commit_micros_max.fetch_max(micros, Relaxed);
        self.commit_buckets[bucket].fetch_add(1, Relaxed);
    }
}
