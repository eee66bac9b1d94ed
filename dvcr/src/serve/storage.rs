//! The engines of one server: opened in order, kept up, closed in order.

use std::{
    sync::{Arc, atomic::Ordering::Relaxed},
    time::Duration,
};

use anyhow::Context as _;
use tokio_util::task::AbortOnDropHandle;

use crate::{
    backend::file::FileBackend,
    checkpoint::Checkpoints,
    clock::{Clock as _, SystemClock},
    data_dir::DataDir,
    gc::{GcOptions, plan::SweepLimits},
    meta::redb::{MetaStats, RedbMeta, RedbOptions},
    metrics::storage::{Sizes, StorageCollector},
    registry::{Registry, RegistryOptions},
    settings::Settings,
    store::{BLOCK_BYTES, Store, StoreOptions},
};

/// How often expired upload sessions are looked for.
const EXPIRY_INTERVAL: Duration = Duration::from_secs(600);

/// How often the sizes for monitoring are counted: one row a blob, about a second for each million.
const SIZES_INTERVAL: Duration = Duration::from_secs(60);

/// Everything that a server stores with.
pub(super) struct Storage {
    registry: Registry,
    store: Arc<Store>,
    meta: Arc<RedbMeta>,
    checkpoints: Arc<Checkpoints>,
    checkpoint_interval: Duration,
    sizes: Arc<Sizes>,
    /// Keeps other servers out; given up last.
    _data: DataDir,
}

impl Storage {
    /// Takes the data directory and opens what is in it.
    pub(super) async fn open(settings: &Settings) -> anyhow::Result<Self> {
        let data = DataDir::open(&settings.data)?;
        let options = RedbOptions {
            cache_bytes: settings.meta_cache_bytes.as_usize(),
        };
        let meta = RedbMeta::open(data.meta_path(), &options).context("open the metadata")?;
        let meta = Arc::new(meta);
        let packs = FileBackend::new(&data.packs_path(), settings.reserve_bytes.0)
            .context("open the packs")?;
        let clock = Arc::new(SystemClock);
        let blocks = |bytes: usize| (bytes / BLOCK_BYTES).max(1);
        let options = StoreOptions {
            cache_bytes: settings.cache_bytes.0,
            upload_blocks: blocks(settings.upload_memory_bytes.as_usize()),
            all_upload_blocks: blocks(settings.all_uploads_memory_bytes.as_usize()),
            ..StoreOptions::default()
        };
        let store = Store::open(meta.clone(), Arc::new(packs), clock.clone(), options)
            .await
            .context("open the store")?;
        let share = |percent: usize| percent as f64 / 100.0;
        let gc = GcOptions {
            interval: settings.gc.interval.0,
            limits: SweepLimits {
                unused_share: share(settings.gc.unused_percent),
                removed_share: share(settings.gc.removed_percent),
                ..GcOptions::default().limits
            },
        };
        let options = RegistryOptions {
            gc,
            lease: settings.lease.0,
            grace: settings.gc.grace.0,
            upload_expiry: settings.upload_expiry.0,
            scrub_bytes_per_hour: settings.scrub.bytes_per_hour.0,
            sparse: settings.sparse.clone(),
            immutable: settings.immutable.clone(),
            retention: settings.retention.clone(),
            ..RegistryOptions::default()
        };
        let checkpoints = Arc::new(Checkpoints::new(
            data.checkpoints_path(),
            meta.clone(),
            clock.clone(),
            settings.checkpoint.keep,
            settings.reserve_bytes.0,
        ));
        Ok(Self {
            registry: Registry::new(meta.clone(), Arc::clone(&store), clock, options)
                .with_checkpoints(Arc::clone(&checkpoints)),
            store,
            meta,
            checkpoints,
            checkpoint_interval: settings.checkpoint.interval.0,
            sizes: Arc::default(),
            _data: data,
        })
    }

    pub(super) fn registry(&self) -> &Registry {
        &self.registry
    }

