//! The cut task of an ingest: blocks become chunks, each looked up, the new ones on their way through compression.

use std::{
    collections::HashSet,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use bytes::Bytes;
use dvcr_core::chunk::{CHUNK_BYTES_MAX, ChunkId, Cutter};
use tokio::{sync::mpsc, task::JoinHandle};

use super::{
    Store, StoreError,
    append::{CutBatch, Found},
    compress::Effort,
    ingest::Step,
    lane::Placed,
    pack::{Record, RecordId},
};
use crate::{
    blocking,
    meta::{
        key,
        record::{ChunkRecord, Record as _},
    },
};

/// A piece cut off, with its id; none for zeros.
struct Cutting {
    bytes: Bytes,
    id: Option<ChunkId>,
}

/// Bytes of the next block that are joined to the uncut tail at first: one chunk of the byte cutter nearly always ends there.
const BRIDGE_BYTES: usize = 128 << 10;

pub(super) struct CutTask {
    store: Arc<Store>,
    cutter: Cutter,
    tail: Bytes,
}

impl CutTask {
    pub(super) fn new(store: Arc<Store>, cutter: Cutter, tail: Bytes) -> Self {
        Self {
            store,
            cutter,
            tail,
        }
    }

    pub(super) async fn run(
        mut self,
        mut steps: mpsc::Receiver<Step>,
        batches: mpsc::Sender<CutBatch>,
    ) -> Result<(), StoreError> {
        while let Some(step) = steps.recv().await {
            let batch = match step {
                Step::Block(block) => self.chunks(block, false).await?,
                Step::Mark(mark) => CutBatch::Mark {
                    mark,
                    cutter: self.cutter.state().to_vec(),
                    tail: self.tail.clone(),
                },
                Step::End => {
                    let last = self.chunks(Bytes::new(), true).await?;
                    if batches.send(last).await.is_err() {
                        return Ok(());
                    }
                    CutBatch::End
                }
            };
            if batches.send(batch).await.is_err() {
                // The append task ended early and says why.
                return Ok(());
            }
        }
        Ok(())
    }

    /// Cuts a block and looks its chunks up; those that are new are being compressed when this returns.
    async fn chunks(&mut self, block: Bytes, end: bool) -> Result<CutBatch, StoreError> {
        let (mut cutter, tail) = (self.cutter.clone(), std::mem::take(&mut self.tail));
        let (cutter, cuttings, tail) = blocking::run(move || {
            let (cuttings, tail) = cut(&mut cutter, tail, &block, end);
            (cutter, cuttings, tail)
        })
        .await;
        (self.cutter, self.tail) = (cutter, tail);

        let epoch = self.store.epochs.enter();
        let ids: Vec<ChunkId> = cuttings.iter().filter_map(|c| c.id).collect();
        // What is pending is asked first: a chunk leaves there only after its row is committed.
        let generation = self.store.lanes.pending.generation();
        let pending = self.store.lanes.pending(&ids);
        let unknown: Vec<_> = ids
            .iter()
            .zip(&pending)
            .filter(|(_, p)| p.is_none())
            .map(|(id, _)| key::chunk(id))
            .collect();
        let mut rows = self
            .store
            .meta
            .get(&unknown)
            .await?
            .into_iter()
            .zip(&unknown);
        let mut pending = pending.into_iter();
        let mut fresh = HashSet::new();
        let mut to_store = Vec::new();
        let mut found = Vec::with_capacity(cuttings.len());
        for cutting in cuttings {
            let len = cutting.bytes.len();
            let Some(id) = cutting.id else {
                self.store.stats.zero_bytes.fetch_add(len as u64, Relaxed);
                found.push(Found::Zeros(len as u64));
                continue;
            };
            let len = u32::try_from(len).expect("chunks are at most 1 MiB");
            let placed: Option<Placed> = pending.next().flatten();
            let at = match placed {
                Some(placed) => At::Pending(placed),
                None => match rows.next() {
                    Some((Some(row), key)) => {
                        let location = ChunkRecord::decode(key, &row)?;
                        if self.store.is_usable(&id, &location) {
                            At::Stored(location)
                        } else {
                            At::New
                        }
                    }
                    _ => At::New,
                },
            };
            found.push(match at {
                At::Pending(placed) => Found::Pending { id, len, placed },
                At::Stored(location) => Found::Stored { id, len, location },
                At::New if fresh.insert(id) => {
                    to_store.push((id, cutting.bytes));
                    Found::New { id, len }
                }
                At::New => {
                    self.store.deduplicated(len as usize);
                    Found::Again { id, len }
                }
            });
        }
        if !to_store.is_empty() {
            found.push(Found::Records {
                generation,
                records: self.compress(to_store),
            });
        }
        Ok(CutBatch::Chunks(found, epoch))
    }

    /// Starts to make records of new chunks.
    fn compress(
        &self,
        chunks: Vec<(ChunkId, Bytes)>,
    ) -> JoinHandle<Result<Vec<Record>, StoreError>> {
        let store = Arc::clone(&self.store);
        store.stats.compress_queue.fetch_add(1, Relaxed);
        let tasks = store.tasks.clone();
        tasks.spawn(async move {
            let permit = store.workers.acquire().await;
            let waiting = store.stats.compress_queue.load(Relaxed);
            let effort = Effort::for_backlog(waiting, store.options.workers);
            if effort != Effort::Full {
                store
                    .stats
                    .hurried_chunks
                    .fetch_add(chunks.len() as u64, Relaxed);
            }
            let codecs = Arc::clone(&store.codecs);
            let records = blocking::run(move || {
                chunks
                    .into_iter()
                    .map(|(id, chunk)| {
                        let len = chunk.len();
                        let (codec, payload) = codecs.encode(&chunk, effort);
                        Record::new(RecordId::Chunk(id), codec, len, vec![payload]).map_err(|e| {
                            StoreError::io("lay out a chunk".into(), std::io::Error::other(e))
                        })
                    })
                    .collect()
            })
            .await;
            store.stats.compress_queue.fetch_sub(1, Relaxed);
            drop(permit);
            records
        })
    }
}

enum At {
    Pending(Placed),
    Stored(ChunkRecord),
    New,
}

/// Cuts `tail` followed by `block`; returns the pieces and what is left, copied, so that it does not keep a block alive.
fn cut(cutter: &mut Cutter, mut tail: Bytes, block: &Bytes, end: bool) -> (Vec<Cutting>, Bytes) {
    let mut cuttings = Vec::with_capacity(32);
    let mut push = |bytes: Bytes, zero: bool| {
        let id = (!zero).then(|| ChunkId::of(&bytes));
        cuttings.push(Cutting { bytes, id });
    };
    let mut at = 0;
    let mut bridge = BRIDGE_BYTES;
    while !tail.is_empty() {
        let take = block.len().min(bridge);
        let joined: Bytes = [&tail[..], &block[..take]].concat().into();
        match cutter.next(&joined, end && take == block.len()) {
            Some(cut) => {
                push(joined.slice(..cut.len), cut.zero);
                if cut.len >= tail.len() {
                    at = cut.len - tail.len();
                    tail = Bytes::new();
                } else {
                    tail = tail.slice(cut.len..);
                }
            }
            None if take < block.len() => bridge = CHUNK_BYTES_MAX,
            None => return (cuttings, joined),
        }
    }
    while at < block.len() {
        let Some(cut) = cutter.next(&block[at..], end) else {
            break;
        };
        push(block.slice(at..at + cut.len), cut.zero);
        at += cut.len;
    }
    let rest = Bytes::copy_from_slice(&block[at..]);
    (cuttings, rest)
}
