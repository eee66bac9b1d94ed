//! Scrub: reading everything that is stored, to find damage before somebody needs it.
//!
//! In the background, pack by pack within a budget, and now when somebody asks. Each record's checksums and the BLAKE3 of
//! what it decodes to are compared; of some blobs, one after the other, the digest of the whole. What is found is a row
//! ([`Finding`]), which heals by itself when the same content is pushed again. Everything here may run beside pushes, reviews
//! and sweeps: a finding is made in a transaction that checks that the row still leads to the damaged record.

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex as StdMutex, MutexGuard, PoisonError,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    time::Duration,
};

use bytes::Bytes;
use dvcr_core::{
    chunk::ChunkId,
    oci::{Algorithm, Digest, RepositoryName},
};
use futures::TryStreamExt as _;
use sha2::{Digest as _, Sha256, Sha512};
use tokio::sync::Mutex;

use super::mark::{Source, each};
use crate::{
    backend::PackId,
    blocking,
    clock::Clock,
    meta::{
        Check, Commit, MetaStore, Txn, Value,
        key::{self, Finding},
        record::{
            BlobBody, BlobRecord, ChunkRecord, FindingRecord, PackRecord, PackState, Record as _,
            ScrubRecord,
        },
    },
    store::{
        Bad, Expected, Reading, Store, StoreError,
        pack::RecordId,
        recipe::{Piece, RecipePart},
    },
};

/// Stored bytes that are read and verified at once.
const BATCH_BYTES: u64 = 4 << 20;

/// Time from the begin of one pass in the background to that of the next, at least: what is little need not be read again and
/// again all day.
const PASS_INTERVAL_MS: u64 = 7 * 24 * 3600 * 1000;

/// Of the bytes read from packs, one in so many is spent on digests of whole blobs besides.
const SAMPLE_SHARE: u64 = 8;

/// How often damage found by reads and sweeps is followed up, and the background looks whether a pass is due.
const SETTLE_INTERVAL: Duration = Duration::from_secs(30);

/// How often findings are looked at again though nothing was healed here: packs and blobs go.
const RECHECK_MS: u64 = 3600 * 1000;

const HOUR: u64 = 3600;

/// Rows read at once; of recipes, up to 150 KiB each.
const ROWS: usize = 1000;
const LONG_ROWS: usize = 16;

/// What was done and found, for metrics.
#[derive(Debug, Default)]
pub struct ScrubStats {
    /// Stored bytes read and verified since the start.
    pub bytes: AtomicU64,
    /// Blobs whose digest was compared since the start.
    pub blobs: AtomicU64,
    /// Damaged chunks, blobs and packs now.
    pub found_chunks: AtomicU64,
    /// See [`found_chunks`](Self::found_chunks).
    pub found_blobs: AtomicU64,
    /// See [`found_chunks`](Self::found_chunks).
    pub found_packs: AtomicU64,
    /// Findings that are gone since the start, because what was damaged was stored anew or removed.
    pub cleared: AtomicU64,
    /// When the last pass over all packs ended, milliseconds since 1970; 0 while there was none.
    pub full_pass_ms: AtomicU64,
}

/// Where a scrub that somebody asked for stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ScrubState {
    /// It is reading.
    Running,
    /// It has read everything.
    Done,
    /// It ended with an error.
    Failed,
}

/// A scrub that somebody asked for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScrubRun {
    /// Its number, since the server started.
    pub id: u64,
    /// The repository whose blobs are read; none for all packs.
    pub repository: Option<RepositoryName>,
    /// Where it stands.
    pub state: ScrubState,
    /// When it began, milliseconds since 1970.
    pub started_ms: u64,
    /// When it ended.
    pub finished_ms: Option<u64>,
    /// Bytes read so far: stored ones of packs, or those of blobs.
    pub bytes: u64,
    /// Bytes that it has to read in all.
    pub of_bytes: u64,
    /// Damage that was not known before.
    pub found: u64,
    /// Why it failed.
    pub error: Option<String>,
}