    /// What monitoring reads.
    pub(super) fn collector(&self) -> Box<StorageCollector> {
        Box::new(StorageCollector {
            store: Arc::clone(&self.store),
            meta: self.meta.stats(),
            gc: Arc::clone(self.registry.gc().stats()),
            scrub: Arc::clone(self.registry.scrubber().stats()),
            checkpoints: Arc::clone(self.checkpoints.stats()),
            registry: self.registry.clone(),
            sizes: Arc::clone(&self.sizes),
        })
    }

    /// Does what must be done now and then, until the handles are dropped.
    pub(super) fn keep_up(&self) -> [AbortOnDropHandle<()>; 5] {
        let gc = Arc::clone(self.registry.gc());
        let scrubber = Arc::clone(self.registry.scrubber());
        [
            AbortOnDropHandle::new(tokio::spawn(async move { gc.run().await })),
            AbortOnDropHandle::new(tokio::spawn(async move { scrubber.work().await })),
            AbortOnDropHandle::new(tokio::spawn(take_checkpoints(
                Arc::clone(&self.checkpoints),
                self.meta.stats(),
                self.checkpoint_interval,
            ))),
            AbortOnDropHandle::new(tokio::spawn(expire_uploads(self.registry.clone()))),
            AbortOnDropHandle::new(tokio::spawn(count_sizes(
                self.registry.clone(),
                Arc::clone(&self.sizes),
            ))),
        ]
    }

    /// Puts away what is open. What was acknowledged is durable without this, too.
    pub(super) async fn close(self) -> anyhow::Result<()> {
        let closed = self.store.close().await.context("close the store");
        // A server that cannot write one stops all the same: the metadata is whole.
        if let Err(error) = self.checkpoints.take().await {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "take a checkpoint at the end"
            );
        }
        self.meta.close().await;
        closed
    }
}

/// Takes a checkpoint now and then, unless nothing was written since the last one. A start is no reason to take one: many of them
/// would leave none of what was before.
async fn take_checkpoints(checkpoints: Arc<Checkpoints>, meta: Arc<MetaStats>, interval: Duration) {
    let begin = tokio::time::Instant::now() + checkpoints.due_in(interval);
    let mut ticks = tokio::time::interval_at(begin, interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut seen = None;
    loop {
        ticks.tick().await;
        let transactions = meta.transactions();
        if seen == Some(transactions) {
            continue;
        }
        match checkpoints.take().await {
            Ok(checkpoint) => {
                seen = Some(transactions);
                let crate::checkpoint::Checkpoint {
                    number,
                    rows,
                    bytes,
                    ..
                } = checkpoint;
                tracing::info!(number, rows, bytes, "took a checkpoint");
            }
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "take a checkpoint; the last one stands"
                );
            }
        }
    }
}

async fn expire_uploads(registry: Registry) {
    let mut ticks = tokio::time::interval(EXPIRY_INTERVAL);
    loop {
        ticks.tick().await;
        match registry.expire_uploads().await {
            Ok(0) => {}
            Ok(expired) => {
                tracing::info!(expired, "gave up upload sessions that nobody went on with");
            }
            Err(error) => {
                tracing::error!(
                    error = &error as &dyn std::error::Error,
                    "expire upload sessions"
                );
            }
        }
    }
}

async fn count_sizes(registry: Registry, sizes: Arc<Sizes>) {
    let mut ticks = tokio::time::interval(SIZES_INTERVAL);
    loop {
        ticks.tick().await;
        match registry.gc().oldest_due_ms().await {
            Ok(due_ms) => {
                let now_ms = SystemClock.now_ms();
                let late_ms = due_ms.map_or(0, |due_ms| now_ms.saturating_sub(due_ms));
                sizes.oldest_review_seconds.store(late_ms / 1000, Relaxed);
            }
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "look for reviews");
            }
        }
        match registry.sizes().await {
            Ok(counted) => {
                let (blobs, logical, stored) = counted;
                sizes.blobs.store(blobs, Relaxed);
                sizes.logical_bytes.store(logical, Relaxed);
                sizes.stored_bytes.store(stored, Relaxed);
                if let Err(error) = registry.note_usage(counted).await {
                    tracing::warn!(error = &error as &dyn std::error::Error, "note usage");
                }
            }
            Err(error) => {
                tracing::error!(error = &error as &dyn std::error::Error, "count sizes");
            }
        }
    }
}
