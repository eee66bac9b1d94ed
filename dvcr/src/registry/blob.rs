//! Blobs of a repository: look at, read, mount, delete.

use std::{ops::Range, sync::Arc};

use bytes::Bytes;
use dvcr_core::oci::{Algorithm, Digest, RepositoryName};
use futures::{Stream, StreamExt, future::Either, stream};
use sha2::{Digest as _, Sha256, Sha512};

use super::{
    Inner, Principal, Registry, RegistryError,
    policy::{self, Action, Sparse, sparse_of},
};
use crate::{
    blocking,
    meta::{
        Check, Commit, Txn, key,
        record::{self, BlobBody, BlobRecord, HoldRecord, Record as _},
    },
    store::{Reading, StoreError},
};

/// A blob's stored form is offered as a zstd stream only where that is smaller by at least one part in this many:
/// incompressible data would only be wrapped.
const STORED_GAIN_MIN: u64 = 8;

/// Repositories looked at for one that the principal may pull from, when a mount does not name one.
const MOUNT_HOLDERS_MAX: usize = 1000;

/// What is known of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobInfo {
    /// Its digest.
    pub digest: Digest,
    /// Its length, bytes.
    pub len: u64,
    /// Whether its chunks were stored compressed, so that a stream of what is stored is worth asking for.
    pub compressed: bool,
}

/// A blob to read.
pub struct BlobReader {
    info: BlobInfo,
    body: Content,
}

enum Content {
    Inline(Bytes),
    Recipe(Reading),
}

impl BlobReader {
    /// What is known of the blob.
    #[must_use]
    pub fn info(&self) -> &BlobInfo {
        &self.info
    }

    /// The bytes of a range that lies within the blob, in frames of at most 1 MiB.
    pub fn body(
        &self,
        range: Range<u64>,
    ) -> impl Stream<Item = Result<Bytes, StoreError>> + Send + use<> {
        match &self.body {
            Content::Inline(bytes) => {
                let bounded = |n: u64| usize::try_from(n).unwrap_or(usize::MAX).min(bytes.len());
                let part = bytes.slice(bounded(range.start)..bounded(range.end));
                Either::Left(stream::iter((!part.is_empty()).then_some(Ok(part))))
            }
            Content::Recipe(reading) => Either::Right(reading.body(range)),
        }
    }

    /// The whole blob as a zstd stream of what is stored, with its length; none where that is not worth it.
    pub async fn stored_stream(
        &self,
    ) -> Result<
        Option<(
            u64,
            impl Stream<Item = Result<Bytes, StoreError>> + Send + use<>,
        )>,
        StoreError,
    > {
        match &self.body {
            Content::Recipe(reading) if self.info.compressed => Ok(reading
                .stored_len()
                .await?
                .map(|len| (len, reading.stored_stream()))),
            _ => Ok(None),
        }
    }
}

