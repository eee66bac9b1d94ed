//! Taking tags and manifests away, each in one conditional transaction, whoever asks: a client of the distribution API, somebody
//! who deletes with everything that hangs on it, or retention.
//!
//! What is left behind without a tag gets a row `untagged` in the same transaction. Such a row is a hint and never wrong: it says
//! that nothing *may* need the manifest any more. Whoever removes the manifest because of it checks that in the transaction
//! that removes it ([`Inner::remove_unneeded`]); whoever pushes the manifest again, or an index that lists it, takes the row away.

use dvcr_core::oci::{Digest, Manifest, RepositoryName, Tag};

use super::{
    Inner, RegistryError,
    immutable::{TagLock, lock_of},
    millis,
    policy::{Sparse, sparse_of},
};
use crate::meta::{
    Check, Commit, Txn, Value, key,
    record::{self, ManifestRecord, Record as _, TagRecord, UntaggedRecord},
};

/// Rows of one manifest handled in a transaction: its tags, when it is deleted. More are deleted in further ones.
const TAGS_PAGE: usize = 1000;

/// Referrers of one manifest that are marked when it goes. Where there are more, which is no use of referrers that we know of, the
/// others stay until they are pushed again.
const REFERRERS_MAX: usize = 10_000;

/// Of these, read at once.
const REFERRERS_PAGE: usize = 1_000;

impl Inner {
    /// What becomes of what a client of the distribution API leaves behind: it stays until a retention rule takes it.
    pub(super) fn stays(&self) -> UntaggedRecord {
        UntaggedRecord {
            since_ms: self.now_ms(),
            let_go: false,
        }
    }

    /// What becomes of what retention leaves behind: it goes after a lease, so that a push which has just found it can refer to it.
    pub(super) fn goes(&self) -> UntaggedRecord {
        UntaggedRecord {
            since_ms: self.now_ms(),
            let_go: true,
        }
    }

    /// What becomes of what somebody deletes with everything that hangs on it: it goes at once.
    pub(super) fn goes_at_once(&self) -> UntaggedRecord {
        UntaggedRecord {
            since_ms: self.now_ms().saturating_sub(millis(self.options.lease)),
            let_go: true,
        }
    }

    /// Removes a tag; its manifest becomes what `left` says. Returns which that was. With `only` it stays where it names another
    /// manifest by now.
    pub(super) async fn remove_tag(
        &self,
        repository: &RepositoryName,
        tag: &Tag,
        only: Option<Digest>,
        left: UntaggedRecord,
    ) -> Result<Digest, RegistryError> {
        self.transact(|| async {
            let key = key::tag(repository, tag.as_str());
            let value = self.get(&key).await?;
            let value = value.ok_or_else(|| RegistryError::ManifestUnknown(tag.to_string()))?;
            let digest = TagRecord::decode(&key, &value)?.digest;
            if only.is_some_and(|only| only != digest) {
                return Err(RegistryError::ManifestUnknown(tag.to_string()));
            }
            self.check_deletable(repository, tag.as_str(), digest)?;
            let mut txn = Txn::default();
            untag(repository, tag, value, &digest, left, &mut txn);
            Ok((txn, digest))
        })
        .await
    }

    /// Refuses for a tag that is immutable and may not be deleted.
    pub(super) fn check_deletable(
        &self,
        repository: &RepositoryName,
        tag: &str,
        digest: Digest,
    ) -> Result<(), RegistryError> {
        if lock_of(&self.options.immutable, repository, tag) < TagLock::Permanent {
            return Ok(());
        }
        Err(RegistryError::TagImmutable {
            repository: repository.clone(),
            tag: tag.to_owned(),
            digest,
            refused: "deleted",
        })
    }

