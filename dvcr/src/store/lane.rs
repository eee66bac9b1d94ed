//! Lanes: the packs that are being written.
//!
//! A lane has at most one open pack, and one batch of records is appended to it at a time, so that what an upload stores
//! lies together. Large uploads get a lane each as far as there are lanes; small ones share.
//!
//! **Durability.** [`OpenPack::make_durable`] returns once a stretch of the pack survives a crash; callers that wait at the same time
//! share one fdatasync. **Poison.** After a failed append or fdatasync nothing is ever appended to that pack again and
//! nothing that was not durable before is ever acknowledged: the kernel may have marked the lost pages clean.

use std::{
    collections::HashMap,
    io,
    sync::{
        Arc, Mutex, MutexGuard, OnceLock, PoisonError,
        atomic::{AtomicU64, AtomicUsize, Ordering::Relaxed},
    },
};

use bytes::Bytes;
use dvcr_core::chunk::ChunkId;
use tokio::{
    sync::{Mutex as AsyncMutex, Notify, watch},
    task::JoinHandle,
};
use tokio_util::task::TaskTracker;

use super::{
    StoreError, StoreStats,
    damaged::Damaged,
    epoch::Condemned,
    ids::IdAllocator,
    joined::joined,
    named::record_end,
    pack::{PackBuilder, PackHeader, Record, RecordId},
};
use crate::{
    backend::{PackBackend, PackId},
    blocking,
    meta::{
        Check, Commit, MetaStore, Txn, key,
        record::{ChunkRecord, PackRecord, PackState, Record as _},
    },
    random,
};

/// Lanes beside each other. Each holds an entry table of at most some 10,000 entries of 64 bytes, and more writers than
/// this gain nothing on one device.
const LANES: usize = 8;

/// The lane of what garbage collection moves. Nobody waits for it but the collector, and it may use the device's reserve.
const COLLECTOR_LANE: usize = LANES;

/// A pack that a lane appends to, or did until a moment ago.
pub(crate) struct OpenPack {
    pub(crate) id: PackId,
    /// Bytes that the backend has. Chunks are offered to others from before they are among these.
    appended: watch::Sender<u64>,
    /// How a write or a sync failed, if one did.
    failed: OnceLock<io::ErrorKind>,
    /// How far the pack is durable, bytes. Held across the fdatasync, so that those who wait share it.
    durable: AsyncMutex<u64>,
    /// What was handed to the backend, in order; ahead of `appended` while a batch is being written.
    builder: Mutex<PackBuilder>,
}

impl OpenPack {
    fn builder(&self) -> MutexGuard<'_, PackBuilder> {
        self.builder.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// From now on nothing is appended, and nothing is acknowledged that is not durable yet. Whoever waits for bytes learns that
    /// they do not come.
    fn fail(&self, error: &io::Error) {
        // The first failure is the cause of others.
        let _ = self.failed.set(error.kind());
        self.appended.send_modify(|_| {});
    }

    fn is_poisoned(&self) -> bool {
        self.failed.get().is_some()
    }

    /// What others learn of the failure; that the device was full is told as that.
    fn poisoned_error(&self) -> StoreError {
        let kind = self.failed.get().copied().unwrap_or(io::ErrorKind::Other);
        let what = "an earlier write to this pack failed; nothing more is written to it";
        StoreError::io(
            format!("write pack {}", self.id),
            io::Error::new(kind, what),
        )
    }
}

/// Where a chunk was put that no committed row names yet.
#[derive(Clone)]
pub(crate) struct Placed {
    pub(crate) location: ChunkRecord,
    pub(crate) pack: Arc<OpenPack>,
}

impl Placed {
    /// Offset in the pack just past the chunk's record.
    pub(crate) fn end(&self) -> u64 {
        record_end(&self.location)
    }
}

