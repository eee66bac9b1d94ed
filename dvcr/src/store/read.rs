//! Reading a range of a blob: recipe -> locations -> packs -> checked, decoded bytes, a few windows ahead of the client.

use std::{
    ops::Range,
    sync::{Arc, atomic::Ordering::Relaxed},
};

use bytes::Bytes;
use dvcr_core::chunk::ChunkId;
use futures::{Stream, TryStreamExt, stream};
use quick_cache::{Weighter, sync::Cache};

use super::{
    Store, StoreError,
    pack::{Codec, PAYLOAD_BYTES_MAX, RECORD_HEADER_LEN, RecordHeader, RecordId, verify},
    recipe::{Piece, RecipePart},
    zstd_stream::{self, ZEROS_FRAME_BYTES_MAX},
};
use crate::{
    backend::PackId,
    blocking,
    meta::{
        key,
        record::{self, ChunkRecord, Record as _},
    },
};

/// Logical bytes read and sent at once; body frames are at most this long.
const WINDOW_BYTES: u64 = 1 << 20;

/// Windows read ahead of the client: enough to hide a device's latency, 4 MiB a download.
const WINDOWS_AHEAD: usize = 3;

/// Bytes between two records of one pack below which both are read at once.
const GAP_BYTES_MAX: u64 = 16 << 10;

/// Recipe parts kept: of 150 KiB, so at most 10 MiB.
const PARTS_KEPT: usize = 64;

/// Chunk rows that a stream of stored frames may need: its length is known in advance only by looking at all of them.
/// 128 Ki chunks are 8 GiB of a blob and some 3 MiB of memory.
pub(crate) const STORED_STREAM_CHUNKS_MAX: usize = 128 << 10;

#[derive(Clone)]
pub(super) struct ByLen;

impl Weighter<ChunkId, Bytes> for ByLen {
    fn weight(&self, _: &ChunkId, chunk: &Bytes) -> u64 {
        chunk.len() as u64
    }
}

/// Decoded chunks. Raw ones are not kept: the kernel's page cache has them.
pub(super) type ChunkCache = Cache<ChunkId, Bytes, ByLen>;
/// Decoded recipe parts; a committed recipe never changes.
pub(super) type PartCache = Cache<(u64, u32), Arc<RecipePart>>;

pub(super) fn chunk_cache(bytes: u64) -> ChunkCache {
    let chunks = usize::try_from(bytes / (64 << 10))
        .unwrap_or(usize::MAX)
        .max(16);
    Cache::with_weighter(chunks, bytes, ByLen)
}

pub(super) fn part_cache() -> PartCache {
    Cache::new(PARTS_KEPT)
}

/// A committed recipe, ready to be read.
#[derive(Clone)]
pub struct Reading {
    store: Arc<Store>,
    recipe: u64,
    parts: u32,
    len: u64,
}

/// A piece of a window: the bytes of it that the client asked for.
#[derive(Clone, Debug)]
struct Wanted {
    piece: Piece,
    /// Within the piece.
    range: Range<u64>,
}

/// A chunk as it lies in its pack.
struct StoredChunk {
    codec: Codec,
    payload: Bytes,
}

impl Reading {
    /// The blob of `len` bytes whose recipe has this number and so many parts.
    #[must_use]
    pub fn new(store: Arc<Store>, recipe: u64, parts: u32, len: u64) -> Self {
        Self {
            store,
            recipe,
            parts,
            len,
        }
    }

    /// The bytes of `range`, which lies within the blob, in frames of at most [`WINDOW_BYTES`].
    /// An error ends the stream: what came before it is right.
    pub fn body(
        &self,
        range: Range<u64>,
    ) -> impl Stream<Item = Result<Bytes, StoreError>> + Send + use<> {
        let store = Arc::clone(&self.store);
        self.windows(range)
            .map_ok(move |window| {
                let store = Arc::clone(&store);
                async move { store.read_window(window).await }
            })
            .try_buffered(WINDOWS_AHEAD)
            .map_ok(|frames| stream::iter(frames.into_iter().map(Ok)))
            .try_flatten()
    }

    /// Length of [`stored_stream`](Self::stored_stream), and the locations that it will read; none where the blob has too
    /// many chunks to look at first.
    pub async fn stored_len(&self) -> Result<Option<u64>, StoreError> {
        let mut len = 0;
        let mut chunks = 0;
        for n in 0..self.parts {
            let part = self.part(n).await?;
            let ids: Vec<_> = chunk_ids(part.pieces.iter());
            chunks += ids.len();
            if chunks > STORED_STREAM_CHUNKS_MAX {
                return Ok(None);
            }
            let mut locations = self.store.locations(&ids).await?.into_iter();
            for piece in &part.pieces {
                len += match piece {
                    Piece::Zeros { len } => zstd_stream::zeros_len(*len),
                    Piece::Chunk { len, .. } => match locations.next() {
                        Some(at) if at.stored_len < *len => u64::from(at.stored_len),
                        _ => zstd_stream::raw_len(u64::from(*len)),
                    },
                };
            }
        }
        Ok(Some(len))
    }

