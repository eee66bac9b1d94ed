//! The open database, and the slot through which readers and the writer share it.

use std::sync::Arc;
use std::sync::atomic::Ordering::Relaxed;

use ::redb::{
    Builder, Database, DatabaseError, ReadOnlyTable, ReadableDatabase, ReadableTable,
    TableDefinition, TableError, WriteTransaction,
};

use super::stats::MetaStats;
use crate::meta::{Key, KeyRange, Value, Visit, copy_within};

/// All rows.
pub(super) const ROWS: TableDefinition<&[u8], &[u8]> = TableDefinition::new("rows");

/// One row: the number of the last batch that was committed. It tells, once a database that failed in a commit is open
/// again, whether that commit happened: redb may report an error after its commit became durable.
pub(super) const LAST_BATCH: TableDefinition<(), u64> = TableDefinition::new("last_batch");

type Open = dyn Fn(&Builder) -> Result<Database, DatabaseError> + Send;

/// Opens the database, the first time and after each failure.
pub(super) struct Opener {
    open: Box<Open>,
    cache_bytes: usize,
    stats: Arc<MetaStats>,
}

impl Opener {
    pub(super) fn new(
        open: impl Fn(&Builder) -> Result<Database, DatabaseError> + Send + 'static,
        cache_bytes: usize,
        stats: &Arc<MetaStats>,
    ) -> Self {
        Self {
            open: Box::new(open),
            cache_bytes,
            stats: Arc::clone(stats),
        }
    }

    /// Returns the database and the number of the last batch in it. Blocks.
    pub(super) fn open(&self) -> Result<(Database, u64), ::redb::Error> {
        let mut builder = Builder::new();
        builder.set_cache_size(self.cache_bytes);
        let stats = Arc::clone(&self.stats);
        builder.set_repair_callback(move |session| {
            // The callback comes several times a walk, first with no progress.
            if session.progress() == 0.0 {
                stats.walks.fetch_add(1, Relaxed);
                tracing::warn!("metadata was not saved with its allocator state; walking the file");
            }
        });
        let database = (self.open)(&builder)?;
        let last_batch = match database.begin_read()?.open_table(LAST_BATCH) {
            Ok(table) => table.get(())?.map_or(0, |value| value.value()),
            Err(TableError::TableDoesNotExist(_)) => {
                let write = begin_write(&database)?;
                write.open_table(ROWS)?;
                write.open_table(LAST_BATCH)?;
                write.commit()?;
                0
            }
            Err(error) => return Err(error.into()),
        };
        Ok((database, last_batch))
    }
}

/// Begins a write transaction whose commit is durable and leaves a file that opens without a walk, whatever happens next.
///
/// What governs that in redb 4.4 (`Database::new`, `get_allocator_state_table`): the primary header slot was written by a
/// two-phase commit *and* the system table `allocator_state` carries that commit's id. `set_quick_repair` does both, and
/// every commit drops the table first, so it has to be set on *each* commit: one without it makes the next open walk all pages.
pub(super) fn begin_write(database: &Database) -> Result<WriteTransaction, ::redb::Error> {
    let mut write = database.begin_write()?;
    write.set_quick_repair(true);
    Ok(write)
}

/// What the writer publishes: the database, and which opening of it this is.
pub(super) struct Slot {
    /// Grows with each opening, so that a failure that was seen in an old one is not blamed on a newer one.
    pub(super) generation: u64,
    pub(super) state: State,
}

/// Lifecycle of the database behind the slot.
pub(super) enum State {
    /// In use.
    Open(Database),
    /// It failed and is being opened anew; readers wait.
    Reopening,
    /// It failed and could not be opened. Each commit and each read makes the writer try again.
    Broken(String),
    /// Closed for good.
    Closed,
}

/// The rows as of one commit.
pub(super) struct Snapshot(ReadOnlyTable<&'static [u8], &'static [u8]>);

impl Snapshot {
    pub(super) fn new(database: &Database) -> Result<Self, ::redb::Error> {
        Ok(Self(database.begin_read()?.open_table(ROWS)?))
    }

    pub(super) fn get(&self, keys: &[Key]) -> Result<Vec<Option<Value>>, ::redb::Error> {
        let mut values = Vec::with_capacity(keys.len());
        for key in keys {
            let value = ReadableTable::get(&self.0, key.as_slice())?;
            values.push(value.map(|value| Value::copy_from_slice(value.value())));
        }
        Ok(values)
    }

    /// `range` is not empty.
    pub(super) fn scan(
        &self,
        range: &KeyRange,
        limit: usize,
        bytes: usize,
    ) -> Result<Vec<(Key, Value)>, ::redb::Error> {
        let range = range.from.as_slice()..range.to.as_slice();
        let rows = ReadableTable::range(&self.0, range)?.map(|row| {
            let (key, value) = row?;
            Ok((key.value().to_vec(), Value::copy_from_slice(value.value())))
        });
        copy_within(rows, limit, bytes)
    }

    /// Calls `visit` with the rows of the range, as they lie in the cache, until it says to break.
    pub(super) fn visit(&self, range: &KeyRange, visit: Visit<'_>) -> Result<(), ::redb::Error> {
        if range.from >= range.to {
            return Ok(());
        }
        let range = range.from.as_slice()..range.to.as_slice();
        for row in ReadableTable::range(&self.0, range)? {
            let (key, value) = row?;
            if visit(key.value(), value.value()).is_break() {
                break;
            }
        }
        Ok(())
    }
}

/// Whether the database object stays unusable after this error until it is opened anew.
pub(super) fn needs_reopening(error: &::redb::Error) -> bool {
    use ::redb::Error::{DatabaseClosed, Io, LockPoisoned, PreviousIo, TransactionPoisoned};
    matches!(
        error,
        Io(_) | PreviousIo | LockPoisoned(_) | DatabaseClosed | TransactionPoisoned
    )
}
