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

use std::{
    collections::{BTreeMap, HashMap, HashSet},
    io::Read,
    sync::Arc,
};

use bytes::Bytes;
use dvcr_core::{
    chunk::ChunkId,
    oci::{Digest, RepositoryName},
};

use super::{
    DamagedPack, FOUND_REPOSITORY, FoundBlob, GRACE_MS, IncompleteManifest, LostBlob, RepairError,
    RepairReport, UsedCheckpoint,
    hash::{digest_of, read_chunk},
};
use crate::{
    backend::{PackBackend, PackId},
    blocking,
    checkpoint::format::CheckpointReader,
    meta::{
        Commit, Key, MetaError, MetaStore, Txn, Value, key,
        record::{
            self, BlobBody, BlobRecord, ChunkRecord, HoldRecord, PackRecord, PackState,
            Record as _, RepositoryRecord, decode_numbers, encode_numbers,
        },
    },
    store::{
        PackContents,
        pack::{BlobHead, Entry, RECORD_HEADER_LEN, RecordId, open_record},
        read_contents,
        recipe::{Piece, RecipePart},
    },
};

/// Rows and bytes committed at once.
const COMMIT_ROWS: usize = 20_000;
const COMMIT_BYTES: usize = 16 << 20;

/// Records of a pack looked at once, and bytes of recipes and blob heads among them.
const BATCH_ENTRIES: usize = 8_192;
const BATCH_BYTES: usize = 8 << 20;

/// Ways to put an ambiguous recipe together that are tried, each by reading the whole blob.
const WAYS_MAX: usize = 64;

