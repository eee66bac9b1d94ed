//! Emptying packs: what garbage collection does to the chunk store. `docs/gc.md` has the protocol and why it is safe.
//!
//! A pack is condemned, so that nothing new refers to it; once everybody has left who looked something up before, what is
//! still referred to is known for good ([`crate::gc`] finds it out), is moved, and the pack goes.

use std::{collections::HashMap, ops::Range, sync::Arc};

use bytes::Bytes;
use dvcr_core::chunk::ChunkId;

use super::{
    Store, StoreError,
    compress::Codecs,
    contents::{PackContents, read_contents},
    joined::joined,
    lane::Appended,
    pack::{Entry, Record, RecordId},
    segment::Segment,
    verify::check_record,
};
use crate::{
    backend::PackId,
    blocking,
    meta::{
        Check, Commit, Key, Txn, key,
        record::{ChunkRecord, PackRecord, PackState, Record as _},
    },
};

/// Rows looked at or removed in one transaction.
const ROWS: usize = 1000;

/// What became of a pack that was to be emptied.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Emptied {
    /// Bytes of records that were moved to another pack.
    pub moved_bytes: u64,
    /// Bytes of the pack's file, if it is gone.
    pub freed_bytes: u64,
    /// Records that are needed and damaged. The pack stays for them: pushing the same content again replaces them.
    pub damaged: u64,
}

/// Records that were read to be moved.
#[derive(Default)]
struct Loaded {
    good: Vec<Record>,
    /// Chunks that are needed and damaged.
    damaged: u64,
}

impl Store {
    /// Something may be dead that was not before: bytes, as stored.
    pub(crate) fn note_dead(&self, bytes: u64) {
        self.stats
            .maybe_dead_bytes
            .fetch_add(bytes, std::sync::atomic::Ordering::Relaxed);
    }

    /// Seals the packs that are being written, so that they can be emptied, too.
    pub(crate) async fn rotate_packs(&self) -> Result<(), StoreError> {
        self.lanes.close().await
    }

    /// From now on nothing new refers to these packs. False if one of them is not sealed (any more); then none is condemned.
    pub(crate) async fn condemn(&self, packs: &[PackId]) -> Result<bool, StoreError> {
        let keys: Vec<_> = packs.iter().map(|pack| key::pack(*pack)).collect();
        let mut txn = Txn::default();
        for (key, row) in keys.iter().zip(self.meta.get(&keys).await?) {
            let Some(row) = row else { return Ok(false) };
            let record = PackRecord::decode(key, &row)?;
            if record.state == PackState::Open {
                return Ok(false);
            }
            let condemned = PackRecord {
                state: PackState::Condemned,
                ..record
            };
            txn.checks.push(Check::Exact(key.clone(), row));
            txn.puts.push((key.clone(), condemned.encode()));
        }
        if self.meta.commit(txn).await? != Commit::Done {
            return Ok(false);
        }
        self.condemned.insert(packs.iter().copied());
        self.epochs.turn().await;
        Ok(true)
    }

    /// What lies in a pack that is to be emptied.
    pub(crate) async fn listed(&self, pack: PackId) -> Result<PackContents, StoreError> {
        let packs = Arc::clone(&self.packs);
        blocking::run(move || read_contents(&*packs, pack))
            .await
            .map_err(|e| StoreError::io(format!("read what lies in pack {pack}"), e))
    }

