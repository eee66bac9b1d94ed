//! Garbage collection: online, without a read-only window and without a lock across I/O. `docs/gc.md` has the protocol, its
//! invariants, and what makes each pair of concurrent operations safe.
//!
//! Two levels. [`review`](GarbageCollector::review) takes blobs away from repositories in which nothing refers to them, and
//! removes those that no repository holds. [`sweep`](GarbageCollector::sweep) empties packs whose chunks no recipe refers to. Both are
//! driven by rows and finished by conditional transactions: a crash anywhere leaves space to be found, never a hole.
//!
//! **Invariant:** a committed manifest always reads back in full.

use std::{
    collections::BTreeMap,
    sync::{Arc, OnceLock, atomic::AtomicU64},
    time::Duration,
};

use futures::future::BoxFuture;
use tokio::sync::Mutex;

mod mark;
mod pins;
pub mod plan;
mod review;
mod run;
pub mod scrub;
#[cfg(test)]
mod simulation;
mod sweep;
#[cfg(test)]
mod tests;

pub use review::Reviewed;
pub(crate) use review::drop_repository_if_empty;
pub use run::{Run, RunOptions, RunState, RunsNow, Trigger};
pub use sweep::Swept;

use crate::{
    clock::Clock,
    durations::Durations,
    meta::{
        Commit, MetaError, MetaStore, Txn, key,
        record::{decode_numbers, encode_numbers},
    },
    store::{Store, StoreError},
};
use plan::{SweepLimits, SweepPlan};

/// After a collection that freed nothing, one for want of room comes no sooner than after so many times its duration: a tenth of
/// one core at most is spent on a device that stays full. In any case it comes no sooner than after this long.
const FULL_REST: u32 = 9;
const FULL_REST_MIN: Duration = Duration::from_secs(1);

/// What an operator may set.
#[derive(Clone, Copy, Debug)]
pub struct GcOptions {
    /// Time between two collections.
    pub interval: Duration,
    /// Limits of a sweep.
    pub limits: SweepLimits,
}

impl Default for GcOptions {
    fn default() -> Self {
        Self {
            interval: Duration::from_secs(300),
            limits: SweepLimits {
                unused_share: 0.1,
                removed_share: 0.5,
                removed_free_bytes: 64 << 30,
            },
        }
    }
}

/// What was done since the start, for metrics.
#[derive(Debug, Default)]
pub struct GcStats {
    /// Reviews looked at.
    pub reviews: AtomicU64,
    /// Blobs removed.
    pub removed_blobs: AtomicU64,
    /// Bytes given back to the device, less what was copied.
    pub freed_bytes: AtomicU64,
    /// Bytes copied for that.
    pub moved_bytes: AtomicU64,
    /// Packs that could not be emptied because of damage.
    pub damaged_packs: AtomicU64,
    /// Sweeps that were not done because they would have removed too much at once.
    pub refused: AtomicU64,
    /// Collections that ended with an error.
    pub failures: AtomicU64,
    /// When the last collection without an error ended, milliseconds since 1970; 0 before the first.
    pub succeeded_ms: AtomicU64,
    /// Bytes of packs to which nothing referred when packs were last looked at.
    pub dead_bytes: AtomicU64,
    /// How long collections took.
    pub collections: Durations,
}

/// What one collection came to.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Collected {
    /// Blobs.
    pub reviewed: Reviewed,
    /// Packs.
    pub swept: Swept,
}

/// Collects the garbage of one store.
pub struct GarbageCollector {
    meta: Arc<dyn MetaStore>,
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    options: GcOptions,
    /// How long what was deleted stays: reviews are due so long after a deletion.
    grace: Duration,
    stats: Arc<GcStats>,
    /// Held by the sweep that is going on: two would choose the same packs.
    sweeping: Mutex<()>,
    /// Blobs that stay for a push.
    pins: Arc<pins::Pins>,
    /// Collections that wait, go on and have ended.
    runs: run::Runs,
    /// What makes garbage of what is to go by itself.
    before: OnceLock<Before>,
}