/// What scrubs are doing and have done.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ScrubStatus {
    /// Bytes that the background reads in an hour; 0 if it is off.
    pub bytes_per_hour: u64,
    /// How far the background is.
    pub progress: ScrubRecord,
    /// The scrub that was asked for last.
    pub run: Option<ScrubRun>,
    /// Damaged chunks, blobs and packs.
    pub found: (u64, u64, u64),
}

/// Scrubs one store.
pub struct Scrubber {
    meta: Arc<dyn MetaStore>,
    store: Arc<Store>,
    clock: Arc<dyn Clock>,
    bytes_per_hour: u64,
    stats: Arc<ScrubStats>,
    run: StdMutex<Option<ScrubRun>>,
    /// Held while findings are followed up.
    settling: Mutex<()>,
    rechecked_ms: AtomicU64,
}

/// Who reads, and so how fast, and who is told.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Pace {
    Background,
    Now,
}

impl Scrubber {
    /// What walks over the metadata read.
    fn source(&self) -> Source<'_> {
        Source {
            meta: &*self.meta,
            pace: self.store.pace(),
        }
    }

    /// A scrubber for this store, which reads so many bytes an hour in the background.
    #[must_use]
    pub fn new(
        meta: Arc<dyn MetaStore>,
        store: Arc<Store>,
        clock: Arc<dyn Clock>,
        bytes_per_hour: u64,
    ) -> Self {
        Self {
            meta,
            store,
            clock,
            bytes_per_hour,
            stats: Arc::default(),
            run: StdMutex::default(),
            settling: Mutex::default(),
            rechecked_ms: AtomicU64::new(0),
        }
    }

    /// What was done and found.
    #[must_use]
    pub fn stats(&self) -> &Arc<ScrubStats> {
        &self.stats
    }

    /// What scrubs are doing and have done.
    pub async fn status(&self) -> Result<ScrubStatus, StoreError> {
        self.count_findings().await?;
        let stats = &self.stats;
        let found = (
            stats.found_chunks.load(Relaxed),
            stats.found_blobs.load(Relaxed),
            stats.found_packs.load(Relaxed),
        );
        Ok(ScrubStatus {
            bytes_per_hour: self.bytes_per_hour,
            progress: self.progress().await?.0,
            run: self.run().clone(),
            found,
        })
    }

    /// Reads in the background, and follows up what reads and sweeps find. Never returns.
    pub async fn work(&self) {
        if let Err(error) = self.begin().await {
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "read the findings of earlier scrubs"
            );
        }
        let follow_up = async {
            loop {
                tokio::time::sleep(SETTLE_INTERVAL).await;
                log(self.settle().await, "follow up damage");
            }
        };
        let read = async {
            loop {
                if self.bytes_per_hour > 0 {
                    log(self.background_pass().await, "scrub; it goes on later");
                }
                tokio::time::sleep(SETTLE_INTERVAL).await;
            }
        };
        tokio::join!(follow_up, read);
    }

    async fn begin(&self) -> Result<(), StoreError> {
        let (progress, _) = self.progress().await?;
        self.stats
            .full_pass_ms
            .store(progress.full_pass_ms, Relaxed);
        self.count_findings().await
    }

    /// Goes on with the pass that is going on, or begins one if it is time.
    async fn background_pass(&self) -> Result<(), StoreError> {
        let (progress, _) = self.progress().await?;
        let now = self.clock.now_ms();
        let due_ms = match progress.pass_began_ms {
            0 => 0,
            began_ms => began_ms.saturating_add(PASS_INTERVAL_MS),
        };
        if progress.last_pack == 0 && now < due_ms {
            return Ok(());
        }
        if progress.last_pack == 0 {
            self.update(|progress| {
                progress.pass_began_ms = now;
                progress.pass_bytes = 0;
            })
            .await?;
        }
        let mut last = PackId(progress.last_pack);
        while let Some(pack) = self.next_pack(last).await? {
            let read = self.scrub_pack(pack, Pace::Background).await?;
            self.update(|progress| {
                progress.last_pack = pack.0;
                progress.pass_bytes += read;
                progress.bytes += read;
                progress.sample_bytes += read / SAMPLE_SHARE;
            })
            .await?;
            self.sample().await?;
            last = pack;
        }
        self.end_pass().await
    }

    async fn end_pass(&self) -> Result<(), StoreError> {
        let now = self.clock.now_ms();
        self.update(|progress| {
            progress.last_pack = 0;
            progress.full_pass_ms = now;
        })
        .await?;
        self.stats.full_pass_ms.store(now, Relaxed);
        // Uploads that were going on when damage was found may have become blobs since.
        self.store.damaged().put_back();
        self.settle().await?;
        tracing::info!("scrubbed all packs");
        Ok(())
    }

    /// Begins to read everything now, or what a repository holds; the work is done by [`finish`](Self::finish). None while
    /// another such scrub is going on.
    pub async fn start(
        &self,
        repository: Option<RepositoryName>,
    ) -> Result<Option<ScrubRun>, StoreError> {
        let of_bytes = match &repository {
            None => self.pack_bytes().await?,
            Some(name) => self.blobs_of(name).await?.iter().map(|(_, len)| len).sum(),
        };
        let mut run = self.run();
        let id = match &*run {
            Some(run) if run.state == ScrubState::Running => return Ok(None),
            Some(run) => run.id + 1,
            None => 1,
        };
        *run = Some(ScrubRun {
            id,
            repository,
            state: ScrubState::Running,
            started_ms: self.clock.now_ms(),
            finished_ms: None,
            bytes: 0,
            of_bytes,
            found: 0,
            error: None,
        });
        Ok(run.clone())
    }

    /// Does what was begun.
    pub async fn finish(&self, run: &ScrubRun) -> Result<(), StoreError> {
        let result = match &run.repository {
            None => self.read_all().await,
            Some(repository) => self.read_repository(repository).await,
        };
        if let Some(run) = &mut *self.run() {
            run.finished_ms = Some(self.clock.now_ms());
            run.state = ScrubState::Done;
            if let Err(error) = &result {
                run.state = ScrubState::Failed;
                run.error = Some(error.to_string());
            }
        }
        result
    }

    /// Reads every sealed pack.
    pub(super) async fn read_all(&self) -> Result<(), StoreError> {
        let mut last = PackId(0);
        while let Some(pack) = self.next_pack(last).await? {
            let read = self.scrub_pack(pack, Pace::Now).await?;
            self.update(|progress| progress.bytes += read).await?;
            last = pack;
        }
        self.end_pass().await
    }

    /// Reads every blob of a repository.
    pub(super) async fn read_repository(
        &self,
        repository: &RepositoryName,
    ) -> Result<(), StoreError> {
        for (digest, _) in self.blobs_of(repository).await? {
            self.scrub_blob(&digest, Pace::Now).await?;
        }
        self.settle().await
    }

    /// The next sealed pack. Open ones are too new to be damaged; condemned ones are checked by who empties them.
    async fn next_pack(&self, last: PackId) -> Result<Option<PackId>, StoreError> {
        let mut range = key::after(key::packs(), &key::pack(last));
        loop {
            let rows = self.meta.scan(&range, ROWS).await?;
            let Some((last, _)) = rows.last() else {
                return Ok(None);
            };
            range = key::after(range, last);
            for (row, value) in &rows {
                if PackRecord::decode(row, value)?.state == PackState::Sealed
                    && let Some(pack) = key::pack_of(row)
                {
                    return Ok(Some(pack));
                }
            }
        }
    }

    async fn pack_bytes(&self) -> Result<u64, StoreError> {
        let mut bytes = 0;
        each(self.source(), key::packs(), ROWS, |row, value| {
            let pack = PackRecord::decode(row, value)?;
            if pack.state == PackState::Sealed {
                bytes += pack.bytes;
            }
            Ok(())
        })
        .await?;
        Ok(bytes)
    }

    /// The blobs of a repository, with their lengths.
    async fn blobs_of(
        &self,
        repository: &RepositoryName,
    ) -> Result<Vec<(Digest, u64)>, StoreError> {
        let holds = key::holds(repository);
        let mut digests = Vec::new();
        each(self.source(), holds.clone(), ROWS, |row, _| {
            digests.extend(Digest::from_key(key::last_field(&holds, row)).ok());
            Ok(())
        })
        .await?;
        let mut blobs = Vec::with_capacity(digests.len());
        for digest in digests {
            let key = key::blob(&digest);
            if let Some(row) = self.meta.get_one(&key).await? {
                blobs.push((digest, BlobRecord::decode(&key, &row)?.len));
            }
        }
        Ok(blobs)
    }

    /// Reads and verifies a pack; returns how many bytes. One that is gone meanwhile is none.
    async fn scrub_pack(&self, pack: PackId, pace: Pace) -> Result<u64, StoreError> {
        let (expected, damage): (Vec<Expected>, _) = match self.store.contents(pack).await? {
            Some(contents) => {
                let entries = contents.entries.iter();
                let expected = entries.map(|entry| Expected {
                    id: entry.header.id(),
                    at: ChunkRecord {
                        pack,
                        offset: entry.offset,
                        // Bounded by PAYLOAD_BYTES_MAX.
                        stored_len: entry.header.stored_len() as u32,
                    },
                    header: Some(entry.header),
                });
                let damage = contents.damage.map(|damage| damage.to_string());
                (expected.collect(), damage)
            }
            None => (Vec::new(), Some("its file is gone".to_owned())),
        };
        if !self.is_sealed(pack).await? {
            return Ok(0);
        }
        let expected = match &damage {
            None => expected,
            // What it says of itself is not all that there should be: rows know.
            Some(what) => {
                self.store.mark_pack(pack, what).await?;
                self.rows_of(pack).await?
            }
        };
        let mut read = 0;
        let mut rest = &expected[..];
        while let Some(first) = rest.first() {
            let begin = u64::from(first.at.offset);
            let near = |record: &&Expected| {
                u64::from(record.at.offset) + u64::from(record.at.stored_len) <= begin + BATCH_BYTES
            };
            let count = rest.iter().take_while(near).count().max(1);
            let (batch, later) = rest.split_at(count);
            rest = later;
            let Some(bad) = self.verified(pack, batch).await? else {
                return Ok(read);
            };
            self.note(bad).await?;
            let bytes = batch
                .iter()
                .map(|record| u64::from(record.at.stored_len))
                .sum();
            read += bytes;
            self.spend(bytes, pace).await;
        }
        Ok(read)
    }

    /// Which of some records are damaged. None if the pack went meanwhile because it was emptied.
    async fn verified(
        &self,
        pack: PackId,
        batch: &[Expected],
    ) -> Result<Option<Vec<Bad>>, StoreError> {
        if let Some(bad) = self.store.verify_records(batch.to_vec()).await? {
            self.clear_good(batch, &bad).await?;
            return Ok(Some(bad));
        }
        if !self.is_sealed(pack).await? {
            return Ok(None);
        }
        let gone = |record: &Expected| Bad {
            id: record.id,
            at: record.at,
            what: "the pack's file is gone".to_owned(),
        };
        Ok(Some(batch.iter().map(gone).collect()))
    }

    /// What was found to be damaged and reads right now had a bad moment.
    async fn clear_good(&self, batch: &[Expected], bad: &[Bad]) -> Result<(), StoreError> {
        for record in batch {
            let RecordId::Chunk(id) = record.id else {
                continue;
            };
            let known = self.store.damaged().is_at(&id, &record.at);
            if !known || bad.iter().any(|bad| bad.id == record.id) {
                continue;
            }
            let finding = Finding::Chunk(id);
            if let Some((row, _)) = self.store.finding(&finding).await? {
                let about = Some(record.at.encode());
                if self.store.clear_finding(&finding, row, about).await? {
                    tracing::warn!(chunk = %id, "a chunk that was damaged reads right again");
                    self.store.damaged().note_healed();
                }
            }
        }
        Ok(())
    }

    async fn note(&self, bad: Vec<Bad>) -> Result<(), StoreError> {
        let mut books = Vec::new();
        let mut news = 0;
        for Bad { id, at, what } in bad {
            match id {
                // A chunk that nothing leads to any more is no damage.
                RecordId::Chunk(id) => {
                    news += u64::from(self.store.mark_chunk(&id, &at, &what).await?);
                }
                book => books.push(book),
            }
        }
        let rewritten = self.store.rewrite_books(books).await?;
        if rewritten > 0 {
            tracing::warn!(
                records = rewritten,
                "damaged records of recipes were written anew"
            );
        }
        if news > 0 {
            self.found(news);
            self.settle().await?;
        }
        Ok(())
    }

    fn found(&self, news: u64) {
        if let Some(run) = &mut *self.run()
            && run.state == ScrubState::Running
        {
            run.found += news;
        }
    }

    async fn is_sealed(&self, pack: PackId) -> Result<bool, StoreError> {
        let key = key::pack(pack);
        let row = self.meta.get_one(&key).await?;
        let row = row.map(|row| PackRecord::decode(&key, &row)).transpose()?;
        Ok(row.is_some_and(|row| row.state == PackState::Sealed))
    }

    /// The chunks whose rows lead to a pack, ascending. Reads the rows of all chunks.
    async fn rows_of(&self, pack: PackId) -> Result<Vec<Expected>, StoreError> {
        let mut expected = Vec::new();
        each(self.source(), key::chunks(), ROWS, |row, value| {
            let at = ChunkRecord::decode(row, value)?;
            if at.pack == pack
                && let Some(id) = key::chunk_of(row)
            {
                let id = RecordId::Chunk(id);
                let header = None;
                expected.push(Expected { id, at, header });
            }
            Ok(())
        })
        .await?;
        expected.sort_unstable_by_key(|record| record.at.offset);
        Ok(expected)
    }

    /// Compares the digest of the blob whose turn it is, once enough bytes have come together for it.
    async fn sample(&self) -> Result<(), StoreError> {
        let (progress, _) = self.progress().await?;
        let all = key::blobs();
        let range = match progress.sampled {
            Some(last) => key::after(all.clone(), &key::blob(&last)),
            None => all.clone(),
        };
        let next = self.meta.scan(&range, 1).await?.into_iter().next();
        let Some((row, value)) = next else {
            // From the begin again.
            return self.update(|progress| progress.sampled = None).await;
        };
        let len = BlobRecord::decode(&row, &value)?.len;
        let Some(digest) = key::blob_of(&row).filter(|_| len <= progress.sample_bytes) else {
            return Ok(());
        };
        self.scrub_blob(&digest, Pace::Background).await?;
        self.update(|progress| {
            progress.sample_bytes = progress.sample_bytes.saturating_sub(len);
            progress.sampled = Some(digest);
        })
        .await
    }

    /// Reads a blob and compares its digest. If that fails, every chunk of it is verified.
    async fn scrub_blob(&self, digest: &Digest, pace: Pace) -> Result<(), StoreError> {
        let key = key::blob(digest);
        let Some(row) = self.meta.get_one(&key).await? else {
            return Ok(());
        };
        let blob = BlobRecord::decode(&key, &row)?;
        self.stats.blobs.fetch_add(1, Relaxed);
        let read = match blob.body {
            BlobBody::Inline => {
                let bytes = self.meta.get_one(&key::inline(digest)).await?;
                bytes.map(|bytes| Digest::of(digest.algorithm(), &bytes))
            }
            BlobBody::Recipe { id, parts } => {
                let reading = Reading::new(Arc::clone(&self.store), id, parts, blob.len);
                match self
                    .digest_of(&reading, digest.algorithm(), blob.len, pace)
                    .await
                {
                    Ok(found) => Some(found),
                    Err(StoreError::Corrupt { .. } | StoreError::Missing(_)) => {
                        self.scrub_chunks(id, parts).await?;
                        self.settle().await?;
                        None
                    }
                    Err(error) => return Err(error),
                }
            }
        };
        if read == Some(*digest) {
            return self.clear_blob(digest).await;
        }
        // Whatever is wrong with it: it is not what it should be.
        let what = match read {
            Some(found) => format!("its bytes have digest {found}"),
            None => "it cannot be read in full".to_owned(),
        };
        if self.store.mark_blob(digest, row, None, &what).await? {
            self.found(1);
        }
        Ok(())
    }

    async fn digest_of(
        &self,
        reading: &Reading,
        algorithm: Algorithm,
        len: u64,
        pace: Pace,
    ) -> Result<Digest, StoreError> {
        let (mut sha256, mut sha512) = (Sha256::new(), Sha512::new());
        let mut body = std::pin::pin!(reading.body(0..len));
        while let Some(frame) = body.try_next().await? {
            let bytes = frame.len() as u64;
            (sha256, sha512) = blocking::run(move || {
                match algorithm {
                    Algorithm::Sha256 => sha256.update(&frame),
                    Algorithm::Sha512 => sha512.update(&frame),
                }
                (sha256, sha512)
            })
            .await;
            self.spend(bytes, pace).await;
        }
        let digest = match algorithm {
            Algorithm::Sha256 => Digest::new(algorithm, &sha256.finalize()),
            Algorithm::Sha512 => Digest::new(algorithm, &sha512.finalize()),
        };
        digest.map_err(|error| StoreError::io("hash a blob".into(), std::io::Error::other(error)))
    }

    /// Verifies every chunk of a recipe, each where its row leads.
    async fn scrub_chunks(&self, recipe: u64, parts: u32) -> Result<(), StoreError> {
        for n in 0..parts {
            for (id, at) in self.located(recipe, n).await? {
                let id = RecordId::Chunk(id);
                let expected = Expected {
                    id,
                    at,
                    header: None,
                };
                let bad = self.verified(at.pack, &[expected]).await?;
                self.note(bad.unwrap_or_default()).await?;
            }
        }
        Ok(())
    }

    /// The chunks of a part of a recipe, and where they lie. Those without a row are left out.
    async fn located(
        &self,
        recipe: u64,
        part: u32,
    ) -> Result<Vec<(ChunkId, ChunkRecord)>, StoreError> {
        let key = key::recipe(recipe, part);
        let Some(row) = self.meta.get_one(&key).await? else {
            return Ok(Vec::new());
        };
        let ids: Vec<ChunkId> = chunks_of(&RecipePart::decode(&key, &row)?).collect();
        let keys: Vec<_> = ids.iter().map(key::chunk).collect();
        let rows = self.meta.get(&keys).await?;
        let mut located = Vec::with_capacity(ids.len());
        for ((id, key), row) in ids.into_iter().zip(&keys).zip(rows) {
            if let Some(row) = row {
                located.push((id, ChunkRecord::decode(key, &row)?));
            }
        }
        Ok(located)
    }

    async fn clear_blob(&self, digest: &Digest) -> Result<(), StoreError> {
        let finding = Finding::Blob(*digest);
        if self.store.is_damaged(digest)
            && let Some((row, _)) = self.store.finding(&finding).await?
        {
            let about = self.meta.get_one(&key::blob(digest)).await?;
            self.store.clear_finding(&finding, row, about).await?;
        }
        Ok(())
    }

    /// Follows findings up: which blobs do damaged chunks belong to, and what is whole again?
    pub async fn settle(&self) -> Result<(), StoreError> {
        let _one_at_a_time = self.settling.lock().await;
        let (unsettled, healed) = self.store.damaged().take_tasks();
        let now = self.clock.now_ms();
        let is_due = now >= self.rechecked_ms.load(Relaxed).saturating_add(RECHECK_MS);
        if !unsettled && !healed && !is_due {
            return Ok(());
        }
        self.rechecked_ms.store(now, Relaxed);
        let result = self.settle_now(unsettled).await;
        if result.is_err() {
            self.store.damaged().put_back();
        }
        result
    }

    async fn settle_now(&self, unsettled: bool) -> Result<(), StoreError> {
        self.clear_healed().await?;
        if unsettled && self.store.damaged().counts().0 > 0 {
            self.find_blobs().await?;
        }
        self.count_findings().await
    }

    /// Marks the blobs that damaged chunks belong to.
    async fn find_blobs(&self) -> Result<(), StoreError> {
        // Whoever looked a chunk up before it was marked has committed what relies on it after this, and is found.
        self.store.wait_for_lookups().await;
        let chunks = self.store.damaged().chunks();
        let mut recipes: HashMap<u64, ChunkId> = HashMap::new();
        each(self.source(), key::recipes(), LONG_ROWS, |row, value| {
            if !key::is_recipe_part(row) {
                return Ok(());
            }
            let part = RecipePart::decode(row, value)?;
            if let Some(id) = chunks_of(&part).find(|id| chunks.contains_key(id))
                && let Some(recipe) = key::recipe_of(row)
            {
                recipes.entry(recipe).or_insert(id);
            }
            Ok(())
        })
        .await?;
        let mut blobs: Vec<(Digest, Value, ChunkId)> = Vec::new();
        each(self.source(), key::blobs(), ROWS, |row, value| {
            if let BlobBody::Recipe { id, .. } = BlobRecord::decode(row, value)?.body
                && let Some(chunk) = recipes.get(&id)
                && let Some(digest) = key::blob_of(row)
            {
                blobs.push((digest, value.clone(), *chunk));
            }
            Ok(())
        })
        .await?;
        for (digest, row, chunk) in blobs {
            let (_, found) = match self.store.finding(&Finding::Chunk(chunk)).await? {
                Some(found) => found,
                // Healed since.
                None => continue,
            };
            let what = format!("chunk {chunk}: {}", found.what);
            let mark = self.store.mark_blob(&digest, row, found.at, &what);
            if mark.await? {
                self.found(1);
            }
        }
        Ok(())
    }

    /// Forgets findings about what was stored anew, or is gone.
    async fn clear_healed(&self) -> Result<(), StoreError> {
        let mut findings = Vec::new();
        each(self.source(), key::findings(), ROWS, |row, value| {
            if let Some(finding) = key::finding_of(row) {
                findings.push((finding, value.clone(), FindingRecord::decode(row, value)?));
            }
            Ok(())
        })
        .await?;
        // Chunks first: blobs depend on them.
        findings.sort_by_key(|(finding, _, _)| !matches!(finding, Finding::Chunk(_)));
        for (finding, row, found) in findings {
            let about = match finding {
                Finding::Chunk(id) => {
                    let key = key::chunk(&id);
                    let about = self.meta.get_one(&key).await?;
                    let at = about.as_ref().map(|row| ChunkRecord::decode(&key, row));
                    if at.transpose()? == found.at {
                        continue;
                    }
                    about
                }
                Finding::Blob(digest) => {
                    let about = self.meta.get_one(&key::blob(&digest)).await?;
                    if let Some(row) = &about
                        && (found.at.is_none() || !self.is_whole(&digest, row).await?)
                    {
                        continue;
                    }
                    about
                }
                Finding::Pack(pack) => {
                    let about = self.meta.get_one(&key::pack(pack)).await?;
                    if about.is_some() {
                        continue;
                    }
                    about
                }
            };
            if self.store.clear_finding(&finding, row, about).await? {
                self.stats.cleared.fetch_add(1, Relaxed);
                tracing::info!(?finding, "damage was healed, or what was damaged is gone");
            }
        }
        Ok(())
    }

    /// Whether no chunk of a blob is known to be damaged, or missing.
    async fn is_whole(&self, digest: &Digest, row: &Value) -> Result<bool, StoreError> {
        let BlobBody::Recipe { id, parts } = BlobRecord::decode(&key::blob(digest), row)?.body
        else {
            return Ok(true);
        };
        for n in 0..parts {
            let located = self.located(id, n).await?;
            let damaged = self.store.damaged();
            if located.iter().any(|(id, at)| damaged.is_at(id, at)) {
                return Ok(false);
            }
        }
        Ok(true)
    }

    async fn count_findings(&self) -> Result<(), StoreError> {
        let (mut chunks, mut blobs, mut packs) = (0, 0, 0);
        each(self.source(), key::findings(), ROWS, |row, _| {
            match key::finding_of(row) {
                Some(Finding::Chunk(_)) => chunks += 1,
                Some(Finding::Blob(_)) => blobs += 1,
                Some(Finding::Pack(_)) => packs += 1,
                None => {}
            }
            Ok(())
        })
        .await?;
        self.stats.found_chunks.store(chunks, Relaxed);
        self.stats.found_blobs.store(blobs, Relaxed);
        self.stats.found_packs.store(packs, Relaxed);
        Ok(())
    }

    /// Counts bytes, and lets others have the device: in the background for as long as the budget says.
    async fn spend(&self, bytes: u64, pace: Pace) {
        self.stats.bytes.fetch_add(bytes, Relaxed);
        match pace {
            Pace::Background => {
                let ms = u128::from(bytes) * u128::from(HOUR * 1000)
                    / u128::from(self.bytes_per_hour.max(1));
                let ms = u64::try_from(ms).unwrap_or(u64::MAX);
                tokio::time::sleep(Duration::from_millis(ms)).await;
            }
            Pace::Now => {
                if let Some(run) = &mut *self.run() {
                    run.bytes += bytes;
                }
                tokio::task::yield_now().await;
            }
        }
    }

    fn run(&self) -> MutexGuard<'_, Option<ScrubRun>> {
        self.run.lock().unwrap_or_else(PoisonError::into_inner)
    }

    async fn progress(&self) -> Result<(ScrubRecord, Option<Bytes>), StoreError> {
        let key = key::scrub_state();
        let row = self.meta.get_one(&key).await?;
        let record = row.as_ref().map(|row| ScrubRecord::decode(&key, row));
        Ok((record.transpose()?.unwrap_or_default(), row))
    }

    async fn update(&self, change: impl Fn(&mut ScrubRecord)) -> Result<(), StoreError> {
        loop {
            let (mut progress, row) = self.progress().await?;
            change(&mut progress);
            let key = key::scrub_state();
            let txn = Txn {
                checks: vec![match row {
                    Some(row) => Check::Exact(key.clone(), row),
                    None => Check::Absent(key.clone()),
                }],
                puts: vec![(key, progress.encode())],
                deletes: vec![],
            };
            // A conflict means that another scrub wrote.
            if self.meta.commit(txn).await? == Commit::Done {
                return Ok(());
            }
        }
    }
}

fn chunks_of(part: &RecipePart) -> impl Iterator<Item = ChunkId> {
    part.pieces.iter().filter_map(|piece| match piece {
        Piece::Chunk { id, .. } => Some(*id),
        Piece::Zeros { .. } => None,
    })
}

fn log(result: Result<(), StoreError>, what: &str) {
    if let Err(error) = result {
        tracing::error!(error = &error as &dyn std::error::Error, "{what}");
    }
}

#[cfg(test)]
#[path = "scrub_tests.rs"]
mod tests;
