//! The chunk store: blobs are cut into chunks, each chunk is stored once, in packs.
//!
//! It knows neither repositories nor tags: it takes in bytes ([`Ingest`]) and hands back a recipe, and from a recipe it reads
//! any range ([`Reading`]). What is committed is decided by its caller's transaction, to which a finished ingest adds its
//! rows and checks.
//!
//! **Invariant:** a row never names bytes that are not durable. **Invariant:** what a row names is never overwritten.

use std::{sync::Arc, time::Duration};

use tokio::sync::Semaphore;
use tokio_util::task::TaskTracker;

mod append;
mod compress;
mod contents;
mod cut;
mod damaged;
mod epoch;
mod error;
mod hasher;
mod ids;
mod ingest;
mod ingest_state;
mod joined;
mod lane;
mod named;
pub(crate) mod pace;
pub mod pack;
mod read;
pub mod recipe;
mod recover;
mod repack;
mod segment;
mod session_row;
mod stats;
mod verify;
mod zstd_stream;

pub(crate) use contents::{PackContents, PackDamage, header_behind, read_contents};
pub use error::StoreError;
pub(crate) use hasher::Hasher;
pub use ingest::{
    BLOCK_BYTES, FLUSH_BYTES, FLUSH_INTERVAL, Finished, FinishedBody, INLINE_BYTES_MAX, Ingest,
};
pub use ingest_state::IngestState;
pub(crate) use named::record_end;
pub use read::Reading;
pub use repack::Emptied;
pub use session_row::SessionRow;
pub use stats::StoreStats;
pub(crate) use verify::{Bad, Expected};

use compress::Codecs;
use damaged::Damaged;
use epoch::{Condemned, Epochs};
use ids::IdAllocator;
use lane::Lanes;
use read::{ChunkCache, PartCache};

use crate::{
    backend::{PackBackend, Room},
    clock::Clock,
    meta::{MetaError, MetaStore},
};

/// What a store may use.
#[derive(Clone, Debug)]
pub struct StoreOptions {
    /// Decoded chunks kept in memory, bytes.
    pub cache_bytes: u64,
    /// Memory of one upload, in blocks of [`BLOCK_BYTES`].
    pub upload_blocks: usize,
    /// Memory of all uploads, in blocks.
    pub all_upload_blocks: usize,
    /// Compression workers at once; as many as there are cores.
    pub workers: usize,
}

impl Default for StoreOptions {
    fn default() -> Self {
        Self {
            cache_bytes: 256 << 20,
            upload_blocks: 16,
            all_upload_blocks: 64,
            workers: std::thread::available_parallelism().map_or(2, usize::from),
        }
    }
}

/// The chunk store of one server.
pub struct Store {
    meta: Arc<dyn MetaStore>,
    packs: Arc<dyn PackBackend>,
    clock: Arc<dyn Clock>,
    options: StoreOptions,
    stats: Arc<StoreStats>,
    lanes: Arc<Lanes>,
    recipes: IdAllocator,
    codecs: Arc<Codecs>,
    memory: Arc<Semaphore>,
    workers: Semaphore,
    tasks: TaskTracker,
    epochs: Arc<Epochs>,
    condemned: Arc<Condemned>,
    damaged: Arc<Damaged>,
    pace: pace::Pace,
    chunk_cache: ChunkCache,
    part_cache: PartCache,
}

/// How long [`Store::close`] waits for uploads that were cut off to put away what they have.
const CLOSE_PATIENCE: Duration = Duration::from_secs(20);

impl Store {
    /// A store over these engines. Packs that a crash left open are closed in the background.
    pub async fn open(
        meta: Arc<dyn MetaStore>,
        packs: Arc<dyn PackBackend>,
        clock: Arc<dyn Clock>,
        options: StoreOptions,
    ) -> Result<Arc<Self>, StoreError> {
        let stats = Arc::new(StoreStats::default());
        let condemned: Arc<Condemned> = Arc::default();
        let damaged: Arc<Damaged> = Arc::default();
        let tasks = TaskTracker::new();
        let pack_ids = IdAllocator::new(Arc::clone(&meta), "pack");
        let lanes = Lanes::new(
            Arc::clone(&packs),
            Arc::clone(&meta),
            pack_ids,
            Arc::clone(&stats),
            Arc::clone(&condemned),
            Arc::clone(&damaged),
            tasks.clone(),
        );
        let store = Arc::new(Self {
            recipes: IdAllocator::new(Arc::clone(&meta), "recipe"),
            lanes: Arc::new(lanes),
            codecs: Arc::default(),
            memory: Arc::new(Semaphore::new(options.all_upload_blocks)),
            workers: Semaphore::new(options.workers),
            tasks,
            epochs: Arc::default(),
            condemned,
            damaged,
            pace: pace::Pace::new(Arc::clone(&stats), Arc::clone(&packs)),
            chunk_cache: read::chunk_cache(options.cache_bytes),
            part_cache: read::part_cache(),
            meta,
            packs,
            clock,
            options,
            stats,
        });
        let left_open = store.unsealed().await?;
        store.load_damaged().await?;
        store.note_dead(1);
        store
            .tasks
            .spawn(Arc::clone(&store).close_left_open(left_open));
        Ok(store)
    }

    /// Lets running uploads put away what they have, then seals the open packs.
    pub async fn close(&self) -> Result<(), StoreError> {
        self.tasks.close();
        if tokio::time::timeout(CLOSE_PATIENCE, self.tasks.wait())
            .await
            .is_err()
        {
            tracing::warn!(
                "uploads still running; what they have not checkpointed will be sent again"
            );
        }
        self.lanes.close().await
    }

    /// Returns when an upload has met a full device since this was last awaited.
    pub(crate) async fn full(&self) {
        self.lanes.full.notified().await;
    }

    /// Room on the device of the packs; none where nobody can say. Asks the file system, which takes a microsecond.
    #[must_use]
    pub fn room(&self) -> Option<Room> {
        self.packs.room().ok().flatten()
    }

    /// Packs that are being emptied, or could not be.
    #[must_use]
    pub fn condemned_packs(&self) -> usize {
        self.condemned.count()
    }

    /// How upkeep makes way for pushes.
    pub(crate) fn pace(&self) -> &pace::Pace {
        &self.pace
    }

    /// Counters.
    #[must_use]
    pub fn stats(&self) -> &Arc<StoreStats> {
        &self.stats
    }

    /// A number for a new recipe.
    pub async fn next_recipe(&self) -> Result<u64, MetaError> {
        self.recipes.next().await
    }

    /// Bytes of the packs that are being written, whose rows do not know how long they are.
    pub async fn open_pack_bytes(&self) -> u64 {
        self.lanes.open_bytes().await
    }

    /// Bytes of decoded chunks in the cache.
    #[must_use]
    pub fn cached_bytes(&self) -> u64 {
        self.chunk_cache.weight()
    }

    /// Memory that running uploads hold for bytes that are not stored yet.
    #[must_use]
    pub fn ingest_memory_bytes(&self) -> u64 {
        let used = self.options.all_upload_blocks - self.memory.available_permits();
        (used * BLOCK_BYTES) as u64
    }
}
