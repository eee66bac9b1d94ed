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
    encoding::{DescriptorEncoder, EncodeMetric as _, MetricEncoder, NoLabelSet},
    metrics::{MetricType, counter::ConstCounter, gauge::ConstGauge},
    registry::Unit,
};

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

impl Collector for StorageCollector {
    fn encode(&self, mut encoder: DescriptorEncoder) -> fmt::Result {
        let mut write = Write(&mut encoder);
        let stats = self.store.stats();
        let (meta, gc, checkpoints) = (&self.meta, &self.gc, &self.checkpoints);
        let scrub = &self.scrub;
        let get = |counter: &AtomicU64| counter.load(Relaxed);
        for (name, help, value) in [
            ("ingest", "Bytes of blobs taken in", &stats.ingested_bytes),
            (
                "dedup_hit",
                "Bytes of chunks that were stored already",
                &stats.deduplicated_bytes,
            ),
            (
                "zero",
                "Bytes of zero runs, which take no space",
                &stats.zero_bytes,
            ),
            (
                "stored_new",
                "Bytes appended to packs, headers included",
                &stats.stored_bytes,
            ),
            (
                "gc_freed",
                "Bytes that garbage collection gave back to the device",
                &gc.freed_bytes,
            ),
            (
                "gc_moved",
                "Bytes that garbage collection copied for that",
                &gc.moved_bytes,
            ),
            (
                "scrub",
                "Stored bytes that scrubs read and verified",
                &scrub.bytes,
            ),
        ] {
            write.counter(name, help, Some(Unit::Bytes), get(value))?;
        }
        for (name, help, value) in [
            (
                "dedup_hit_chunks",
                "Chunks that were stored already",
                get(&stats.deduplicated_chunks),
            ),
            (
                "hurried_chunks",
                "Chunks stored with less compression because the workers were behind",
                get(&stats.hurried_chunks),
            ),
            (
                "poisoned_packs",
                "Packs taken out of use after a failed write",
                get(&stats.poisoned_packs),
            ),
            (
                "cache_hits",
                "Chunks that a read found decoded",
                get(&stats.cache_hits),
            ),
            (
                "cache_misses",
                "Chunks that a read had to fetch and decode",
                get(&stats.cache_misses),
            ),
            (
                "bad_chunks",
                "Reads that found a stored chunk missing or damaged",
                get(&stats.bad_chunks),
            ),
            ("gc_reviews", "Reviews looked at", get(&gc.reviews)),
            (
                "gc_removed_blobs",
                "Blobs that garbage collection removed",
                get(&gc.removed_blobs),
            ),
            (
                "gc_damaged_packs",
                "Packs that could not be emptied because of damage",
                get(&gc.damaged_packs),
            ),
            (
                "gc_refused",
                "Collections not done because they would have removed too much at once",
                get(&gc.refused),
            ),
            ("checkpoints", "Checkpoints taken", get(&checkpoints.taken)),
            (
                "checkpoint_failures",
                "Checkpoints that failed",
                get(&checkpoints.failed),
            ),
            (
                "retention_removed_tags",
                "Tags that retention rules removed",
                get(&self.registry.retention_stats().tags),
            ),
            (
                "retention_removed_manifests",
                "Manifests that nothing needed any more and that retention removed",
                get(&self.registry.retention_stats().manifests),
            ),
            (
                "gc_failures",
                "Collections that ended with an error",
                get(&gc.failures),
            ),
            (
                "metadata_transactions",
                "Metadata transactions applied",
                meta.transactions(),
            ),
            (
                "metadata_conflicts",
                "Metadata transactions whose checks did not hold",
                meta.conflicts(),
            ),
            (
                "metadata_failures",
                "Metadata transactions that failed",
                meta.failures(),
            ),
        ] {
            write.counter(name, help, None, value)?;
        }
        for (name, help, value) in [
            (
                "logical",
                "Sum of the lengths of all blobs, each counted once",
                get(&self.sizes.logical_bytes),
            ),
            (
                "stored",
                "Bytes that packs take",
                get(&self.sizes.stored_bytes),
            ),
            (
                "gc_dead",
                "Bytes of packs to which nothing referred when packs were last looked at",
                get(&gc.dead_bytes),
            ),
            (
                "checkpoint",
                "Bytes of the newest checkpoint",
                get(&checkpoints.newest_bytes),
            ),
            (
                "cache",
                "Bytes of decoded chunks in memory",
                self.store.cached_bytes(),
            ),
            (
                "ingest_memory",
                "Memory that running uploads hold for bytes that are not stored yet",
                self.store.ingest_memory_bytes(),
            ),
        ] {
            write.gauge(name, help, Some(Unit::Bytes), value)?;
        }
        for (name, help, value) in [
            ("blobs", "Blobs", get(&self.sizes.blobs)),
            (
                "gc_condemned_packs",
                "Packs that are being emptied, or could not be",
                self.store.condemned_packs() as u64,
            ),
            (
                "scrub_damaged_chunks",
                "Chunks that are known to be damaged",
                get(&scrub.found_chunks),
            ),
            (
                "scrub_damaged_blobs",
                "Blobs that are known to be damaged; pushing them again heals them",
                get(&scrub.found_blobs),
            ),
            (
                "scrub_damaged_packs",
                "Packs that cannot be listed",
                get(&scrub.found_packs),
            ),
            (
                "compress_queue",
                "Blocks that wait for or are with a compression worker",
                stats.compress_queue.load(Relaxed) as u64,
            ),
            (
                "metadata_queue",
                "Metadata transactions that wait for the writer",
                meta.queued(),
            ),
            (
                "uploads_active",
                "Upload sessions with a request, or without anything stored yet",
                self.registry.active_uploads() as u64,
            ),
        ] {
            write.gauge(name, help, None, value)?;
        }
        if let Some(room) = self.store.room() {
            for (name, help, value) in [
                (
                    "device_free",
                    "Bytes free on the device of the packs",
                    room.free_bytes,
                ),
                (
                    "device_reserve",
                    "Bytes of those that uploads never take",
                    room.reserve_bytes,
                ),
            ] {
                write.gauge(name, help, Some(Unit::Bytes), value)?;
            }
        }
        for (name, help, value) in [
            (
                "gc_oldest_review",
                "How long the oldest review that is due waits",
                get(&self.sizes.oldest_review_seconds),
            ),
            (
                "gc_success_time",
                "When the last collection without an error ended, Unix time; 0 before the first",
                get(&gc.succeeded_ms) / 1000,
            ),
        ] {
            write.gauge(name, help, Some(Unit::Seconds), value)?;
        }
        write.durations(
            "gc_collection",
            "How long a collection took",
            &gc.collections,
        )?;
        write.gauge(
            "scrub_full_pass_time",
            "When the last scrub of all packs ended, Unix time; 0 while there was none",
            Some(Unit::Seconds),
            get(&scrub.full_pass_ms) / 1000,
        )?;
        write.gauge(
            "checkpoint_time",
            "As of when the newest checkpoint is, Unix time; 0 while there is none",
            Some(Unit::Seconds),
            get(&checkpoints.newest_ms) / 1000,
        )?;
        write.durations(
            "fsync",
            "How long making a pack durable took",
            &stats.fsyncs,
        )?;
        write.durations(
            "metadata_commit",
            "How long a durable commit of the metadata took; each may hold many transactions",
            meta.commits(),
        )
    }
}

