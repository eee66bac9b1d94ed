//! Deletion with everything that hangs on what is deleted: by tag, by digest, whole repositories, or what globs fit.
//!
//! First a plan: which tags and manifests go, and how many bytes nothing else shares. Then, unless somebody only wanted to know, each
//! goes in a transaction of its own that checks that nothing needs it. What came between stays, and the answer counts what went.

mod measure;
mod plan;
#[cfg(test)]
mod tests;

use dvcr_core::oci::{Digest, RepositoryName, Tag};
use futures::{StreamExt as _, stream};

use super::{
    Inner, Principal, Registry, RegistryError,
    glob::{RepositoryGlob, TagGlob},
    policy::{self, Action},
    upload::in_background,
};
use crate::meta::key;
use plan::{Leaving, Whole};

/// Most tags and manifests of one deletion: each takes some 200 bytes of memory until it is gone.
const TARGETS_MAX: usize = 100_000;

/// Most tags and manifests that an answer names.
const NAMED_MAX: usize = 1_000;

/// Most failures that an answer names.
const FAILURES_MAX: usize = 1_000;

/// Rows read at once.
const PAGE: usize = 1_000;

/// Removals side by side: their transactions share commits.
const PARALLEL: usize = 64;

/// What to delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Selection {
    /// Tags that a glob fits, of the repositories that a glob fits; and their manifests where nothing else needs them.
    Tags {
        /// Of which repositories.
        repositories: RepositoryGlob,
        /// Which tags.
        tags: TagGlob,
    },
    /// A manifest with all its tags.
    Manifest {
        /// The repository.
        repository: RepositoryName,
        /// The manifest.
        digest: Digest,
    },
    /// Whole repositories that a glob fits.
    Repositories(RepositoryGlob),
}

/// How to delete.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DeletionOptions {
    /// Only say what would go.
    pub dry_run: bool,
    /// Count the bytes that nothing else shares. Reads all recipes: about a second for each million chunks.
    pub measure: bool,
}

/// What went, or would go.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deletion {
    /// Repositories of which something goes.
    pub repositories: u64,
    /// Tags.
    pub tags: u64,
    /// Manifests.
    pub manifests: u64,
    /// Blobs that no manifest of any repository refers to any more, and that no other repository holds.
    pub blobs: u64,
    /// Length of those.
    pub logical_bytes: u64,
    /// What they take and nothing else shares: chunks that only they refer to. None where it was not counted. What was deleted before
    /// and still is in its grace counts as used.
    pub freed_bytes: Option<u64>,
    /// When garbage collection may give the bytes back, milliseconds since 1970.
    pub free_from_ms: u64,
    /// The first tags and manifests of it.
    pub named: Vec<Deleted>,
    /// What was selected and stays, and why; the first of it.
    pub failures: Vec<DeletionFailure>,
}

/// A tag or manifest that goes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Deleted {
    /// The repository.
    pub repository: RepositoryName,
    /// The tag; none for a manifest.
    pub tag: Option<Tag>,
    /// The manifest.
    pub digest: Digest,
}

/// What was selected and stays.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeletionFailure {
    /// The repository.
    pub repository: RepositoryName,
    /// A tag or digest; none for the whole repository.
    pub what: Option<String>,
    /// Why, for people.
    pub error: String,
}

impl Deletion {
    fn count(&mut self, repository: &RepositoryName, tag: Option<&Tag>, digest: Digest) {
        match tag {
            Some(_) => self.tags += 1,
            None => self.manifests += 1,
        }
        if self.named.len() < NAMED_MAX {
            self.named.push(Deleted {
                repository: repository.clone(),
                tag: tag.cloned(),
                digest,
            });
        }
    }

    fn fail(&mut self, repository: &RepositoryName, what: Option<String>, error: &RegistryError) {
        tracing::warn!(target: "dvcr::audit", %repository, what, %error, "not deleted");
        if self.failures.len() < FAILURES_MAX {
            self.failures.push(DeletionFailure {
                repository: repository.clone(),
                what,
                error: error.to_string(),
            });
        }
    }
}

impl Registry {
    /// Deletes, or says what would be deleted. What cannot go is told in the answer; an error is only what concerns all of it, or the
    /// one thing that was named without a glob.
    pub async fn delete(
        &self,
        who: &Principal,
        selection: &Selection,
        options: DeletionOptions,
    ) -> Result<Deletion, RegistryError> {
        let (registry, who, selection) = (self.clone(), who.clone(), selection.clone());
        in_background(async move { registry.0.delete(&who, &selection, options).await }).await
    }
}

impl Inner {
    async fn delete(
        &self,
        who: &Principal,
        selection: &Selection,
        options: DeletionOptions,
    ) -> Result<Deletion, RegistryError> {
        let mut deletion = Deletion {
            free_from_ms: self.grace_end_ms(),
            ..Deletion::default()
        };
        let leaving = self.plan_deletion(who, selection, &mut deletion).await?;
        if options.measure {
            self.measure_deletion(&leaving, &mut deletion).await?;
        }
        for repository in &leaving {
            let before = deletion.tags + deletion.manifests;
            if options.dry_run {
                for (tag, digest) in &repository.tags {
                    deletion.count(&repository.name, Some(tag), *digest);
                }
                for digest in repository.root.iter().chain(&repository.manifests) {
                    deletion.count(&repository.name, None, *digest);
                }
            } else {
                tracing::info!(
                    target: "dvcr::audit", principal = %who, repository = %repository.name,
                    tags = repository.tags.len(), manifests = repository.manifests.len(), whole = repository.whole == Whole::Yes,
                    "deletion begins"
                );
                self.carry_out(repository, &mut deletion).await?;
            }
            let after = deletion.tags + deletion.manifests;
            let whole = repository.whole == Whole::Yes;
            deletion.repositories += u64::from(whole || after > before);
        }
        Ok(deletion)
    }

