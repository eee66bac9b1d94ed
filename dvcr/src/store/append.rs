//! The append task of an ingest: chunks go to a pack and to the recipe, in order; marks become durable checkpoints.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use bytes::Bytes;
use dvcr_core::chunk::ChunkId;
use tokio::{sync::mpsc, task::JoinHandle};

use super::{
    Store, StoreError,
    epoch::EpochGuard,
    ingest::Mark,
    ingest_state::IngestState,
    joined::joined,
    lane::{Appended, LaneTicket, Outcome, Placed},
    pack::{Codec, Record, RecordId},
    recipe::{Piece, RecipeBuilder, RecipePart},
    segment::Segment,
    session_row::SessionRow,
};
use crate::meta::{
    Txn, key,
    record::{ChunkRecord, Record as _},
};

/// How often new chunks are looked up once more because some upload has ended meanwhile, before they are stored even if they may be
/// there: among many small uploads that could go on for ever, and a chunk stored twice costs only its space.
const LOOK_UPS_MAX: u32 = 4;

/// What the cut task hands over.
pub(super) enum CutBatch {
    /// Pieces in blob order, the records of the new chunks last; and the epoch that they were looked up in.
    Chunks(Vec<Found>, EpochGuard),
    /// A point to make durable.
    Mark {
        mark: Mark,
        cutter: Vec<u8>,
        tail: Bytes,
    },
    /// The blob is complete.
    End,
}

/// A piece of the blob, and whether the store had it.
pub(super) enum Found {
    /// Zeros.
    Zeros(u64),
    /// A chunk with a committed row.
    Stored {
        id: ChunkId,
        len: u32,
        location: ChunkRecord,
    },
    /// A chunk that some upload has appended and not committed.
    Pending {
        id: ChunkId,
        len: u32,
        placed: Placed,
    },
    /// A new chunk; its record follows.
    New { id: ChunkId, len: u32 },
    /// The same chunk again in the same block.
    Again { id: ChunkId, len: u32 },
    /// The records of the new chunks, in order, and when they were found to be new.
    Records {
        /// The generation of the pending chunks at the look-up.
        generation: u64,
        /// The records, once they are made.
        records: JoinHandle<Result<Vec<Record>, StoreError>>,
    },
}

/// An ingest's result.
pub(super) struct Stored {
    /// What the chunks take, bytes.
    pub(super) stored_len: u64,
    /// None where nothing was to be stored.
    pub(super) parts: Option<(RecipeBuilder, Segment, LaneTicket, Option<SessionRow>)>,
}

pub(super) struct AppendTask {
    store: Arc<Store>,
    recipe: RecipeBuilder,
    segment: Segment,
    ticket: LaneTicket,
    stored_len: u64,
    template: IngestState,
    /// Not here while a flush records it.
    session: Option<SessionRow>,
    flush: Option<JoinHandle<Result<SessionRow, StoreError>>>,
}

impl AppendTask {
    pub(super) fn new(
        store: Arc<Store>,
        recipe: RecipeBuilder,
        state: &IngestState,
        session: Option<SessionRow>,
    ) -> Self {
        Self {
            recipe,
            segment: Segment::new(Arc::clone(&store.lanes)),
            ticket: store.lanes.ticket(),
            stored_len: state.stored_len,
            template: IngestState {
                tail: Bytes::new(),
                part: Default::default(),
                ..state.clone()
            },
            session,
            flush: None,
            store,
        }
    }

    pub(super) async fn run(
        mut self,
        batches: mpsc::Receiver<CutBatch>,
    ) -> Result<Stored, StoreError> {
        let taken = self.take_in(batches).await;
        // Also after a failure: a flush that ended later could undo what the next request records.
        let flushed = self.flushed().await;
        let whole = taken?;
        flushed?;
        Ok(Stored {
            stored_len: self.stored_len,
            parts: whole.then_some((self.recipe, self.segment, self.ticket, self.session)),
        })
    }

    /// Takes what comes; true if that was the whole blob. Otherwise the upload was dropped: what is marked is kept, the rest
    /// is forgotten.
    async fn take_in(&mut self, mut batches: mpsc::Receiver<CutBatch>) -> Result<bool, StoreError> {
        while let Some(batch) = batches.recv().await {
            match batch {
                CutBatch::Chunks(found, epoch) => {
                    self.segment.cover(epoch);
                    self.chunks(found).await?;
                }
                CutBatch::Mark { mark, cutter, tail } => self.mark(mark, cutter, tail).await?,
                CutBatch::End => return Ok(true),
            }
        }
        Ok(false)
    }

    async fn chunks(&mut self, mut found: Vec<Found>) -> Result<(), StoreError> {
        if let Some(Found::Records { .. }) = found.last()
            && let Some(Found::Records {
                generation,
                records,
            }) = found.pop()
        {
            let records = joined(records, "compress chunks").await?;
            self.store_new(records, generation).await?;
        }
        for piece in found {
            let piece = match piece {
                Found::Zeros(len) => Piece::Zeros { len },
                Found::Stored { id, len, location } => {
                    self.store.deduplicated(len as usize);
                    self.stored_len += u64::from(location.stored_len);
                    self.segment.relied(&location);
                    Piece::Chunk { id, len }
                }
                Found::Pending { id, len, placed } => {
                    self.store.deduplicated(len as usize);
                    self.stored_len += u64::from(placed.location.stored_len);
                    self.segment.placed(id, &placed);
                    Piece::Chunk { id, len }
                }
                Found::New { id, len } | Found::Again { id, len } => Piece::Chunk { id, len },
                Found::Records { .. } => continue,
            };
            self.push(piece).await?;
        }
        Ok(())
    }