    /// The whole blob as one zstd stream of what is stored. Garbage collection may store a chunk anew meanwhile, with
    /// another length: the server then ends the response with an error.
    pub fn stored_stream(&self) -> impl Stream<Item = Result<Bytes, StoreError>> + Send + use<> {
        let store = Arc::clone(&self.store);
        self.windows(0..self.len)
            .map_ok(move |window| {
                let store = Arc::clone(&store);
                async move { store.read_stored_window(window).await }
            })
            .try_buffered(WINDOWS_AHEAD)
            .map_ok(|frames| stream::iter(frames.into_iter().map(Ok)))
            .try_flatten()
    }

    /// One part of the recipe.
    async fn part(&self, number: u32) -> Result<Arc<RecipePart>, StoreError> {
        if let Some(part) = self.store.part_cache.get(&(self.recipe, number)) {
            return Ok(part);
        }
        let key = key::recipe(self.recipe, number);
        let row = self.store.meta.get_one(&key).await?;
        let row = row.ok_or(StoreError::Gone)?;
        let part = Arc::new(RecipePart::decode(&key, &row)?);
        self.store
            .part_cache
            .insert((self.recipe, number), Arc::clone(&part));
        Ok(part)
    }

    /// Number of the part that holds the byte at `offset`.
    async fn part_at(&self, offset: u64) -> Result<u32, StoreError> {
        if self.parts <= 1 {
            return Ok(0);
        }
        let key = key::recipe(self.recipe, key::RECIPE_STARTS);
        let row = self.store.meta.get_one(&key).await?;
        let row = row.ok_or_else(|| StoreError::state("the starts of a recipe's parts"))?;
        let starts = record::decode_numbers(&key, &row)?;
        let past = starts.partition_point(|start| *start <= offset);
        Ok(u32::try_from(past.saturating_sub(1)).unwrap_or(u32::MAX))
    }

    /// The pieces of the range, in windows.
    fn windows(
        &self,
        range: Range<u64>,
    ) -> impl Stream<Item = Result<Vec<Wanted>, StoreError>> + Send + use<> {
        struct At {
            reading: Reading,
            part: Option<(u32, Arc<RecipePart>, usize)>,
            /// Offset in the blob of the current piece.
            piece_start: u64,
            range: Range<u64>,
        }
        let at = At {
            reading: self.clone(),
            part: None,
            piece_start: 0,
            range,
        };
        stream::try_unfold(at, |mut at| async move {
            let mut window = Vec::new();
            let mut bytes = 0;
            while at.range.start < at.range.end && bytes < WINDOW_BYTES {
                let (number, part, index) = match at.part.take() {
                    Some(found) => found,
                    None => {
                        let number = at.reading.part_at(at.range.start).await?;
                        let part = at.reading.part(number).await?;
                        at.piece_start = part.start;
                        (number, part, 0)
                    }
                };
                let Some(piece) = part.pieces.get(index) else {
                    if number + 1 >= at.reading.parts {
                        return Err(StoreError::state("a recipe as long as its blob"));
                    }
                    let next = at.reading.part(number + 1).await?;
                    at.piece_start = next.start;
                    at.part = Some((number + 1, next, 0));
                    continue;
                };
                let piece_end = at.piece_start + piece.len();
                if piece_end <= at.range.start {
                    at.piece_start = piece_end;
                    at.part = Some((number, part, index + 1));
                    continue;
                }
                // A long zero run is handed out in frames, always cut at the same places.
                let from = at.range.start;
                let limit = match piece {
                    Piece::Zeros { .. } => {
                        let frames = (from - at.piece_start) / ZEROS_FRAME_BYTES_MAX + 1;
                        at.piece_start + frames * ZEROS_FRAME_BYTES_MAX
                    }
                    Piece::Chunk { .. } => piece_end,
                };
                let to = piece_end.min(at.range.end).min(limit);
                window.push(Wanted {
                    piece: *piece,
                    range: from - at.piece_start..to - at.piece_start,
                });
                bytes += to - from;
                at.range.start = to;
                at.part = Some((number, part, index));
            }
            Ok((!window.is_empty()).then_some((window, at)))
        })
    }
}

fn chunk_ids<'a>(pieces: impl Iterator<Item = &'a Piece>) -> Vec<ChunkId> {
    pieces
        .filter_map(|piece| match piece {
            Piece::Chunk { id, .. } => Some(*id),
            Piece::Zeros { .. } => None,
        })
        .collect()
}

