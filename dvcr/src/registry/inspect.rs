//! Tags and manifests as operators see them.

use std::collections::HashSet;

use dvcr_core::oci::{Digest, Manifest, ManifestKind, Reference, RepositoryName, Tag};

use super::{
    Inner, PAGE_TEXT_BYTES_MAX, Page, Principal, Registry, RegistryError,
    policy::{self, Action},
};
use crate::meta::{
    key,
    record::{ManifestRecord, Record as _, TagRecord},
};

/// Manifests read at once.
const MANIFEST_PAGE: usize = 16;

/// Most tags of a manifest that are named.
const TAGS_MAX: usize = 20;

/// Most manifests below one index that are looked at for the size of its content.
const BELOW_MAX: usize = 1_000;

/// A tag and what it names.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TagEntry {
    /// The tag.
    pub tag: Tag,
    /// What it names.
    pub digest: Digest,
    /// When it came to be, milliseconds since 1970.
    pub created_ms: u64,
    /// When a push last named it, milliseconds since 1970.
    pub pushed_ms: u64,
    /// The manifest; none where it went while the list was made.
    pub manifest: Option<ManifestEntry>,
}

/// A manifest in a list.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestEntry {
    /// Its digest.
    pub digest: Digest,
    /// Its media type.
    pub media_type: String,
    /// What it is; none where a later version stored something that this one cannot read.
    pub kind: Option<ManifestKind>,
    /// Its artifact type, or the media type of its config.
    pub artifact_type: Option<String>,
    /// What it refers to by `subject`.
    pub subject: Option<Digest>,
    /// When it was first pushed, milliseconds since 1970.
    pub created_ms: u64,
    /// Length of the document, bytes.
    pub len: u64,
    /// What a pull of all of it transfers: configs and layers of it and the manifests below it, each once, bytes.
    pub content_bytes: u64,
    /// Its tags, at most 20.
    pub tags: Vec<String>,
}

/// A manifest and what it is made of.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestDetail {
    /// What a list tells of it.
    pub entry: ManifestEntry,
    /// What it refers to, in its order.
    pub children: Vec<Child>,
    /// Number of manifests whose subject it is.
    pub referrers: u64,
}

/// What something is to the manifest that refers to it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Role {
    /// Its config.
    Config,
    /// One of its layers.
    Layer,
    /// A manifest that it lists.
    Manifest,
}

/// Something that a manifest refers to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Child {
    /// What it is to the manifest.
    pub role: Role,
    /// Its digest.
    pub digest: Digest,
    /// Its media type, as the manifest says.
    pub media_type: String,
    /// Its length, as the manifest says, bytes.
    pub size: u64,
    /// Whether the repository holds it. Foreign layers, and what is missing in sparse repositories, it does not.
    pub present: bool,
}

impl ManifestEntry {
    /// Bytes of what its author wrote.
    fn text_len(&self) -> usize {
        self.media_type.len() + self.artifact_type.as_ref().map_or(0, String::len)
    }
}

impl Registry {
    /// Up to `n` tags after `after`, in byte order, with what they name.
    pub async fn tag_list(
        &self,
        who: &Principal,
        repository: &RepositoryName,
        after: Option<&str>,
        n: usize,
    ) -> Result<Page<TagEntry>, RegistryError> {
        let tags = self.tags(who, repository, after, n).await?;
        let inner = &self.0;
        let mut items: Vec<TagEntry> = Vec::with_capacity(tags.items.len());
        let mut text_len = 0;
        for tag in tags.items {
            if text_len >= PAGE_TEXT_BYTES_MAX {
                return Ok(Page { items, more: true });
            }
            let row: Option<TagRecord> = inner
                .get_record(&key::tag(repository, tag.as_str()))
                .await?;
            let Some(row) = row else { continue };
            let manifest = inner.manifest_entry(repository, &row.digest).await?;
            text_len += manifest.as_ref().map_or(0, ManifestEntry::text_len);
            items.push(TagEntry {
                manifest,
                tag,
                digest: row.digest,
                created_ms: row.created_ms,
                pushed_ms: row.pushed_ms,
            });
        }
        let more = tags.more;
        Ok(Page { items, more })
    }

