//! What goes when something is deleted.

use std::collections::{BTreeSet, HashSet, VecDeque};

use dvcr_core::oci::{Digest, Manifest, RepositoryName, Tag};

use super::{Deletion, Selection, TARGETS_MAX, too_many};
use crate::{
    meta::{
        key,
        record::{ManifestRecord, Record as _, TagRecord},
    },
    registry::{
        Inner, Principal, RegistryError,
        glob::TagGlob,
        policy::{self, Action, Sparse, sparse_of},
    },
};

/// Rows read at once: of tags, some 100 bytes each; of manifests, 2 KB or so, but up to 8 MiB.
const PAGE: usize = 1_000;
const LONG_PAGE: usize = 16;

/// Whether a repository goes as a whole.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Whole {
    /// With everything in it.
    Yes,
    /// Only what is named.
    No,
}

/// What goes from one repository.
#[derive(Debug)]
pub(super) struct Leaving {
    pub(super) name: RepositoryName,
    pub(super) whole: Whole,
    /// The manifest that was named by its digest.
    pub(super) root: Option<Digest>,
    /// With what they name.
    pub(super) tags: Vec<(Tag, Digest)>,
    /// Without the root.
    pub(super) manifests: Vec<Digest>,
}

impl Inner {
    /// What goes, by repository. What is selected and cannot go is told in `deletion`, or is the error where it was named.
    pub(super) async fn plan_deletion(
        &self,
        who: &Principal,
        selection: &Selection,
        deletion: &mut Deletion,
    ) -> Result<Vec<Leaving>, RegistryError> {
        let mut plans = Vec::new();
        match selection {
            Selection::Manifest { repository, digest } => {
                policy::authorize(who, Some(repository), Action::Delete)?;
                plans.push(self.plan_manifest(repository, digest).await?);
            }
            Selection::Tags { repositories, tags } => {
                for name in self.deletable_repositories(who, repositories).await? {
                    let named = repositories.name().is_some() && tags.name().is_some();
                    let plan = self
                        .plan_tags_deletion(&name, tags, named, deletion)
                        .await?;
                    plans.extend(plan);
                    check_size(&plans)?;
                }
            }
            Selection::Repositories(glob) => {
                for name in self.deletable_repositories(who, glob).await? {
                    match self.plan_whole(&name).await {
                        Ok(plan) => plans.push(plan),
                        Err(error @ RegistryError::TagImmutable { .. })
                            if glob.name().is_none() =>
                        {
                            deletion.fail(&name, None, &error);
                        }
                        Err(error) => return Err(error),
                    }
                    check_size(&plans)?;
                }
            }
        }
        Ok(plans)
    }

    async fn plan_manifest(
        &self,
        name: &RepositoryName,
        digest: &Digest,
    ) -> Result<Leaving, RegistryError> {
        let manifest = self.get(&key::manifest(name, digest)).await?;
        manifest.ok_or_else(|| RegistryError::ManifestUnknown(digest.to_string()))?;
        if sparse_of(&self.options.sparse, name) == Sparse::None {
            self.unreferred(name, digest).await?;
        }
        let mut tags = Vec::new();
        for tag in self.tags_of(name, digest).await? {
            self.check_deletable(name, tag.as_str(), *digest)?;
            tags.push((tag, *digest));
        }
        let mut manifests = self
            .closure(name, vec![*digest], &tags, Some(digest))
            .await?;
        manifests.retain(|found| found != digest);
        Ok(Leaving {
            name: name.clone(),
            whole: Whole::No,
            root: Some(*digest),
            tags,
            manifests,
        })
    }

    /// Tags that the glob fits; `named` says that it is a tag, which has to be there.
    async fn plan_tags_deletion(
        &self,
        name: &RepositoryName,
        glob: &TagGlob,
        named: bool,
        deletion: &mut Deletion,
    ) -> Result<Option<Leaving>, RegistryError> {
        let (mut tags, mut failed) = (Vec::new(), false);
        for (tag, digest) in self.all_tags(name, |tag| glob.fits(tag)).await? {
            match self.check_deletable(name, tag.as_str(), digest) {
                Ok(()) => tags.push((tag, digest)),
                Err(error) if named => return Err(error),
                Err(error) => {
                    failed = true;
                    deletion.fail(name, Some(tag.to_string()), &error);
                }
            }
        }
        if tags.is_empty() {
            if named && !failed {
                return Err(RegistryError::ManifestUnknown(glob.to_string()));
            }
            return Ok(None);
        }
        let roots = tags.iter().map(|(_, digest)| *digest).collect();
        let manifests = self.closure(name, roots, &tags, None).await?;
        Ok(Some(Leaving {
            name: name.clone(),
            whole: Whole::No,
            root: None,
            tags,
            manifests,
        }))
    }

