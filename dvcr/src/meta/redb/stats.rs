//! Counters of one [`RedbMeta`](super::RedbMeta), for metrics.

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use crate::durations::Durations;

/// What the writer did since the store was opened. Each figure is read alone; together they are not a snapshot.
#[derive(Debug, Default)]
pub struct MetaStats {
    pub(super) transactions: AtomicU64,
    pub(super) conflicts: AtomicU64,
    pub(super) failures: AtomicU64,
    pub(super) reopens: AtomicU64,
    pub(super) walks: AtomicU64,
    pub(super) queued: AtomicU64,
    pub(super) commits: Durations,
}

impl MetaStats {
    /// Durable commits of the database; each answered one or more transactions.
    pub fn batches(&self) -> u64 {
        self.commits.count()
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

    /// How long the durable commits took, mostly fsync.
    pub fn commits(&self) -> &Durations {
        &self.commits
    }
}