struct Write<'a, 'b>(&'a mut DescriptorEncoder<'b>);

impl Write<'_, '_> {
    fn metric(
        &mut self,
        (name, help): (&str, &str),
        unit: Option<Unit>,
        kind: MetricType,
        encode: impl FnOnce(MetricEncoder<'_>) -> fmt::Result,
    ) -> fmt::Result {
        encode(self.0.encode_descriptor(name, help, unit.as_ref(), kind)?)
    }

    fn counter(&mut self, name: &str, help: &str, unit: Option<Unit>, value: u64) -> fmt::Result {
        self.metric((name, help), unit, MetricType::Counter, |encoder| {
            ConstCounter::new(value).encode(encoder)
        })
    }

    fn gauge(&mut self, name: &str, help: &str, unit: Option<Unit>, value: u64) -> fmt::Result {
        let value = i64::try_from(value).unwrap_or(i64::MAX);
        self.metric((name, help), unit, MetricType::Gauge, |encoder| {
            ConstGauge::new(value).encode(encoder)
        })
    }

    fn durations(&mut self, name: &str, help: &str, durations: &Durations) -> fmt::Result {
        let buckets: Vec<_> = durations.buckets().collect();
        let count = buckets.iter().map(|(_, count)| count).sum();
        self.metric(
            (name, help),
            Some(Unit::Seconds),
            MetricType::Histogram,
            |mut encoder| {
                encoder.encode_histogram::<NoLabelSet>(
                    durations.sum_seconds(),
                    count,
                    &buckets,
                    None,
                )
            },
        )
    }
}
