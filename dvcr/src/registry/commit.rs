//! What was uploaded becomes a blob that a repository holds.

use std::sync::Arc;

use dvcr_core::oci::{Algorithm, Digest, RepositoryName};

use super::{Inner, RegistryError, blob::hash_stream};
use crate::{
    meta::{
        Check, Commit, Txn, key,
        record::{self, BlobBody, BlobRecord, HoldRecord, Record as _},
    },
    store::{Finished, FinishedBody, IngestState, Reading, StoreError},
};

impl Inner {
    /// The digest of a finished ingest by another algorithm: for clients that first name it when they close the upload.
    pub(super) async fn rehash(
        &self,
        finished: &mut Finished,
        algorithm: Algorithm,
    ) -> Result<Digest, RegistryError> {
        match &finished.body {
            FinishedBody::Inline(bytes) => Ok(Digest::of(algorithm, bytes)),
            FinishedBody::Verified => Err(RegistryError::Invalid(
                "the digest algorithm changed".into(),
            )),
            &FinishedBody::Recipe { id, parts } => {
                // The chunks become readable by committing them. Until the blob's own row does, the session's leads to them.
                let mut txn = Txn::default();
                finished.prepare(&mut txn).await?;
                match &mut finished.session {
                    Some(session) if session.value().is_none() => {
                        session.record(&IngestState::new(id, algorithm), &mut txn);
                    }
                    Some(session) => txn.checks.push(session.check()),
                    None => {}
                }
                if self.meta.commit(txn).await? != Commit::Done {
                    return Err(RegistryError::Conflict);
                }
                let reading = Reading::new(Arc::clone(&self.store), id, parts, finished.len);
                hash_stream(algorithm, reading.body(0..finished.len)).await
            }
        }
    }

    /// Makes a finished blob part of a repository, and ends its session. Where the store has the same blob already, the new recipe
    /// is dropped.
    pub(super) async fn commit_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        finished: &Finished,
    ) -> Result<(), RegistryError> {
        self.transact(|| async {
            let mut txn = Txn::default();
            if let Some(session) = &finished.session {
                // Ended meanwhile, by whoever has ended it: trying again would not help.
                if self.get(session.key()).await?.as_ref() != session.value() {
                    return Err(RegistryError::UploadUnknown);
                }
                session.remove(&mut txn);
            }
            let blob_key = key::blob(digest);
            let is_damaged = self.store.is_damaged(digest);
            match (self.get(&blob_key).await?, &finished.body) {
                // The new bytes take the place of the old ones: all of their chunks were looked up or stored just now.
                (Some(old), body) if is_damaged && *body != FinishedBody::Verified => {
                    let row = BlobRecord::decode(&blob_key, &old)?;
                    if let BlobBody::Recipe { id, parts } = row.body {
                        txn.deletes.extend(key::recipe_rows(id, parts));
                        self.store.note_dead(1);
                    }
                    finished.prepare(&mut txn).await?;
                    let row = BlobRecord {
                        created_ms: row.created_ms,
                        ..self.blob_row(digest, finished, &mut txn)?
                    };
                    let finding = key::finding(&key::Finding::Blob(*digest));
                    txn.checks.push(Check::Exact(blob_key.clone(), old));
                    txn.deletes.push(finding);
                    txn.puts.push((blob_key, row.encode()));
                }
                (Some(_), body) => {
                    txn.checks.push(Check::Present(blob_key));
                    if let FinishedBody::Recipe { id, parts } = body {
                        txn.deletes.extend(key::recipe_rows(*id, *parts));
                        self.store.note_dead(1);
                    }
                }
                // Deleted since this upload began to verify it only.
                (None, FinishedBody::Verified) => return Err(RegistryError::Conflict),
                (None, _) => {
                    finished.prepare(&mut txn).await?;
                    let row = self.blob_row(digest, finished, &mut txn)?;
                    txn.checks.push(Check::Absent(blob_key.clone()));
                    txn.puts.push((blob_key, row.encode()));
                }
            }
            self.link(repository, digest, &mut txn).await?;
            Ok((txn, is_damaged))
        })
        .await
        .map(|was_damaged| {
            if was_damaged {
                self.store.forget_damage(digest);
            }
        })
    }

    /// Marks a blob that was committed just now and fails, if one of its chunks was found to be damaged since it was looked up,
    /// which may have been in an earlier request. Whoever marks a chunk after this looks for blobs later still, and finds this one.
    pub(super) async fn check_committed(&self, digest: &Digest) -> Result<(), RegistryError> {
        if self.store.damaged().counts().0 == 0 {
            return Ok(());
        }
        let Some(row) = self.get(&key::blob(digest)).await? else {
            return Ok(());
        };
        match self.store.mark_blob_if_damaged(digest, row).await? {
            None => Ok(()),
            Some((at, _)) => Err(RegistryError::Store(StoreError::Corrupt {
                pack: at.pack,
                offset: at.offset.into(),
                what: "a chunk that an upload relies on was found to be damaged since".to_owned(),
            })),
        }
    }

    /// The row of a blob that was just taken in; its bytes go into the transaction where they are few.
    fn blob_row(
        &self,
        digest: &Digest,
        finished: &Finished,
        txn: &mut Txn,
    ) -> Result<BlobRecord, RegistryError> {
        let body = match &finished.body {
            FinishedBody::Recipe { id, parts } => BlobBody::Recipe {
                id: *id,
                parts: *parts,
            },
            FinishedBody::Inline(bytes) => {
                txn.puts.push((key::inline(digest), bytes.clone()));
                BlobBody::Inline
            }
            FinishedBody::Verified => return Err(RegistryError::Conflict),
        };
        Ok(BlobRecord {
            len: finished.len,
            body,
            stored_len: finished.stored_len,
            created_ms: self.now_ms(),
        })
    }

    /// Adds to the transaction that the repository holds the blob, under a lease until a manifest refers to it.
    pub(super) async fn link(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        txn: &mut Txn,
    ) -> Result<(), RegistryError> {
        let (now, lease_ms) = (self.now_ms(), self.lease_end_ms());
        let hold = HoldRecord {
            linked_ms: now,
            lease_ms,
        };
        txn.puts
            .push((key::hold(repository, digest), hold.encode()));
        txn.puts
            .push((key::held_by(digest, repository), record::mark()));
        txn.puts.push((
            key::review_blob(lease_ms, repository, digest),
            record::mark(),
        ));
        self.ensure_repository(repository, txn).await
    }
}