    /// The repositories that a glob fits and of which the principal may delete; the one that a name names.
    async fn deletable_repositories(
        &self,
        who: &Principal,
        repositories: &RepositoryGlob,
    ) -> Result<Vec<RepositoryName>, RegistryError> {
        if let Some(name) = repositories.name() {
            policy::authorize(who, Some(&name), Action::Delete)?;
            if !self.repository_exists(&name).await? {
                return Err(RegistryError::NameUnknown(name));
            }
            return Ok(vec![name]);
        }
        let (mut found, mut last) = (Vec::new(), None);
        loop {
            let page = self.repository_page(last.as_ref(), PAGE).await?;
            last = page.items.last().cloned();
            found.extend(page.items.into_iter().filter(|name| {
                repositories.fits(name.as_str())
                    && policy::authorize(who, Some(name), Action::Delete).is_ok()
            }));
            if found.len() > TARGETS_MAX {
                return Err(too_many());
            }
            if !page.more {
                return Ok(found);
            }
            tokio::task::yield_now().await;
        }
    }

    /// Removes what a plan names.
    async fn carry_out(
        &self,
        leaving: &Leaving,
        deletion: &mut Deletion,
    ) -> Result<(), RegistryError> {
        let name = &leaving.name;
        if let Some(digest) = &leaving.root {
            // Its tags go with it.
            self.remove_manifest(name, digest, self.goes_at_once())
                .await?;
            for (tag, digest) in &leaving.tags {
                deletion.count(name, Some(tag), *digest);
            }
            deletion.count(name, None, *digest);
        } else {
            self.remove_tags(leaving, deletion).await;
        }
        self.remove_manifests(leaving, deletion).await;
        if leaving.whole == Whole::Yes {
            self.unlink_blobs(name, deletion).await?;
        }
        self.drop_repository_if_empty(name).await
    }

    async fn remove_tags(&self, leaving: &Leaving, deletion: &mut Deletion) {
        let (name, left) = (&leaving.name, self.goes_at_once());
        let mut removals = stream::iter(leaving.tags.clone())
            .map(|(tag, digest)| async move {
                let removed = self.remove_tag(name, &tag, Some(digest), left).await;
                (tag, removed)
            })
            .buffered(PARALLEL);
        while let Some((tag, removed)) = removals.next().await {
            match removed {
                Ok(digest) => deletion.count(name, Some(&tag), digest),
                // Somebody else was quicker, or has pushed the tag anew.
                Err(RegistryError::ManifestUnknown(_)) => {}
                Err(error) => deletion.fail(name, Some(tag.to_string()), &error),
            }
        }
    }

    /// Removes manifests again and again, while some go that something needed before: an index goes before what it lists, and a
    /// manifest before what is about it.
    async fn remove_manifests(&self, leaving: &Leaving, deletion: &mut Deletion) {
        let name = &leaving.name;
        let mut rest: Vec<Digest> = leaving.manifests.clone();
        loop {
            let before = rest.len();
            let mut removals = stream::iter(std::mem::take(&mut rest))
                .map(|digest| async move {
                    let removed = self.remove_leaving(name, &digest, leaving.whole).await;
                    (digest, removed)
                })
                .buffered(PARALLEL);
            while let Some((digest, removed)) = removals.next().await {
                match removed {
                    Ok(true) => deletion.count(name, None, digest),
                    Ok(false) => rest.push(digest),
                    Err(RegistryError::ManifestUnknown(_)) => {}
                    Err(error) => deletion.fail(name, Some(digest.to_string()), &error),
                }
            }
            if rest.is_empty() || rest.len() == before {
                // What is left was pushed again, or is listed by what was pushed meanwhile.
                return;
            }
        }
    }

    /// Removes a manifest that nothing needs any more. False while something does.
    async fn remove_leaving(
        &self,
        name: &RepositoryName,
        digest: &Digest,
        whole: Whole,
    ) -> Result<bool, RegistryError> {
        let left = self.goes_at_once();
        match whole {
            Whole::Yes => match self.remove_manifest(name, digest, left).await {
                Ok(()) => Ok(true),
                Err(RegistryError::InUse(_)) => Ok(false),
                Err(error) => Err(error),
            },
            // Marked by the removal of what needed it.
            Whole::No => {
                self.remove_unneeded(name, digest, |row| row.let_go, left)
                    .await
            }
        }
    }

    /// Takes away from a repository the blobs that no manifest there refers to.
    async fn unlink_blobs(
        &self,
        name: &RepositoryName,
        deletion: &mut Deletion,
    ) -> Result<(), RegistryError> {
        let all = key::holds(name);
        let mut pages = self.pages(all.clone(), PAGE);
        while let Some(rows) = pages.next().await? {
            let digests: Vec<Digest> = rows
                .iter()
                .filter_map(|(row, _)| Digest::from_key(key::last_field(&all, row)).ok())
                .collect();
            let mut removals = stream::iter(digests)
                .map(|digest| async move { (digest, self.unlink_blob(name, &digest).await) })
                .buffered(PARALLEL);
            while let Some((digest, unlinked)) = removals.next().await {
                match unlinked {
                    // What was pushed meanwhile needs it, or somebody was quicker.
                    Ok(()) | Err(RegistryError::BlobUnknown(_) | RegistryError::InUse(_)) => {}
                    Err(error) => deletion.fail(name, Some(digest.to_string()), &error),
                }
            }
        }
        Ok(())
    }
}

fn too_many() -> RegistryError {
    RegistryError::Invalid(format!(
        "this selects more than {TARGETS_MAX} repositories, tags and manifests: delete in parts"
    ))
}