/// Chunks that are appended but not committed, so that uploads of the same content side by side store it once.
///
/// Whoever borrows a chunk from here commits its row as well and waits for its pack: the borrower does not depend on
/// the fate of the upload that stored it.
#[derive(Default)]
pub(crate) struct Pending {
    map: Mutex<HashMap<ChunkId, Placed>>,
    /// Grows whenever chunks leave; who looked up before may have missed a row that was committed since.
    left: AtomicU64,
}

impl Pending {
    fn lock(&self) -> MutexGuard<'_, HashMap<ChunkId, Placed>> {
        self.map.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// A number that changes when chunks leave.
    pub(crate) fn generation(&self) -> u64 {
        self.left.load(Relaxed)
    }

    /// Forgets chunks that are committed, or whose upload gave up.
    pub(crate) fn remove(&self, ids: &[ChunkId]) {
        let mut map = self.lock();
        for id in ids {
            map.remove(id);
        }
        self.left.fetch_add(1, Relaxed);
    }
}

/// What became of a record handed to [`LaneTicket::append`].
pub(crate) enum Appended {
    /// A chunk that lies there now, or lay there before: another upload had put it there meanwhile.
    Chunk(Placed),
    /// A record of another kind, which ends at this offset.
    Other { pack: Arc<OpenPack>, end: u64 },
}

/// How [`LaneTicket::append_as_of`] ended.
pub(crate) enum Outcome {
    /// With all records, in their order.
    Appended(Vec<Appended>),
    /// With none: they are to be looked up again.
    Outdated(Vec<Record>),
}

/// All lanes of a store.
pub(crate) struct Lanes {
    packs: Arc<dyn PackBackend>,
    meta: Arc<dyn MetaStore>,
    ids: IdAllocator,
    stats: Arc<StoreStats>,
    pub(crate) pending: Pending,
    condemned: Arc<Condemned>,
    pub(crate) damaged: Arc<Damaged>,
    /// Told when an upload met a full device.
    pub(crate) full: Notify,
    lanes: [Lane; LANES + 1],
    tasks: TaskTracker,
}

#[derive(Default)]
struct Lane {
    open: AsyncMutex<Option<Arc<OpenPack>>>,
    users: AtomicUsize,
}

/// An upload's place on a lane.
pub(crate) struct LaneTicket {
    lanes: Arc<Lanes>,
    lane: usize,
}

impl Drop for LaneTicket {
    fn drop(&mut self) {
        self.lanes.lanes[self.lane].users.fetch_sub(1, Relaxed);
    }
}

impl Lanes {
    pub(crate) fn new(
        packs: Arc<dyn PackBackend>,
        meta: Arc<dyn MetaStore>,
        ids: IdAllocator,
        stats: Arc<StoreStats>,
        condemned: Arc<Condemned>,
        damaged: Arc<Damaged>,
        tasks: TaskTracker,
    ) -> Self {
        Self {
            packs,
            meta,
            ids,
            stats,
            pending: Pending::default(),
            condemned,
            damaged,
            full: Notify::new(),
            lanes: Default::default(),
            tasks,
        }
    }

    /// A place on the lane with the fewest users; the first of them, so that few packs are open when little happens.
    pub(crate) fn ticket(self: &Arc<Self>) -> LaneTicket {
        let lane = (0..LANES)
            .min_by_key(|i| self.lanes[*i].users.load(Relaxed))
            .unwrap_or(0);
        self.lanes[lane].users.fetch_add(1, Relaxed);
        LaneTicket {
            lanes: Arc::clone(self),
            lane,
        }
    }

    /// A place on the collector's lane.
    pub(crate) fn collector_ticket(self: &Arc<Self>) -> LaneTicket {
        self.lanes[COLLECTOR_LANE].users.fetch_add(1, Relaxed);
        LaneTicket {
            lanes: Arc::clone(self),
            lane: COLLECTOR_LANE,
        }
    }

    /// Chunks that are appended and not committed.
    pub(crate) fn pending(&self, ids: &[ChunkId]) -> Vec<Option<Placed>> {
        let map = self.pending.lock();
        ids.iter()
            .map(|id| map.get(id).filter(|placed| self.is_usable(placed)).cloned())
            .collect()
    }

