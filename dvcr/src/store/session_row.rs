//! The row of an upload session, as the ingest that works on it knows it.

use std::sync::Arc;

use super::ingest_state::IngestState;
use crate::meta::{Check, Key, Txn, Value};

/// The row that leads to what an upload has stored. Every transaction of an ingest checks that the row is as this ingest read or
/// wrote it last. So where two work on one upload (two servers, or a request that goes on while the upload expires), one goes on
/// and the other fails, and neither writes into the recipe of the other.
#[derive(Clone)]
pub struct SessionRow {
    key: Key,
    value: Option<Value>,
    row_of: Arc<dyn Fn(&IngestState) -> Value + Send + Sync>,
}

impl SessionRow {
    /// The row as it was read, `None` where there is none yet, and what makes it of how far an ingest has come.
    #[must_use]
    pub fn new(
        key: Key,
        value: Option<Value>,
        row_of: impl Fn(&IngestState) -> Value + Send + Sync + 'static,
    ) -> Self {
        Self {
            key,
            value,
            row_of: Arc::new(row_of),
        }
    }

    /// Where the row is.
    pub(crate) fn key(&self) -> &Key {
        &self.key
    }

    /// What it says.
    pub(crate) fn value(&self) -> Option<&Value> {
        self.value.as_ref()
    }

    /// That the row is as it is known.
    pub(crate) fn check(&self) -> Check {
        match &self.value {
            Some(value) => Check::Exact(self.key.clone(), value.clone()),
            None => Check::Absent(self.key.clone()),
        }
    }

    /// The row says `state` from this transaction on.
    pub(crate) fn record(&mut self, state: &IngestState, txn: &mut Txn) {
        txn.checks.push(self.check());
        let value = (self.row_of)(state);
        txn.puts.push((self.key.clone(), value.clone()));
        self.value = Some(value);
    }

    /// The row is gone from this transaction on.
    pub(crate) fn remove(&self, txn: &mut Txn) {
        txn.checks.push(self.check());
        txn.deletes.push(self.key.clone());
    }
}