    /// Moves what is alive out of a condemned pack, forgets the rest, and removes the pack. Everything that refers to the pack
    /// must be committed, and `is_alive` must know it. Where room is short, what is not needed any more is given back at once.
    pub(crate) async fn empty(
        &self,
        pack: PackId,
        PackContents {
            entries,
            has_footer,
            ..
        }: &PackContents,
        is_alive: impl Fn(&RecordId) -> bool,
    ) -> Result<Emptied, StoreError> {
        let mut emptied = Emptied::default();
        let (alive, dead): (Vec<Entry>, Vec<Entry>) = entries
            .iter()
            .partition(|entry| is_alive(&entry.header.id()));
        for batch in dead.chunks(ROWS) {
            let slice = self.pace.slice();
            self.forget_batch(pack, batch).await?;
            slice.rest().await;
        }
        // Without a footer a pack is walked, and a walk ends where room was given back: such a pack is emptied from its end, so that
        // nothing lies behind if a crash comes, or the metadata is made anew.
        let forward = *has_footer;
        let mut gives_back = self.is_short(&alive).await;
        if gives_back && forward {
            self.release(pack, &dead).await;
        }
        let mut kept = &entries[..];
        let mut rest = &alive[..];
        let mut batch = self.next_batch(&mut rest, forward);
        let mut slice = self.pace.slice();
        let mut loaded = self.load(pack, batch).await?;
        while let Some(first) = batch.first() {
            let is_whole = loaded.damaged == 0;
            // The device writes one batch while the next is read and checked.
            let next = self.next_batch(&mut rest, forward);
            let (moved, next_loaded) = futures::future::join(
                self.move_loaded(pack, batch, loaded, &mut emptied),
                self.load(pack, next),
            )
            .await;
            moved?;
            gives_back &= is_whole || forward;
            if gives_back && !forward {
                let emptied;
                (kept, emptied) = kept.split_at(kept.partition_point(|e| e.offset < first.offset));
                self.release(pack, emptied).await;
            } else if gives_back && is_whole {
                self.release(pack, batch).await;
            }
            slice.rest().await;
            slice = self.pace.slice();
            (batch, loaded) = (next, next_loaded?);
        }
        if emptied.damaged == 0 {
            emptied.freed_bytes = self.remove(pack).await?;
        }
        Ok(emptied)
    }

