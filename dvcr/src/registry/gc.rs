//! Garbage collection as operators see it: what would it do, do it now, why is this still here?

use std::{sync::Arc, time::Duration};

use dvcr_core::oci::{Digest, RepositoryName};

use super::{
    Inner, Page, Principal, Registry, RegistryError,
    policy::{self, Action},
};
use crate::{
    gc::{GarbageCollector, Run, RunOptions, RunsNow, plan::SweepPlan},
    meta::{
        key,
        record::{BlobRecord, HoldRecord, PackRecord, PackState, Record as _},
    },
};

/// Most repositories, manifests of each, and tags of those that an explanation names.
const NAMED_MAX: usize = 20;

/// Seconds after which to ask again when too many collections wait: one with nothing to do takes about as long.
const RETRY_COLLECTION_SECONDS: u32 = 10;

/// What garbage collection is doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct GcStatus {
    /// Collections that go on, wait, and ended last.
    pub runs: RunsNow,
    /// Time between two collections.
    pub interval: Duration,
    /// How long what was deleted stays.
    pub grace: Duration,
    /// When the first of all reviews is or was due, milliseconds since 1970.
    pub next_review_ms: Option<u64>,
    /// Packs that are being emptied.
    pub condemned_packs: u64,
}

/// Why something is still stored.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Explanation {
    /// What was asked about.
    pub digest: Digest,
    /// Length of the blob; none if there is no such blob (any more).
    pub len: Option<u64>,
    /// Repositories that keep it, at most 20. None: it goes with the next collection.
    pub kept_by: Vec<Keeper>,
}

/// A repository that keeps a blob or manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keeper {
    /// The repository.
    pub repository: RepositoryName,
    /// Until when it is protected though nothing may refer to it, milliseconds since 1970. Blobs only.
    pub lease_ms: Option<u64>,
    /// Manifests that refer to it, or the manifest itself; at most 20.
    pub manifests: Vec<Holder>,
}

/// A manifest that keeps something, and its tags.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Holder {
    /// The manifest.
    pub digest: Digest,
    /// Its tags, at most 20.
    pub tags: Vec<String>,
}

impl Registry {
    /// The collector of this registry's garbage.
    #[must_use]
    pub fn gc(&self) -> &Arc<GarbageCollector> {
        &self.0.gc
    }

    /// What a sweep would do now.
    pub async fn gc_plan(&self, who: &Principal) -> Result<SweepPlan, RegistryError> {
        policy::authorize(who, None, Action::Admin)?;
        let _turn = self.0.walks.turn().await?;
        Ok(self.0.gc.plan().await?)
    }

    /// Begins a collection, which goes on by itself.
    pub async fn gc_start(
        &self,
        who: &Principal,
        options: RunOptions,
    ) -> Result<Run, RegistryError> {
        policy::authorize(who, None, Action::Admin)?;
        self.0.gc.start(options).ok_or(RegistryError::TooMany {
            what: "collections that wait for another",
            retry_after_seconds: RETRY_COLLECTION_SECONDS,
        })
    }

    /// A collection: one that waits, goes on, or is remembered.
    pub async fn gc_find(&self, who: &Principal, id: u64) -> Result<Option<Run>, RegistryError> {
        policy::authorize(who, None, Action::Admin)?;
        Ok(self.0.gc.find_run(id).await?)
    }

    /// Up to `n` collections before the one with this id, the last first: those that did something, failed, or were asked for.
    pub async fn gc_history(
        &self,
        who: &Principal,
        before: Option<u64>,
        n: usize,
    ) -> Result<Page<Run>, RegistryError> {
        policy::authorize(who, None, Action::Admin)?;
        let (items, more) = self.0.gc.history(before, n).await?;
        Ok(Page { items, more })
    }

