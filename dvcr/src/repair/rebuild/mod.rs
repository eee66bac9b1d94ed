//! Rows out of packs and a checkpoint.
//!
//! 1. **Packs**, ascending: each record becomes a row. A chunk that lies in two packs counts from the second if it reads right
//!    there: that is where it was moved or stored anew. Two contents of one recipe part (an upload that went on after a
//!    break with other bytes) are both kept until it is known which of them makes the blob's digest.
//! 2. **Checkpoint**: its rows, except those of blobs that are not whole. Leases are extended, so that nothing goes before
//!    somebody has looked.
//! 3. **What no repository holds**: whole blobs that the checkpoint does not know go to a repository of their own for a while.
//!    Recipes without a blob are dropped.
//! 4. **Counters** go on far beyond every number that was ever used.
//!
//! Memory: some 150 bytes a blob of more than 4 KiB, and one batch of a pack.

mod checkpoint;
mod leftover;
mod packs;
mod recipe;

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io::Read,
    sync::Arc,
};

use bytes::Bytes;
use dvcr_core::oci::Digest;

use super::{DamagedPack, RepairError, RepairReport};
use crate::{
    backend::{PackBackend, PackId},
    checkpoint::format::CheckpointReader,
    meta::{Commit, Key, MetaStore, Txn, Value, key, record::encode_numbers},
    store::pack::BlobHead,
};

/// Rows and bytes committed at once.
const COMMIT_ROWS: usize = 20_000;
const COMMIT_BYTES: usize = 16 << 20;

/// How far the number of recipes jumps: no server begins so many uploads in the time between two checkpoints, and a number
/// that was used twice would make the next repair ambiguous.
const RECIPES_SKIPPED: u64 = 1 << 32;
/// The same for packs, whose files are there to be counted.
const PACKS_SKIPPED: u64 = 4_096;

/// Told how far a repair is.
pub trait Progress: Send {
    /// `done` of `of` steps of this stage.
    fn at(&mut self, stage: &'static str, done: u64, of: u64);
}

/// Nobody looks.
impl Progress for () {
    fn at(&mut self, _: &'static str, _: u64, _: u64) {}
}

/// What there is to rebuild from.
pub struct Sources {
    /// The packs.
    pub packs: Arc<dyn PackBackend>,
    /// Whether a pack was sealed. One that was not may end in torn bytes.
    pub is_sealed: Box<dyn Fn(PackId) -> bool + Send + Sync>,
    /// A checkpoint that was verified.
    pub checkpoint: Option<CheckpointReader<Box<dyn Read + Send>>>,
}

/// Fills an empty metadata store.
pub async fn rebuild(
    sources: Sources,
    meta: Arc<dyn MetaStore>,
    now_ms: u64,
    progress: &mut dyn Progress,
) -> Result<RepairReport, RepairError> {
    let Sources {
        packs,
        is_sealed,
        checkpoint,
    } = sources;
    let mut rebuild = Rebuild {
        packs,
        meta,
        now_ms,
        report: RepairReport::default(),
        heads: Vec::new(),
        other_parts: BTreeMap::new(),
        used: HashSet::new(),
        lost: HashMap::new(),
        next_recipe: 1,
        next_pack: 1,
        txn: Txn::default(),
        txn_bytes: 0,
    };
    rebuild.read_packs(&*is_sealed, progress).await?;
    if let Some(checkpoint) = checkpoint {
        rebuild.read_checkpoint(checkpoint, progress).await?;
    }
    rebuild.name_incomplete().await?;
    rebuild.keep_found(progress).await?;
    rebuild.drop_unused_recipes().await?;
    rebuild.set_counters().await?;
    Ok(rebuild.report)
}

struct Rebuild {
    packs: Arc<dyn PackBackend>,
    meta: Arc<dyn MetaStore>,
    now_ms: u64,
    report: RepairReport,
    heads: Vec<BlobHead>,
    /// Other contents of recipe parts that have a row.
    other_parts: BTreeMap<(u64, u32), Vec<Bytes>>,
    /// Recipes of blobs that are there.
    used: HashSet<u64>,
    /// Where a lost blob is among those of the report.
    lost: HashMap<Digest, usize>,
    next_recipe: u64,
    next_pack: u64,
    /// Rows that are not committed yet.
    txn: Txn,
    txn_bytes: usize,
}

impl Rebuild {
    async fn put(&mut self, key: Key, value: Value) -> Result<(), RepairError> {
        self.txn_bytes += key.len() + value.len();
        self.txn.puts.push((key, value));
        if self.txn.puts.len() >= COMMIT_ROWS || self.txn_bytes >= COMMIT_BYTES {
            self.flush().await?;
        }
        Ok(())
    }

    async fn flush(&mut self) -> Result<(), RepairError> {
        self.txn_bytes = 0;
        let _unconditional: Commit = self.meta.commit(std::mem::take(&mut self.txn)).await?;
        Ok(())
    }

    fn damaged(&mut self, pack: PackId, what: String) {
        self.report.damaged_packs.push(DamagedPack {
            pack: format!("{pack}.pack"),
            what,
        });
    }

    async fn set_counters(&mut self) -> Result<(), RepairError> {
        let counters = [
            ("recipe", self.next_recipe, RECIPES_SKIPPED),
            ("pack", self.next_pack, PACKS_SKIPPED),
        ];
        for (name, next, skipped) in counters {
            let next = encode_numbers(&[next.saturating_add(skipped)]);
            self.put(key::counter(name), next).await?;
        }
        self.flush().await
    }
}