    /// Whether something new may refer to a chunk there.
    fn is_usable(&self, placed: &Placed) -> bool {
        !placed.pack.is_poisoned() && !self.condemned.contains(placed.pack.id)
    }

    /// Bytes of the packs that are being written.
    pub(crate) async fn open_bytes(&self) -> u64 {
        let mut bytes = 0;
        for lane in &self.lanes {
            if let Some(pack) = &*lane.open.lock().await {
                bytes += *pack.appended.borrow();
            }
        }
        bytes
    }

    /// Seals every open pack. What is appended later opens others.
    pub(crate) async fn close(self: &Arc<Self>) -> Result<(), StoreError> {
        for lane in &self.lanes {
            let left = lane.open.lock().await.take().map(|pack| self.seal(pack));
            if let Some(sealing) = left {
                joined(sealing, "seal a pack").await?;
            }
        }
        Ok(())
    }

    async fn open_pack(&self, uses_reserve: bool) -> Result<Arc<OpenPack>, StoreError> {
        let id = PackId(self.ids.next().await?);
        let row = PackRecord {
            state: PackState::Open,
            bytes: 0,
            entries: 0,
        };
        // The row comes first: a row without a file is dropped at the next start, a file without a row would be lost space.
        let txn = Txn {
            checks: vec![Check::Absent(key::pack(id))],
            puts: vec![(key::pack(id), row.encode())],
            deletes: vec![],
        };
        if self.meta.commit(txn).await? != Commit::Done {
            return Err(StoreError::io(
                format!("create pack {id}"),
                io::Error::other("its number is taken"),
            ));
        }
        let mut slices = Vec::with_capacity(1);
        let mut nonce = [0; 8];
        random::fill(&mut nonce).map_err(|e| {
            StoreError::io(format!("create pack {id}"), io::Error::other(e.to_string()))
        })?;
        let builder = PackBuilder::new(
            PackHeader {
                pack: id,
                nonce: u64::from_ne_bytes(nonce),
            },
            &mut slices,
        );
        let backend = Arc::clone(&self.packs);
        let created = blocking::run(move || {
            backend.create(id)?;
            if uses_reserve {
                backend.use_reserve(id);
            }
            backend.append(id, 0, &slices)
        });
        if let Err(error) = created.await {
            // On a full device every push comes here.
            self.discard(id).await;
            return Err(StoreError::io(format!("create pack {id}"), error));
        }
        Ok(Arc::new(OpenPack {
            id,
            appended: watch::Sender::new(builder.len()),
            failed: OnceLock::new(),
            durable: AsyncMutex::new(0),
            builder: Mutex::new(builder),
        }))
    }

    /// Forgets a pack into which nothing was written. Where that fails, too, the next start does it.
    async fn discard(&self, id: PackId) {
        let backend = Arc::clone(&self.packs);
        if blocking::run(move || backend.delete(id)).await.is_ok() {
            let txn = Txn {
                deletes: vec![key::pack(id)],
                ..Txn::default()
            };
            let _ = self.meta.commit(txn).await;
        }
    }

    /// Seals a pack that has left its lane, also if nobody waits for it: nobody else knows of the pack any more. Where that fails
    /// it is made good at the next start.
    fn seal(self: &Arc<Self>, pack: Arc<OpenPack>) -> JoinHandle<Result<(), StoreError>> {
        let lanes = Arc::clone(self);
        self.tasks.spawn(async move {
            let sealed = lanes.seal_now(&pack).await;
            if let Err(error) = &sealed {
                tracing::error!(pack = %pack.id, error = error as &dyn std::error::Error, "seal pack");
            }
            sealed
        })
    }