    /// What garbage collection is doing. Reads one row a pack.
    pub async fn gc_status(&self, who: &Principal) -> Result<GcStatus, RegistryError> {
        policy::authorize(who, None, Action::Admin)?;
        let inner = &self.0;
        let mut condemned_packs = 0;
        let mut pages = inner.pages(key::packs(), 1000);
        while let Some(rows) = pages.next().await? {
            for (key, value) in &rows {
                let state = PackRecord::decode(key, value)?.state;
                condemned_packs += u64::from(state == PackState::Condemned);
            }
        }
        let next = inner.meta.scan(&key::reviews_due(u64::MAX), 1).await?;
        Ok(GcStatus {
            runs: inner.gc.runs_now(),
            interval: inner.gc.options().interval,
            grace: inner.options.grace,
            next_review_ms: next
                .first()
                .and_then(|(row, _)| Some(key::review_of(row)?.due_ms)),
            condemned_packs,
        })
    }

    /// Why a blob or manifest is still here.
    pub async fn gc_explain(
        &self,
        who: &Principal,
        digest: &Digest,
    ) -> Result<Explanation, RegistryError> {
        policy::authorize(who, None, Action::Admin)?;
        let inner = &self.0;
        let blob: Option<BlobRecord> = inner.get_record(&key::blob(digest)).await?;
        let mut explanation = Explanation {
            digest: *digest,
            len: blob.map(|blob| blob.len),
            kept_by: Vec::new(),
        };
        if blob.is_some() {
            let holders = key::holders(digest);
            for (row, _) in inner.meta.scan(&holders, NAMED_MAX).await? {
                let name = String::from_utf8_lossy(key::last_field(&holders, &row)).into_owned();
                let Ok(repository) = name.parse::<RepositoryName>() else {
                    continue;
                };
                let hold: Option<HoldRecord> =
                    inner.get_record(&key::hold(&repository, digest)).await?;
                explanation.kept_by.push(Keeper {
                    lease_ms: hold.map(|hold| hold.lease_ms),
                    manifests: inner.parents(&repository, digest).await?,
                    repository,
                });
            }
        }
        let mut repositories = key::repositories();
        while explanation.kept_by.len() < NAMED_MAX {
            let rows = inner.meta.scan(&repositories, 1000).await?;
            let Some((last, _)) = rows.last() else { break };
            repositories = key::after(repositories, last);
            let names = rows.iter().filter_map(|(row, _)| {
                let name = key::last_field(&key::repositories(), row);
                std::str::from_utf8(name)
                    .ok()?
                    .parse::<RepositoryName>()
                    .ok()
            });
            for repository in names {
                if inner
                    .get(&key::manifest(&repository, digest))
                    .await?
                    .is_some()
                {
                    let mut manifests = vec![inner.holder(&repository, *digest).await?];
                    manifests.extend(inner.parents(&repository, digest).await?);
                    explanation.kept_by.push(Keeper {
                        repository,
                        lease_ms: None,
                        manifests,
                    });
                }
            }
        }
        Ok(explanation)
    }
}

impl Inner {
    /// Manifests of the repository that refer to the digest.
    async fn parents(
        &self,
        repository: &RepositoryName,
        digest: &Digest,
    ) -> Result<Vec<Holder>, RegistryError> {
        let edges = key::edges(digest, repository);
        let mut parents = Vec::new();
        for (row, _) in self.meta.scan(&edges, NAMED_MAX).await? {
            if let Ok(parent) = Digest::from_key(key::last_field(&edges, &row)) {
                parents.push(self.holder(repository, parent).await?);
            }
        }
        Ok(parents)
    }

    async fn holder(
        &self,
        repository: &RepositoryName,
        digest: Digest,
    ) -> Result<Holder, RegistryError> {
        let tags = key::tags_of(repository, &digest);
        let rows = self.meta.scan(&tags, NAMED_MAX).await?;
        let names = rows
            .iter()
            .map(|(row, _)| String::from_utf8_lossy(key::last_field(&tags, row)).into_owned());
        Ok(Holder {
            digest,
            tags: names.collect(),
        })
    }
}
