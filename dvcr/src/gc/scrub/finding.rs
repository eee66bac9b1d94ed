//! Following findings up: which blobs do damaged chunks belong to, and what is whole again?

use std::{collections::HashSet, sync::atomic::Ordering::Relaxed};

use dvcr_core::oci::Digest;

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
        let tasks = self.store.damaged().take_tasks();
        let now = self.clock.now_ms();
        let is_due = now >= self.rechecked_ms.load(Relaxed).saturating_add(RECHECK_MS);
        if !tasks.unsettled && !tasks.healed && !is_due {
            return Ok(());
        }
        self.clear_healed().await?;
        if tasks.unsettled && self.store.damaged().counts().0 > 0 {
            self.find_blobs().await?;
        }
        self.count_findings().await?;
        self.rechecked_ms.store(now, Relaxed);
        tasks.done();
        Ok(())
    }

    /// Marks the blobs that damaged chunks belong to.
    async fn find_blobs(&self) -> Result<(), StoreError> {
        // A blob that is committed after this looked sees that its chunks are marked.
        let chunks = self.store.damaged().chunks();
        let mut recipes: HashSet<u64> = HashSet::new();
        each(self.source(), key::recipes(), LONG_ROWS, |row, value| {
            if key::is_recipe_part(row)
                && RecipePart::decode(row, value)?
                    .chunks()
                    .any(|id| chunks.contains_key(&id))
            {
                recipes.extend(key::recipe_of(row));
            }
            Ok(())
        })
        .await?;
        let mut blobs: Vec<(Digest, Value)> = Vec::new();
        each(self.source(), key::blobs(), ROWS, |row, value| {
            if let BlobBody::Recipe { id, .. } = BlobRecord::decode(row, value)?.body
                && recipes.contains(&id)
                && let Some(digest) = key::blob_of(row)
            {
                blobs.push((digest, value.clone()));
            }
            Ok(())
        })
        .await?;
        for (digest, row) in blobs {
            // Some may have been healed since.
            if let Some((_, true)) = self.store.mark_blob_if_damaged(&digest, row).await? {
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
                        && (found.at.is_none()
                            || self.store.damaged_chunk(&digest, row).await?.is_some())
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
