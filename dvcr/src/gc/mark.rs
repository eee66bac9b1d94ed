//! Which chunks does anything refer to?
//!
//! Read from recipes and upload sessions, page by page, never from data. Uploads come first: what an upload refers to moves from
//! its row to a recipe's in one transaction, so whoever reads in this order sees it in one place or the other.

use std::collections::{BTreeMap, HashSet};

use dvcr_core::chunk::ChunkId;

use super::plan::PackFacts;
use crate::{
    backend::PackId,
    meta::{
        Key, KeyRange, MetaError, MetaStore, Pages, Value, key,
        record::{ChunkRecord, PackRecord, PackState, Record as _, UploadRecord},
    },
    store::{
        IngestState,
        pace::Pace,
        pack::RECORD_HEADER_LEN,
        recipe::{PART_PIECES_MAX, RecipePart},
    },
};

/// Ids of chunks kept in memory at once, 8 bytes each: 32 MiB, twice that while they are sorted. Where there are more, the
/// recipes are read several times.
const IDS_MAX: usize = 1 << 22;

/// Rows read at once: of chunks and packs, some 60 bytes each; of recipes and uploads, up to 150 KiB.
const ROWS: usize = 4096;
const LONG_ROWS: usize = 16;

/// What is read, and whom it makes way for.
#[derive(Clone, Copy)]
pub(super) struct Source<'a> {
    pub(super) meta: &'a dyn MetaStore,
    pub(super) pace: &'a Pace,
}

/// Calls `visit` with every row of the range.
pub(super) async fn each(
    Source { meta, pace }: Source<'_>,
    range: KeyRange,
    page: usize,
    mut visit: impl FnMut(&Key, &Value) -> Result<(), MetaError>,
) -> Result<(), MetaError> {
    let mut pages = Pages::new(meta, range, page);
    let mut slice = pace.slice();
    while let Some(rows) = pages.next().await? {
        for (key, value) in &rows {
            visit(key, value)?;
        }
        slice.rest().await;
        slice = pace.slice();
    }
    Ok(())
}

/// Calls `visit` with every chunk that an upload session or a recipe refers to, as often as it does.
pub(super) async fn references(
    source: Source<'_>,
    visit: impl FnMut(&ChunkId),
) -> Result<(), MetaError> {
    references_without(source, |_| false, visit).await
}

/// The same without the recipes that `skip` names.
async fn references_without(
    source: Source<'_>,
    skip: impl Fn(u64) -> bool,
    mut visit: impl FnMut(&ChunkId),
) -> Result<(), MetaError> {
    let mut chunks = |part: &RecipePart| part.chunks().for_each(|id| visit(&id));
    each(source, key::uploads(), LONG_ROWS, |key, row| {
        let upload = UploadRecord::decode(key, row)?;
        let state = IngestState::parse(&upload.ingest).map_err(|what| MetaError::Corrupt {
            key: hex::encode(key),
            what,
        })?;
        chunks(&state.part);
        Ok(())
    })
    .await?;
    each(source, key::recipes(), LONG_ROWS, |key, row| {
        if key::is_recipe_part(key) && !key::recipe_of(key).is_some_and(&skip) {
            chunks(&RecipePart::decode(key, row)?);
        }
        Ok(())
    })
    .await
}

/// Bytes that the chunks of some recipes take in packs which nothing else refers to, neither another recipe nor an upload session.
/// `recipes` are ids and numbers of parts.
///
/// Reads all recipes once for each 4 million chunks (256 GiB of data) that these refer to, and the rows of the chunks that count.
pub(super) async fn exclusive_bytes(
    source: Source<'_>,
    recipes: &BTreeMap<u64, u32>,
) -> Result<u64, MetaError> {
    let meta = source.meta;
    let parts: usize = recipes.values().map(|parts| *parts as usize).sum();
    let bits = bits_for(parts * PART_PIECES_MAX);
    let mut bytes = 0;
    for slice in 0..1u64 << bits {
        let within = |id: &ChunkId| bits == 0 || prefix(id) >> (64 - bits) == slice;
        let mut ids_in_slice = Ids::default();
        for (recipe, parts) in recipes {
            for part in 0..*parts {
                let ids = chunks_of_part(meta, *recipe, part).await?;
                for id in ids.iter().filter(|id| within(id)) {
                    ids_in_slice.insert(prefix(id));
                }
            }
            tokio::task::yield_now().await;
        }
        ids_in_slice.compact();
        let mut settled = vec![false; ids_in_slice.numbers.len()];
        let skip = |recipe| recipes.contains_key(&recipe);
        references_without(source, skip, |id| {
            if let Some(at) = ids_in_slice.position(prefix(id)) {
                settled[at] = true;
            }
        })
        .await?;
        for (recipe, parts) in recipes {
            for part in 0..*parts {
                let ids = chunks_of_part(meta, *recipe, part).await?;
                // Each chunk once, however often it is used.
                let mut counts = |id: &ChunkId| {
                    ids_in_slice
                        .position(prefix(id))
                        .is_some_and(|at| within(id) && !std::mem::replace(&mut settled[at], true))
                };
                let keys: Vec<Key> = ids.iter().filter(|id| counts(id)).map(key::chunk).collect();
                for (key, row) in keys.iter().zip(meta.get(&keys).await?) {
                    if let Some(row) = row {
                        let chunk = ChunkRecord::decode(key, &row)?;
                        bytes += u64::from(chunk.stored_len) + RECORD_HEADER_LEN as u64;
                    }
                }
            }
            tokio::task::yield_now().await;
        }
    }
    Ok(bytes)
}

