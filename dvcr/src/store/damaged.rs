//! Chunks and blobs that are known to be damaged.
//!
//! A finding is a row; this is what look-ups need of them in memory. A damaged chunk can still be asked for (a device may
//! have had a bad moment, and wrong bytes are never sent), but nothing new relies on it: to a look-up it is absent, so that
//! the next push of the same content stores it anew. A damaged blob is absent to those who ask whether they have to push it.

use std::{
    collections::{HashMap, HashSet},
    sync::{
        PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard,
        atomic::{AtomicBool, Ordering::Relaxed},
    },
};

use dvcr_core::{chunk::ChunkId, oci::Digest};

use super::{Store, StoreError, recipe::RecipePart};
use crate::{
    backend::PackId,
    meta::{
        Check, Commit, MetaError, Pages, Txn, Value, key,
        record::{BlobBody, BlobRecord, ChunkRecord, FindingRecord, Record as _},
    },
};

/// Most damaged chunks that are remembered, 100 bytes each. A device with more is not worth healing chunk by chunk.
pub(crate) const DAMAGED_CHUNKS_MAX: usize = 100_000;

/// Rows read at once.
const ROWS: usize = 1000;

/// What look-ups need to know of the findings.
#[derive(Default)]
pub(crate) struct Damaged {
    /// Whether there are any: almost always there are none, and no lock is needed to know that.
    any: AtomicBool,
    state: RwLock<State>,
}

#[derive(Default)]
struct State {
    /// Where the damaged record of each chunk lies.
    chunks: HashMap<ChunkId, (PackId, u32)>,
    blobs: HashSet<Digest>,
    /// Chunks were found whose blobs are not known yet.
    unsettled: bool,
    /// Something was healed, so that blobs may be whole again.
    healed: bool,
}

impl Damaged {
    fn read(&self) -> RwLockReadGuard<'_, State> {
        self.state.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, State> {
        self.state.write().unwrap_or_else(PoisonError::into_inner)
    }

    /// Whether the record of the chunk there is the damaged one.
    pub(crate) fn is_at(&self, id: &ChunkId, at: &ChunkRecord) -> bool {
        self.any.load(Relaxed) && self.read().chunks.get(id) == Some(&(at.pack, at.offset))
    }

    /// Whether the chunk was damaged, and this is another record of it.
    pub(crate) fn heals(&self, id: &ChunkId, at: &ChunkRecord) -> bool {
        self.any.load(Relaxed)
            && self
                .read()
                .chunks
                .get(id)
                .is_some_and(|bad| *bad != (at.pack, at.offset))
    }

    /// Notes that something was healed, or is about to be.
    pub(crate) fn note_healed(&self) {
        self.write().healed = true;
    }

    fn insert_chunk(&self, id: ChunkId, at: &ChunkRecord) {
        let mut state = self.write();
        state.chunks.insert(id, (at.pack, at.offset));
        state.unsettled = true;
        self.any.store(true, Relaxed);
    }

    fn insert_blob(&self, digest: Digest) {
        self.write().blobs.insert(digest);
        self.any.store(true, Relaxed);
    }

    fn remove_chunk(&self, id: &ChunkId) {
        let mut state = self.write();
        state.chunks.remove(id);
        let any = !(state.chunks.is_empty() && state.blobs.is_empty());
        self.any.store(any, Relaxed);
    }

    fn remove_blob(&self, digest: &Digest) {
        let mut state = self.write();
        state.blobs.remove(digest);
        let any = !(state.chunks.is_empty() && state.blobs.is_empty());
        self.any.store(any, Relaxed);
    }

    /// What is to be done about findings. Asking is taking the task.
    pub(crate) fn take_tasks(&self) -> Tasks<'_> {
        let mut state = self.write();
        Tasks {
            of: self,
            unsettled: std::mem::take(&mut state.unsettled),
            healed: std::mem::take(&mut state.healed),
        }
    }

    /// The damaged chunks, with the places of their damaged records.
    pub(crate) fn chunks(&self) -> HashMap<ChunkId, (PackId, u32)> {
        self.read().chunks.clone()
    }

    /// How many chunks and blobs.
    pub(crate) fn counts(&self) -> (usize, usize) {
        let state = self.read();
        (state.chunks.len(), state.blobs.len())
    }
}

