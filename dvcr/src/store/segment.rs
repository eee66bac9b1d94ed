//! What an ingest has stored since its last flush, and the transaction that makes it known.

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    sync::Arc,
};

use dvcr_core::chunk::ChunkId;

use super::{
    StoreError,
    epoch::EpochGuard,
    lane::{Appended, LaneTicket, Lanes, OpenPack, Placed},
    pack::Record,
};
use crate::{
    backend::PackId,
    meta::{
        Check, Commit, MetaStore, Txn, key,
        record::{ChunkRecord, Record as _},
    },
};

/// Uncommitted chunks of one ingest. Dropping it forgets them: the space is found by garbage collection.
pub(crate) struct Segment {
    lanes: Arc<Lanes>,
    /// Rows to write: chunks that this ingest stored or borrowed.
    rows: HashMap<ChunkId, ChunkRecord>,
    /// How far each pack written must be durable first.
    ends: BTreeMap<PackId, (Arc<OpenPack>, u64)>,
    /// Packs of committed chunks that this ingest relies on.
    relied: HashSet<PackId>,
    /// Since before the first of these chunks was looked up.
    epoch: Option<EpochGuard>,
}

impl Drop for Segment {
    fn drop(&mut self) {
        let ids: Vec<_> = self.rows.keys().copied().collect();
        self.lanes.pending.remove(&ids);
    }
}

impl Segment {
    pub(crate) fn new(lanes: Arc<Lanes>) -> Self {
        Self {
            lanes,
            rows: HashMap::new(),
            ends: BTreeMap::new(),
            relied: HashSet::new(),
            epoch: None,
        }
    }

    /// Takes what has come together so far.
    pub(crate) fn take(&mut self) -> Self {
        std::mem::replace(self, Self::new(Arc::clone(&self.lanes)))
    }

    /// What was looked up under this guard belongs to this segment now.
    pub(crate) fn cover(&mut self, guard: EpochGuard) {
        self.epoch = Some(match self.epoch.take() {
            Some(known) => known.older(guard),
            None => guard,
        });
    }

    /// This ingest uses a chunk whose row is not committed.
    pub(crate) fn placed(&mut self, id: ChunkId, placed: &Placed) {
        self.rows.insert(id, placed.location);
        self.wrote(&placed.pack, placed.end());
    }

    /// Appends records that are not chunks.
    pub(crate) async fn append_books(
        &mut self,
        ticket: &LaneTicket,
        records: Vec<Record>,
    ) -> Result<(), StoreError> {
        for appended in ticket.append(records).await? {
            if let Appended::Other { pack, end } = appended {
                self.wrote(&pack, end);
            }
        }
        Ok(())
    }

    pub(crate) fn wrote(&mut self, pack: &Arc<OpenPack>, end: u64) {
        let known = &mut self
            .ends
            .entry(pack.id)
            .or_insert_with(|| (Arc::clone(pack), 0))
            .1;
        *known = end.max(*known);
    }

    /// This ingest uses a chunk whose row is committed.
    pub(crate) fn relied(&mut self, location: &ChunkRecord) {
        self.relied.insert(location.pack);
    }

    /// Makes the packs durable and adds the rows and checks to the transaction. Keep `self` until that is committed.
    pub(crate) async fn prepare(&self, txn: &mut Txn) -> Result<(), StoreError> {
        for (pack, end) in self.ends.values() {
            self.lanes.make_durable(pack, *end).await?;
        }
        txn.puts.extend(
            self.rows
                .iter()
                .map(|(id, location)| (key::chunk(id), location.encode())),
        );
        let healed = self.rows.iter();
        let healed = healed.filter(|(id, at)| self.lanes.damaged.heals(id, at));
        for (id, _) in healed {
            txn.deletes.push(key::finding(&key::Finding::Chunk(*id)));
            self.lanes.damaged.note_healed();
        }
        txn.checks.extend(
            self.relied
                .iter()
                .chain(self.ends.keys())
                .map(|pack| Check::Present(key::pack(*pack))),
        );
        Ok(())
    }

    /// Makes everything durable and commits the transaction with it.
    pub(crate) async fn flush(self, meta: &dyn MetaStore, mut txn: Txn) -> Result<(), StoreError> {
        self.prepare(&mut txn).await?;
        match meta.commit(txn).await? {
            Commit::Done => Ok(()),
            Commit::Conflict(_) => Err(StoreError::io(
                "commit an upload".into(),
                std::io::Error::other(
                    "another request went on with it, or a pack that it relies on is gone; push again",
                ),
            )),
        }
    }
}