/// The chunks of a part of a recipe; none if it has gone meanwhile.
async fn chunks_of_part(
    meta: &dyn MetaStore,
    recipe: u64,
    part: u32,
) -> Result<Vec<ChunkId>, MetaError> {
    let key = key::recipe(recipe, part);
    let Some(row) = meta.get_one(&key).await? else {
        return Ok(Vec::new());
    };
    Ok(RecipePart::decode(&key, &row)?.chunks().collect())
}

/// Ids are hashes: each of 2^bits parts holds about as many, and none more than fit into memory.
fn bits_for(entries: usize) -> u32 {
    (entries / IDS_MAX).checked_ilog2().map_or(0, |log| log + 1)
}

/// Every sealed and condemned pack, with how much of it lives. An estimate while uploads run: they make more of it live.
pub(super) async fn facts(source: Source<'_>) -> Result<Vec<PackFacts>, MetaError> {
    let mut packs: BTreeMap<PackId, PackFacts> = BTreeMap::new();
    let mut entries = 0;
    each(source, key::packs(), ROWS, |key, row| {
        let record = PackRecord::decode(key, row)?;
        entries += record.entries as usize;
        if let (Some(pack), false) = (key::pack_of(key), record.state == PackState::Open) {
            let facts = PackFacts {
                pack,
                bytes: record.bytes,
                live_bytes: 0,
                condemned: record.state == PackState::Condemned,
            };
            packs.insert(pack, facts);
        }
        Ok(())
    })
    .await?;
    let bits = bits_for(entries);
    for part in 0..1u64 << bits {
        let mut ids = Ids::default();
        references(source, |id| {
            let prefix = prefix(id);
            if bits == 0 || prefix >> (64 - bits) == part {
                ids.insert(prefix);
            }
        })
        .await?;
        ids.compact();
        each(source, key::chunks_of_part(part, bits), ROWS, |key, row| {
            let chunk = ChunkRecord::decode(key, row)?;
            let id = key::chunk_of(key);
            if let (Some(facts), Some(id)) = (packs.get_mut(&chunk.pack), id)
                && ids.contains(prefix(&id))
            {
                facts.live_bytes += u64::from(chunk.stored_len) + RECORD_HEADER_LEN as u64;
            }
            Ok(())
        })
        .await?;
    }
    Ok(packs.into_values().collect())
}

/// Which of these chunks something refers to.
pub(super) async fn referenced(
    source: Source<'_>,
    among: &HashSet<ChunkId>,
) -> Result<HashSet<ChunkId>, MetaError> {
    let mut found = HashSet::new();
    references(source, |id| {
        if among.contains(id) {
            found.insert(*id);
        }
    })
    .await?;
    Ok(found)
}

/// The first 8 bytes. Two chunks in 2^32 share them: then a dead one counts as live, never the other way.
fn prefix(id: &ChunkId) -> u64 {
    let [a, b, c, d, e, f, g, h, ..] = id.0;
    u64::from_be_bytes([a, b, c, d, e, f, g, h])
}

/// A set of numbers in 8 bytes each.
#[derive(Default)]
struct Ids {
    numbers: Vec<u64>,
    /// How many were left after the last compaction.
    compact: usize,
}

impl Ids {
    fn insert(&mut self, number: u64) {
        self.numbers.push(number);
        if self.numbers.len() >= (2 * self.compact).max(1 << 16) {
            self.compact();
        }
    }

    fn compact(&mut self) {
        self.numbers.sort_unstable();
        self.numbers.dedup();
        self.compact = self.numbers.len();
    }

    fn contains(&self, number: u64) -> bool {
        self.position(number).is_some()
    }

    fn position(&self, number: u64) -> Option<usize> {
        self.numbers.binary_search(&number).ok()
    }
}
