//! The embedded engine: all metadata in one redb file. The default.
//!
//! - **One writer.** A thread owns write transactions. It takes whatever queued during the previous fsync, applies it in arrival
//!   order in one redb transaction (each [`Txn`]'s checks see the earlier ones of the batch), commits durably, and only
//!   then answers. So an answer, a conflict too, is always about durable state, and many callers share one fsync.
//! - **Reads never wait for the writer** (MVCC). Up to [`READ_INLINE_ROWS`] rows are read on the calling task: a row takes about a
//!   microsecond from the cache, a page that is not in memory one read of 4 KiB. Larger reads go through [`blocking`].
//!   Every read ends with the call, so none holds back pages for long; page through long listings.
//! - **Opening never walks the data**, also after a crash: every commit saves the allocator's state and is two-phase (redb calls
//!   it quick repair). See [`MetaStats::walks`]. The price is a second fsync and two bits for each 4 KiB page in each commit,
//!   1/16,000 of the file.
//! - **Failures heal.** redb refuses all work after an I/O error. The writer then opens the database anew, learns from it whether
//!   the batch that failed is in it, and answers accordingly: [`MetaError::Full`] is only said when nothing was applied. Reads
//!   wait for the reopening. While the file cannot be opened, each commit and each read makes the writer try again.
//!
//! Measured 2026-11-21, two virtual cores, a disk of 5,000 fdatasync/s, 64 MiB of cache, rows of 33 + 17 bytes at random keys:
//!
//! | | 1 M rows | 5 M rows | 6.9 GB of large values |
//! |---|---|---|---|
//! | file | 128 MiB | 514 MiB | 6.9 GB |
//! | open after a crash (file in the page cache) | 0.6 ms | 0.8 ms | 1.2 ms |
//! | the same, had the last commit been made without quick repair | 590 ms | 1,940 ms | |
//! | one caller | 2,300 commits/s | 2,000 commits/s | 1,050 commits/s |
//! | 64 callers | 24,700 commits/s | 22,100 commits/s | |
//! | filled by 1,000 rows a transaction | 72,000 rows/s | 43,000 rows/s | |
//! | one row, key anywhere / among the last 1,000 used | 2.3 / 1.0 us | 4.6 / 1.0 us | |
//!
//! Memory, while it works: the cache and about 25 MiB.
//!
//! Not here: what the rows mean ([`key`](super::key), [`record`](super::record)), retries, time.

#[cfg(any(test, feature = "testing"))]
pub mod crash_disk;
mod database;
mod stats;
#[cfg(test)]
mod tests;
mod writer;

use std::fs::{File, OpenOptions};
use std::io::{Error, ErrorKind};
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};
use std::sync::atomic::Ordering::Relaxed;
use std::sync::{Arc, Mutex, PoisonError};
use std::thread::JoinHandle;

use ::redb::backends::FileBackend;
use ::redb::{Builder, Database, DatabaseError, StorageBackend};
use async_trait::async_trait;
use tokio::sync::{mpsc, oneshot, watch};

pub use self::stats::MetaStats;

use self::database::{Opener, Slot, Snapshot, State, needs_reopening};
use self::writer::{Job, QUEUE_TXNS_MAX, Writer};
use super::{Commit, Key, KeyRange, MetaError, MetaSnapshot, MetaStore, Txn, Value, Visit};
use crate::blocking;

/// Rows that one call reads on the calling task; larger reads go to a thread where blocking is allowed. 128 cached rows
/// take about 0.1 ms, no more than other polls of a task; handing a read over costs 10 to 20 microseconds.
pub const READ_INLINE_ROWS: usize = 128;

/// Settings of [`RedbMeta`].
#[derive(Clone, Debug)]
pub struct RedbOptions {
    /// Memory for pages of the file, in bytes: the inner nodes of the tree and what was used last. Half of it may be pages
    /// of the running commit.
    pub cache_bytes: usize,
}

impl Default for RedbOptions {
    fn default() -> Self {
        Self {
            cache_bytes: 64 << 20,
        }
    }
}

/// A [`MetaStore`] in one file. Safe for concurrent use; one process at a time may have the file open.
pub struct RedbMeta {
    slot: watch::Receiver<Slot>,
    /// Taken when this is dropped, which ends the writer.
    queue: Option<mpsc::Sender<Job>>,
    writer: Mutex<Option<JoinHandle<()>>>,
    stats: Arc<MetaStats>,
}