/// Zeros to send; every frame of zeros is a slice of it.
static ZEROS: [u8; ZEROS_FRAME_BYTES_MAX as usize] = [0; ZEROS_FRAME_BYTES_MAX as usize];

impl Store {
    /// Where chunks lie.
    pub(crate) async fn locations(&self, ids: &[ChunkId]) -> Result<Vec<ChunkRecord>, StoreError> {
        let keys: Vec<_> = ids.iter().map(key::chunk).collect();
        let rows = self.meta.get(&keys).await?;
        let mut locations = Vec::with_capacity(rows.len());
        for ((row, key), id) in rows.iter().zip(&keys).zip(ids) {
            let row = row.as_ref().ok_or(StoreError::Missing(*id))?;
            locations.push(ChunkRecord::decode(key, row)?);
        }
        Ok(locations)
    }

    async fn read_window(self: Arc<Self>, window: Vec<Wanted>) -> Result<Vec<Bytes>, StoreError> {
        let chunks: Vec<(ChunkId, u32)> = window
            .iter()
            .filter_map(|w| match w.piece {
                Piece::Chunk { id, len } => Some((id, len)),
                Piece::Zeros { .. } => None,
            })
            .collect();
        let mut decoded: Vec<Option<Bytes>> = chunks
            .iter()
            .map(|(id, _)| self.chunk_cache.get(id))
            .collect();
        let missing: Vec<usize> = (0..chunks.len())
            .filter(|i| decoded[*i].is_none())
            .collect();
        let hits = (chunks.len() - missing.len()) as u64;
        self.stats.cache_hits.fetch_add(hits, Relaxed);
        if !missing.is_empty() {
            let ids: Vec<_> = missing.iter().map(|i| chunks[*i].0).collect();
            let lens: Vec<_> = missing.iter().map(|i| chunks[*i].1 as usize).collect();
            let store = Arc::clone(&self);
            let bodies = self
                .read_chunks(ids, move |n, id, chunk| {
                    let compressed = chunk.codec == Codec::Zstd;
                    let bytes = store.codecs.decode(chunk.codec, chunk.payload, lens[n])?;
                    if compressed {
                        store.stats.cache_misses.fetch_add(1, Relaxed);
                        store.chunk_cache.insert(*id, bytes.clone());
                    }
                    Ok(bytes)
                })
                .await?;
            for (i, bytes) in missing.into_iter().zip(bodies) {
                decoded[i] = Some(bytes);
            }
        }
        let mut decoded = decoded.into_iter().flatten();
        let mut frames = Vec::with_capacity(window.len());
        for wanted in window {
            let range = usize_range(&wanted.range);
            match wanted.piece {
                Piece::Zeros { .. } => frames.push(Bytes::from_static(&ZEROS[..range.len()])),
                Piece::Chunk { id, .. } => {
                    let chunk = decoded.next().ok_or(StoreError::Missing(id))?;
                    frames.push(chunk.slice(range));
                }
            }
        }
        Ok(frames)
    }

    async fn read_stored_window(
        self: Arc<Self>,
        window: Vec<Wanted>,
    ) -> Result<Vec<Bytes>, StoreError> {
        let ids = chunk_ids(window.iter().map(|w| &w.piece));
        let mut chunks = self
            .read_chunks(ids, |_, _, chunk| Ok(chunk))
            .await?
            .into_iter();
        let mut frames = Vec::new();
        for wanted in window {
            match wanted.piece {
                Piece::Zeros { .. } => {
                    let len = wanted.range.end - wanted.range.start;
                    frames.push(zstd_stream::wrap_zeros(len));
                }
                Piece::Chunk { id, .. } => {
                    let chunk = chunks.next().ok_or(StoreError::Missing(id))?;
                    match chunk.codec {
                        Codec::Zstd => frames.push(chunk.payload),
                        Codec::Raw => frames.extend(zstd_stream::wrap_raw(&chunk.payload)),
                    }
                }
            }
        }
        Ok(frames)
    }

