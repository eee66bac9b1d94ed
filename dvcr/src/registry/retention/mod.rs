//! Retention: what goes from repositories by itself, because rules in the settings say so. Without a rule nothing does.
//!
//! A round is part of every collection. It removes the tags that no entry of a rule keeps, and the manifests that nothing needs
//! any more and whose time has come; then garbage collection takes what only those needed. Where that would be most tags of a
//! repository it removes none of them, unless somebody has said that this is meant. [`judge`] decides, purely; what it decided is
//! carried out in transactions that check it: the tag is as it was seen, and so are those that took its place.

mod judge;
mod plan;
mod rule;
#[cfg(test)]
mod tests;

use std::sync::atomic::{AtomicU64, Ordering::Relaxed};

use dvcr_core::oci::{Digest, RepositoryName, Tag};

pub use judge::{KeptBy, Verdict};
pub use plan::{PlanCursor, PlannedItem, RetentionSet};
pub(crate) use rule::rule_faults;
pub use rule::{Keep, RetentionRule};

use super::{
    ATTEMPTS, Inner, Registry, RegistryError,
    immutable::{ImmutableRule, TagLock, lock_of},
    millis, removal,
};
use crate::meta::{
    Check, Commit, Txn, key,
    record::{Record as _, TagRecord, UntaggedRecord},
};
use judge::{Judge, Share, TagFacts, subject_of};
use rule::rule_of;

/// Rows read at once.
const PAGE: usize = 1_000;

/// Tags looked at for one transaction: few enough that a busy repository lets it through.
const TAGS_PAGE: usize = 100;

/// What retention removed since the start, for metrics.
#[derive(Debug, Default)]
pub struct RetentionStats {
    /// Tags.
    pub tags: AtomicU64,
    /// Manifests.
    pub manifests: AtomicU64,
    /// Repositories whose tags the last round left alone because too many would have gone at once.
    pub held_repositories: AtomicU64,
    /// Rounds that ended with an error.
    pub failures: AtomicU64,
}

/// What one round removed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Retained {
    /// Tags that no entry kept.
    pub tags: u64,
    /// Manifests that nothing needed any more.
    pub manifests: u64,
    /// Repositories whose tags stay because too many would have gone at once.
    pub held_repositories: u64,
}

impl Registry {
    /// What retention removed since the start.
    #[must_use]
    pub fn retention_stats(&self) -> &RetentionStats {
        &self.0.retained
    }

    /// One round, at the begin of a collection. With `force` it removes whatever the rules say.
    pub(super) async fn retain_or_log(&self, force: bool) {
        if let Err(error) = self.retain(force).await {
            self.retention_stats().failures.fetch_add(1, Relaxed);
            tracing::error!(
                error = &error as &dyn std::error::Error,
                "apply the retention rules; the next collection goes on"
            );
        }
    }

    /// One round: tags that the rules do not keep, then manifests that nothing needs. With `force` also most tags of a repository
    /// at once.
    pub async fn retain(&self, force: bool) -> Result<Retained, RegistryError> {
        let inner = &self.0;
        let (mut retained, mut held) = (Retained::default(), None);
        if inner
            .options
            .retention
            .iter()
            .any(|rule| !rule.keep.is_empty())
        {
            let mut last = None;
            loop {
                let page = inner.repository_page(last.as_ref(), PAGE).await?;
                for repository in &page.items {
                    if let Some((no, rule)) = rule_of(&inner.options.retention, repository)
                        && !rule.keep.is_empty()
                    {
                        match inner.retain_tags(repository, no, rule, force).await? {
                            Some(tags) => retained.tags += tags,
                            None => {
                                retained.held_repositories += 1;
                                held.get_or_insert_with(|| repository.clone());
                            }
                        }
                    }
                }
                if !page.more {
                    break;
                }
                last = page.items.into_iter().next_back();
            }
        }
        let stats = &inner.retained;
        stats
            .held_repositories
            .store(retained.held_repositories, Relaxed);
        if let Some(repository) = held {
            tracing::warn!(
                repositories = retained.held_repositories, such_as = %repository,
                "retention would remove more tags of a repository at once than it does by itself, and removes none of them; look at \
                 `dvcr retention test`, and run `dvcr gc run --force` if that is what you want"
            );
        }
        retained.manifests = inner.retain_manifests().await?;
        inner.retained.tags.fetch_add(retained.tags, Relaxed);
        inner
            .retained
            .manifests
            .fetch_add(retained.manifests, Relaxed);
        Ok(retained)
    }
}