impl Registry {
    /// What is known of a blob. Renews its lease if no manifest refers to it yet: a client that sees that the blob is
    /// there will not upload it again.
    pub async fn blob_head(
        &self,
        who: &Principal,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<BlobInfo, RegistryError> {
        policy::authorize(who, Some(repository), Action::Pull)?;
        loop {
            let (hold, blob) = self.0.held(repository, digest).await?;
            // Whoever asks pushes it if it is not there, and that heals it.
            if self.0.store.is_damaged(digest) {
                return Err(RegistryError::BlobUnknown(*digest));
            }
            if self.0.renew_lease(repository, digest, &hold).await? {
                return Ok(blob.info(digest));
            }
        }
    }

    /// A blob to read.
    pub async fn blob_read(
        &self,
        who: &Principal,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<BlobReader, RegistryError> {
        policy::authorize(who, Some(repository), Action::Pull)?;
        let (_, blob) = self.0.held(repository, digest).await?;
        let body = match blob.body {
            BlobBody::Inline => {
                let bytes = self.0.get(&key::inline(digest)).await?;
                Content::Inline(bytes.ok_or(RegistryError::BlobUnknown(*digest))?)
            }
            BlobBody::Recipe { id, parts } => {
                Content::Recipe(Reading::new(Arc::clone(&self.0.store), id, parts, blob.len))
            }
        };
        Ok(BlobReader {
            info: blob.info(digest),
            body,
        })
    }

    /// Removes a blob from a repository. Refused while a manifest of that repository refers to it: what is committed
    /// reads back in full. Where manifests may lack blobs, they may lose them, too.
    pub async fn blob_delete(
        &self,
        who: &Principal,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<(), RegistryError> {
        policy::authorize(who, Some(repository), Action::Delete)?;
        self.0.unlink_blob(repository, digest).await?;
        self.0.drop_repository_if_empty(repository).await
    }

    /// Makes a blob of another repository part of this one; of any that the principal may read where none is named.
    /// False where there is none: the client uploads the blob then.
    pub async fn blob_mount(
        &self,
        who: &Principal,
        repository: &RepositoryName,
        digest: &Digest,
        from: Option<&RepositoryName>,
    ) -> Result<bool, RegistryError> {
        policy::authorize(who, Some(repository), Action::Push)?;
        let inner = &self.0;
        inner
            .transact(|| async {
                let Some(source) = inner.mountable(who, digest, from).await? else {
                    return Ok((Txn::default(), false));
                };
                let mut txn = Txn::default();
                txn.checks.push(Check::Present(key::hold(&source, digest)));
                txn.checks.push(Check::Present(key::blob(digest)));
                inner.link(repository, digest, &mut txn).await?;
                Ok((txn, true))
            })
            .await
    }
}

impl BlobRecord {
    fn info(&self, digest: &Digest) -> BlobInfo {
        let compressed = self.stored_len < self.len - self.len / STORED_GAIN_MIN;
        BlobInfo {
            digest: *digest,
            len: self.len,
            compressed,
        }
    }
}

impl Inner {
    /// The rows of a blob that the repository holds.
    async fn held(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<(HoldRecord, BlobRecord), RegistryError> {
        let keys = [key::hold(repository, digest), key::blob(digest)];
        let mut rows = self.meta.get(&keys).await?.into_iter();
        match (rows.next().flatten(), rows.next().flatten()) {
            (Some(hold), Some(blob)) => Ok((
                HoldRecord::decode(&keys[0], &hold)?,
                BlobRecord::decode(&keys[1], &blob)?,
            )),
            _ => Err(RegistryError::BlobUnknown(*digest)),
        }
    }

    /// Takes a blob away from a repository, unless a manifest there needs it.
    pub(super) async fn unlink_blob(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<(), RegistryError> {
        let keep_referred = sparse_of(&self.options.sparse, repository) != Sparse::All;
        self.transact(|| async {
            self.held(repository, digest).await?;
            let mut checks = vec![Check::Present(key::hold(repository, digest))];
            if keep_referred {
                checks.push(self.unreferred(repository, digest).await?);
            }
            let txn = Txn {
                checks,
                puts: vec![(
                    key::review_blob(self.grace_end_ms(), repository, digest),
                    record::mark(),
                )],
                deletes: vec![
                    key::hold(repository, digest),
                    key::held_by(digest, repository),
                ],
            };
            Ok((txn, ()))
        })
        .await
    }

    /// Starts the lease anew where it is more than half over, also where a manifest keeps the blob: that manifest may go
    /// before the client that asks now pushes its own. False if the hold has changed.
    async fn renew_lease(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        hold: &HoldRecord,
    ) -> Result<bool, RegistryError> {
        let fresh = self.lease_end_ms();
        let half = super::millis(self.options.lease) / 2;
        if hold.lease_ms + half > fresh {
            return Ok(true);
        }
        let renewed = HoldRecord {
            lease_ms: fresh,
            ..*hold
        };
        let txn = Txn {
            checks: vec![Check::Exact(key::hold(repository, digest), hold.encode())],
            puts: vec![
                (key::hold(repository, digest), renewed.encode()),
                (key::review_blob(fresh, repository, digest), record::mark()),
            ],
            deletes: vec![],
        };
        Ok(self.meta.commit(txn).await? == Commit::Done)
    }

    async fn mountable(
        &self,
        who: &Principal,
        digest: &Digest,
        from: Option<&RepositoryName>,
    ) -> Result<Option<RepositoryName>, RegistryError> {
        // An upload instead heals it.
        if self.store.is_damaged(digest) {
            return Ok(None);
        }
        if let Some(from) = from {
            let allowed = policy::authorize(who, Some(from), Action::Pull).is_ok();
            let held = allowed && self.get(&key::hold(from, digest)).await?.is_some();
            return Ok(held.then(|| from.clone()));
        }
        let range = key::holders(digest);
        for (key, _) in self.meta.scan(&range, MOUNT_HOLDERS_MAX).await? {
            let name = std::str::from_utf8(key::last_field(&range, &key))
                .ok()
                .and_then(|n| n.parse().ok());
            if let Some(name) = name
                && policy::authorize(who, Some(&name), Action::Pull).is_ok()
            {
                return Ok(Some(name));
            }
        }
        Ok(None)
    }
}

/// The digest of a stream.
pub(super) async fn hash_stream(
    algorithm: Algorithm,
    stream: impl Stream<Item = Result<Bytes, StoreError>>,
) -> Result<Digest, RegistryError> {
    let mut stream = std::pin::pin!(stream);
    let (mut sha256, mut sha512) = (Sha256::new(), Sha512::new());
    while let Some(bytes) = stream.next().await {
        let bytes = bytes?;
        (sha256, sha512) = blocking::run(move || {
            match algorithm {
                Algorithm::Sha256 => sha256.update(&bytes),
                Algorithm::Sha512 => sha512.update(&bytes),
            }
            (sha256, sha512)
        })
        .await;
    }
    let digest = match algorithm {
        Algorithm::Sha256 => Digest::new(algorithm, &sha256.finalize()),
        Algorithm::Sha512 => Digest::new(algorithm, &sha512.finalize()),
    };
    digest.map_err(|e| RegistryError::Invalid(e.to_string()))
}
