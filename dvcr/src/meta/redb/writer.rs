//! The writer: one thread that owns write transactions and answers many callers with one fsync.

use std::io::ErrorKind;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;
use std::time::Instant;

use ::redb::{ReadableTable, Table};
use tokio::sync::{mpsc, oneshot, watch};

use super::database::{LAST_BATCH, Opener, ROWS, Slot, State, begin_write};
use super::stats::MetaStats;
use crate::meta::{Check, Commit, MetaError, Txn};

/// Transactions that wait for the writer; more callers wait for room. Twice a batch, so that the next batch is complete
/// when the running one ends. A queued transaction costs its caller's rows and about 200 bytes.
pub(super) const QUEUE_TXNS_MAX: usize = 2 * BATCH_TXNS_MAX;

/// Transactions of one batch. 512 callers that wait for one fsync of 0.2-10 ms are already 50,000 answers a second.
const BATCH_TXNS_MAX: usize = 512;

/// Bytes of rows after which a batch takes no further transaction. Bounds the time to the first answer (about 0.1 s on a disk
/// of 160 MB/s) and the dirty pages of a commit, which the cache has to hold; a single larger transaction is a batch of its own.
const BATCH_BYTES_MAX: usize = 16 << 20;

/// What the writer is asked for.
pub(super) enum Job {
    /// Apply a transaction. The caller may be gone when the answer is ready.
    Commit {
        txn: Txn,
        answer: oneshot::Sender<Result<Commit, MetaError>>,
    },
    /// A reader found this opening of the database unusable.
    Reopen { generation: u64 },
    /// Apply what is queued, then stop.
    Close,
}

/// One transaction of a batch.
struct Caller {
    txn: Txn,
    answer: oneshot::Sender<Result<Commit, MetaError>>,
}

/// Why a batch failed.
enum Failure {
    Full(std::io::Error),
    Other(String),
}

impl From<::redb::Error> for Failure {
    fn from(error: ::redb::Error) -> Self {
        match error {
            ::redb::Error::Io(error)
                if matches!(
                    error.kind(),
                    ErrorKind::StorageFull | ErrorKind::QuotaExceeded
                ) =>
            {
                Failure::Full(error)
            }
            error => Failure::Other(error.to_string()),
        }
    }
}

impl Failure {
    fn describe(&self) -> String {
        match self {
            Failure::Full(error) => error.to_string(),
            Failure::Other(what) => what.clone(),
        }
    }

    /// One error for each caller.
    fn to_error(&self) -> MetaError {
        match self {
            Failure::Full(error) => {
                MetaError::Full(std::io::Error::new(error.kind(), error.to_string()))
            }
            Failure::Other(what) => MetaError::Unavailable(what.clone()),
        }
    }
}

/// State of the writer thread.
pub(super) struct Writer {
    pub(super) jobs: mpsc::Receiver<Job>,
    pub(super) slot: watch::Sender<Slot>,
    pub(super) opener: Opener,
    pub(super) stats: Arc<MetaStats>,
    /// Number of the last batch that is in the database.
    pub(super) last_batch: u64,
}

impl Writer {
    /// Runs until [`Job::Close`] or until every handle is gone; applies everything that was queued before, then closes the database.
    pub(super) fn run(mut self) {
        let mut callers = Vec::new();
        while let Some(job) = self.jobs.blocking_recv() {
            let mut bytes = self.take(job, &mut callers);
            while callers.len() < BATCH_TXNS_MAX && bytes < BATCH_BYTES_MAX {
                let Ok(job) = self.jobs.try_recv() else { break };
                bytes += self.take(job, &mut callers);
            }
            if !callers.is_empty() {
                self.settle(&callers_txns(&callers), callers.len())
                    .into_iter()
                    .zip(callers.drain(..))
                    .for_each(|(outcome, caller)| {
                        // A caller that went away does not need its answer.
                        let _ = caller.answer.send(outcome);
                    });
            }
        }
        let old = self.slot.send_replace(Slot {
            generation: u64::MAX,
            state: State::Closed,
        });
        drop(old);
    }

    /// Handles one job, or adds it to the batch; returns the bytes that it adds.
    fn take(&mut self, job: Job, callers: &mut Vec<Caller>) -> usize {
        match job {
            Job::Commit { txn, answer } => {
                self.stats.queued.fetch_sub(1, Relaxed);
                let bytes = txn_bytes(&txn);
                callers.push(Caller { txn, answer });
                bytes
            }
            Job::Reopen { generation } => {
                let stale = self.slot.borrow().generation != generation;
                if !stale && let Err(failure) = self.reopen() {
                    tracing::error!(error = failure.describe(), "cannot reopen metadata");
                }
                0
            }
            Job::Close => {
                self.jobs.close();
                0
            }
        }
    }