/// Rows read at once; of recipes, up to 150 KiB each.
const LONG_ROWS: usize = 64;

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

    async fn read_packs(
        &mut self,
        is_sealed: &(dyn Fn(PackId) -> bool + Sync),
        progress: &mut dyn Progress,
    ) -> Result<(), RepairError> {
        let packs = Arc::clone(&self.packs);
        let list = blocking::run(move || packs.list()).await;
        let list = list.map_err(super::failed("list packs"))?;
        let count = list.len() as u64;
        for (n, pack) in list.into_iter().enumerate() {
            progress.at("packs", n as u64, count);
            self.next_pack = self.next_pack.max(pack.0 + 1);
            let packs = Arc::clone(&self.packs);
            let content = match blocking::run(move || read_contents(&*packs, pack)).await {
                Ok(content) => content,
                Err(error) => {
                    self.damaged(pack, format!("it cannot be read: {error}"));
                    continue;
                }
            };
            self.report.packs += 1;
            self.report.pack_bytes += content.len;
            let PackContents {
                len,
                entries,
                has_footer,
                damage,
            } = content;
            let sealed = is_sealed(pack);
            let open = !sealed && !has_footer;
            if let Some(damage) = damage.filter(|_| sealed) {
                self.damaged(pack, damage.to_string());
            }
            for batch in entries.chunks(BATCH_ENTRIES) {
                self.take_records(pack, batch).await?;
            }
            // The next start closes a pack that was being written: it cuts off what is torn.
            let row = if open {
                PackRecord {
                    state: PackState::Open,
                    bytes: 0,
                    entries: 0,
                }
            } else {
                PackRecord {
                    state: PackState::Sealed,
                    bytes: len,
                    entries: u32::try_from(entries.len()).unwrap_or(u32::MAX),
                }
            };
            self.put(key::pack(pack), row.encode()).await?;
        }
        progress.at("packs", count, count);
        self.flush().await
    }

    /// Rows for some records of a pack.
    async fn take_records(&mut self, pack: PackId, entries: &[Entry]) -> Result<(), RepairError> {
        // What was put before may be looked up.
        self.flush().await?;
        let (packs, listed) = (Arc::clone(&self.packs), entries.to_vec());
        let chunks: Vec<(ChunkId, ChunkRecord)> = blocking::run(move || {
            let there = listed
                .iter()
                .filter(|entry| !is_released(&*packs, pack, entry));
            there
                .filter_map(|entry| match entry.header.id() {
                    RecordId::Chunk(id) => Some((id, location(pack, entry))),
                    _ => None,
                })
                .collect()
        })
        .await;
        let keys: Vec<Key> = chunks.iter().map(|(id, _)| key::chunk(id)).collect();
        let known = self.meta.get(&keys).await?;
        let mut seen = HashSet::new();
        for (((id, at), key), row) in chunks.into_iter().zip(keys).zip(known) {
            let again = row.is_some() || seen.contains(&id);
            if again {
                let packs = Arc::clone(&self.packs);
                let good = blocking::run(move || read_chunk(&*packs, &id, &at).is_some()).await;
                if !good {
                    continue;
                }
            }
            if row.is_none() && seen.insert(id) {
                self.report.chunks += 1;
            }
            self.put(key, at.encode()).await?;
        }
        let mut books: Vec<Entry> = Vec::new();
        let mut bytes = 0;
        for entry in entries {
            if matches!(entry.header.id(), RecordId::Chunk(_)) {
                continue;
            }
            bytes += entry.header.record_len();
            books.push(*entry);
            if bytes >= BATCH_BYTES {
                self.take_books(pack, std::mem::take(&mut books)).await?;
                bytes = 0;
            }
        }
        self.take_books(pack, books).await
    }

    /// Recipe parts and blob heads.
    async fn take_books(&mut self, pack: PackId, entries: Vec<Entry>) -> Result<(), RepairError> {
        let packs = Arc::clone(&self.packs);
        let read = blocking::run(move || {
            let read = |entry: &Entry| -> Result<Option<Bytes>, String> {
                let bytes = packs
                    .read(pack, u64::from(entry.offset), entry.header.record_len())
                    .map_err(|e| e.to_string())?;
                // Moved, and its room given back, by garbage collection on a full device.
                if bytes.iter().all(|byte| *byte == 0) {
                    return Ok(None);
                }
                let (header, payload) = open_record(&bytes).map_err(|e| e.to_string())?;
                if header != entry.header {
                    return Err("another record than the footer says".to_owned());
                }
                Ok(Some(payload))
            };
            entries
                .into_iter()
                .map(|entry| (entry, read(&entry)))
                .collect::<Vec<_>>()
        })
        .await;
        for (entry, payload) in read {
            let id = entry.header.id();
            let done = match payload {
                Ok(Some(payload)) => self.take_book(id, payload).await?,
                Ok(None) => Ok(()),
                Err(what) => Err(what),
            };
            if let Err(what) = done {
                self.damaged(pack, format!("record at offset {}: {what}", entry.offset));
            }
        }
        Ok(())
    }

    async fn take_book(
        &mut self,
        id: RecordId,
        payload: Bytes,
    ) -> Result<Result<(), String>, RepairError> {
        match id {
            RecordId::Chunk(_) => {}
            RecordId::RecipePart { recipe, part } => {
                self.next_recipe = self.next_recipe.max(recipe.saturating_add(1));
                if let Err(what) = RecipePart::parse(&payload) {
                    return Ok(Err(format!("no recipe part: {what} expected")));
                }
                let key = key::recipe(recipe, part);
                self.flush().await?;
                match self.meta.get_one(&key).await? {
                    Some(known) if known == payload => {}
                    Some(_) => {
                        let others = self.other_parts.entry((recipe, part)).or_default();
                        if !others.contains(&payload) && others.len() < WAYS_MAX {
                            others.push(Bytes::copy_from_slice(&payload));
                        }
                    }
                    None => self.put(key, payload).await?,
                }
            }
            RecordId::BlobHead { recipe } => {
                self.next_recipe = self.next_recipe.max(recipe.saturating_add(1));
                match BlobHead::decode(&payload) {
                    Ok(head) if head.recipe == recipe => self.heads.push(head),
                    Ok(_) => return Ok(Err("a blob head of another recipe".to_owned())),
                    Err(error) => return Ok(Err(error.to_string())),
                }
            }
        }
        Ok(Ok(()))
    }

    async fn read_checkpoint(
        &mut self,
        mut checkpoint: CheckpointReader<Box<dyn Read + Send>>,
        progress: &mut dyn Progress,
    ) -> Result<(), RepairError> {
        let header = *checkpoint.header();
        let mut by_digest: HashMap<Digest, Vec<usize>> = HashMap::new();
        for (n, head) in self.heads.iter().enumerate() {
            by_digest.entry(head.digest).or_default().push(n);
        }
        let mut rows = 0;
        while let Some((key, value)) = checkpoint.next_row()? {
            rows += 1;
            if rows % 1_000 == 0 {
                progress.at("checkpoint", rows, 0);
            }
            let row = key::row_of(&key);
            match &row {
                key::Row::Blob(digest) => {
                    let blob = BlobRecord::decode(&key, &value)?;
                    self.take_blob(key, digest, blob, &by_digest).await?;
                    continue;
                }
                key::Row::Hold(repository, digest) => {
                    if let Some(n) = self.lost.get(digest) {
                        let lost = &mut self.report.lost_blobs[*n];
                        lost.repositories.push(repository.clone());
                        continue;
                    }
                    let hold = HoldRecord::decode(&key, &value)?;
                    let hold = HoldRecord {
                        lease_ms: hold.lease_ms.max(self.now_ms + GRACE_MS),
                        ..hold
                    };
                    self.put(key, hold.encode()).await?;
                    continue;
                }
                key::Row::HeldBy(digest) if self.lost.contains_key(digest) => continue,
                key::Row::Counter(name) => {
                    let next = decode_numbers(&key, &value)?.first().copied().unwrap_or(1);
                    match *name {
                        b"recipe" => self.next_recipe = self.next_recipe.max(next),
                        b"pack" => self.next_pack = self.next_pack.max(next),
                        _ => self.put(key, value).await?,
                    }
                    continue;
                }
                key::Row::Finding(finding) => {
                    // Chunks may lie elsewhere now, and packs be gone.
                    if !self.still_found(finding, &value).await? {
                        continue;
                    }
                }
                key::Row::Manifest => self.report.manifests += 1,
                key::Row::Tag => self.report.tags += 1,
                key::Row::Repository => self.report.repositories += 1,
                key::Row::HeldBy(_) | key::Row::Other => {}
            }
            self.put(key, value).await?;
        }
        self.report.checkpoint = Some(UsedCheckpoint {
            number: header.number,
            created_ms: header.created_ms,
            rows,
        });
        self.flush().await
    }

    /// A blob that the checkpoint knows.
    async fn take_blob(
        &mut self,
        key: Key,
        digest: &Digest,
        blob: BlobRecord,
        by_digest: &HashMap<Digest, Vec<usize>>,
    ) -> Result<(), RepairError> {
        let BlobBody::Recipe { id, parts } = blob.body else {
            self.report.blobs += 1;
            return self.put(key, blob.encode()).await;
        };
        let mut missing = match self.whole(id, parts, blob.len, digest).await? {
            Ok(starts) => return self.keep_blob(key, blob, &starts).await,
            Err(what) => what,
        };
        // The same content may have been uploaded again, under another recipe.
        for n in by_digest.get(digest).into_iter().flatten() {
            let head = &self.heads[*n];
            let (id, parts, len) = (head.recipe, head.parts, head.len);
            match self.whole(id, parts, len, digest).await? {
                Ok(starts) => {
                    let body = BlobBody::Recipe { id, parts };
                    let blob = BlobRecord { body, ..blob };
                    return self.keep_blob(key, blob, &starts).await;
                }
                Err(what) => missing = what,
            }
        }
        self.lost.insert(*digest, self.report.lost_blobs.len());
        self.report.lost_blobs.push(LostBlob {
            digest: *digest,
            len: blob.len,
            what: missing,
            repositories: Vec::new(),
            manifests: Vec::new(),
        });
        Ok(())
    }

    async fn keep_blob(
        &mut self,
        key: Key,
        blob: BlobRecord,
        starts: &[u64],
    ) -> Result<(), RepairError> {
        if let BlobBody::Recipe { id, .. } = blob.body {
            self.used.insert(id);
            if starts.len() > 1 {
                let starts_key = key::recipe(id, key::RECIPE_STARTS);
                self.put(starts_key, encode_numbers(starts)).await?;
            }
        }
        self.report.blobs += 1;
        self.put(key, blob.encode()).await
    }

    /// Where the parts of a recipe start, if all of them are there, follow one another to the blob's length, and all their
    /// chunks are there; otherwise what is missing. Which of several contents of a part is meant is decided by the digest.
    async fn whole(
        &mut self,
        id: u64,
        parts: u32,
        len: u64,
        digest: &Digest,
    ) -> Result<Result<Vec<u64>, String>, RepairError> {
        let ambiguous = self.other_parts.range((id, 0)..=(id, u32::MAX)).count() > 0;
        if ambiguous {
            return self.choose(id, parts, len, digest).await;
        }
        let mut starts = Vec::new();
        let mut end = 0;
        for n in 0..parts {
            let key = key::recipe(id, n);
            let Some(row) = self.meta.get_one(&key).await? else {
                return Ok(Err(format!("part {n} of its recipe is missing")));
            };
            let part = RecipePart::decode(&key, &row)?;
            if part.start != end {
                return Ok(Err(format!("part {n} of its recipe starts elsewhere")));
            }
            if let Some(id) = self.missing_chunk(&part).await? {
                return Ok(Err(format!("chunk {id} is missing")));
            }
            starts.push(part.start);
            end = part.end();
        }
        if end != len {
            return Ok(Err("its recipe has another length".to_owned()));
        }
        Ok(Ok(starts))
    }

    async fn missing_chunk(&self, part: &RecipePart) -> Result<Option<ChunkId>, RepairError> {
        let ids = part.pieces.iter().filter_map(|piece| match piece {
            Piece::Chunk { id, .. } => Some(*id),
            Piece::Zeros { .. } => None,
        });
        let ids: Vec<ChunkId> = ids.collect();
        let keys: Vec<Key> = ids.iter().map(key::chunk).collect();
        let rows = self.meta.get(&keys).await?;
        let missing = ids.iter().zip(rows).find(|(_, row)| row.is_none());
        Ok(missing.map(|(id, _)| *id))
    }

    /// Tries the contents of a recipe's parts until the blob has its digest.
    async fn choose(
        &mut self,
        id: u64,
        parts: u32,
        len: u64,
        digest: &Digest,
    ) -> Result<Result<Vec<u64>, String>, RepairError> {
        let mut ways: Vec<Vec<RecipePart>> = vec![Vec::new()];
        for n in 0..parts {
            let key = key::recipe(id, n);
            let Some(row) = self.meta.get_one(&key).await? else {
                return Ok(Err(format!("part {n} of its recipe is missing")));
            };
            let others = self.other_parts.get(&(id, n)).cloned().unwrap_or_default();
            let mut longer = Vec::new();
            for row in std::iter::once(&row).chain(&others) {
                let part = RecipePart::decode(&key, row)?;
                let chunks_are_there = self.missing_chunk(&part).await?.is_none();
                for way in &ways {
                    let end = way.last().map_or(0, RecipePart::end);
                    if chunks_are_there && part.start == end && longer.len() < WAYS_MAX {
                        longer.push([&way[..], std::slice::from_ref(&part)].concat());
                    }
                }
            }
            ways = longer;
        }
        for way in ways {
            if way.last().map_or(0, RecipePart::end) != len {
                continue;
            }
            let mut at = HashMap::new();
            for part in &way {
                for piece in &part.pieces {
                    if let Piece::Chunk { id, .. } = piece {
                        let key = key::chunk(id);
                        if let Some(row) = self.meta.get_one(&key).await? {
                            at.insert(*id, ChunkRecord::decode(&key, &row)?);
                        }
                    }
                }
            }
            let (packs, algorithm) = (Arc::clone(&self.packs), digest.algorithm());
            let (way, found) = blocking::run(move || {
                let found = digest_of(&*packs, &way, algorithm, |id| at.get(id).copied());
                (way, found)
            })
            .await;
            if found != Some(*digest) {
                continue;
            }
            for (n, part) in way.iter().enumerate() {
                let n = u32::try_from(n).unwrap_or(u32::MAX);
                self.put(key::recipe(id, n), part.encode()).await?;
                self.other_parts.remove(&(id, n));
            }
            self.flush().await?;
            return Ok(Ok(way.iter().map(|part| part.start).collect()));
        }
        Ok(Err("no version of its recipe has its digest".to_owned()))
    }

    /// Whether a finding of a scrub is still about something that is there.
    async fn still_found(
        &self,
        finding: &key::Finding,
        value: &Value,
    ) -> Result<bool, RepairError> {
        Ok(match finding {
            key::Finding::Chunk(id) => {
                let key = key::chunk(id);
                let row = self.meta.get_one(&key).await?;
                let at = row.map(|row| ChunkRecord::decode(&key, &row)).transpose()?;
                let found = record::FindingRecord::parse(value).ok();
                at.is_some() && found.is_some_and(|found| found.at == at)
            }
            key::Finding::Blob(digest) => !self.lost.contains_key(digest),
            key::Finding::Pack(pack) => self.meta.get_one(&key::pack(*pack)).await?.is_some(),
        })
    }

    /// Which manifests lack the blobs that are lost.
    async fn name_incomplete(&mut self) -> Result<(), RepairError> {
        for n in 0..self.report.lost_blobs.len() {
            let range = key::edges_to(&self.report.lost_blobs[n].digest);
            let mut rest = range.clone();
            loop {
                let rows = self.meta.scan(&rest, LONG_ROWS).await?;
                let Some((last, _)) = rows.last() else { break };
                rest = key::after(rest, last);
                for (row, _) in &rows {
                    let Some((repository, digest)) = key::parent_of(&range, row) else {
                        continue;
                    };
                    let tags_of = key::tags_of(&repository, &digest);
                    let tags = self.meta.scan(&tags_of, COMMIT_ROWS).await?;
                    let name = |row: &Key| {
                        String::from_utf8_lossy(key::last_field(&tags_of, row)).into_owned()
                    };
                    let tags = tags.iter().map(|(row, _)| name(row)).collect();
                    let manifests = &mut self.report.lost_blobs[n].manifests;
                    manifests.push(IncompleteManifest {
                        repository,
                        digest,
                        tags,
                    });
                }
            }
        }
        Ok(())
    }

    /// Puts whole blobs that no repository holds where people can find them.
    async fn keep_found(&mut self, progress: &mut dyn Progress) -> Result<(), RepairError> {
        let repository: RepositoryName = FOUND_REPOSITORY
            .parse()
            .expect("a constant that is a repository name");
        let heads = std::mem::take(&mut self.heads);
        let count = heads.len() as u64;
        let until = self.now_ms + GRACE_MS;
        let mut found = Vec::new();
        for (n, head) in heads.into_iter().enumerate() {
            progress.at("blobs", n as u64, count);
            let digest = head.digest;
            let blob_key = key::blob(&digest);
            if self.used.contains(&head.recipe) || self.lost.contains_key(&digest) {
                continue;
            }
            self.flush().await?;
            if self.meta.get_one(&blob_key).await?.is_some() {
                continue;
            }
            let whole = self.whole(head.recipe, head.parts, head.len, &digest);
            let Ok(starts) = whole.await? else { continue };
            let blob = BlobRecord {
                len: head.len,
                body: BlobBody::Recipe {
                    id: head.recipe,
                    parts: head.parts,
                },
                // What its chunks take is not known; as long as it is, it is not offered compressed.
                stored_len: head.len,
                created_ms: head.created_unix_ms,
            };
            self.keep_blob(blob_key, blob, &starts).await?;
            let hold = HoldRecord {
                linked_ms: self.now_ms,
                lease_ms: until,
            };
            self.put(key::hold(&repository, &digest), hold.encode())
                .await?;
            self.put(key::held_by(&digest, &repository), record::mark())
                .await?;
            self.put(
                key::review_blob(until, &repository, &digest),
                record::mark(),
            )
            .await?;
            found.push(FoundBlob {
                digest,
                len: head.len,
                created_ms: head.created_unix_ms,
            });
        }
        progress.at("blobs", count, count);
        if !found.is_empty() {
            let key = key::repository(FOUND_REPOSITORY);
            if self.meta.get_one(&key).await?.is_none() {
                let created_ms = self.now_ms;
                self.put(key, RepositoryRecord { created_ms }.encode())
                    .await?;
                self.report.repositories += 1;
            }
        }
        self.report.found_blobs = found;
        self.flush().await
    }

    /// Removes the rows of recipes that no blob uses.
    async fn drop_unused_recipes(&mut self) -> Result<(), RepairError> {
        let mut range = key::recipes();
        let mut last_dropped = None;
        loop {
            let rows = self.meta.scan(&range, LONG_ROWS).await?;
            let Some((last, _)) = rows.last() else { break };
            range = key::after(range, last);
            let mut txn = Txn::default();
            for (row, _) in rows {
                let Some(recipe) = key::recipe_of(&row) else {
                    return Err(MetaError::Corrupt {
                        key: hex::encode(&row),
                        what: "a recipe",
                    }
                    .into());
                };
                if !self.used.contains(&recipe) {
                    if last_dropped != Some(recipe) {
                        self.report.dropped_recipes += 1;
                        last_dropped = Some(recipe);
                    }
                    txn.deletes.push(row);
                }
            }
            if !txn.deletes.is_empty() {
                let _unconditional: Commit = self.meta.commit(txn).await?;
            }
        }
        Ok(())
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

/// Whether garbage collection on a full device has given back the room of a record that nobody needed. No row may lead there:
/// the next push of its content would rely on it.
fn is_released(packs: &dyn PackBackend, pack: PackId, entry: &Entry) -> bool {
    let header = packs.read(pack, u64::from(entry.offset), RECORD_HEADER_LEN);
    header.is_ok_and(|header| header.iter().all(|byte| *byte == 0))
}

fn location(pack: PackId, entry: &Entry) -> ChunkRecord {
    ChunkRecord {
        pack,
        offset: entry.offset,
        // Bounded by PAYLOAD_BYTES_MAX.
        stored_len: entry.header.stored_len() as u32,
    }
}