impl RedbMeta {
    /// Opens the file, or creates it. Blocks: about a millisecond, whatever the size and however the file was left.
    ///
    /// Errors: [`MetaError::Unavailable`] if another process has it open, or if it is not a database of this kind (an
    /// empty file is not: what was a database is never silently replaced by a new one).
    pub fn open(path: impl AsRef<Path>, options: &RedbOptions) -> Result<Self, MetaError> {
        let path = path.as_ref().to_owned();
        if !path.try_exists().map_err(|error| unavailable(&error))? {
            create(&path, options).map_err(|error| unavailable(&error))?;
        }
        let backend = move || {
            let file = OpenOptions::new().read(true).write(true).open(&path)?;
            if file.metadata()?.len() == 0 {
                return Err(Error::new(ErrorKind::InvalidData, "the file is empty"));
            }
            Ok(file)
        };
        Self::open_with(
            move || FileBackend::new(backend().map_err(storage)?),
            options,
        )
    }

    /// Opens a database on storage of the caller's. `backend` is called now, and again after each failure, when the storage that
    /// it returned before was closed. Blocks.
    ///
    /// Empty storage becomes a new database; a crash in that very moment leaves storage that redb refuses. [`RedbMeta::open`]
    /// creates its file under another name for this reason.
    pub fn open_with<B, F>(backend: F, options: &RedbOptions) -> Result<Self, MetaError>
    where
        B: StorageBackend,
        F: Fn() -> Result<B, DatabaseError> + Send + 'static,
    {
        let RedbOptions { cache_bytes } = *options;
        let stats = Arc::new(MetaStats::default());
        let open = move |builder: &Builder| -> Result<Database, DatabaseError> {
            builder.create_with_backend(backend()?)
        };
        let opener = Opener::new(open, cache_bytes, &stats);
        let (database, last_batch) = opener.open().map_err(|error| unavailable(&error))?;
        let (publish, slot) = watch::channel(Slot {
            generation: 0,
            state: State::Open(database),
        });
        let (queue, jobs) = mpsc::channel(QUEUE_TXNS_MAX);
        let writer = Writer {
            jobs,
            slot: publish,
            opener,
            stats: Arc::clone(&stats),
            last_batch,
        };
        let thread = std::thread::Builder::new()
            .name("meta-writer".to_owned())
            .spawn(move || writer.run())
            .map_err(|error| unavailable(&error))?;
        Ok(Self {
            slot,
            queue: Some(queue),
            writer: Mutex::new(Some(thread)),
            stats,
        })
    }

    /// What the writer did so far.
    pub fn stats(&self) -> Arc<MetaStats> {
        Arc::clone(&self.stats)
    }

    /// Finishes the commits that are queued, closes the file and waits for both. Later calls of any kind get
    /// [`MetaError::Unavailable`]; a second `close` does nothing.
    pub async fn close(&self) {
        if let Some(queue) = &self.queue {
            // A writer that is gone has closed already.
            let _ = queue.send(Job::Close).await;
        }
        let thread = self
            .writer
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .take();
        if let Some(thread) = thread {
            // The writer catches panics of the database; one of its own has been printed.
            let _ = blocking::run(move || thread.join()).await;
        }
    }

    /// The newest rows, and which opening of the database they are from. With `failed`, a later opening than that one.
    async fn snapshot(
        &self,
        failed: Option<u64>,
    ) -> Result<(u64, Result<Snapshot, ::redb::Error>), MetaError> {
        let is_ready = |slot: &Slot| match slot.state {
            State::Open(_) => Some(slot.generation) != failed,
            State::Reopening => false,
            State::Broken(_) | State::Closed => true,
        };
        // Almost always: no clone of the receiver, no waiting.
        {
            let slot = self.slot.borrow();
            if is_ready(&slot) {
                return self.look(&slot);
            }
        }
        let mut changes = self.slot.clone();
        match changes.wait_for(is_ready).await {
            Ok(slot) => self.look(&slot),
            Err(_) => Err(closed()),
        }
    }

    fn look(&self, slot: &Slot) -> Result<(u64, Result<Snapshot, ::redb::Error>), MetaError> {
        match &slot.state {
            State::Open(database) => Ok((slot.generation, Snapshot::new(database))),
            State::Broken(why) => {
                self.ask_reopening(slot.generation);
                Err(MetaError::Unavailable(why.clone()))
            }
            State::Reopening | State::Closed => Err(closed()),
        }
    }

    /// After a read failed: the opening that is to be avoided by the second and last try, or the caller's error.
    fn retry_after(
        &self,
        generation: u64,
        error: &::redb::Error,
        failed_before: Option<u64>,
    ) -> Result<Option<u64>, MetaError> {
        let is_spoilt = needs_reopening(error);
        if is_spoilt {
            self.ask_reopening(generation);
        }
        if is_spoilt && failed_before.is_none() {
            Ok(Some(generation))
        } else {
            Err(unavailable(error))
        }
    }

