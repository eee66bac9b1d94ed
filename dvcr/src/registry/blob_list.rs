//! Blobs as operators see them: which there are, and what each takes and shares.

use dvcr_core::oci::{Digest, RepositoryName};

use super::{
    Page, Principal, Registry, RegistryError,
    policy::{self, Action},
    stats::Scope,
};
use crate::meta::{
    key,
    record::{BlobRecord, HoldRecord, Record as _},
};

/// Most repositories that are named as holders of a blob.
const HOLDERS_MAX: usize = 20;

/// A blob in a list.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobEntry {
    /// Its digest.
    pub digest: Digest,
    /// Its length, bytes.
    pub len: u64,
    /// What its chunks took when it was pushed, whoever stored them, bytes.
    pub stored_len: u64,
    /// When it was first pushed, milliseconds since 1970.
    pub created_ms: u64,
    /// How the repository holds it; none in a list of all blobs.
    pub hold: Option<HoldRecord>,
}

/// What a blob takes and shares.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobDetail {
    /// What a list tells of it.
    pub entry: BlobEntry,
    /// Number of different chunks.
    pub chunks: u64,
    /// Bytes that they take.
    pub stored_bytes: u64,
    /// Of those, bytes of chunks that other blobs use as well.
    pub shared_bytes: u64,
    /// Whether chunks were sampled, so that their number and bytes are estimates.
    pub estimated: bool,
    /// Repositories that hold it and that the principal may pull from, at most 20.
    pub repositories: Vec<RepositoryName>,
}

impl Registry {
    /// Up to `n` blobs after `after`, in the order of their digests: those that a repository holds, or all.
    pub async fn blob_list(
        &self,
        who: &Principal,
        repository: Option<&RepositoryName>,
        after: Option<&Digest>,
        n: usize,
    ) -> Result<Page<BlobEntry>, RegistryError> {
        self.may_look(who, repository).await?;
        let inner = &self.0;
        let all = repository.map_or_else(key::blobs, key::holds);
        let range = match (after, repository) {
            (Some(after), Some(name)) => key::after(all.clone(), &key::hold(name, after)),
            (Some(after), None) => key::after(all.clone(), &key::blob(after)),
            (None, _) => all.clone(),
        };
        let mut items = Vec::new();
        let mut pages = inner.pages(range, n + 1);
        while let Some(rows) = pages.next().await? {
            let found = rows.iter().filter_map(|(key, value)| {
                let digest = Digest::from_key(key::last_field(&all, key)).ok()?;
                Some((digest, key, value))
            });
            for (digest, key, value) in found {
                if items.len() == n {
                    return Ok(Page { items, more: true });
                }
                let (blob, hold) = if repository.is_some() {
                    let hold = HoldRecord::decode(key, value)?;
                    (inner.get_record(&key::blob(&digest)).await?, Some(hold))
                } else {
                    (Some(BlobRecord::decode(key, value)?), None)
                };
                // It may go between the two looks.
                items.extend(blob.map(|blob| entry(digest, &blob, hold)));
            }
        }
        Ok(Page { items, more: false })
    }

    /// What a blob takes and shares; with `repository`, only if that holds it. Walks over all blobs.
    pub async fn blob_detail(
        &self,
        who: &Principal,
        repository: Option<&RepositoryName>,
        digest: &Digest,
    ) -> Result<BlobDetail, RegistryError> {
        self.may_look(who, repository).await?;
        let inner = &self.0;
        let unknown = || RegistryError::BlobUnknown(*digest);
        let hold = match repository {
            Some(name) => {
                let hold: Option<HoldRecord> = inner.get_record(&key::hold(name, digest)).await?;
                Some(hold.ok_or_else(unknown)?)
            }
            None => None,
        };
        let blob: Option<BlobRecord> = inner.get_record(&key::blob(digest)).await?;
        let blob = blob.ok_or_else(unknown)?;
        let holders = key::holders(digest);
        let rows = inner.meta.scan(&holders, HOLDERS_MAX).await?;
        let repositories = rows
            .iter()
            .filter_map(|(row, _)| std::str::from_utf8(key::last_field(&holders, row)).ok())
            .filter_map(|name| name.parse().ok())
            .filter(|name| policy::authorize(who, Some(name), Action::Pull).is_ok());
        let measured = inner.measure(Scope::Blob(digest)).await?;
        Ok(BlobDetail {
            entry: entry(*digest, &blob, hold),
            chunks: measured.stats.chunks,
            stored_bytes: measured.stats.stored_bytes,
            shared_bytes: measured.shared_bytes,
            estimated: measured.stats.estimated,
            repositories: repositories.collect(),
        })
    }

    /// All blobs are an administrator's to see; those of a repository are whose it is.
    async fn may_look(
        &self,
        who: &Principal,
        repository: Option<&RepositoryName>,
    ) -> Result<(), RegistryError> {
        let Some(name) = repository else {
            return policy::authorize(who, None, Action::Admin);
        };
        policy::authorize(who, Some(name), Action::Pull)?;
        if self.0.repository_exists(name).await? {
            Ok(())
        } else {
            Err(RegistryError::NameUnknown(name.clone()))
        }
    }
}

fn entry(digest: Digest, blob: &BlobRecord, hold: Option<HoldRecord>) -> BlobEntry {
    BlobEntry {
        digest,
        len: blob.len,
        stored_len: blob.stored_len,
        created_ms: blob.created_ms,
        hold,
    }
}
