//! What the checkpoint and the packs do not agree on: manifests that lack a blob, blobs without a repository, recipes without a blob.

use std::sync::Arc;

use dvcr_core::oci::RepositoryName;

use super::{COMMIT_ROWS, Progress, Rebuild};
use crate::{
    meta::{
        Commit, Key, MetaError, Pages, Txn, key,
        record::{self, BlobBody, BlobRecord, HoldRecord, Record as _, RepositoryRecord},
    },
    repair::{FOUND_REPOSITORY, FoundBlob, GRACE_MS, IncompleteManifest, RepairError},
};

/// Rows read at once; of recipes, up to 150 KiB each.
const LONG_ROWS: usize = 64;

impl Rebuild {
    /// Which manifests lack the blobs that are lost.
    pub(super) async fn name_incomplete(&mut self) -> Result<(), RepairError> {
        for n in 0..self.report.lost_blobs.len() {
            let range = key::edges_to(&self.report.lost_blobs[n].digest);
            let meta = Arc::clone(&self.meta);
            let mut pages = Pages::new(&*meta, range.clone(), LONG_ROWS);
            while let Some(rows) = pages.next().await? {
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
    pub(super) async fn keep_found(
        &mut self,
        progress: &mut dyn Progress,
    ) -> Result<(), RepairError> {
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
    pub(super) async fn drop_unused_recipes(&mut self) -> Result<(), RepairError> {
        let meta = Arc::clone(&self.meta);
        let mut pages = Pages::new(&*meta, key::recipes(), LONG_ROWS);
        let mut last_dropped = None;
        while let Some(rows) = pages.next().await? {
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
}
