//! Numbers of packs and recipes: they grow with time and are never used twice, also across restarts.

use std::sync::Arc;

use tokio::sync::Mutex;

use crate::meta::{
    Check, Commit, MetaError, MetaStore, Txn, key,
    record::{decode_numbers, encode_numbers},
};

/// Numbers reserved at once: one metadata commit for so many packs or uploads. A restart skips what is left, of 2^64.
const RESERVED: u64 = 4096;

/// Hands out the numbers of one sequence.
pub(crate) struct IdAllocator {
    meta: Arc<dyn MetaStore>,
    sequence: &'static str,
    /// The next number, and the first that is not reserved.
    range: Mutex<(u64, u64)>,
}

impl IdAllocator {
    pub(crate) fn new(meta: Arc<dyn MetaStore>, sequence: &'static str) -> Self {
        Self {
            meta,
            sequence,
            range: Mutex::new((0, 0)),
        }
    }

    /// The next number; never 0.
    pub(crate) async fn next(&self) -> Result<u64, MetaError> {
        let mut range = self.range.lock().await;
        while range.0 == range.1 {
            let key = key::counter(self.sequence);
            let stored = self.meta.get_one(&key).await?;
            let (first, check) = match stored {
                Some(value) => {
                    let first = decode_numbers(&key, &value)?.first().copied();
                    let what = "a number";
                    let corrupt = || MetaError::Corrupt {
                        key: hex::encode(&key),
                        what,
                    };
                    (first.ok_or_else(corrupt)?, Check::Exact(key.clone(), value))
                }
                None => (1, Check::Absent(key.clone())),
            };
            let end = first + RESERVED;
            let txn = Txn {
                checks: vec![check],
                puts: vec![(key, encode_numbers(&[end]))],
                deletes: vec![],
            };
            if self.meta.commit(txn).await? == Commit::Done {
                *range = (first, end);
            }
        }
        range.0 += 1;
        Ok(range.0 - 1)
    }
}