    /// Takes the records that are moved in one slice, from the begin or from the end: near each other, so that they are read together.
    fn next_batch<'a>(&self, rest: &mut &'a [Entry], forward: bool) -> &'a [Entry] {
        let (Some(first), Some(last)) = (rest.first(), rest.last()) else {
            return &[];
        };
        let batch;
        if forward {
            let end = u64::from(first.offset) + self.pace.slice_bytes();
            let count = rest.iter().take_while(|entry| entry.end() <= end).count();
            (batch, *rest) = rest.split_at(count.max(1));
        } else {
            let begin = last.end().saturating_sub(self.pace.slice_bytes());
            let count = rest.partition_point(|entry| u64::from(entry.offset) < begin);
            (*rest, batch) = rest.split_at(count.min(rest.len() - 1));
        }
        batch
    }

    /// Whether copies of these records do not fit into what is free for data.
    async fn is_short(&self, alive: &[Entry]) -> bool {
        let packs = Arc::clone(&self.packs);
        let copies: u64 = alive.iter().map(|e| e.header.record_len() as u64).sum();
        match blocking::run(move || packs.room()).await {
            Ok(Some(room)) => room.free_bytes < room.reserve_bytes.saturating_add(copies),
            _ => false,
        }
    }

    /// Gives back the room of records that no row leads to. What fails is given back with the pack.
    async fn release(&self, pack: PackId, entries: &[Entry]) {
        let mut ranges: Vec<Range<u64>> = Vec::new();
        for entry in entries {
            let (begin, end) = (u64::from(entry.offset), entry.end());
            match ranges.last_mut() {
                Some(last) if last.end == begin => last.end = end,
                _ => ranges.push(begin..end),
            }
        }
        let packs = Arc::clone(&self.packs);
        if let Err(error) = blocking::run(move || packs.release(pack, &ranges)).await {
            tracing::warn!(%pack, error = &error as &dyn std::error::Error, "give back room before the pack is emptied");
        }
    }

    /// The rows of those chunks that (still) lie here, with their values, by chunk and offset: a pack may have two records of a chunk.
    async fn rows_here(
        &self,
        pack: PackId,
        entries: &[Entry],
    ) -> Result<HashMap<(ChunkId, u32), (Key, Bytes)>, StoreError> {
        let chunks: Vec<(ChunkId, Key, u32)> = entries
            .iter()
            .filter_map(|entry| match entry.header.id() {
                RecordId::Chunk(id) => Some((id, key::chunk(&id), entry.offset)),
                _ => None,
            })
            .collect();
        let keys: Vec<_> = chunks.iter().map(|(_, key, _)| key.clone()).collect();
        let rows = self.meta.get(&keys).await?;
        let mut here = HashMap::new();
        for ((id, key, offset), row) in chunks.into_iter().zip(rows) {
            let Some(row) = row else { continue };
            let at = ChunkRecord::decode(&key, &row)?;
            if at.pack == pack && at.offset == offset {
                here.insert((id, offset), (key, row));
            }
        }
        Ok(here)
    }

    /// Reads and checks the records that are to be moved.
    async fn load(&self, pack: PackId, entries: &[Entry]) -> Result<Loaded, StoreError> {
        let here = self.rows_here(pack, entries).await?;
        // A chunk whose row leads elsewhere was stored anew meanwhile, or lies here twice.
        let wanted: Vec<Entry> = entries
            .iter()
            .filter(|entry| match entry.header.id() {
                RecordId::Chunk(id) => here.contains_key(&(id, entry.offset)),
                _ => true,
            })
            .copied()
            .collect();
        let (packs, codecs) = (Arc::clone(&self.packs), Arc::clone(&self.codecs));
        let records = blocking::run(move || {
            let read_once = |entry: &Entry| {
                let read = packs.read(pack, u64::from(entry.offset), entry.header.record_len());
                checked(entry, read, &codecs)
            };
            // Once more where it fails: a bus or memory may have had a bad moment.
            let read = |entry: &Entry| read_once(entry).or_else(|_| read_once(entry));
            wanted
                .into_iter()
                .filter_map(|entry| Some((entry, read(&entry).transpose()?)))
                .collect::<Vec<_>>()
        })
        .await;
        let mut loaded = Loaded::default();
        for (entry, record) in records {
            match (record, entry.header.id()) {
                (Ok(record), _) => loaded.good.push(record),
                (Err(what), RecordId::Chunk(id)) => {
                    let (_, row) = &here[&(id, entry.offset)];
                    let at = ChunkRecord::decode(&key::chunk(&id), row)?;
                    self.mark_chunk(&id, &at, &what).await?;
                    loaded.damaged += 1;
                }
                // The rows have what it said.
                (Err(what), book) => {
                    tracing::warn!(%pack, what, "a damaged record of a recipe is written anew");
                    loaded.good.extend(self.book(book).await?);
                }
            }
        }
        Ok(loaded)
    }

    /// Appends what was read to a pack, and moves the rows that still lead here.
    async fn move_loaded(
        &self,
        pack: PackId,
        entries: &[Entry],
        Loaded { good, damaged }: Loaded,
        emptied: &mut Emptied,
    ) -> Result<(), StoreError> {
        emptied.damaged += damaged;
        if good.is_empty() {
            return Ok(());
        }
        emptied.moved_bytes += good
            .iter()
            .map(|record| record.header().record_len() as u64)
            .sum::<u64>();
        let ids: Vec<_> = good.iter().map(|record| record.header().id()).collect();
        let mut segment = Segment::new(Arc::clone(&self.lanes));
        let ticket = self.lanes.collector_ticket();
        // An append is not to be cancelled, and a collection may be: a server that stops drops it.
        let append = self.tasks.spawn(async move { ticket.append(good).await });
        let appended = joined(append, "move what is alive").await?;
        for (id, appended) in ids.iter().zip(appended) {
            match (id, appended) {
                (RecordId::Chunk(id), Appended::Chunk(placed)) => segment.placed(*id, &placed),
                (_, Appended::Other { pack, end }) => segment.wrote(&pack, end),
                (_, Appended::Chunk(_)) => {}
            }
        }
        loop {
            let mut txn = Txn::default();
            segment.prepare(&mut txn).await?;
            let still_here = self.rows_here(pack, entries).await?;
            let rows: HashMap<&Key, &Bytes> = still_here.values().map(|(k, v)| (k, v)).collect();
            txn.puts.retain(|(key, _)| rows.contains_key(key));
            for (key, _) in &txn.puts {
                txn.checks
                    .push(Check::Exact(key.clone(), rows[key].clone()));
            }
            // A conflict means that another chunk was stored anew; each round has fewer to move.
            if self.meta.commit(txn).await? == Commit::Done {
                return Ok(());
            }
        }
    }

    async fn forget_batch(&self, pack: PackId, entries: &[Entry]) -> Result<(), StoreError> {
        loop {
            let here = self.rows_here(pack, entries).await?;
            if here.is_empty() {
                return Ok(());
            }
            let txn = Txn {
                deletes: here.values().map(|(key, _)| key.clone()).collect(),
                checks: here
                    .into_values()
                    .map(|(key, row)| Check::Exact(key, row))
                    .collect(),
                ..Txn::default()
            };
            if self.meta.commit(txn).await? == Commit::Done {
                return Ok(());
            }
        }
    }

    /// Removes a pack to which no row leads. The file goes first: a row without a file is emptied again after a crash, a
    /// file without a row would be lost space.
    async fn remove(&self, pack: PackId) -> Result<u64, StoreError> {
        let packs = Arc::clone(&self.packs);
        let len = blocking::run(move || {
            let len = match packs.len(pack) {
                Ok(len) => len,
                Err(e) if e.kind() == std::io::ErrorKind::NotFound => 0,
                Err(e) => return Err(e),
            };
            packs.delete(pack).map(|()| len)
        })
        .await
        .map_err(|e| StoreError::io(format!("remove pack {pack}"), e))?;
        let txn = Txn {
            deletes: vec![key::pack(pack)],
            ..Txn::default()
        };
        let _unconditional: Commit = self.meta.commit(txn).await?;
        self.condemned.remove(pack);
        Ok(len)
    }
}