    /// Removes a manifest with all its tags; what it leaves behind becomes what `left` says. Refused while another manifest lists
    /// it, unless indexes of the repository may lack manifests, and where one of its tags may not be deleted.
    pub(super) async fn remove_manifest(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        left: UntaggedRecord,
    ) -> Result<(), RegistryError> {
        if !self.options.immutable.is_empty() {
            // Before anything goes: a manifest with many tags goes in several steps.
            let all = key::tags_of(repository, digest);
            let mut pages = self.pages(all.clone(), TAGS_PAGE);
            while let Some(rows) = pages.next().await? {
                for (row, _) in &rows {
                    let tag = String::from_utf8_lossy(key::last_field(&all, row));
                    self.check_deletable(repository, &tag, *digest)?;
                }
            }
        }
        while self.remove_step(repository, digest, left).await? {}
        Ok(())
    }

    /// Removes a manifest with its tags, or a page of its tags; returns whether there is more to do.
    async fn remove_step(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        left: UntaggedRecord,
    ) -> Result<bool, RegistryError> {
        self.transact(|| async {
            let manifest_key = key::manifest(repository, digest);
            let value = self.get(&manifest_key).await?;
            let value = value.ok_or_else(|| RegistryError::ManifestUnknown(digest.to_string()))?;
            let row = ManifestRecord::decode(&manifest_key, &value)?;
            let mut txn = Txn {
                checks: vec![Check::Present(manifest_key.clone())],
                ..Txn::default()
            };
            if sparse_of(&self.options.sparse, repository) == Sparse::None {
                txn.checks.push(self.unreferred(repository, digest).await?);
            }
            let tags_of = key::tags_of(repository, digest);
            let tagged = self.meta.scan(&tags_of, TAGS_PAGE).await?;
            for (tagged_key, _) in &tagged {
                let tag =
                    String::from_utf8_lossy(key::last_field(&tags_of, tagged_key)).into_owned();
                let tag_key = key::tag(repository, &tag);
                if let Some(value) = self.get(&tag_key).await?
                    && TagRecord::decode(&tag_key, &value)?.digest == *digest
                {
                    self.check_deletable(repository, &tag, *digest)?;
                    txn.checks.push(Check::Exact(tag_key.clone(), value));
                    txn.deletes.push(tag_key);
                }
                txn.deletes.push(tagged_key.clone());
            }
            if let Some((last, _)) = tagged.last() {
                if tagged.len() == TAGS_PAGE {
                    return Ok((txn, true));
                }
                txn.checks
                    .push(Check::EmptyRange(key::after(tags_of, last)));
            } else {
                txn.checks.push(Check::EmptyRange(tags_of));
            }
            self.plan_removal(repository, digest, &row, left, &mut txn)
                .await?;
            Ok((txn, false))
        })
        .await
    }

    /// Removes a manifest that has a row `untagged` of which `due` says that its time has come, provided that nothing needs it: no
    /// tag, no manifest that lists it, no subject that is there. Otherwise only the row goes. Returns whether it was removed.
    pub(super) async fn remove_unneeded(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        due: impl Fn(&UntaggedRecord) -> bool,
        left: UntaggedRecord,
    ) -> Result<bool, RegistryError> {
        self.transact(|| async {
            let row_key = key::untagged(repository, digest);
            let Some(row) = self.get(&row_key).await? else {
                return Ok((Txn::default(), false));
            };
            if !due(&UntaggedRecord::decode(&row_key, &row)?) {
                return Ok((Txn::default(), false));
            }
            let mut txn = Txn {
                checks: vec![Check::Exact(row_key.clone(), row)],
                ..Txn::default()
            };
            match self.need(repository, digest).await? {
                Need::By(evidence) => {
                    txn.checks.push(evidence);
                    txn.deletes.push(row_key);
                    Ok((txn, false))
                }
                Need::None { manifest, checks } => {
                    txn.checks.extend(checks);
                    self.plan_removal(repository, digest, &manifest, left, &mut txn)
                        .await?;
                    Ok((txn, true))
                }
            }
        })
        .await
    }

