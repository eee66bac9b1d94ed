//! Scrub: reading everything that is stored, to find damage before somebody needs it.
//!
//! In the background, pack by pack within a budget, and now when somebody asks. Each record's checksums and the BLAKE3 of
//! what it decodes to are compared; of some blobs, one after the other, the digest of the whole. What is found is a row
//! ([`Finding`]), which heals by itself when the same content is pushed again. Everything here may run beside pushes, reviews
//! and sweeps: a finding is made in a transaction that checks that the row still leads to the damaged record.

mod blob;
mod finding;
mod pack;
mod pass;
mod rows;
mod status;
#[cfg(test)]
mod tests;

use std::{
    sync::{
        Arc, Mutex as StdMutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use dvcr_core::oci::RepositoryName;
use tokio::sync::Mutex;

pub use status::{ScrubRun, ScrubState, ScrubStats, ScrubStatus};

use super::mark::Source;
use crate::{
    clock::Clock,
    meta::MetaStore,
    store::{Store, StoreError},
};

/// How often damage found by reads and sweeps is followed up, and the background looks whether a pass is due.
const SETTLE_INTERVAL: Duration = Duration::from_secs(30);

/// Rows read at once; of recipes, up to 150 KiB each.
const ROWS: usize = 1000;
const LONG_ROWS: usize = 16;

/// Scrubs one store.
pub struct Scrubber {
    meta: Arc<dyn MetaStore>,
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    bytes_per_hour: u64,
    stats: Arc<ScrubStats>,
    run: StdMutex<Option<ScrubRun>>,
    /// Held while findings are followed up.
    settling: Mutex<()>,
    rechecked_ms: AtomicU64,
}

/// Who reads, and so how fast, and who is told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pace {
    Background,
    Now,
}

impl Scrubber {
    /// What walks over the metadata read.
    fn source(&self) -> Source<'_> {
        Source {
            meta: &*self.meta,
            pace: self.store.pace(),
        }
    }

    /// A scrubber for this store, which reads so many bytes an hour in the background.
    #[must_use]
    pub fn new(
        meta: Arc<dyn MetaStore>,
        store: Arc<Store>,
        clock: Arc<dyn Clock>,
        bytes_per_hour: u64,
    ) -> Self {
        Self {
            meta,
            store,
            clock,
            bytes_per_hour,
            stats: Arc::default(),
            run: StdMutex::default(),
            settling: Mutex::default(),
            rechecked_ms: AtomicU64::new(0),
        }
    }

    /// What was done and found.
    #[must_use]
    pub fn stats(&self) -> &Arc<ScrubStats> {
        &self.stats
    }

    /// What scrubs are doing and have done.
    pub async fn status(&self) -> Result<ScrubStatus, StoreError> {
        self.count_findings().await?;
        let stats = &self.stats;
        let found = (
            stats.found_chunks.load(Relaxed),
            stats.found_blobs.load(Relaxed),
            stats.found_packs.load(Relaxed),
        );
        Ok(ScrubStatus {
            bytes_per_hour: self.bytes_per_hour,
            progress: self.progress().await?.0,
            run: self.run().clone(),
            found,
        })
    }

    /// Reads in the background, and follows up what reads and sweeps find. Never returns.
    pub async fn work(&self) {
        if let Err(error) = self.begin().await {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "read the findings of earlier scrubs"
            );
        }
        let follow_up = async {
            loop {
                tokio::time::sleep(SETTLE_INTERVAL).await;
                log(self.settle().await, "follow up damage");
            }
        };
        let read = async {
            loop {
                if self.bytes_per_hour > 0 {
                    log(self.background_pass().await, "scrub; it goes on later");
                }
                tokio::time::sleep(SETTLE_INTERVAL).await;
            }
        };
        tokio::join!(follow_up, read);
    }

    async fn begin(&self) -> Result<(), StoreError> {
        let (progress, _) = self.progress().await?;
        self.stats
            .full_pass_ms
            .store(progress.full_pass_ms, Relaxed);
        self.count_findings().await
    }

    /// Begins to read everything now, or what a repository holds; the work is done by [`finish`](Self::finish). None while
    /// another such scrub is going on.
    pub async fn start(
        &self,
        repository: Option<RepositoryName>,
    ) -> Result<Option<ScrubRun>, StoreError> {
        let of_bytes = match &repository {
            None => self.pack_bytes().await?,
            Some(name) => self.blobs_of(name).await?.iter().map(|(_, len)| len).sum(),
        };
        let mut run = self.run();
        let id = match &*run {
            Some(run) if run.state == ScrubState::Running => return Ok(None),
            Some(run) => run.id + 1,
            None => 1,
        };
        *run = Some(ScrubRun {
            id,
            repository,
            state: ScrubState::Running,
            started_ms: self.clock.now_ms(),
            finished_ms: None,
            bytes: 0,
            of_bytes,
            found: 0,
            error: None,
        });
        Ok(run.clone())
    }

    /// Does what was begun.
    pub async fn finish(&self, run: &ScrubRun) -> Result<(), StoreError> {
        let result = match &run.repository {
            None => self.read_all().await,
            Some(repository) => self.read_repository(repository).await,
        };
        if let Some(run) = &mut *self.run() {
            run.finished_ms = Some(self.clock.now_ms());
            run.state = ScrubState::Done;
            if let Err(error) = &result {
                run.state = ScrubState::Failed;
                run.error = Some(error.to_string());
            }
        }
        result
    }

    fn found(&self, news: u64) {
        if let Some(run) = &mut *self.run()
            && run.state == ScrubState::Running
        {
            run.found += news;
        }
    }

    fn run(&self) -> MutexGuard<'_, Option<ScrubRun>> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn log(result: Result<(), StoreError>, what: &str) {
    if let Err(error) = result {
        tracing::error!(error = &error as &dyn std::error::Error, "{what}");
    }
}