    /// Reads and checks chunks and turns each into what the caller wants, on a thread that may block.
    /// A chunk that is not there any more is looked up again: garbage collection may have moved it since.
    async fn read_chunks<T: Send + 'static>(
        self: &Arc<Self>,
        ids: Vec<ChunkId>,
        finish: impl Fn(usize, &ChunkId, StoredChunk) -> Result<T, String> + Send + Sync + 'static,
    ) -> Result<Vec<T>, StoreError> {
        let finish = Arc::new(finish);
        let mut locations: Arc<[_]> = self.locations(&ids).await?.into();
        let mut was_corrupt = false;
        loop {
            let (store, ids_there, finish) = (Arc::clone(self), ids.clone(), Arc::clone(&finish));
            let there = Arc::clone(&locations);
            let result =
                blocking::run(move || store.read_located(&ids_there, &there, &*finish)).await;
            match result {
                Err(error) => {
                    // Rows lead elsewhere before anything is taken away. Where they have not changed, it is lost.
                    let now: Arc<[_]> = self.locations(&ids).await?.into();
                    if now != locations {
                        locations = now;
                        continue;
                    }
                    let StoreError::Corrupt { pack, offset, what } = error else {
                        return Err(error);
                    };
                    // Once more: a bus or memory may have had a bad moment.
                    if !was_corrupt {
                        was_corrupt = true;
                        continue;
                    }
                    self.stats.bad_chunks.fetch_add(1, Relaxed);
                    let is_it =
                        |at: &&ChunkRecord| (at.pack, u64::from(at.offset)) == (pack, offset);
                    if let Some((id, at)) = ids.iter().zip(&*locations).find(|(_, at)| is_it(at)) {
                        // The read has failed in any case.
                        if let Err(error) = self.mark_chunk(id, at, &what).await {
                            tracing::error!(
                                error = &error as &dyn std::error::Error,
                                "note a damaged chunk"
                            );
                        }
                    }
                    return Err(StoreError::Corrupt { pack, offset, what });
                }
                done => return done,
            }
        }
    }

    /// Blocks. Neighbours in a pack are read together.
    fn read_located<T>(
        &self,
        ids: &[ChunkId],
        locations: &[ChunkRecord],
        finish: &dyn Fn(usize, &ChunkId, StoredChunk) -> Result<T, String>,
    ) -> Result<Vec<T>, StoreError> {
        // A row that was damaged must not make us read without bound.
        let bounded = |at: &ChunkRecord| at.stored_len as usize <= PAYLOAD_BYTES_MAX;
        if let Some(at) = locations.iter().find(|at| !bounded(at)) {
            return Err(StoreError::Corrupt {
                pack: at.pack,
                offset: u64::from(at.offset),
                what: format!("a chunk of {} stored bytes", at.stored_len),
            });
        }
        let mut done = Vec::with_capacity(ids.len());
        let mut next = 0;
        while next < locations.len() {
            let first = &locations[next];
            let begin = u64::from(first.offset);
            let mut end = record_end(first);
            let mut past = next + 1;
            while let Some(at) = locations.get(past) {
                let near = at.pack == first.pack
                    && (end..=end + GAP_BYTES_MAX).contains(&u64::from(at.offset))
                    && record_end(at) - begin <= 2 * WINDOW_BYTES;
                if !near {
                    break;
                }
                end = record_end(at);
                past += 1;
            }
            let len = usize::try_from(end - begin)
                .unwrap_or(usize::MAX)
                .min(4 * PAYLOAD_BYTES_MAX);
            let bytes = self
                .packs
                .read(first.pack, begin, len)
                .map_err(|e| read_error(first.pack, begin, e))?;
            for (n, at) in locations.iter().enumerate().take(past).skip(next) {
                let from = usize::try_from(u64::from(at.offset) - begin).unwrap_or(usize::MAX);
                let record = bytes.slice(from..from + RECORD_HEADER_LEN + at.stored_len as usize);
                let corrupt = |what: String| StoreError::Corrupt {
                    pack: at.pack,
                    offset: u64::from(at.offset),
                    what,
                };
                let header = RecordHeader::decode(&record).map_err(|e| corrupt(e.to_string()))?;
                if header.id() != RecordId::Chunk(ids[n]) {
                    return Err(corrupt(format!(
                        "expected chunk {}, found another record",
                        ids[n]
                    )));
                }
                let payload = record.slice(RECORD_HEADER_LEN..);
                verify(&header, &payload).map_err(|e| corrupt(e.to_string()))?;
                let chunk = StoredChunk {
                    codec: header.codec(),
                    payload,
                };
                done.push(finish(n, &ids[n], chunk).map_err(corrupt)?);
            }
            next = past;
        }
        Ok(done)
    }
}

fn record_end(at: &ChunkRecord) -> u64 {
    u64::from(at.offset) + RECORD_HEADER_LEN as u64 + u64::from(at.stored_len)
}

fn read_error(pack: PackId, offset: u64, error: std::io::Error) -> StoreError {
    if error.kind() == std::io::ErrorKind::UnexpectedEof {
        return StoreError::Corrupt {
            pack,
            offset,
            what: "the pack ends before the record does".into(),
        };
    }
    StoreError::io(format!("read pack {pack} at offset {offset}"), error)
}

fn usize_range(range: &Range<u64>) -> Range<usize> {
    let bounded = |n: u64| usize::try_from(n).unwrap_or(usize::MAX);
    // Zero runs start anywhere in a blob; only how many are wanted matters, and that is bounded by the window.
    bounded(range.start)..bounded(range.end)
}
