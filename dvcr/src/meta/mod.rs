//! Metadata: an ordered key-value store with conditional transactions.
//!
//! Everything typed ([`key`], [`record`]) sits above [`MetaStore`] and exists once; each engine is a thin adapter and one
//! test suite ([`suite`]) runs on every engine. There are no refcounts and no hot counters: who uses a thing is
//! answered by edge rows, in the same transaction that relies on the answer.
//!
//! Engines: [`redb::RedbMeta`], one file, the default; [`memory::MemoryMeta`], for tests and as the model of the others.

#[cfg(any(test, feature = "testing"))]
pub mod memory;
pub mod redb;
#[cfg(any(test, feature = "testing"))]
pub mod suite;

pub(crate) mod codec;
pub mod key;
mod pages;
pub mod record;

pub(crate) use pages::Pages;

use std::ops::ControlFlow;

use async_trait::async_trait;
use bytes::Bytes;

/// An encoded key. Built by [`key`] only; big-endian, so that listings are range scans.
pub type Key = Vec<u8>;

/// An encoded value. Its first byte is the schema version of its record.
pub type Value = Bytes;

/// A half-open interval of keys, `from <= key < to`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyRange {
    /// First key of the range.
    pub from: Key,
    /// First key past the range.
    pub to: Key,
}

/// A condition on the state that a transaction is applied to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Check {
    /// The key has a value.
    Present(Key),
    /// The key has no value.
    Absent(Key),
    /// The key has exactly this value.
    Exact(Key, Value),
    /// No key of the range has a value.
    EmptyRange(KeyRange),
}

/// Conditional writes: all of them are applied, durably, or none.
///
/// A key that is both deleted and put ends up put.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Txn {
    /// Conditions, all of which must hold on the state before this transaction.
    pub checks: Vec<Check>,
    /// Rows to write.
    pub puts: Vec<(Key, Value)>,
    /// Rows to remove; absent ones are no error.
    pub deletes: Vec<Key>,
}

/// How a transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[must_use]
pub enum Commit {
    /// Applied and durable.
    Done,
    /// Not applied: the check with this index in [`Txn::checks`] did not hold.
    Conflict(usize),
}

/// Why the metadata could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum MetaError {
    /// The device has no room. Nothing of the transaction was applied; trying again after space was freed is fine.
    #[error("no space left for metadata")]
    Full(#[source] std::io::Error),
    /// The engine failed; the transaction may or may not have been applied. Trying again is fine.
    #[error("metadata store unavailable: {0}")]
    Unavailable(String),
    /// A row cannot be decoded.
    #[error("corrupt metadata row {key}: {what}")]
    Corrupt {
        /// The key, printable.
        key: String,
        /// What was expected.
        what: &'static str,
    },
}

/// Copies rows until there are `limit` of them, or they have `bytes` bytes.
fn copy_within<E>(
    rows: impl Iterator<Item = Result<(Key, Value), E>>,
    limit: usize,
    bytes: usize,
) -> Result<Vec<(Key, Value)>, E> {
    let mut copied = Vec::new();
    let mut len = 0;
    for row in rows.take(limit) {
        let (key, value) = row?;
        len += key.len() + value.len();
        copied.push((key, value));
        if len >= bytes {
            break;
        }
    }
    Ok(copied)
}

/// An ordered key-value store with conditional transactions.
///
/// Reads see every transaction whose commit returned before the read began. Safe for concurrent use.
#[async_trait]
pub trait MetaStore: Send + Sync {
    /// The values of the keys, in their order; one consistent snapshot.
    async fn get(&self, keys: &[Key]) -> Result<Vec<Option<Value>>, MetaError>;

    /// The value of one key.
    async fn get_one(&self, key: &Key) -> Result<Option<Value>, MetaError> {
        let mut values = self.get(std::slice::from_ref(key)).await?;
        Ok(values.pop().flatten())
    }

    /// Up to `limit` rows of the range in ascending key order; one consistent snapshot.
    /// Page with `from` = last key + a zero byte.
    async fn scan(&self, range: &KeyRange, limit: usize) -> Result<Vec<(Key, Value)>, MetaError> {
        self.scan_within(range, limit, usize::MAX).await
    }

    /// The same, and no row more once keys and values have `bytes` bytes: the last may go beyond, so there is always one if the
    /// range has one.
    async fn scan_within(
        &self,
        range: &KeyRange,
        limit: usize,
        bytes: usize,
    ) -> Result<Vec<(Key, Value)>, MetaError>;

    /// Applies the transaction if all its checks hold. Durable when this returns [`Commit::Done`].
    async fn commit(&self, txn: Txn) -> Result<Commit, MetaError>;

    /// The rows as they are now, for a walk that is not to see what is committed meanwhile. Holds back the space of rows
    /// that are replaced until it is dropped: seconds, not hours.
    async fn snapshot(&self) -> Result<Box<dyn MetaSnapshot>, MetaError>;
}

/// Takes key and value of a row, and says whether to go on.
pub type Visit<'a> = &'a mut dyn FnMut(&[u8], &[u8]) -> ControlFlow<()>;

/// All rows as of one moment.
pub trait MetaSnapshot: Send {
    /// Calls `visit` with the rows of the range in ascending key order, until it says to break. Blocks.
    fn each(&self, range: &KeyRange, visit: Visit<'_>) -> Result<(), MetaError>;
}