/// What is to be done about findings. Dropped before it is done, it is given back.
pub(crate) struct Tasks<'a> {
    of: &'a Damaged,
    /// Whether blobs have to be looked for that damaged chunks belong to.
    pub(crate) unsettled: bool,
    /// Whether some may be whole again.
    pub(crate) healed: bool,
}

impl Tasks<'_> {
    pub(crate) fn done(mut self) {
        (self.unsettled, self.healed) = (false, false);
    }
}

impl Drop for Tasks<'_> {
    fn drop(&mut self) {
        let mut state = self.of.write();
        state.unsettled |= self.unsettled;
        state.healed |= self.healed;
    }
}

impl Store {
    /// Reads the findings of an earlier run.
    pub(super) async fn load_damaged(&self) -> Result<(), StoreError> {
        let mut pages = Pages::new(&*self.meta, key::findings(), ROWS);
        while let Some(rows) = pages.next().await? {
            for (row, value) in &rows {
                match key::finding_of(row) {
                    Some(key::Finding::Chunk(id)) => {
                        if let Some(at) = FindingRecord::decode(row, value)?.at {
                            self.damaged.insert_chunk(id, &at);
                        }
                    }
                    Some(key::Finding::Blob(digest)) => self.damaged.insert_blob(digest),
                    Some(key::Finding::Pack(_)) | None => {}
                }
            }
        }
        Ok(())
    }

    /// What is known to be damaged.
    pub(crate) fn damaged(&self) -> &Damaged {
        &self.damaged
    }

    /// Whether something new may rely on the chunk there.
    pub(crate) fn is_usable(&self, id: &ChunkId, at: &ChunkRecord) -> bool {
        !self.condemned.contains(at.pack) && !self.damaged.is_at(id, at)
    }

    /// A chunk of the blob that is known to be damaged where its row leads, and where that is.
    pub(crate) async fn damaged_chunk(
        &self,
        digest: &Digest,
        row: &Value,
    ) -> Result<Option<(ChunkId, ChunkRecord)>, StoreError> {
        let BlobBody::Recipe { id, parts } = BlobRecord::decode(&key::blob(digest), row)?.body
        else {
            return Ok(None);
        };
        for n in 0..parts {
            let key = key::recipe(id, n);
            let Some(row) = self.meta.get_one(&key).await? else {
                continue;
            };
            let part = RecipePart::decode(&key, &row)?;
            let ids: Vec<ChunkId> = {
                let state = self.damaged.read();
                let chunks = part.chunks();
                chunks.filter(|id| state.chunks.contains_key(id)).collect()
            };
            let keys: Vec<_> = ids.iter().map(key::chunk).collect();
            let rows = self.meta.get(&keys).await?;
            for ((id, key), row) in ids.into_iter().zip(&keys).zip(rows) {
                let at = row.map(|row| ChunkRecord::decode(key, &row)).transpose()?;
                if let Some(at) = at.filter(|at| self.damaged.is_at(&id, at)) {
                    return Ok(Some((id, at)));
                }
            }
        }
        Ok(None)
    }

    /// Whether a part of the blob is known to be damaged.
    #[must_use]
    pub fn is_damaged(&self, digest: &Digest) -> bool {
        self.damaged.any.load(Relaxed) && self.damaged.read().blobs.contains(digest)
    }

    /// A blob was stored anew: its finding is gone.
    pub(crate) fn forget_damage(&self, digest: &Digest) {
        self.damaged.remove_blob(digest);
        self.damaged.note_healed();
    }

    /// Notes that the record of a chunk there is damaged, unless the chunk's row leads elsewhere by now. True if that is news.
    pub(crate) async fn mark_chunk(
        &self,
        id: &ChunkId,
        at: &ChunkRecord,
        what: &str,
    ) -> Result<bool, StoreError> {
        if self.damaged.is_at(id, at) || self.damaged.counts().0 >= DAMAGED_CHUNKS_MAX {
            return Ok(false);
        }
        let found = FindingRecord {
            found_ms: self.clock.now_ms(),
            at: Some(*at),
            what: what.to_owned(),
        };
        let finding = key::finding(&key::Finding::Chunk(*id));
        let txn = Txn {
            checks: vec![Check::Exact(key::chunk(id), at.encode())],
            puts: vec![(finding, found.encode())],
            deletes: vec![],
        };
        if self.meta.commit(txn).await? != Commit::Done {
            return Ok(false);
        }
        self.damaged.insert_chunk(*id, at);
        tracing::error!(
            chunk = %id, pack = %at.pack, offset = at.offset, what,
            "a stored chunk is damaged; the next push of the same content replaces it"
        );
        Ok(true)
    }

