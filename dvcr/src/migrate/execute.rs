//! Carrying a plan out.

use std::{
    collections::{BTreeSet, HashSet},
    sync::{Arc, Mutex, PoisonError},
};

use dvcr_client::{Client, Error, Repository};
use dvcr_core::oci::{Digest, ErrorCode, Reference};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use reqwest::StatusCode;

use super::{
    Counters, ManifestPlan, MigrateError, Options, Plan, RepositoryPlan, Source,
    blobs::{Blobs, Failed},
    report::{Failure, count},
};

/// Whether an error says that nobody is there, or that nobody has time: the client has already tried again for some minutes.
pub(super) fn is_away(error: &Error) -> bool {
    match error {
        Error::Connection { .. }
        | Error::Stalled { .. }
        | Error::Certificate { .. }
        | Error::NoTls { .. } => true,
        _ => matches!(
            error.status(),
            Some(StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE)
        ),
    }
}

/// Whether an error of the server says that it will take nothing else either.
pub(super) fn is_over(error: &Error) -> bool {
    is_away(error) || error.is_denied() || error.is_full()
}

/// Brings everything over, then compares the tags.
pub(super) async fn run(
    source: &Source,
    server: &Client,
    plan: &Plan,
    options: &Options,
    counters: &Arc<Counters>,
) -> Result<(), MigrateError> {
    let blobs = Blobs::new(source, server, options, counters);
    let work = Work {
        source,
        server,
        blobs: &blobs,
        counters,
        parallel: options.parallel,
    };
    stream::iter(&plan.repositories)
        .map(|repository| work.repository(repository))
        .buffer_unordered(options.parallel)
        .try_collect::<()>()
        .await?;
    // Only now: a tag that was right when it was set may have been moved since.
    stream::iter(&plan.repositories)
        .map(|repository| work.verify(repository))
        .buffer_unordered(options.parallel)
        .try_collect::<()>()
        .await
}

struct Work<'a> {
    source: &'a Source,
    server: &'a Client,
    blobs: &'a Blobs<'a>,
    counters: &'a Arc<Counters>,
    parallel: usize,
}

/// Manifests of a repository that did not come over.
type Lost = Mutex<HashSet<Digest>>;

