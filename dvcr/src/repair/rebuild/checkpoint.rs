//! Rows that a checkpoint has, except for what packs do not hold any more.

use std::{collections::HashMap, io::Read};

use dvcr_core::oci::Digest;

use super::{Progress, Rebuild};
use crate::{
    checkpoint::format::CheckpointReader,
    meta::{
        Key, Value, key,
        record::{
            BlobBody, BlobRecord, ChunkRecord, FindingRecord, HoldRecord, Record as _,
            decode_numbers, encode_numbers,
        },
    },
    repair::{GRACE_MS, LostBlob, RepairError, UsedCheckpoint},
};

impl Rebuild {
    pub(super) async fn read_checkpoint(
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

    pub(super) async fn keep_blob(
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
                let found = FindingRecord::parse(value).ok();
                at.is_some() && found.is_some_and(|found| found.at == at)
            }
            key::Finding::Blob(digest) => !self.lost.contains_key(digest),
            key::Finding::Pack(pack) => self.meta.get_one(&key::pack(*pack)).await?.is_some(),
        })
    }
}
