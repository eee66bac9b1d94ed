//! Use cases of the registry: what a client may want, without HTTP and without a particular database.
//!
//! Every use case takes the [`Principal`] that asks and calls [`policy`] first. What it changes, it changes in one
//! conditional transaction whose checks say what it relied on; where another request got there first it starts over.

use std::{
    sync::{Arc, OnceLock, atomic::AtomicU64},
    time::Duration,
};

mod blob;
mod blob_list;
mod body;
mod checkpoint;
mod commit;
#[cfg(test)]
mod crash_tests;
pub mod deletion;
mod error;
#[cfg(test)]
mod fault_tests;
pub mod gc;
pub mod glob;
pub mod immutable;
mod inspect;
mod manifest;
pub mod policy;
mod principal;
mod referrer;
mod removal;
mod repository;
pub mod retention;
mod scrub;
mod session;
#[cfg(test)]
mod session_tests;
mod stats;
mod tag;
#[cfg(test)]
mod tests;
mod upload;
mod upload_list;
mod usage;
mod walk;

pub use blob::{BlobInfo, BlobReader};
pub use blob_list::{BlobDetail, BlobEntry};
pub use body::{Body, BodyError};
pub use checkpoint::Checkpointed;
pub use error::RegistryError;
pub use inspect::{Child, ManifestDetail, ManifestEntry, Role, TagEntry};
pub use manifest::{ManifestPut, StoredManifest};
pub use principal::Principal;
pub use repository::{RepositoryDetail, RepositoryEntry};
pub use scrub::{Damage, FoundDamage};
pub use session::{SessionId, SessionIdError, UploadStatus};
pub use stats::Stats;
pub use upload_list::UploadEntry;
pub use usage::UsageSample;

use dvcr_core::oci::RepositoryName;

use crate::{
    checkpoint::Checkpoints,
    clock::Clock,
    gc::{GarbageCollector, GcOptions, drop_repository_if_empty, scrub::Scrubber},
    meta::{
        Check, Commit, Key, KeyRange, MetaStore, Pages, Txn, Value, key,
        record::{Record, RepositoryRecord},
    },
    store::Store,
};
use immutable::ImmutableRule;
use policy::SparseRule;
use retention::{RetentionRule, RetentionStats};
use session::Sessions;
use walk::Walks;

/// Times a transaction is tried again because another request changed the same rows: each time somebody else got on.
const ATTEMPTS: usize = 32;

/// Bytes of what clients have written, annotations and types, in one page of a list: a page that has so many ends, with one item at
/// least. Such a text has up to 8 MiB, and a page up to 10,000 items.
const PAGE_TEXT_BYTES_MAX: usize = 4 << 20;

/// What an operator may set.
#[derive(Clone, Debug)]
pub struct RegistryOptions {
    /// How long a blob stays to which no manifest refers (yet).
    pub lease: Duration,
    /// How long what was deleted stays before garbage collection looks at it.
    pub grace: Duration,
    /// How long an upload session lives after its last request.
    pub upload_expiry: Duration,
    /// Upload sessions at once.
    pub uploads_max: usize,
    /// When and how hard garbage is collected.
    pub gc: GcOptions,
    /// Stored bytes that are read and verified in an hour; 0 for none.
    pub scrub_bytes_per_hour: u64,
    /// Which repositories may hold manifests with missing children; the first rule that fits decides.
    pub sparse: Vec<SparseRule>,
    /// Which tags may not be moved or deleted; the strictest rule that fits decides.
    pub immutable: Vec<ImmutableRule>,
    /// Which tags and manifests go by themselves; the first rule that fits a repository decides.
    pub retention: Vec<RetentionRule>,
}

impl Default for RegistryOptions {
    fn default() -> Self {
        Self {
            lease: Duration::from_secs(3600),
            grace: Duration::from_secs(3600),
            upload_expiry: Duration::from_secs(24 * 3600),
            uploads_max: 10_000,
            gc: GcOptions::default(),
            scrub_bytes_per_hour: 1536 << 20,
            sparse: Vec::new(),
            immutable: Vec::new(),
            retention: Vec::new(),
        }
    }
}

/// The registry. Cloning is cheap.
#[derive(Clone)]
pub struct Registry(Arc<Inner>);

struct Inner {
    meta: Arc<dyn MetaStore>,
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    options: RegistryOptions,
    sessions: Sessions,
    gc: Arc<GarbageCollector>,
    walks: Walks,
    retained: RetentionStats,
    scrubber: Arc<Scrubber>,
    /// None where there is no directory for them.
    checkpoints: OnceLock<Arc<Checkpoints>>,
    /// When usage was noted last, milliseconds since 1970.
    last_sample_ms: AtomicU64,
}

/// Some of a list, and whether there is more.
#[derive(Clone, Debug)]
pub struct Page<T> {
    /// The items, ascending.
    pub items: Vec<T>,
    /// Whether others follow.
    pub more: bool,
}

