//! Reading a blob through its recipe, and comparing its digest.

use std::sync::{Arc, atomic::Ordering::Relaxed};

use dvcr_core::{
    chunk::ChunkId,
    oci::{Algorithm, Digest, RepositoryName},
};
use futures::TryStreamExt as _;

use super::{Pace, ROWS, Scrubber};
use crate::{
    blocking,
    gc::mark::each,
    meta::{
        key::{self, Finding},
        record::{BlobBody, BlobRecord, ChunkRecord, Record as _},
    },
    store::{Expected, Hasher, Reading, StoreError, pack::RecordId, recipe::RecipePart},
};

impl Scrubber {
    /// The blobs of a repository, with their lengths.
    pub(super) async fn blobs_of(
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

    /// Reads a blob and compares its digest. If that fails, every chunk of it is verified.
    pub(super) async fn scrub_blob(&self, digest: &Digest, pace: Pace) -> Result<(), StoreError> {
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
                    Err(StoreError::Corrupt { .. } | StoreError::Missing(_) | StoreError::Gone) => {
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
        let mut hasher = Hasher::new(algorithm);
        let mut body = std::pin::pin!(reading.body(0..len));
        while let Some(frame) = body.try_next().await? {
            let bytes = frame.len() as u64;
            hasher = blocking::run(move || {
                hasher.update(&frame);
                hasher
            })
            .await;
            self.spend(bytes, pace).await;
        }
        Ok(hasher.finish())
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
        let ids: Vec<ChunkId> = RecipePart::decode(&key, &row)?.chunks().collect();
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
}