/// Something done at the begin of each collection, which hears whether that is one with force. It tells its errors itself.
pub type Before = Box<dyn Fn(bool) -> BoxFuture<'static, ()> + Send + Sync>;

impl GarbageCollector {
    /// A collector for this store. Reviews of what is deleted are put off for `grace`.
    #[must_use]
    pub fn new(
        meta: Arc<dyn MetaStore>,
        store: Arc<Store>,
        clock: Arc<dyn Clock>,
        options: GcOptions,
        grace: Duration,
    ) -> Self {
        Self {
            meta,
            store,
            clock,
            options,
            grace,
            stats: Arc::default(),
            sweeping: Mutex::new(()),
            pins: Arc::default(),
            runs: run::Runs::default(),
            before: OnceLock::new(),
        }
    }

    /// Has something done at the begin of each collection from now on; the first call counts.
    pub fn set_before(&self, before: Before) {
        let _: Result<(), Before> = self.before.set(before);
    }

    /// Keeps a blob of this server until the pin is dropped, if it is there when the pin is had.
    pub(crate) async fn pin(&self, digest: &dvcr_core::oci::Digest) -> pins::Pin {
        self.pins.pin(digest).await
    }

    /// What walks over the metadata read.
    fn source(&self) -> mark::Source<'_> {
        mark::Source {
            meta: &*self.meta,
            pace: self.store.pace(),
        }
    }

    /// What an operator has set.
    #[must_use]
    pub fn options(&self) -> &GcOptions {
        &self.options
    }

    /// What was done since the start.
    #[must_use]
    pub fn stats(&self) -> &Arc<GcStats> {
        &self.stats
    }

    /// Since when the oldest review that is due waits, milliseconds since 1970; none if nothing is due.
    pub async fn oldest_due_ms(&self) -> Result<Option<u64>, MetaError> {
        let due = key::reviews_due(self.clock.now_ms());
        let rows = self.meta.scan(&due, 1).await?;
        let review = rows.first().and_then(|(row, _)| key::review_of(row));
        Ok(review.map(|review| review.due_ms))
    }

    /// Bytes that the chunks of some recipes take in packs which nothing else refers to. `recipes` are ids and numbers of parts.
    /// Reads all recipes, once for each 4 million chunks that these refer to.
    pub(crate) async fn exclusive_bytes(
        &self,
        recipes: &BTreeMap<u64, u32>,
    ) -> Result<u64, MetaError> {
        mark::exclusive_bytes(self.source(), recipes).await
    }

    /// What a sweep would do now, were it to begin: packs that are being written would be sealed first.
    pub async fn plan(&self) -> Result<SweepPlan, StoreError> {
        let facts = mark::facts(self.source()).await?;
        Ok(plan::plan(facts, &self.options.limits))
    }

    /// From when this returns until then no pack is removed: what is being copied stays in one place. Reviews go on. A time in
    /// the past ends it.
    pub async fn hold(&self, until_ms: u64) -> Result<(), StoreError> {
        let txn = Txn {
            puts: vec![(key::pack_hold(), encode_numbers(&[until_ms]))],
            ..Txn::default()
        };
        let _unconditional: Commit = self.meta.commit(txn).await?;
        // A sweep that is going on has not seen it.
        drop(self.sweeping.lock().await);
        Ok(())
    }

    /// Until when no pack is removed, if that is in the future.
    pub async fn held_until_ms(&self) -> Result<Option<u64>, StoreError> {
        let key = key::pack_hold();
        let Some(row) = self.meta.get_one(&key).await? else {
            return Ok(None);
        };
        let until_ms = decode_numbers(&key, &row)?.first().copied();
        Ok(until_ms.filter(|until_ms| *until_ms > self.clock.now_ms()))
    }
}