    /// Up to `n` manifests after `after`, in the order of their digests.
    pub async fn manifest_list(
        &self,
        who: &Principal,
        repository: &RepositoryName,
        after: Option<&Digest>,
        n: usize,
    ) -> Result<Page<ManifestEntry>, RegistryError> {
        policy::authorize(who, Some(repository), Action::Pull)?;
        let inner = &self.0;
        if !inner.repository_exists(repository).await? {
            return Err(RegistryError::NameUnknown(repository.clone()));
        }
        let all = key::manifests(repository);
        let range = match after {
            Some(after) => key::after(all.clone(), &key::manifest(repository, after)),
            None => all.clone(),
        };
        let mut items = Vec::new();
        let mut text_len = 0;
        let mut pages = inner.pages(range, MANIFEST_PAGE);
        while let Some(rows) = pages.next().await? {
            for (key, value) in &rows {
                let Ok(digest) = Digest::from_key(key::last_field(&all, key)) else {
                    continue;
                };
                if items.len() == n || text_len >= PAGE_TEXT_BYTES_MAX {
                    return Ok(Page { items, more: true });
                }
                let record = ManifestRecord::decode(key, value)?;
                let entry = inner.described(repository, &digest, &record).await?;
                text_len += entry.text_len();
                items.push(entry);
            }
        }
        Ok(Page { items, more: false })
    }

    /// A manifest by tag or digest, with what it refers to.
    pub async fn manifest_detail(
        &self,
        who: &Principal,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<ManifestDetail, RegistryError> {
        let found = self.manifest_get(who, repository, reference).await?;
        let inner = &self.0;
        let unknown = || RegistryError::ManifestUnknown(reference.to_string());
        let entry = inner.manifest_entry(repository, &found.digest).await?;
        let entry = entry.ok_or_else(unknown)?;
        let mut children = Vec::new();
        if let Ok(manifest) = Manifest::parse(Some(&found.media_type), &found.bytes) {
            let config = manifest.config.iter().map(|d| (Role::Config, d));
            let layers = manifest.layers.iter().map(|d| (Role::Layer, d));
            let manifests = manifest.children.iter().map(|d| (Role::Manifest, d));
            let all = config.chain(layers).chain(manifests);
            for (role, child) in all {
                let key = match role {
                    Role::Manifest => key::manifest(repository, &child.digest),
                    Role::Config | Role::Layer => key::hold(repository, &child.digest),
                };
                // One at a time: the row of a manifest has up to 8 MiB.
                let row = inner.get(&key).await?;
                children.push(Child {
                    role,
                    digest: child.digest,
                    media_type: child.media_type.clone(),
                    size: child.size,
                    present: row.is_some(),
                });
            }
        }
        let referrers = key::referrers(repository, &found.digest);
        Ok(ManifestDetail {
            entry,
            children,
            referrers: inner.count(referrers).await?,
        })
    }
}

impl Inner {
    async fn manifest_entry(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Option<ManifestEntry>, RegistryError> {
        let record = self.get_record(&key::manifest(repository, digest)).await?;
        match record {
            Some(record) => Ok(Some(self.described(repository, digest, &record).await?)),
            None => Ok(None),
        }
    }

    async fn described(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        record: &ManifestRecord,
    ) -> Result<ManifestEntry, RegistryError> {
        let manifest = Manifest::parse(Some(&record.media_type), &record.bytes).ok();
        let tags = key::tags_of(repository, digest);
        let rows = self.meta.scan(&tags, TAGS_MAX).await?;
        let names = rows
            .iter()
            .map(|(row, _)| String::from_utf8_lossy(key::last_field(&tags, row)).into_owned());
        Ok(ManifestEntry {
            digest: *digest,
            media_type: record.media_type.clone(),
            kind: manifest.as_ref().map(|manifest| manifest.kind),
            artifact_type: manifest
                .as_ref()
                .and_then(|manifest| Some(manifest.referrer_artifact_type()?.to_owned())),
            subject: record.subject,
            created_ms: record.created_ms,
            len: record.bytes.len() as u64,
            content_bytes: match &manifest {
                Some(manifest) => self.content_bytes(repository, manifest).await?,
                None => 0,
            },
            tags: names.collect(),
        })
    }

    /// Bytes of config and layers of a manifest and what is below it, each blob once. Children that are not here count nothing.
    async fn content_bytes(
        &self,
        repository: &RepositoryName,
        manifest: &Manifest,
    ) -> Result<u64, RegistryError> {
        let mut seen = HashSet::new();
        let mut bytes = 0_u64;
        let mut below = Vec::new();
        let mut add = |manifest: &Manifest, below: &mut Vec<Digest>| {
            for blob in manifest.blobs() {
                if seen.insert(blob.digest) {
                    bytes = bytes.saturating_add(blob.size);
                }
            }
            for child in &manifest.children {
                if seen.insert(child.digest) {
                    below.push(child.digest);
                }
            }
        };
        add(manifest, &mut below);
        for _ in 0..BELOW_MAX {
            let Some(child) = below.pop() else { break };
            let record: Option<ManifestRecord> =
                self.get_record(&key::manifest(repository, &child)).await?;
            let Some(record) = record else { continue };
            if let Ok(manifest) = Manifest::parse(Some(&record.media_type), &record.bytes) {
                add(&manifest, &mut below);
            }
        }
        Ok(bytes)
    }
}