    /// Tells the writer that this opening of the database is unusable.
    fn ask_reopening(&self, generation: u64) {
        if let Some(queue) = &self.queue {
            // A full queue holds commits, which meet the same failure and have the same effect.
            let _ = queue.try_send(Job::Reopen { generation });
        }
    }
}

impl Drop for RedbMeta {
    /// Does what [`RedbMeta::close`] does, but blocks the thread meanwhile.
    fn drop(&mut self) {
        self.queue = None;
        let thread = self
            .writer
            .get_mut()
            .unwrap_or_else(PoisonError::into_inner);
        if let Some(thread) = thread.take() {
            let _ = thread.join();
        }
    }
}

#[async_trait]
impl MetaStore for RedbMeta {
    async fn get(&self, keys: &[Key]) -> Result<Vec<Option<Value>>, MetaError> {
        let mut failed = None;
        loop {
            let (generation, snapshot) = self.snapshot(failed).await?;
            let values = match snapshot {
                Ok(snapshot) if keys.len() <= READ_INLINE_ROWS => snapshot.get(keys),
                Ok(snapshot) => {
                    let keys = keys.to_vec();
                    blocking::run(move || snapshot.get(&keys)).await
                }
                Err(error) => Err(error),
            };
            match values {
                Ok(values) => return Ok(values),
                Err(error) => failed = self.retry_after(generation, &error, failed)?,
            }
        }
    }

    async fn scan_within(
        &self,
        range: &KeyRange,
        limit: usize,
        bytes: usize,
    ) -> Result<Vec<(Key, Value)>, MetaError> {
        let mut failed = None;
        loop {
            let (generation, snapshot) = self.snapshot(failed).await?;
            let rows = match snapshot {
                Ok(_) if limit == 0 || range.from >= range.to => Ok(Vec::new()),
                Ok(snapshot) if limit <= READ_INLINE_ROWS => snapshot.scan(range, limit, bytes),
                Ok(snapshot) => {
                    let range = range.clone();
                    blocking::run(move || snapshot.scan(&range, limit, bytes)).await
                }
                Err(error) => Err(error),
            };
            match rows {
                Ok(rows) => return Ok(rows),
                Err(error) => failed = self.retry_after(generation, &error, failed)?,
            }
        }
    }

    /// Goes through the queue; waits while the queue is full. A caller that stops waiting after its transaction was queued
    /// does not stop the transaction.
    async fn commit(&self, txn: Txn) -> Result<Commit, MetaError> {
        let queue = self.queue.as_ref().ok_or_else(closed)?;
        let room = queue.reserve().await.map_err(|_| closed())?;
        let (answer, outcome) = oneshot::channel();
        self.stats.queued.fetch_add(1, Relaxed);
        room.send(Job::Commit { txn, answer });
        outcome.await.map_err(|_| closed())?
    }

    async fn snapshot(&self) -> Result<Box<dyn MetaSnapshot>, MetaError> {
        let mut failed = None;
        loop {
            let (generation, snapshot) = self.snapshot(failed).await?;
            match snapshot {
                Ok(snapshot) => return Ok(Box::new(snapshot)),
                Err(error) => failed = self.retry_after(generation, &error, failed)?,
            }
        }
    }
}

impl MetaSnapshot for Snapshot {
    fn each(&self, range: &KeyRange, visit: Visit<'_>) -> Result<(), MetaError> {
        self.visit(range, visit)
            .map_err(|error| unavailable(&error))
    }
}

/// Creates a database and closes it, all under another name: whatever a crash leaves is either no database or a whole one.
fn create(path: &Path, options: &RedbOptions) -> Result<(), ::redb::Error> {
    let mut new = path.as_os_str().to_owned();
    new.push(".new");
    let new = PathBuf::from(new);
    let open = {
        let new = new.clone();
        move |builder: &Builder| {
            let mut how = OpenOptions::new();
            how.read(true).write(true).create(true).truncate(true);
            // Like packs: whoever else may enter the directory shall not read names of images and blobs.
            how.mode(0o600);
            builder.create_file(how.open(&new).map_err(storage)?)
        }
    };
    drop(Opener::new(open, options.cache_bytes, &Arc::default()).open()?);
    std::fs::rename(&new, path)?;
    let parent = match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent,
        _ => Path::new("."),
    };
    File::open(parent)?.sync_all()?;
    Ok(())
}

fn closed() -> MetaError {
    MetaError::Unavailable("metadata is closed".to_owned())
}

fn unavailable(error: &dyn std::error::Error) -> MetaError {
    MetaError::Unavailable(error.to_string())
}

fn storage(error: std::io::Error) -> DatabaseError {
    DatabaseError::Storage(error.into())
}
