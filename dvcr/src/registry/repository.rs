//! Repositories as operators see them: which there are, and what each holds.

use dvcr_core::oci::{Digest, RepositoryName};

use super::{
    Inner, Page, Principal, Registry, RegistryError,
    policy::{self, Action},
};
use crate::meta::{
    KeyRange, key,
    record::{BlobRecord, Record as _, RepositoryRecord},
};

/// Rows read at once.
const PAGE: usize = 1000;

/// A repository in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepositoryEntry {
    /// Its name.
    pub name: RepositoryName,
    /// When something was first pushed to it, milliseconds since 1970.
    pub created_ms: u64,
    /// Number of its tags.
    pub tags: u64,
}

/// What a repository holds.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RepositoryDetail {
    /// What a list tells of it.
    pub entry: RepositoryEntry,
    /// Number of its manifests.
    pub manifests: u64,
    /// Number of blobs that it holds.
    pub blobs: u64,
    /// Bytes of those.
    pub logical_bytes: u64,
}

impl Registry {
    /// Up to `n` repositories after `after` whose names begin with `prefix`, in byte order, that the principal may pull from.
    /// Reads a row for each of their tags.
    pub async fn repository_list(
        &self,
        who: &Principal,
        prefix: &str,
        after: Option<&str>,
        n: usize,
    ) -> Result<Page<RepositoryEntry>, RegistryError> {
        let inner = &self.0;
        let all = key::prefix(key::repository(prefix));
        let mut range = match after {
            Some(after) => key::after(all, &key::repository(after)),
            None => all,
        };
        let mut items = Vec::new();
        while items.len() <= n && range.from < range.to {
            let rows = inner.meta.scan(&range, PAGE.min(n + 1)).await?;
            let Some((last, _)) = rows.last() else { break };
            range = key::after(range, last);
            for (key, value) in &rows {
                let name = std::str::from_utf8(key::last_field(&key::repositories(), key));
                let Some(name) = name.ok().and_then(|name| name.parse().ok()) else {
                    continue;
                };
                if policy::authorize(who, Some(&name), Action::Pull).is_err() {
                    continue;
                }
                // One more than asked for tells that there are more; nobody sees how much is in it.
                let tags = if items.len() < n {
                    inner.count(key::tags(&name)).await?
                } else {
                    0
                };
                items.push(RepositoryEntry {
                    created_ms: RepositoryRecord::decode(key, value)?.created_ms,
                    name,
                    tags,
                });
                if items.len() > n {
                    break;
                }
            }
        }
        let more = items.len() > n;
        items.truncate(n);
        Ok(Page { items, more })
    }

    /// What a repository holds. Reads a row for each of its tags and manifests, and two for each blob.
    pub async fn repository_detail(
        &self,
        who: &Principal,
        name: &RepositoryName,
    ) -> Result<RepositoryDetail, RegistryError> {
        policy::authorize(who, Some(name), Action::Pull)?;
        let inner = &self.0;
        let row: Option<RepositoryRecord> =
            inner.get_record(&key::repository(name.as_str())).await?;
        let row = row.ok_or_else(|| RegistryError::NameUnknown(name.clone()))?;
        let mut detail = RepositoryDetail {
            entry: RepositoryEntry {
                name: name.clone(),
                created_ms: row.created_ms,
                tags: inner.count(key::tags(name)).await?,
            },
            manifests: inner.count(key::manifests(name)).await?,
            blobs: 0,
            logical_bytes: 0,
        };
        let all = key::holds(name);
        let mut pages = inner.pages(all.clone(), PAGE);
        while let Some(rows) = pages.next().await? {
            let digests = rows
                .iter()
                .filter_map(|(key, _)| Digest::from_key(key::last_field(&all, key)).ok());
            let keys: Vec<_> = digests.map(|digest| key::blob(&digest)).collect();
            for (key, row) in keys.iter().zip(inner.meta.get(&keys).await?) {
                let Some(row) = row else { continue };
                detail.blobs += 1;
                detail.logical_bytes += BlobRecord::decode(key, &row)?.len;
            }
        }
        Ok(detail)
    }
}

impl Inner {
    /// Number of rows in a range.
    pub(super) async fn count(&self, range: KeyRange) -> Result<u64, RegistryError> {
        let mut count = 0;
        let mut pages = self.pages(range, PAGE);
        while let Some(rows) = pages.next().await? {
            count += rows.len() as u64;
        }
        Ok(count)
    }
}