impl Work<'_> {
    async fn repository(&self, plan: &RepositoryPlan) -> Result<(), MigrateError> {
        let repository = self.server.repository(&plan.name);
        let lost = Lost::default();
        let levels: BTreeSet<usize> = plan.manifests.iter().map(|m| m.level).collect();
        for level in levels {
            let manifests = plan.manifests.iter().filter(|m| m.level == level);
            stream::iter(manifests)
                .map(|manifest| self.manifest(&repository, manifest, &lost))
                .buffer_unordered(self.parallel)
                .try_collect::<()>()
                .await?;
        }
        Ok(())
    }

    /// Brings a manifest and its blobs over. Only what ends everything is an error.
    async fn manifest(
        &self,
        repository: &Repository,
        plan: &ManifestPlan,
        lost: &Lost,
    ) -> Result<(), MigrateError> {
        let failed = match self.bring(repository, plan, lost).await {
            Ok(()) => return Ok(()),
            Err(failed) => failed,
        };
        if let Failed::Over(error) = failed {
            return Err(error);
        }
        lost.lock()
            .unwrap_or_else(PoisonError::into_inner)
            .insert(plan.digest);
        for tag in &plan.tags {
            let reason = format!("its manifest {} did not come over", plan.digest);
            self.fail(repository, &format!("tag {tag}"), reason);
        }
        Ok(())
    }

    async fn bring(
        &self,
        repository: &Repository,
        plan: &ManifestPlan,
        lost: &Lost,
    ) -> Result<(), Failed> {
        let item = format!("manifest {}", plan.digest);
        let wrong = |error: Error| {
            if is_over(&error) {
                return Failed::Over(MigrateError::Server(error));
            }
            self.fail(repository, &item, error.to_string());
            Failed::Item
        };
        let reference = Reference::Digest(plan.digest);
        let there = repository
            .manifest_digest(&reference)
            .await
            .map_err(wrong)?
            .is_some();
        let mut tags = plan.tags.clone();
        if there {
            count(&self.counters.manifests_present, 1);
            for blob in &plan.blobs {
                self.blobs.settle(blob, 0);
            }
            tags.clear();
            for tag in &plan.tags {
                let found = repository
                    .manifest_digest(&Reference::Tag(tag.clone()))
                    .await;
                if found.map_err(wrong)? != Some(plan.digest) {
                    tags.push(tag.clone());
                }
            }
            if tags.is_empty() {
                return Ok(());
            }
        } else {
            let child = {
                let lost = lost.lock().unwrap_or_else(PoisonError::into_inner);
                plan.children
                    .iter()
                    .find(|child| lost.contains(child))
                    .copied()
            };
            if let Some(child) = child {
                let reason = format!("its child {child} did not come over");
                self.fail(repository, &item, reason);
                return Err(Failed::Item);
            }
            self.copy_blobs(repository, plan).await?;
        }
        let raw = match self.source.manifest(repository.name(), &plan.digest).await {
            Ok(raw) => raw,
            Err(error) if error.is_fatal() => {
                return Err(Failed::Over(MigrateError::Source(error)));
            }
            Err(error) => {
                self.fail(repository, &item, error.to_string());
                return Err(Failed::Item);
            }
        };
        let mut pushed = repository.push_manifest(&raw, &tags).await;
        if let Err(error) = &pushed
            && error.code() == Some(ErrorCode::ManifestBlobUnknown)
        {
            // A registry keeps blobs without a manifest for a while only, and the largest of these may have taken longer.
            for blob in &plan.blobs {
                self.blobs.forget(&blob.digest).await;
            }
            self.copy_blobs(repository, plan).await?;
            pushed = repository.push_manifest(&raw, &tags).await;
        }
        pushed.map_err(wrong)?;
        if !there {
            count(&self.counters.manifests_sent, 1);
        }
        count(&self.counters.tags_set, tags.len() as u64);
        Ok(())
    }

    /// All blobs, even after one has failed: the report names every one that is damaged.
    async fn copy_blobs(&self, repository: &Repository, plan: &ManifestPlan) -> Result<(), Failed> {
        let mut copies = stream::iter(&plan.blobs)
            .map(|blob| self.blobs.copy(repository.name(), blob))
            .buffer_unordered(self.parallel);
        let mut failed = None;
        while let Some(copied) = copies.next().await {
            match copied {
                Ok(()) => {}
                Err(Failed::Item) => failed = Some(Failed::Item),
                Err(over) => return Err(over),
            }
        }
        failed.map_or(Ok(()), Err)
    }

    /// Compares the tags.
    async fn verify(&self, plan: &RepositoryPlan) -> Result<(), MigrateError> {
        let repository = self.server.repository(&plan.name);
        let tags = plan
            .manifests
            .iter()
            .flat_map(|manifest| manifest.tags.iter().map(|tag| (tag, manifest.digest)));
        let mut found = stream::iter(tags)
            .map(|(tag, digest)| {
                let repository = &repository;
                async move {
                    let reference = Reference::Tag(tag.clone());
                    (tag, digest, repository.manifest_digest(&reference).await)
                }
            })
            .buffer_unordered(self.parallel);
        while let Some((tag, digest, found)) = found.next().await {
            let reason = match found {
                Ok(Some(found)) if found == digest => {
                    count(&self.counters.tags_verified, 1);
                    continue;
                }
                Ok(None) => {
                    let there = repository.manifest_digest(&Reference::Digest(digest)).await;
                    if !matches!(there, Ok(Some(_))) {
                        // Said already: what it points to did not come over.
                        continue;
                    }
                    "was set, and somebody has removed it since".to_owned()
                }
                Ok(Some(found)) => format!("is {digest} in the source but {found} here"),
                Err(error) if is_over(&error) => return Err(MigrateError::Server(error)),
                Err(error) => error.to_string(),
            };
            self.fail(&repository, &format!("tag {tag}"), reason);
        }
        Ok(())
    }

    fn fail(&self, repository: &Repository, item: &str, reason: String) {
        self.counters
            .fail(Failure::new(repository.name().as_str(), item, reason));
    }
}