    /// Whether anything in the repository needs the manifest.
    pub(super) async fn need(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Need, RegistryError> {
        let manifest_key = key::manifest(repository, digest);
        let Some(manifest) = self.get(&manifest_key).await? else {
            return Ok(Need::By(Check::Absent(manifest_key)));
        };
        let manifest = ManifestRecord::decode(&manifest_key, &manifest)?;
        let mut checks = vec![Check::Present(manifest_key)];
        for range in [
            key::tags_of(repository, digest),
            key::edges(digest, repository),
        ] {
            if let Some((row, _)) = self.meta.scan(&range, 1).await?.into_iter().next() {
                return Ok(Need::By(Check::Present(row)));
            }
            checks.push(Check::EmptyRange(range));
        }
        if let Some(subject) = &manifest.subject {
            let subject = key::manifest(repository, subject);
            if self.get(&subject).await?.is_some() {
                return Ok(Need::By(Check::Present(subject)));
            }
            checks.push(Check::Absent(subject));
        }
        Ok(Need::None { manifest, checks })
    }

    /// The rows that go with a manifest, the reviews of its blobs, and what becomes of the manifests that it leaves behind.
    async fn plan_removal(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        row: &ManifestRecord,
        left: UntaggedRecord,
        txn: &mut Txn,
    ) -> Result<(), RegistryError> {
        let due = self.grace_end_ms();
        // It parsed when it was pushed.
        let manifest = Manifest::parse(Some(&row.media_type), &row.bytes)?;
        for child in manifest.blobs() {
            let review = key::review_blob(due, repository, &child.digest);
            txn.deletes
                .push(key::edge(&child.digest, repository, digest));
            txn.puts.push((review, record::mark()));
        }
        for child in &manifest.children {
            txn.deletes
                .push(key::edge(&child.digest, repository, digest));
            txn.puts
                .push((key::untagged(repository, &child.digest), left.encode()));
        }
        for referrer in self.referring(repository, digest).await? {
            txn.puts
                .push((key::untagged(repository, &referrer), left.encode()));
        }
        if let Some(subject) = row.subject {
            txn.deletes
                .push(key::referrer(repository, &subject, digest));
        }
        txn.deletes.push(key::untagged(repository, digest));
        txn.deletes.push(key::manifest(repository, digest));
        Ok(())
    }

    /// The manifests whose subject is `digest`: [`REFERRERS_MAX`] of them, and the rest of a page, at most.
    pub(super) async fn referring(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Vec<Digest>, RegistryError> {
        let all = key::referrers(repository, digest);
        let mut found = Vec::new();
        let mut pages = self.pages(all.clone(), REFERRERS_PAGE);
        while found.len() < REFERRERS_MAX
            && let Some(rows) = pages.next().await?
        {
            let digests = rows
                .iter()
                .filter_map(|(row, _)| Digest::from_key(key::last_field(&all, row)).ok());
            found.extend(digests);
        }
        Ok(found)
    }

    /// Somebody asked for a manifest by its digest, and may rely on it from now on: its time begins anew where more than half a
    /// lease has passed. False if its row has changed: look again whether it is there.
    pub(super) async fn renew_untagged(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
        row: Value,
    ) -> Result<bool, RegistryError> {
        let key = key::untagged(repository, digest);
        let record = UntaggedRecord::decode(&key, &row)?;
        let now = self.now_ms();
        if record.since_ms + millis(self.options.lease) / 2 > now {
            return Ok(true);
        }
        let renewed = UntaggedRecord {
            since_ms: now,
            ..record
        };
        let txn = Txn {
            checks: vec![Check::Exact(key.clone(), row)],
            puts: vec![(key, renewed.encode())],
            deletes: vec![],
        };
        Ok(self.meta.commit(txn).await? == Commit::Done)
    }
}

/// Whether anything needs a manifest.
pub(super) enum Need {
    /// Something does, or the manifest is not there: this check says so.
    By(Check),
    /// Nothing does, while these checks hold.
    None {
        manifest: ManifestRecord,
        checks: Vec<Check>,
    },
}

/// The rows that go with a tag that has this value.
pub(super) fn untag(
    repository: &RepositoryName,
    tag: &Tag,
    value: Value,
    digest: &Digest,
    left: UntaggedRecord,
    txn: &mut Txn,
) {
    let key = key::tag(repository, tag.as_str());
    txn.checks.push(Check::Exact(key.clone(), value));
    txn.deletes.push(key);
    txn.deletes.push(key::tagged(repository, digest, tag));
    txn.puts
        .push((key::untagged(repository, digest), left.encode()));
}
