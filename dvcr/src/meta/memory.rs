//! Metadata in memory: for tests, and as the model that other engines are compared with. Not durable.

use std::collections::BTreeMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use async_trait::async_trait;

use super::{
    Check, Commit, Key, KeyRange, MetaError, MetaSnapshot, MetaStore, Txn, Value, Visit,
    copy_within,
};

/// A [`MetaStore`] that forgets everything when it is dropped. Never fails.
#[derive(Debug, Default)]
pub struct MemoryMeta {
    rows: Mutex<BTreeMap<Key, Value>>,
}

impl MemoryMeta {
    /// An empty store.
    pub fn new() -> Self {
        Self::default()
    }

    fn rows(&self) -> MutexGuard<'_, BTreeMap<Key, Value>> {
        // No code that can panic runs under the lock, other than allocation.
        self.rows.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn holds(rows: &BTreeMap<Key, Value>, check: &Check) -> bool {
    match check {
        Check::Present(key) => rows.contains_key(key),
        Check::Absent(key) => !rows.contains_key(key),
        Check::Exact(key, value) => rows.get(key) == Some(value),
        Check::EmptyRange(range) => in_range(rows, range).next().is_none(),
    }
}

/// An empty range has no rows (`BTreeMap::range` panics on one that ends before it begins).
fn in_range<'a>(
    rows: &'a BTreeMap<Key, Value>,
    range: &KeyRange,
) -> impl Iterator<Item = (&'a Key, &'a Value)> {
    (range.from < range.to)
        .then(|| rows.range(range.from.clone()..range.to.clone()))
        .into_iter()
        .flatten()
}

#[async_trait]
impl MetaStore for MemoryMeta {
    async fn get(&self, keys: &[Key]) -> Result<Vec<Option<Value>>, MetaError> {
        crate::simulation::turn().await;
        let rows = self.rows();
        Ok(keys.iter().map(|key| rows.get(key).cloned()).collect())
    }

    async fn scan_within(
        &self,
        range: &KeyRange,
        limit: usize,
        bytes: usize,
    ) -> Result<Vec<(Key, Value)>, MetaError> {
        crate::simulation::turn().await;
        let rows = self.rows();
        let rows = in_range(&rows, range).map(|(key, value)| Ok((key.clone(), value.clone())));
        copy_within(rows, limit, bytes)
    }

    async fn commit(&self, txn: Txn) -> Result<Commit, MetaError> {
        crate::simulation::turn().await;
        self.commit_now(txn)
    }

    async fn snapshot(&self) -> Result<Box<dyn MetaSnapshot>, MetaError> {
        Ok(Box::new(MemorySnapshot(self.rows().clone())))
    }
}

/// A copy of all rows.
struct MemorySnapshot(BTreeMap<Key, Value>);

impl MetaSnapshot for MemorySnapshot {
    fn each(&self, range: &KeyRange, visit: Visit<'_>) -> Result<(), MetaError> {
        for (key, value) in in_range(&self.0, range) {
            if visit(key, value).is_break() {
                break;
            }
        }
        Ok(())
    }
}

impl MemoryMeta {
    /// Commits without letting others go first.
    pub(crate) fn commit_now(&self, txn: Txn) -> Result<Commit, MetaError> {
        let mut rows = self.rows();
        if let Some(at) = txn.checks.iter().position(|check| !holds(&rows, check)) {
            return Ok(Commit::Conflict(at));
        }
        for key in &txn.deletes {
            rows.remove(key);
        }
        rows.extend(txn.puts);
        Ok(Commit::Done)
    }
}

#[cfg(test)]
mod tests {
    use super::MemoryMeta;
    use crate::meta::suite;

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn passes_the_suite() {
        suite::run(async || MemoryMeta::new()).await;
    }
}
