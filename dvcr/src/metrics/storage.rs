//! Figures of the chunk store and its metadata, read from their own counters when somebody scrapes.

use std::{
    fmt,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
};

use prometheus_client::{
    collector::Collector,
    encoding::{DescriptorEncoder, EncodeMetric as _, NoLabelSet},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Unit,
};

use self::Kind::{ByteCounter, ByteGauge, Counter, Gauge, SecondGauge};
use crate::{
    checkpoint::CheckpointStats,
    durations::Durations,
    gc::{GcStats, scrub::ScrubStats},
    meta::redb::MetaStats,
    registry::Registry,
    store::Store,
};

/// Sizes that are too dear to count at each scrape; whoever runs the server refreshes them.
#[derive(Debug, Default)]
pub struct Sizes {
    /// Number of blobs.
    pub blobs: AtomicU64,
    /// Sum of the lengths of all blobs, each counted once.
    pub logical_bytes: AtomicU64,
    /// Bytes that packs take.
    pub stored_bytes: AtomicU64,
    /// How long the oldest review that is due waits, seconds; 0 if nothing is due.
    pub oldest_review_seconds: AtomicU64,
}

/// Reads the counters of the storage.
pub struct StorageCollector {
    /// The chunk store.
    pub store: Arc<Store>,
    /// The metadata's writer.
    pub meta: Arc<MetaStats>,
    /// What garbage collection did.
    pub gc: Arc<GcStats>,
    /// What scrubs did and found.
    pub scrub: Arc<ScrubStats>,
    /// The checkpoints that were taken.
    pub checkpoints: Arc<CheckpointStats>,
    /// For the upload sessions that are going on.
    pub registry: Registry,
    /// What is refreshed now and then.
    pub sizes: Arc<Sizes>,
}

impl fmt::Debug for StorageCollector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StorageCollector")
    }
}

/// What a figure is, and its unit.
#[derive(Clone, Copy)]
enum Kind {
    Counter,
    ByteCounter,
    Gauge,
    ByteGauge,
    SecondGauge,
}

/// A figure: what it is, its name, what it says, where it is read.
type Figure = (
    Kind,
    &'static str,
    &'static str,
    fn(&StorageCollector) -> u64,
);

fn get(counter: &AtomicU64) -> u64 {
    counter.load(Relaxed)
}

#[rustfmt::skip] // A figure a line.
const FIGURES: &[Figure] = &[
    (ByteCounter, "ingest", "Bytes of blobs taken in", |s| get(&s.store.stats().ingested_bytes)),
    (ByteCounter, "dedup_hit", "Bytes of chunks that were stored already", |s| get(&s.store.stats().deduplicated_bytes)),
    (ByteCounter, "zero", "Bytes of zero runs, which take no space", |s| get(&s.store.stats().zero_bytes)),
    (ByteCounter, "stored_new", "Bytes appended to packs, headers included", |s| get(&s.store.stats().stored_bytes)),
    (ByteCounter, "gc_freed", "Bytes that garbage collection gave back to the device", |s| get(&s.gc.freed_bytes)),
    (ByteCounter, "gc_moved", "Bytes that garbage collection copied for that", |s| get(&s.gc.moved_bytes)),
    (ByteCounter, "scrub", "Stored bytes that scrubs read and verified", |s| get(&s.scrub.bytes)),
    (Counter, "dedup_hit_chunks", "Chunks that were stored already", |s| get(&s.store.stats().deduplicated_chunks)),
    (Counter, "hurried_chunks", "Chunks stored with less compression because the workers were behind", |s| get(&s.store.stats().hurried_chunks)),
    (Counter, "poisoned_packs", "Packs taken out of use after a failed write", |s| get(&s.store.stats().poisoned_packs)),
    (Counter, "cache_hits", "Chunks that a read found decoded", |s| get(&s.store.stats().cache_hits)),
    (Counter, "cache_misses", "Chunks that a read had to fetch and decode", |s| get(&s.store.stats().cache_misses)),
    (Counter, "bad_chunks", "Reads that found a stored chunk missing or damaged", |s| get(&s.store.stats().bad_chunks)),
    (Counter, "gc_reviews", "Reviews looked at", |s| get(&s.gc.reviews)),
    (Counter, "gc_removed_blobs", "Blobs that garbage collection removed", |s| get(&s.gc.removed_blobs)),
    (Counter, "gc_damaged_packs", "Packs that could not be emptied because of damage", |s| get(&s.gc.damaged_packs)),
    (Counter, "gc_refused", "Collections not done because they would have removed too much at once", |s| get(&s.gc.refused)),
    (Counter, "checkpoints", "Checkpoints taken", |s| get(&s.checkpoints.taken)),
    (Counter, "checkpoint_failures", "Checkpoints that failed", |s| get(&s.checkpoints.failed)),
    (Counter, "retention_removed_tags", "Tags that retention rules removed", |s| get(&s.registry.retention_stats().tags)),
    (Counter, "retention_removed_manifests", "Manifests that nothing needed any more and that retention removed", |s| get(&s.registry.retention_stats().manifests)),
    (Counter, "retention_failures", "Rounds of retention that ended with an error", |s| get(&s.registry.retention_stats().failures)),
    (Counter, "gc_failures", "Collections that ended with an error", |s| get(&s.gc.failures)),
    (Counter, "metadata_transactions", "Metadata transactions applied", |s| s.meta.transactions()),
    (Counter, "metadata_conflicts", "Metadata transactions whose checks did not hold", |s| s.meta.conflicts()),
    (Counter, "metadata_failures", "Metadata transactions that failed", |s| s.meta.failures()),
    (ByteGauge, "logical", "Sum of the lengths of all blobs, each counted once", |s| get(&s.sizes.logical_bytes)),
    (ByteGauge, "stored", "Bytes that packs take", |s| get(&s.sizes.stored_bytes)),
    (ByteGauge, "gc_dead", "Bytes of packs to which nothing referred when packs were last looked at", |s| get(&s.gc.dead_bytes)),
    (ByteGauge, "checkpoint", "Bytes of the newest checkpoint", |s| get(&s.checkpoints.newest_bytes)),
    (ByteGauge, "cache", "Bytes of decoded chunks in memory", |s| s.store.cached_bytes()),
    (ByteGauge, "ingest_memory", "Memory that running uploads hold for bytes that are not stored yet", |s| s.store.ingest_memory_bytes()),
    (Gauge, "blobs", "Blobs", |s| get(&s.sizes.blobs)),
    (Gauge, "gc_condemned_packs", "Packs that are being emptied, or could not be", |s| s.store.condemned_packs() as u64),
    (Gauge, "scrub_damaged_chunks", "Chunks that are known to be damaged", |s| get(&s.scrub.found_chunks)),
    (Gauge, "scrub_damaged_blobs", "Blobs that are known to be damaged; pushing them again heals them", |s| get(&s.scrub.found_blobs)),
    (Gauge, "scrub_damaged_packs", "Packs that cannot be listed", |s| get(&s.scrub.found_packs)),
    (Gauge, "retention_held_repositories", "Repositories whose tags the last round of retention left alone because too many would have gone at once", |s| get(&s.registry.retention_stats().held_repositories)),
    (Gauge, "compress_queue", "Blocks that wait for or are with a compression worker", |s| s.store.stats().compress_queue.load(Relaxed) as u64),
    (Gauge, "metadata_queue", "Metadata transactions that wait for the writer", |s| s.meta.queued()),
    (Gauge, "uploads_active", "Upload sessions with a request, or without anything stored yet", |s| s.registry.active_uploads() as u64),
    (SecondGauge, "gc_oldest_review", "How long the oldest review that is due waits", |s| get(&s.sizes.oldest_review_seconds)),
    (SecondGauge, "gc_success_time", "When the last collection without an error ended, Unix time; 0 before the first", |s| get(&s.gc.succeeded_ms) / 1000),
    (SecondGauge, "scrub_full_pass_time", "When the last scrub of all packs ended, Unix time; 0 while there was none", |s| get(&s.scrub.full_pass_ms) / 1000),
    (SecondGauge, "checkpoint_time", "As of when the newest checkpoint is, Unix time; 0 while there is none", |s| get(&s.checkpoints.newest_ms) / 1000),
];

