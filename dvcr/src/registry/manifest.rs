//! Manifests: stored byte by byte as they came, with a row for everything that they refer to.

use std::collections::BTreeSet;

use bytes::Bytes;
use dvcr_core::oci::{Descriptor, Digest, Manifest, ManifestKind, Reference, RepositoryName, Tag};

use super::{
    Inner, Principal, Registry, RegistryError,
    immutable::{TagLock, lock_of},
    policy::{self, Action, Sparse, sparse_of},
};
use crate::meta::{
    Check, Txn, key,
    record::{self, BlobRecord, ManifestRecord, Record as _, TagRecord},
};

/// A manifest as it was pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StoredManifest {
    /// Its digest.
    pub digest: Digest,
    /// Its media type, without parameters.
    pub media_type: String,
    /// The document.
    pub bytes: Bytes,
}

/// What came of pushing a manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestPut {
    /// Its digest, by the algorithm that the client used.
    pub digest: Digest,
    /// What it refers to by `subject`.
    pub subject: Option<Digest>,
    /// The tags that now point to it.
    pub tags: Vec<Tag>,
}

impl Registry {
    /// Stores a manifest under its digest and moves tags to it: the one of `reference`, and `tags`.
    pub async fn manifest_put(
        &self,
        who: &Principal,
        repository: &RepositoryName,
        reference: &Reference,
        tags: &[Tag],
        content_type: Option<&str>,
        bytes: Bytes,
    ) -> Result<ManifestPut, RegistryError> {
        policy::authorize(who, Some(repository), Action::Push)?;
        let inner = &self.0;
        let (digest, tags): (_, BTreeSet<&Tag>) = match reference {
            Reference::Digest(expected) => {
                let found = Digest::of(expected.algorithm(), &bytes);
                if found != *expected {
                    return Err(RegistryError::DigestMismatch {
                        expected: *expected,
                        found,
                    });
                }
                (found, tags.iter().collect())
            }
            Reference::Tag(tag) => (Digest::sha256(&bytes), tags.iter().chain([tag]).collect()),
        };
        let manifest = Manifest::parse(content_type, &bytes)?;
        let subject = manifest.subject.as_ref().map(|s| s.digest);
        inner
            .transact(|| async {
                let txn = inner
                    .plan_put(who, repository, &digest, &tags, &manifest, &bytes)
                    .await?;
                Ok((txn, ()))
            })
            .await?;
        Ok(ManifestPut {
            digest,
            subject,
            tags: tags.into_iter().cloned().collect(),
        })
    }

    /// A manifest by tag or digest. By digest, an untagged one is as if it had become untagged only now.
    pub async fn manifest_get(
        &self,
        who: &Principal,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<StoredManifest, RegistryError> {
        policy::authorize(who, Some(repository), Action::Pull)?;
        let inner = &self.0;
        let unknown = || RegistryError::ManifestUnknown(reference.to_string());
        let digest = match reference {
            Reference::Digest(digest) => *digest,
            Reference::Tag(tag) => {
                let row: Option<TagRecord> = inner
                    .get_record(&key::tag(repository, tag.as_str()))
                    .await?;
                row.ok_or_else(unknown)?.digest
            }
        };
        let keys = [
            key::manifest(repository, &digest),
            key::untagged(repository, &digest),
        ];
        let row = loop {
            let mut rows = inner.meta.get(&keys).await?.into_iter();
            let row = rows.next().flatten().ok_or_else(unknown)?;
            match (reference, rows.next().flatten()) {
                // Who asks by digest may refer to it next, as to a blob after HEAD.
                (Reference::Digest(_), Some(untagged)) => {
                    if inner.renew_untagged(repository, &digest, untagged).await? {
                        break row;
                    }
                }
                _ => break row,
            }
        };
        let row = ManifestRecord::decode(&keys[0], &row)?;
        Ok(StoredManifest {
            digest,
            media_type: row.media_type,
            bytes: row.bytes,
        })
    }

    /// Removes a tag, or a manifest with all its tags. A manifest that an index of the repository lists is refused, unless
    /// indexes there may lack manifests.
    pub async fn manifest_delete(
        &self,
        who: &Principal,
        repository: &RepositoryName,
        reference: &Reference,
    ) -> Result<(), RegistryError> {
        policy::authorize(who, Some(repository), Action::Delete)?;
        let inner = &self.0;
        match reference {
            Reference::Tag(tag) => {
                inner
                    .remove_tag(repository, tag, None, inner.stays())
                    .await?;
            }
            Reference::Digest(digest) => {
                inner
                    .remove_manifest(repository, digest, inner.stays())
                    .await?;
            }
        }
        inner.drop_repository_if_empty(repository).await
    }
}

impl Inner {
    async fn plan_put(
        &self,
        who: &Principal,
        repository: &RepositoryName,
        digest: &Digest,
        tags: &BTreeSet<&Tag>,
        manifest: &Manifest,
        bytes: &Bytes,
    ) -> Result<Txn, RegistryError> {
        let now = self.now_ms();
        let mut txn = Txn::default();
        let sparse = sparse_of(&self.options.sparse, repository);

        // Children: each is there, and stays there, because this transaction checks it and adds the edge.
        let blobs = manifest.blobs().map(|d| {
            let keys = vec![key::hold(repository, &d.digest), key::blob(&d.digest)];
            (d, keys, sparse == Sparse::All)
        });
        let children = manifest.children.iter().map(|d| {
            let keys = vec![key::manifest(repository, &d.digest)];
            (d, keys, sparse != Sparse::None)
        });
        for (child, mut keys, may_be_missing) in blobs.chain(children) {
            // One at a time: the row of a manifest has up to 8 MiB.
            let mut rows = self.meta.get(&keys).await?.into_iter();
            if rows.next().flatten().is_some() {
                if let Some(blob) = rows.next().flatten() {
                    check_size(child, &BlobRecord::decode(&keys[1], &blob)?)?;
                }
                txn.checks.push(Check::Present(keys.swap_remove(0)));
            } else if !may_be_missing {
                return Err(RegistryError::ManifestBlobUnknown(child.digest));
            }
            txn.puts
                .push((key::edge(&child.digest, repository, digest), record::mark()));
        }

        let manifest_key = key::manifest(repository, digest);
        let old: Option<ManifestRecord> = self.get_record(&manifest_key).await?;
        let subject = manifest.subject.as_ref().map(|s| s.digest);
        let row = ManifestRecord {
            media_type: manifest.media_type.clone(),
            subject,
            created_ms: old.map_or(now, |old| old.created_ms),
            bytes: bytes.clone(),
        };
        txn.puts.push((manifest_key, row.encode()));
        if let Some(subject) = subject {
            let descriptor = referrer_descriptor(manifest, digest, bytes.len());
            let value = Bytes::from(descriptor.to_string());
            txn.puts
                .push((key::referrer(repository, &subject, digest), value));
        }
        for tag in tags {
            self.plan_tag(who, repository, digest, tag, &mut txn)
                .await?;
        }
        let untagged = key::untagged(repository, digest);
        if tags.is_empty() {
            txn.puts.push((untagged, self.stays().encode()));
        } else {
            txn.deletes.push(untagged);
        }
        for child in &manifest.children {
            txn.deletes.push(key::untagged(repository, &child.digest));
        }
        self.ensure_repository(repository, &mut txn).await?;
        Ok(txn)
    }