    /// Appends chunks that were new at `generation`, but for those that another upload has committed since.
    async fn store_new(
        &mut self,
        mut records: Vec<Record>,
        mut generation: u64,
    ) -> Result<(), StoreError> {
        for look_up in 0.. {
            let as_of = (look_up < LOOK_UPS_MAX).then_some(generation);
            let ids: Vec<_> = records.iter().filter_map(chunk_id).collect();
            match self.ticket.append_as_of(records, as_of).await? {
                Outcome::Appended(appended) => {
                    for (id, appended) in ids.into_iter().zip(appended) {
                        if let Appended::Chunk(p) = appended {
                            self.stored_len += u64::from(p.location.stored_len);
                            self.segment.placed(id, &p);
                        }
                    }
                    break;
                }
                Outcome::Outdated(again) => {
                    generation = self.store.lanes.pending.generation();
                    records = self.still_new(again).await?;
                    if records.is_empty() {
                        break;
                    }
                }
            }
        }
        Ok(())
    }

    /// Drops the records of chunks that another upload has committed since they were looked up.
    async fn still_new(&mut self, records: Vec<Record>) -> Result<Vec<Record>, StoreError> {
        let ids: Vec<_> = records.iter().filter_map(chunk_id).collect();
        let keys: Vec<_> = ids.iter().map(key::chunk).collect();
        let rows = self.store.meta.get(&keys).await?;
        let mut new = Vec::with_capacity(records.len());
        for (((record, id), row), key) in records.into_iter().zip(ids).zip(rows).zip(&keys) {
            let location = row.map(|row| ChunkRecord::decode(key, &row)).transpose()?;
            match location.filter(|location| self.store.is_usable(&id, location)) {
                None => new.push(record),
                Some(location) => {
                    self.store.deduplicated(record.header().raw_len());
                    self.stored_len += u64::from(location.stored_len);
                    self.segment.relied(&location);
                }
            }
        }
        Ok(new)
    }

    /// Adds a piece to the recipe; a part that it completes goes into the pack too, for repair.
    async fn push(&mut self, piece: Piece) -> Result<(), StoreError> {
        let id = self.recipe.id();
        let Some(record) = self
            .recipe
            .push(piece)
            .map(|(n, part)| recipe_record(id, n, part))
        else {
            return Ok(());
        };
        self.segment.append_books(&self.ticket, vec![record?]).await
    }

    /// Makes everything up to the mark durable, in the background; one flush at a time.
    async fn mark(&mut self, mark: Mark, cutter: Vec<u8>, tail: Bytes) -> Result<(), StoreError> {
        self.flushed().await?;
        let Some(mut session) = self.session.take() else {
            return Ok(());
        };
        let segment = self.segment.take();
        let puts = self.recipe.take_rows();
        let state = IngestState {
            offset: mark.offset,
            stored_len: self.stored_len,
            cutter,
            tail,
            starts: self.recipe.starts().to_vec(),
            part: self.recipe.last_part().1.clone(),
            ..self.template.clone()
        };
        let store = Arc::clone(&self.store);
        self.flush = Some(self.store.tasks.spawn(async move {
            let ended = || {
                StoreError::io(
                    "checkpoint an upload".into(),
                    std::io::Error::other("hashing ended early"),
                )
            };
            let midstate = mark.hasher.await.map_err(|_| ended())?.save();
            let mut txn = Txn {
                puts,
                ..Txn::default()
            };
            session.record(&IngestState { midstate, ..state }, &mut txn);
            segment.flush(&*store.meta, txn).await?;
            if let Some(done) = mark.done {
                // Nobody waits any more if the request was dropped.
                let _ = done.send(());
            }
            Ok(session)
        }));
        Ok(())
    }

    /// Waits for the flush under way.
    async fn flushed(&mut self) -> Result<(), StoreError> {
        if let Some(flush) = self.flush.take() {
            self.session = Some(joined(flush, "checkpoint an upload").await?);
        }
        Ok(())
    }
}

fn chunk_id(record: &Record) -> Option<ChunkId> {
    match record.header().id() {
        RecordId::Chunk(id) => Some(id),
        _ => None,
    }
}

/// A part of a recipe as a record of a pack.
pub(super) fn recipe_record(
    recipe: u64,
    part: u32,
    content: &RecipePart,
) -> Result<Record, StoreError> {
    let payload = content.encode();
    let len = payload.len();
    Record::new(
        RecordId::RecipePart { recipe, part },
        Codec::Raw,
        len,
        vec![payload],
    )
    .map_err(|e| StoreError::io("lay out a recipe".into(), std::io::Error::other(e)))
}

impl Store {
    pub(super) fn deduplicated(&self, len: usize) {
        self.stats.deduplicated_chunks.fetch_add(1, Relaxed);
        self.stats.deduplicated_bytes.fetch_add(len as u64, Relaxed);
    }
}