impl Collector for StorageCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let mut write = Write(&mut encoder);
        for (kind, name, help, read) in FIGURES {
            write.figure(*kind, name, help, read(self))?;
        }
        if let Some(room) = self.store.room() {
            let (free, reserve) = (room.free_bytes, room.reserve_bytes);
            write.figure(
                ByteGauge,
                "device_free",
                "Bytes free on the device of the packs",
                free,
            )?;
            write.figure(
                ByteGauge,
                "device_reserve",
                "Bytes of those that uploads never take",
                reserve,
            )?;
        }
        let stats = self.store.stats();
        write.durations(
            "gc_collection",
            "How long a collection took",
            &self.gc.collections,
        )?;
        write.durations(
            "fsync",
            "How long making a pack durable took",
            &stats.fsyncs,
        )?;
        write.durations(
            "metadata_commit",
            "How long a durable commit of the metadata took; each may hold many transactions",
            self.meta.commits(),
        )
    }
}

struct Write<'a, 'b>(&'a mut DescriptorEncoder<'b>);

impl Write<'_, '_> {
    fn figure(&mut self, kind: Kind, name: &str, help: &str, value: u64) -> fmt::Result {
        let (metric, unit) = match kind {
            Counter => (MetricType::Counter, None),
            ByteCounter => (MetricType::Counter, Some(Unit::Bytes)),
            Gauge => (MetricType::Gauge, None),
            ByteGauge => (MetricType::Gauge, Some(Unit::Bytes)),
            SecondGauge => (MetricType::Gauge, Some(Unit::Seconds)),
        };
        let encoder = self
            .0
            .encode_descriptor(name, help, unit.as_ref(), metric)?;
        match kind {
            Counter | ByteCounter => ConstCounter::new(value).encode(encoder),
            Gauge | ByteGauge | SecondGauge => {
                ConstGauge::new(i64::try_from(value).unwrap_or(i64::MAX)).encode(encoder)
            }
        }
    }

    fn durations(&mut self, name: &str, help: &str, durations: &Durations) -> fmt::Result {
        let buckets: Vec<_> = durations.buckets().collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        let (kind, unit) = (MetricType::Histogram, Unit::Seconds);
        let mut encoder = self.0.encode_descriptor(name, help, Some(&unit), kind)?;
        encoder.encode_histogram::<NoLabelSet>(durations.sum_seconds(), count, &buckets, None)
    }
}