impl Inner {
    /// First pass of a judgement: every tag of the repository.
    async fn see_tags<'a>(
        &self,
        repository: &RepositoryName,
        rule: &'a RetentionRule,
    ) -> Result<Judge<'a>, RegistryError> {
        let all = key::tags(repository);
        let mut judge = Judge::new(rule, self.now_ms());
        let mut pages = self.pages(all.clone(), PAGE);
        while let Some(rows) = pages.next().await? {
            for (key, row) in &rows {
                let tag = String::from_utf8_lossy(key::last_field(&all, key));
                judge.see(&tag, TagRecord::decode(key, row)?.pushed_ms);
                // Each is compared with many globs, those of a dry run are anybody's.
                tokio::task::yield_now().await;
            }
        }
        Ok(judge)
    }

    /// Whether the manifest that a tag is named after is there; and the check that it is not.
    async fn subject(
        &self,
        repository: &RepositoryName,
        tag: &str,
    ) -> Result<(bool, Option<Check>), RegistryError> {
        let Some(digest) = subject_of(tag) else {
            return Ok((false, None));
        };
        let key = key::manifest(repository, &digest);
        let there = self.get(&key).await?.is_some();
        Ok((there, (!there).then_some(Check::Absent(key))))
    }

    /// How much of a repository would go by a judgement.
    async fn share(
        &self,
        repository: &RepositoryName,
        immutable: &[ImmutableRule],
        judge: &Judge<'_>,
    ) -> Result<Share, RegistryError> {
        let all = key::tags(repository);
        let mut share = Share::default();
        let mut pages = self.pages(all.clone(), PAGE);
        while let Some(rows) = pages.next().await? {
            for (key, row) in &rows {
                let tag = String::from_utf8_lossy(key::last_field(&all, key));
                let facts = TagFacts {
                    tag: &tag,
                    pushed_ms: TagRecord::decode(key, row)?.pushed_ms,
                    permanent: lock_of(immutable, repository, &tag) == TagLock::Permanent,
                    // Tags that have one do not count.
                    has_subject: false,
                };
                judge.count(&facts, &mut share);
                tokio::task::yield_now().await;
            }
        }
        Ok(share)
    }

    /// Removes the tags of a repository that the rule does not keep; returns how many, or none where that would be too many at
    /// once.
    async fn retain_tags(
        &self,
        repository: &RepositoryName,
        rule_no: usize,
        rule: &RetentionRule,
        force: bool,
    ) -> Result<Option<u64>, RegistryError> {
        let mut removed = 0;
        for attempt in 0..ATTEMPTS {
            let judge = self.see_tags(repository, rule).await?;
            if attempt == 0 && !force && !rule.allow_mass_removal {
                let immutable = &self.options.immutable;
                let share = self.share(repository, immutable, &judge).await?;
                if share.is_too_much() {
                    let Share { tags, goes } = share;
                    tracing::debug!(%repository, rule = rule_no, tags, goes, "held");
                    return Ok(None);
                }
            }
            let (done, complete) = self.remove_judged(repository, rule_no, &judge).await?;
            removed += done;
            if complete {
                return Ok(Some(removed));
            }
        }
        tracing::debug!(%repository, "tags change all the time: the next round goes on");
        Ok(Some(removed))
    }

    /// Second pass: removes what is not kept. Stops early where somebody changed what the judgement relied on.
    async fn remove_judged(
        &self,
        repository: &RepositoryName,
        rule_no: usize,
        judge: &Judge<'_>,
    ) -> Result<(u64, bool), RegistryError> {
        let all = key::tags(repository);
        let witnesses = judge.witnesses().into_iter();
        let witnesses: Vec<Check> = witnesses
            .map(|tag| Check::Present(key::tag(repository, tag)))
            .collect();
        let mut removed = 0;
        let mut pages = self.pages(all.clone(), TAGS_PAGE);
        while let Some(rows) = pages.next().await? {
            let mut txn = Txn::default();
            let mut gone: Vec<(Tag, Digest)> = Vec::new();
            for (key, value) in rows {
                let name = key::last_field(&all, &key);
                let Some(tag) = std::str::from_utf8(name)
                    .ok()
                    .and_then(|t| t.parse::<Tag>().ok())
                else {
                    continue;
                };
                let row = TagRecord::decode(&key, &value)?;
                let (has_subject, no_subject) = self.subject(repository, tag.as_str()).await?;
                let facts = TagFacts {
                    tag: tag.as_str(),
                    pushed_ms: row.pushed_ms,
                    permanent: self.is_permanent(repository, tag.as_str()),
                    has_subject,
                };
                if judge.judge(&facts) == Verdict::Removed {
                    txn.checks.extend(no_subject);
                    removal::untag(repository, &tag, value, &row.digest, self.goes(), &mut txn);
                    gone.push((tag, row.digest));
                }
            }
            if gone.is_empty() {
                tokio::task::yield_now().await;
                continue;
            }
            txn.checks.extend(witnesses.iter().cloned());
            if self.meta.commit(txn).await? != Commit::Done {
                return Ok((removed, false));
            }
            removed += gone.len() as u64;
            for (tag, digest) in gone {
                tracing::info!(target: "dvcr::audit", %repository, %tag, %digest, rule = rule_no, "retention removed a tag");
            }
        }
        Ok((removed, true))
    }

    /// Removes every manifest that nothing needs and whose time has come; returns how many.
    async fn retain_manifests(&self) -> Result<u64, RegistryError> {
        let mut removed = 0;
        let mut pages = self.pages(key::all_untagged(), PAGE);
        while let Some(rows) = pages.next().await? {
            for (key, row) in &rows {
                let Some((repository, digest)) = key::untagged_of(key) else {
                    continue;
                };
                let rule = rule_of(&self.options.retention, &repository);
                let due = |row: &UntaggedRecord| {
                    self.due_ms(rule.map(|(_, rule)| rule), row)
                        .is_some_and(|due_ms| due_ms <= self.now_ms())
                };
                if due(&UntaggedRecord::decode(key, row)?)
                    && self
                        .remove_unneeded(&repository, &digest, due, self.goes())
                        .await?
                {
                    removed += 1;
                    let rule = rule.map(|(no, _)| no);
                    tracing::info!(target: "dvcr::audit", %repository, %digest, rule, "retention removed a manifest that nothing needed");
                    self.drop_repository_if_empty(&repository).await?;
                }
            }
            tokio::task::yield_now().await;
        }
        Ok(removed)
    }

    /// When an untagged manifest goes if nothing needs it then; none: never.
    fn due_ms(&self, rule: Option<&RetentionRule>, row: &UntaggedRecord) -> Option<u64> {
        let after = if row.let_go {
            self.options.lease
        } else {
            rule?.untagged_after?.0
        };
        Some(row.since_ms.saturating_add(millis(after)))
    }

    fn is_permanent(&self, repository: &RepositoryName, tag: &str) -> bool {
        lock_of(&self.options.immutable, repository, tag) == TagLock::Permanent
    }
}