    /// Refused where a tag may not be deleted: then nothing of the repository goes.
    async fn plan_whole(&self, name: &RepositoryName) -> Result<Leaving, RegistryError> {
        let tags = self.all_tags(name, |_| true).await?;
        for (tag, digest) in &tags {
            self.check_deletable(name, tag.as_str(), *digest)?;
        }
        let all = key::manifests(name);
        let mut manifests = Vec::new();
        let mut pages = self.pages(all.clone(), LONG_PAGE);
        while let Some(rows) = pages.next().await? {
            let digests = rows
                .iter()
                .filter_map(|(row, _)| Digest::from_key(key::last_field(&all, row)).ok());
            manifests.extend(digests);
            if manifests.len() > TARGETS_MAX {
                return Err(too_many());
            }
        }
        Ok(Leaving {
            name: name.clone(),
            whole: Whole::Yes,
            root: None,
            tags,
            manifests,
        })
    }

    async fn all_tags(
        &self,
        name: &RepositoryName,
        wanted: impl Fn(&str) -> bool,
    ) -> Result<Vec<(Tag, Digest)>, RegistryError> {
        let all = key::tags(name);
        let mut tags = Vec::new();
        let mut pages = self.pages(all.clone(), PAGE);
        while let Some(rows) = pages.next().await? {
            for (key, row) in &rows {
                let text = std::str::from_utf8(key::last_field(&all, key)).unwrap_or_default();
                if let Ok(tag) = text.parse::<Tag>()
                    && wanted(text)
                {
                    tags.push((tag, TagRecord::decode(key, row)?.digest));
                }
            }
            if tags.len() > TARGETS_MAX {
                return Err(too_many());
            }
            tokio::task::yield_now().await;
        }
        Ok(tags)
    }

    /// All tags of a manifest.
    async fn tags_of(
        &self,
        name: &RepositoryName,
        digest: &Digest,
    ) -> Result<Vec<Tag>, RegistryError> {
        let all = key::tags_of(name, digest);
        let mut tags = Vec::new();
        let mut pages = self.pages(all.clone(), PAGE);
        while let Some(rows) = pages.next().await? {
            let texts = rows
                .iter()
                .filter_map(|(row, _)| std::str::from_utf8(key::last_field(&all, row)).ok());
            tags.extend(texts.filter_map(|text| text.parse::<Tag>().ok()));
            if tags.len() > TARGETS_MAX {
                return Err(too_many());
            }
        }
        Ok(tags)
    }

    /// The manifests that nothing needs once these tags are gone: of `roots`, of what they list, of what is about them. `forced`
    /// goes whatever lists it.
    async fn closure(
        &self,
        name: &RepositoryName,
        roots: Vec<Digest>,
        tags: &[(Tag, Digest)],
        forced: Option<&Digest>,
    ) -> Result<Vec<Digest>, RegistryError> {
        let tags: HashSet<&str> = tags.iter().map(|(tag, _)| tag.as_str()).collect();
        let (mut gone, mut order) = (BTreeSet::new(), Vec::new());
        let mut queue = VecDeque::from(roots);
        while let Some(digest) = queue.pop_front() {
            if gone.contains(&digest) {
                continue;
            }
            let key = key::manifest(name, &digest);
            let Some(row) = self.get_record::<ManifestRecord>(&key).await? else {
                continue;
            };
            if forced != Some(&digest) && self.is_needed(name, &digest, &row, &tags, &gone).await? {
                // Whatever needs it puts it into the queue again, if that goes.
                continue;
            }
            gone.insert(digest);
            order.push(digest);
            if order.len() > TARGETS_MAX {
                return Err(too_many());
            }
            let manifest = Manifest::parse(Some(&row.media_type), &row.bytes)?;
            queue.extend(manifest.children.iter().map(|child| child.digest));
            queue.extend(self.referring(name, &digest).await?);
            tokio::task::yield_now().await;
        }
        Ok(order)
    }

    /// Whether something that stays needs the manifest.
    async fn is_needed(
        &self,
        name: &RepositoryName,
        digest: &Digest,
        row: &ManifestRecord,
        tags: &HashSet<&str>,
        gone: &BTreeSet<Digest>,
    ) -> Result<bool, RegistryError> {
        if let Some(subject) = &row.subject
            && !gone.contains(subject)
            && self.get(&key::manifest(name, subject)).await?.is_some()
        {
            return Ok(true);
        }
        for tag in self.tags_of(name, digest).await? {
            if !tags.contains(tag.as_str()) {
                return Ok(true);
            }
        }
        Ok(!self.only_referred_by(name, digest, gone).await?)
    }

    /// Whether all manifests of the repository that refer to a blob or manifest are among these.
    pub(super) async fn only_referred_by(
        &self,
        name: &RepositoryName,
        digest: &Digest,
        gone: &BTreeSet<Digest>,
    ) -> Result<bool, RegistryError> {
        let all = key::edges(digest, name);
        let mut pages = self.pages(all.clone(), PAGE);
        while let Some(rows) = pages.next().await? {
            let stays = |row: &[u8]| {
                let parent = Digest::from_key(key::last_field(&all, row));
                parent.map_or(true, |parent| !gone.contains(&parent))
            };
            if rows.iter().any(|(row, _)| stays(row)) {
                return Ok(false);
            }
        }
        Ok(true)
    }
}

fn check_size(plans: &[Leaving]) -> Result<(), RegistryError> {
    let of = |plan: &Leaving| 1 + plan.tags.len() + plan.manifests.len();
    if plans.iter().map(of).sum::<usize>() > 2 * TARGETS_MAX {
        return Err(too_many());
    }
    Ok(())
}
