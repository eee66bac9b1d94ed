//! Following findings up: which blobs do damaged chunks belong to, and what is whole again?

use std::{collections::HashMap, sync::atomic::Ordering::Relaxed};

use dvcr_core::{chunk::ChunkId, oci::Digest};

use super::{LONG_ROWS, ROWS, Scrubber};
use crate::{
    gc::mark::each,
    meta::{
        Value,
        key::{self, Finding},
        record::{BlobBody, BlobRecord, ChunkRecord, FindingRecord, Record as _},
    },
    store::{StoreError, recipe::RecipePart},
};

/// How often findings are looked at again though nothing was healed here: packs and blobs go.
const RECHECK_MS: u64 = 3600 * 1000;

impl Scrubber {
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
            if let Some(id) = part.chunks().find(|id| chunks.contains_key(id))
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

    pub(super) async fn count_findings(&self) -> Result<(), StoreError> {
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
}