    /// Writes footer and row of a pack that gets no more appends.
    async fn seal_now(&self, pack: &Arc<OpenPack>) -> Result<(), StoreError> {
        let id = pack.id;
        let mut durable = pack.durable.lock().await;
        let poisoned = pack.is_poisoned();
        let (end, count, footer) = {
            let mut builder = pack.builder();
            // A poisoned pack ends where it was last known to be good, and gets no footer: it takes no more writes.
            let footer = if poisoned {
                builder.truncate(*durable);
                None
            } else {
                Some(builder.footer())
            };
            (builder.len(), builder.entries().len(), footer)
        };
        let count = u32::try_from(count).expect("a pack has a bounded number of records");
        let backend = Arc::clone(&self.packs);
        let sealed = blocking::run(move || {
            let mut len = end;
            if let Some(footer) = footer {
                // Without its footer it could not be emptied as fast, which a full device needs most.
                backend.use_reserve(id);
                let footer_len = footer.len() as u64;
                match backend.append(id, end, &[footer]) {
                    Ok(()) => len += footer_len,
                    // The records say the same.
                    Err(error) if error.kind() == io::ErrorKind::StorageFull => {}
                    Err(error) => return Err(error),
                }
            }
            backend.seal(id, len).map(|()| len)
        })
        .await;
        let len = match sealed {
            Ok(len) => len,
            Err(error) => {
                // Before anybody else may ask for a sync: the system tells of what it could not write once.
                pack.fail(&error);
                drop(durable);
                self.poison(pack).await;
                return Err(StoreError::io(format!("seal pack {id}"), error));
            }
        };
        *durable = len.max(*durable);
        drop(durable);
        let row = PackRecord {
            state: PackState::Sealed,
            bytes: len,
            entries: count,
        };
        let txn = Txn {
            checks: vec![Check::Present(key::pack(id))],
            puts: vec![(key::pack(id), row.encode())],
            deletes: vec![],
        };
        let _conflict_means_collected = self.meta.commit(txn).await?;
        Ok(())
    }

    /// Takes the pack out of use, which failed; what was durable stays readable.
    async fn poison(&self, pack: &Arc<OpenPack>) {
        self.stats.poisoned_packs.fetch_add(1, Relaxed);
        let durable = *pack.durable.lock().await;
        self.pending
            .lock()
            .retain(|_, placed| !Arc::ptr_eq(&placed.pack, pack) || placed.end() <= durable);
    }

    /// Returns once the first `end` bytes of the pack survive a crash.
    pub(crate) async fn make_durable(
        self: &Arc<Self>,
        pack: &Arc<OpenPack>,
        end: u64,
    ) -> Result<(), StoreError> {
        // A chunk that another upload offers may still be on its way to the backend.
        let is_there = |appended: &u64| *appended >= end || pack.is_poisoned();
        let mut appended = pack.appended.subscribe();
        // Nobody drops the sender while we hold the pack.
        let _ = appended.wait_for(is_there).await;
        let mut durable = pack.durable.lock().await;
        if *durable >= end {
            return Ok(());
        }
        if pack.is_poisoned() {
            return Err(pack.poisoned_error());
        }
        let appended = *pack.appended.borrow();
        let backend = Arc::clone(&self.packs);
        let id = pack.id;
        let begun = std::time::Instant::now();
        let result = blocking::run(move || backend.make_durable(id)).await;
        self.stats.fsyncs.observe(begun.elapsed());
        match result {
            Ok(()) => {
                *durable = appended;
                Ok(())
            }
            Err(error) => {
                // Before whoever waits for the same asks again, and is told that all is well.
                pack.fail(&error);
                drop(durable);
                self.poison(pack).await;
                Err(StoreError::io(format!("make pack {id} durable"), error))
            }
        }
    }
}

impl LaneTicket {
    /// Appends records; chunks that another upload has put somewhere meanwhile are not stored again.
    ///
    /// Not to be cancelled: the lane would no longer know how far its pack goes. Only pipeline tasks call it.
    pub(crate) async fn append(&self, records: Vec<Record>) -> Result<Vec<Appended>, StoreError> {
        match self.append_as_of(records, None).await? {
            Outcome::Appended(appended) => Ok(appended),
            Outcome::Outdated(_) => unreachable!("only a generation can be out of date"),
        }
    }