    /// Notes that a blob cannot be read in full, provided that its row is still this one. True if that is news.
    pub(crate) async fn mark_blob(
        &self,
        digest: &Digest,
        row: Value,
        at: Option<ChunkRecord>,
        what: &str,
    ) -> Result<bool, StoreError> {
        if self.is_damaged(digest) {
            return Ok(false);
        }
        let found = FindingRecord {
            found_ms: self.clock.now_ms(),
            at,
            what: what.to_owned(),
        };
        let finding = key::finding(&key::Finding::Blob(*digest));
        let txn = Txn {
            checks: vec![Check::Exact(key::blob(digest), row)],
            puts: vec![(finding, found.encode())],
            deletes: vec![],
        };
        if self.meta.commit(txn).await? != Commit::Done {
            return Ok(false);
        }
        self.damaged.insert_blob(*digest);
        tracing::error!(%digest, what, "a blob is damaged; pushing it again heals it");
        Ok(true)
    }

    /// Notes that a blob cannot be read in full, if one of its chunks is known to be damaged. Returns where that lies, and
    /// whether it is news of the blob.
    pub(crate) async fn mark_blob_if_damaged(
        &self,
        digest: &Digest,
        row: Value,
    ) -> Result<Option<(ChunkRecord, bool)>, StoreError> {
        let Some((chunk, at)) = self.damaged_chunk(digest, &row).await? else {
            return Ok(None);
        };
        let finding = self.finding(&key::Finding::Chunk(chunk)).await?;
        let why = finding.map_or_else(String::new, |(_, found)| format!(": {}", found.what));
        let what = format!("chunk {chunk}{why}");
        let news = self.mark_blob(digest, row, Some(at), &what).await?;
        Ok(Some((at, news)))
    }

    /// Notes that a pack cannot be listed.
    pub(crate) async fn mark_pack(&self, pack: PackId, what: &str) -> Result<bool, StoreError> {
        let finding = key::finding(&key::Finding::Pack(pack));
        let found = FindingRecord {
            found_ms: self.clock.now_ms(),
            at: None,
            what: what.to_owned(),
        };
        let txn = Txn {
            checks: vec![
                Check::Present(key::pack(pack)),
                Check::Absent(finding.clone()),
            ],
            puts: vec![(finding, found.encode())],
            deletes: vec![],
        };
        let news = self.meta.commit(txn).await? == Commit::Done;
        if news {
            tracing::error!(%pack, what, "a pack is damaged");
        }
        Ok(news)
    }

    /// Forgets a finding, if it and what it was about are as they were read. Without a value, what it was about is gone.
    pub(crate) async fn clear_finding(
        &self,
        finding: &key::Finding,
        row: Value,
        about: Option<Value>,
    ) -> Result<bool, StoreError> {
        let about_key = match finding {
            key::Finding::Chunk(id) => key::chunk(id),
            key::Finding::Blob(digest) => key::blob(digest),
            key::Finding::Pack(pack) => key::pack(*pack),
        };
        let finding_key = key::finding(finding);
        let txn = Txn {
            checks: vec![
                Check::Exact(finding_key.clone(), row),
                match about {
                    Some(value) => Check::Exact(about_key, value),
                    None => Check::Absent(about_key),
                },
            ],
            puts: vec![],
            deletes: vec![finding_key],
        };
        if self.meta.commit(txn).await? != Commit::Done {
            return Ok(false);
        }
        match finding {
            key::Finding::Chunk(id) => self.damaged.remove_chunk(id),
            key::Finding::Blob(digest) => self.damaged.remove_blob(digest),
            key::Finding::Pack(_) => {}
        }
        Ok(true)
    }

    /// The finding about something.
    pub(crate) async fn finding(
        &self,
        finding: &key::Finding,
    ) -> Result<Option<(Value, FindingRecord)>, MetaError> {
        let key = key::finding(finding);
        let Some(row) = self.meta.get_one(&key).await? else {
            return Ok(None);
        };
        let record = FindingRecord::decode(&key, &row)?;
        Ok(Some((row, record)))
    }
}
