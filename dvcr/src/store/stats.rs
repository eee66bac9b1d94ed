//! What the store counts, for metrics. All monotone unless said otherwise; zero at start.

use std::sync::atomic::{AtomicU64, AtomicUsize};

use crate::durations::Durations;

/// Counters of one store.
#[derive(Debug, Default)]
pub struct StoreStats {
    /// Bytes of blobs taken in.
    pub ingested_bytes: AtomicU64,
    /// Bytes of those that were chunks that the store had already.
    pub deduplicated_bytes: AtomicU64,
    /// Number of those chunks.
    pub deduplicated_chunks: AtomicU64,
    /// Bytes of those that were zero runs.
    pub zero_bytes: AtomicU64,
    /// Bytes appended to packs, headers included.
    pub stored_bytes: AtomicU64,
    /// Chunks stored with less compression than usual, or none, because the workers were behind.
    pub hurried_chunks: AtomicU64,
    /// Packs taken out of use after a failed write.
    pub poisoned_packs: AtomicU64,
    /// How long making packs durable took.
    pub fsyncs: Durations,
    /// Blocks that wait for or are with a compression worker now.
    pub compress_queue: AtomicUsize,
    /// Chunks found decoded in the cache.
    pub cache_hits: AtomicU64,
    /// Chunks decoded anew.
    pub cache_misses: AtomicU64,
    /// Chunks that could not be read or did not verify.
    pub bad_chunks: AtomicU64,
}