    /// Like [`LaneTicket::append`], unless chunks have left those pending since `generation`: then what was found to be new may
    /// be committed by now, and the records come back.
    pub(crate) async fn append_as_of(
        &self,
        records: Vec<Record>,
        generation: Option<u64>,
    ) -> Result<Outcome, StoreError> {
        let lanes = &self.lanes;
        let mut open = lanes.lanes[self.lane].open.lock().await;
        let is_over = |pack: &OpenPack| {
            let builder = pack.builder();
            pack.is_poisoned() || builder.is_full() || !builder.takes(&records)
        };
        if let Some(pack) = open.take_if(|pack| is_over(pack)) {
            drop(lanes.seal(pack));
        }
        let pack = match &*open {
            Some(pack) => Arc::clone(pack),
            None => {
                let opened = lanes.open_pack(self.lane == COLLECTOR_LANE).await;
                Arc::clone(open.insert(opened.inspect_err(|error| self.met(error))?))
            }
        };
        let begin = *pack.appended.borrow();
        let mut appended = Vec::with_capacity(records.len());
        let mut slices: Vec<Bytes> = Vec::with_capacity(2 * records.len());
        let mut mine = Vec::new();
        {
            let mut pending = lanes.pending.lock();
            if generation.is_some_and(|seen| seen != lanes.pending.generation()) {
                return Ok(Outcome::Outdated(records));
            }
            let mut builder = pack.builder();
            // Before anything is offered to others: they would wait for what is never appended.
            if !builder.takes(&records) {
                let error = io::Error::other("more records at once than a pack takes");
                return Err(StoreError::io("lay out records".into(), error));
            }
            for record in records {
                let chunk = match record.header().id() {
                    RecordId::Chunk(id) => Some(id),
                    _ => None,
                };
                let known = chunk.and_then(|id| pending.get(&id));
                if let Some(placed) = known.filter(|placed| lanes.is_usable(placed)) {
                    appended.push(Appended::Chunk(placed.clone()));
                    continue;
                }
                let entry = builder.push(record, &mut slices);
                let entry = entry.expect("the pack takes all of them");
                appended.push(match chunk {
                    Some(id) => {
                        let stored_len = u32::try_from(entry.header.stored_len())
                            .expect("payloads are bounded far below 4 GiB");
                        let location = ChunkRecord {
                            pack: pack.id,
                            offset: entry.offset,
                            stored_len,
                        };
                        let placed = Placed {
                            location,
                            pack: Arc::clone(&pack),
                        };
                        pending.insert(id, placed.clone());
                        mine.push(id);
                        Appended::Chunk(placed)
                    }
                    None => Appended::Other {
                        pack: Arc::clone(&pack),
                        end: entry.end(),
                    },
                });
            }
        }
        if slices.is_empty() {
            return Ok(Outcome::Appended(appended));
        }
        let end = pack.builder().len();
        let backend = Arc::clone(&lanes.packs);
        let id = pack.id;
        let result = blocking::run(move || backend.append(id, begin, &slices)).await;
        if let Err(error) = result {
            pack.fail(&error);
            lanes.pending.remove(&mine);
            lanes.poison(&pack).await;
            if let Some(pack) = open.take() {
                drop(lanes.seal(pack));
            }
            let error = StoreError::io(format!("append to pack {id}"), error);
            self.met(&error);
            return Err(error);
        }
        pack.appended.send_replace(end);
        lanes.stats.stored_bytes.fetch_add(end - begin, Relaxed);
        Ok(Outcome::Appended(appended))
    }

    /// Lets garbage collection know that there is no room left.
    fn met(&self, error: &StoreError) {
        if matches!(error, StoreError::Full) && self.lane != COLLECTOR_LANE {
            self.lanes.full.notify_one();
        }
    }
}

#[cfg(test)]
mod tests;