impl Registry {
    /// A registry on this store.
    #[must_use]
    pub fn new(
        meta: Arc<dyn MetaStore>,
        store: Arc<Store>,
        clock: Arc<dyn Clock>,
        options: RegistryOptions,
    ) -> Self {
        let sessions = Sessions::new(options.uploads_max);
        let scrubber = Scrubber::new(
            Arc::clone(&meta),
            Arc::clone(&store),
            Arc::clone(&clock),
            options.scrub_bytes_per_hour,
        );
        let gc = GarbageCollector::new(
            Arc::clone(&meta),
            Arc::clone(&store),
            Arc::clone(&clock),
            options.gc,
            options.grace,
        );
        let registry = Self(Arc::new(Inner {
            meta,
            store,
            clock,
            options,
            sessions,
            gc: Arc::new(gc),
            walks: Walks::new(),
            retained: RetentionStats::default(),
            scrubber: Arc::new(scrubber),
            checkpoints: OnceLock::new(),
            last_sample_ms: AtomicU64::new(0),
        }));
        // Weak: the collector is a part of the registry.
        let inner = Arc::downgrade(&registry.0);
        registry.0.gc.set_before(Box::new(move |force| {
            let registry = inner.upgrade().map(Registry);
            Box::pin(async move {
                if let Some(registry) = registry {
                    registry.retain_or_log(force).await;
                }
            })
        }));
        registry
    }

    /// The same registry, which takes checkpoints when it is asked to. What was set first stays.
    #[must_use]
    pub fn with_checkpoints(self, checkpoints: Arc<Checkpoints>) -> Self {
        let _ = self.0.checkpoints.set(checkpoints);
        self
    }

    /// Whether the principal may look after the server itself, rather than what is in it.
    pub fn may_administer(&self, who: &Principal) -> Result<(), RegistryError> {
        policy::authorize(who, None, policy::Action::Admin)
    }

    /// The server's time, milliseconds since 1970.
    #[must_use]
    pub fn now_ms(&self) -> u64 {
        self.0.now_ms()
    }

    /// The store beneath.
    #[must_use]
    pub fn store(&self) -> &Arc<Store> {
        &self.0.store
    }
}

impl Inner {
    fn now_ms(&self) -> u64 {
        self.clock.now_ms()
    }

    /// The rows of a range, up to `rows` at a time.
    fn pages(&self, range: KeyRange, rows: usize) -> Pages<'_> {
        Pages::new(&*self.meta, range, rows)
    }

    /// When a lease that begins now ends.
    fn lease_end_ms(&self) -> u64 {
        self.now_ms() + millis(self.options.lease)
    }

    /// When garbage collection may look at what is deleted now.
    fn grace_end_ms(&self) -> u64 {
        self.now_ms() + millis(self.options.grace)
    }

    async fn get(&self, key: &Key) -> Result<Option<Value>, RegistryError> {
        Ok(self.meta.get_one(key).await?)
    }

    async fn get_record<R: Record>(&self, key: &Key) -> Result<Option<R>, RegistryError> {
        let value = self.get(key).await?;
        Ok(value.map(|v| R::decode(key, &v)).transpose()?)
    }

    /// Commits what `plan` makes of the present state, again if that changed meanwhile.
    async fn transact<T, F>(&self, mut plan: impl FnMut() -> F) -> Result<T, RegistryError>
    where
        F: Future<Output = Result<(Txn, T), RegistryError>>,
    {
        for _ in 0..ATTEMPTS {
            let watched = self.store.pace().watch();
            let (txn, value) = plan().await?;
            if txn.puts.is_empty() && txn.deletes.is_empty() {
                return Ok(value);
            }
            if self.meta.commit(txn).await? == Commit::Done {
                self.store.pace().done(watched);
                return Ok(value);
            }
        }
        Err(RegistryError::Conflict)
    }

    /// Makes sure that the repository exists once the transaction is committed.
    async fn ensure_repository(
        &self,
        repository: &RepositoryName,
        txn: &mut Txn,
    ) -> Result<(), RegistryError> {
        let key = key::repository(repository.as_str());
        if self.get(&key).await?.is_some() {
            txn.checks.push(Check::Present(key));
        } else {
            let row = RepositoryRecord {
                created_ms: self.now_ms(),
            };
            txn.checks.push(Check::Absent(key.clone()));
            txn.puts.push((key, row.encode()));
        }
        Ok(())
    }

    async fn drop_repository_if_empty(
        &self,
        repository: &RepositoryName,
    ) -> Result<(), RegistryError> {
        Ok(drop_repository_if_empty(&*self.meta, repository).await?)
    }

    async fn repository_exists(&self, repository: &RepositoryName) -> Result<bool, RegistryError> {
        Ok(self
            .get(&key::repository(repository.as_str()))
            .await?
            .is_some())
    }
}

fn millis(duration: Duration) -> u64 {
    u64::try_from(duration.as_millis()).unwrap_or(u64::MAX / 4)
}