    async fn plan_tag(
        &self,
        who: &Principal,
        repository: &RepositoryName,
        digest: &Digest,
        tag: &Tag,
        txn: &mut Txn,
    ) -> Result<(), RegistryError> {
        let now = self.now_ms();
        let tag_key = key::tag(repository, tag.as_str());
        let mut row = TagRecord {
            digest: *digest,
            created_ms: now,
            pushed_ms: now,
        };
        match self.get(&tag_key).await? {
            None => {
                policy::authorize(who, Some(repository), Action::TagCreate)?;
                txn.checks.push(Check::Absent(tag_key.clone()));
            }
            Some(value) => {
                let old = TagRecord::decode(&tag_key, &value)?;
                txn.checks.push(Check::Exact(tag_key.clone(), value));
                row.created_ms = old.created_ms;
                if old.digest != *digest {
                    policy::authorize(who, Some(repository), Action::TagOverwrite)?;
                    if lock_of(&self.options.immutable, repository, tag.as_str()) > TagLock::Open {
                        return Err(RegistryError::TagImmutable {
                            repository: repository.clone(),
                            tag: tag.to_string(),
                            digest: old.digest,
                            refused: "moved to another manifest",
                        });
                    }
                    txn.deletes.push(key::tagged(repository, &old.digest, tag));
                    let left = key::untagged(repository, &old.digest);
                    txn.puts.push((left, self.stays().encode()));
                }
            }
        }
        txn.puts.push((tag_key, row.encode()));
        txn.puts
            .push((key::tagged(repository, digest, tag), record::mark()));
        Ok(())
    }

    /// The check that no manifest of the repository refers to this. Refuses if one does.
    pub(super) async fn unreferred(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Check, RegistryError> {
        let edges = key::edges(digest, repository);
        if self.meta.scan(&edges, 1).await?.is_empty() {
            Ok(Check::EmptyRange(edges))
        } else {
            Err(RegistryError::InUse(*digest))
        }
    }
}

/// Clients compare what they pull with the size that the manifest says, so with another one nobody could pull it.
fn check_size(descriptor: &Descriptor, blob: &BlobRecord) -> Result<(), RegistryError> {
    if descriptor.size == blob.len {
        return Ok(());
    }
    Err(RegistryError::SizeMismatch {
        digest: descriptor.digest,
        said: descriptor.size,
        len: blob.len,
    })
}

/// How a manifest appears in the list of its subject's referrers (OCI distribution spec, "Listing Referrers").
pub(super) fn referrer_descriptor(
    manifest: &Manifest,
    digest: &Digest,
    size: usize,
) -> serde_json::Value {
    let mut descriptor = serde_json::json!({
        "mediaType": manifest.media_type,
        "digest": digest.to_string(),
        "size": size,
    });
    if let Some(artifact_type) = manifest.referrer_artifact_type() {
        descriptor["artifactType"] = artifact_type.into();
    }
    if !manifest.annotations.is_empty() {
        descriptor["annotations"] = serde_json::json!(manifest.annotations);
    }
    descriptor
}

/// Whether a document lists other manifests.
pub(super) fn is_index(manifest: &Manifest) -> bool {
    manifest.kind == ManifestKind::Index
}