/// The record of an entry, if what was read is that. None if it was moved, and its bytes released, before a crash: a chunk would
/// have no row here then, other records have none anyway.
fn checked(
    entry: &Entry,
    read: std::io::Result<Bytes>,
    codecs: &Codecs,
) -> Result<Option<Record>, String> {
    let bytes = read.map_err(|e| e.to_string())?;
    let is_chunk = matches!(entry.header.id(), RecordId::Chunk(_));
    if !is_chunk && bytes.iter().all(|byte| *byte == 0) {
        return Ok(None);
    }
    let (header, payload) = check_record(&bytes, entry.header.id(), Some(&entry.header), codecs)?;
    Record::new(header.id(), header.codec(), header.raw_len(), vec![payload])
        .map(Some)
        .map_err(|e| e.to_string())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::{
        backend::PackBackend as _,
        meta::MetaStore as _,
        store::Expected,
        store::pack::{Codec, PackBuilder, PackHeader, RECORD_HEADER_LEN},
        testing::World,
    };

    #[tokio::test]
    async fn a_bad_record_says_nothing_of_the_same_chunk_elsewhere_in_the_pack() {
        let world = World::new().await;
        let data = Bytes::from_static(b"a chunk that lies there twice");
        let id = ChunkId::of(&data);
        let pack = PackId(900);
        let (mut slices, mut entries) = (Vec::new(), Vec::new());
        let mut builder = PackBuilder::new(PackHeader { pack, nonce: 1 }, &mut slices);
        for _ in 0..2 {
            let chunk = RecordId::Chunk(id);
            let record = Record::new(chunk, Codec::Raw, data.len(), vec![data.clone()]).unwrap();
            entries.push(builder.push(record, &mut slices).unwrap());
        }
        slices.push(builder.footer());
        world.packs.create(pack).unwrap();
        world.packs.append(pack, 0, &slices).unwrap();
        let bytes = world.packs.len(pack).unwrap();
        world.packs.seal(pack, bytes).unwrap();
        let [bad, good] = entries[..] else {
            panic!("two records");
        };
        let row = PackRecord {
            state: PackState::Sealed,
            bytes,
            entries: 2,
        };
        let txn = Txn {
            puts: vec![
                (key::pack(pack), row.encode()),
                (key::chunk(&id), Expected::listed(pack, &good).at.encode()),
            ],
            ..Txn::default()
        };
        let _unconditional = world.meta.commit(txn).await.unwrap();
        let at = u64::from(bad.offset) + RECORD_HEADER_LEN as u64;
        world.script.flip(pack, at, 1);
        let store = world.registry.store();
        assert!(store.condemn(&[pack]).await.unwrap());
        let contents = store.listed(pack).await.unwrap();
        let emptied = store.empty(pack, &contents, |_| true).await.unwrap();
        assert_eq!((emptied.damaged, emptied.freed_bytes), (0, bytes));
        assert_eq!(store.damaged().counts(), (0, 0));
    }
}