    /// Brings a batch to an end: an outcome for each transaction, in their order.
    fn settle(&mut self, txns: &[&Txn], count: usize) -> Vec<Result<Commit, MetaError>> {
        let is_open = matches!(self.slot.borrow().state, State::Open(_));
        if !is_open && let Err(failure) = self.reopen() {
            self.stats.failures.fetch_add(count as u64, Relaxed);
            // Nothing was tried, so nothing was applied: a full disk may be called that.
            return txns.iter().map(|_| Err(failure.to_error())).collect();
        }
        let mut outcomes = Vec::with_capacity(count);
        // redb asserts its own invariants; a panic of it (or of a backend) must not end the service.
        let result = catch_unwind(AssertUnwindSafe(|| self.apply(txns, &mut outcomes)))
            .unwrap_or_else(|_| Err(Failure::Other("the database panicked".to_owned())));
        if let Err(failure) = result {
            tracing::error!(error = failure.describe(), "metadata commit failed");
            let batch = self.last_batch + 1;
            let failure = match self.reopen() {
                // The commit was durable before something else failed.
                Ok(()) if self.last_batch == batch => None,
                Ok(()) => Some(failure),
                // It may or may not have been applied.
                Err(reopening) => Some(Failure::Other(reopening.describe())),
            };
            if let Some(failure) = failure {
                self.stats.failures.fetch_add(count as u64, Relaxed);
                return txns.iter().map(|_| Err(failure.to_error())).collect();
            }
        }
        let conflicts = outcomes
            .iter()
            .filter(|outcome| matches!(outcome, Commit::Conflict(_)))
            .count() as u64;
        self.stats.conflicts.fetch_add(conflicts, Relaxed);
        self.stats
            .transactions
            .fetch_add(count as u64 - conflicts, Relaxed);
        outcomes.into_iter().map(Ok).collect()
    }

    /// Applies the transactions in order and commits them. When this fails, `outcomes` holds only if the batch turns out
    /// to be in the database all the same.
    fn apply(&mut self, txns: &[&Txn], outcomes: &mut Vec<Commit>) -> Result<(), Failure> {
        let write = match &self.slot.borrow().state {
            State::Open(database) => begin_write(database)?,
            _ => return Err(Failure::Other("metadata is not open".to_owned())),
        };
        let mut changed = false;
        {
            let mut rows = write.open_table(ROWS).map_err(::redb::Error::from)?;
            for txn in txns {
                match first_failed(&rows, &txn.checks)? {
                    Some(at) => outcomes.push(Commit::Conflict(at)),
                    None => {
                        changed |= !(txn.puts.is_empty() && txn.deletes.is_empty());
                        write_rows(&mut rows, txn)?;
                        outcomes.push(Commit::Done);
                    }
                }
            }
        }
        if !changed {
            // Only earlier batches were looked at, and those are durable.
            return Ok(write.abort().map_err(::redb::Error::from)?);
        }
        let batch = self.last_batch + 1;
        write
            .open_table(LAST_BATCH)
            .map_err(::redb::Error::from)?
            .insert((), batch)
            .map_err(::redb::Error::from)?;
        let start = Instant::now();
        write.commit().map_err(::redb::Error::from)?;
        self.stats.commits.observe(start.elapsed());
        self.last_batch = batch;
        Ok(())
    }

    /// Closes the database, if it is open, and opens it anew: after an I/O error redb refuses all further work, because it
    /// cannot know which of its pages reached the disk. Needs no room on the disk.
    fn reopen(&mut self) -> Result<(), Failure> {
        let generation = self.slot.borrow().generation + 1;
        // The lock of the file is released here: readers never own the database, they only look at it in the slot.
        drop(self.slot.send_replace(Slot {
            generation,
            state: State::Reopening,
        }));
        self.stats.reopens.fetch_add(1, Relaxed);
        let opened = catch_unwind(AssertUnwindSafe(|| self.opener.open()))
            .map_err(|_| Failure::Other("the database panicked while it was opened".to_owned()))
            .and_then(|opened| Ok(opened?));
        let (state, result) = match opened {
            Ok((database, last_batch)) => {
                self.last_batch = last_batch;
                tracing::info!("metadata is open again");
                (State::Open(database), Ok(()))
            }
            Err(failure) => (State::Broken(failure.describe()), Err(failure)),
        };
        self.slot.send_replace(Slot { generation, state });
        result
    }
}

fn callers_txns(callers: &[Caller]) -> Vec<&Txn> {
    callers.iter().map(|caller| &caller.txn).collect()
}

/// Bytes of all keys and values of a transaction.
fn txn_bytes(txn: &Txn) -> usize {
    let puts = txn.puts.iter().map(|(key, value)| key.len() + value.len());
    puts.chain(txn.deletes.iter().map(Vec::len)).sum()
}

/// The index of the first check that does not hold.
fn first_failed(
    rows: &Table<'_, &[u8], &[u8]>,
    checks: &[Check],
) -> Result<Option<usize>, ::redb::Error> {
    for (at, check) in checks.iter().enumerate() {
        let holds = match check {
            Check::Present(key) => rows.get(key.as_slice())?.is_some(),
            Check::Absent(key) => rows.get(key.as_slice())?.is_none(),
            Check::Exact(key, value) => rows
                .get(key.as_slice())?
                .is_some_and(|found| found.value() == value.as_ref()),
            Check::EmptyRange(range) if range.from >= range.to => true,
            Check::EmptyRange(range) => rows
                .range(range.from.as_slice()..range.to.as_slice())?
                .next()
                .transpose()?
                .is_none(),
        };
        if !holds {
            return Ok(Some(at));
        }
    }
    Ok(None)
}

/// Deletes first, so that a key in both ends up put; puts by key, so that neighbours meet in the same leaf. Of two puts of
/// one key the later wins (the sort is stable).
fn write_rows(rows: &mut Table<'_, &[u8], &[u8]>, txn: &Txn) -> Result<(), ::redb::Error> {
    for key in &txn.deletes {
        rows.remove(key.as_slice())?;
    }
    let mut puts: Vec<_> = txn.puts.iter().collect();
    puts.sort_by(|left, right| left.0.cmp(&right.0));
    for (key, value) in puts {
        rows.insert(key.as_slice(), value.as_ref())?;
    }
    Ok(())
}
