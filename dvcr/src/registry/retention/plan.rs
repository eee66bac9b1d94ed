//! What the rules would do: the dry run.

use dvcr_core::oci::{Digest, RepositoryName, Tag};

use super::{
    KeptBy, PAGE, RetentionRule, Verdict,
    judge::{Share, TagFacts},
    rule_faults, rule_of,
};
use crate::{
    meta::{
        KeyRange, key,
        record::{Record as _, TagRecord, UntaggedRecord},
    },
    registry::{
        Inner, Page, Principal, Registry, RegistryError,
        glob::RepositoryGlob,
        immutable::{ImmutableRule, TagLock, lock_of},
        policy::{self, Action},
        removal::Need,
    },
};

/// Most rules that a dry run takes.
const RULES_MAX: usize = 1_000;

/// Most bytes that all globs of a dry run have together: 65 for each of so many rules. Each tag is compared with them all, 8 million
/// steps for the longest.
const GLOB_BYTES_MAX: usize = 64 << 10;

/// The rules in force, or those that somebody wants to try.
#[derive(Clone, Debug, Default, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
#[serde(default)]
pub struct RetentionSet {
    /// What goes.
    pub retention: Vec<RetentionRule>,
    /// Tags that stay all the same.
    pub immutable: Vec<ImmutableRule>,
}

/// A tag or an untagged manifest, and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlannedItem {
    /// The repository.
    pub repository: RepositoryName,
    /// The tag; none for a manifest that has none.
    pub tag: Option<Tag>,
    /// The manifest.
    pub digest: Digest,
    /// When a push last named the tag; since when nothing needs the manifest, or when it was last asked for by its digest.
    /// Milliseconds since 1970.
    pub since_ms: u64,
    /// Whether it stays when a round comes.
    pub kept: bool,
    /// Whether it stays only because too many tags of the repository would go at once.
    pub held: bool,
    /// When an untagged manifest goes that stays now; none for tags, and where nothing removes it.
    pub due_ms: Option<u64>,
    /// The number of the rule for the repository, from 0; none where no rule fits.
    pub rule: Option<usize>,
    /// What keeps it or takes it, for people.
    pub reason: String,
}

/// Where a page of a plan ended: after this tag, or after this manifest.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PlanCursor {
    repository: RepositoryName,
    last: Last,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Last {
    Tag(String),
    Manifest(Digest),
}

/// `REPOSITORY`, a space, and `t` with the tag or `m` with the digest.
impl std::fmt::Display for PlanCursor {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} ", self.repository)?;
        match &self.last {
            Last::Tag(tag) => write!(f, "t{tag}"),
            Last::Manifest(digest) => write!(f, "m{digest}"),
        }
    }
}

impl std::str::FromStr for PlanCursor {
    type Err = RegistryError;

    fn from_str(text: &str) -> Result<Self, RegistryError> {
        let parse = || {
            let (repository, last) = text.split_once(' ')?;
            let last = match last.split_at_checked(1)? {
                ("t", tag) => Last::Tag(tag.to_owned()),
                ("m", digest) => Last::Manifest(digest.parse().ok()?),
                _ => return None,
            };
            let repository = repository.parse().ok()?;
            Some(Self { repository, last })
        };
        parse().ok_or_else(|| RegistryError::Invalid("no cursor of a retention plan".to_owned()))
    }
}

impl RetentionSet {
    /// Refuses rules that cannot be meant; all faults at once.
    fn check(&self, lease: std::time::Duration) -> Result<(), RegistryError> {
        let Self {
            retention,
            immutable,
        } = self;
        let mut faults = Vec::new();
        if retention.len() + immutable.len() > RULES_MAX {
            faults.push(format!("more than {RULES_MAX} rules"));
        }
        let repositories = (retention.iter().map(|rule| &rule.repository))
            .chain(immutable.iter().map(|rule| &rule.repository));
        let tags = (retention.iter().flat_map(|rule| &rule.keep))
            .flat_map(|keep| &keep.tags)
            .chain(immutable.iter().flat_map(|rule| &rule.tags))
            .chain(immutable.iter().flat_map(|rule| &rule.except));
        let lengths = (repositories.map(|glob| glob.as_str().len()))
            .chain(tags.map(|glob| glob.as_str().len()));
        if lengths.sum::<usize>() > GLOB_BYTES_MAX {
            faults.push(format!(
                "the globs are longer than {GLOB_BYTES_MAX} bytes together"
            ));
        }
        faults.extend(rule_faults(retention, immutable, lease));
        if faults.is_empty() {
            Ok(())
        } else {
            Err(RegistryError::Invalid(faults.join("; ")))
        }
    }
}

impl Registry {
    /// The rules in force.
    pub fn retention_rules(&self, who: &Principal) -> Result<RetentionSet, RegistryError> {
        policy::authorize(who, None, Action::Admin)?;
        let options = &self.0.options;
        Ok(RetentionSet {
            retention: options.retention.clone(),
            immutable: options.immutable.clone(),
        })
    }

    /// What the next round would do under the rules in force, or under `rules`: up to `n` tags and untagged manifests after `after`,
    /// by repository, tags first. Of repositories that `repository` fits. Changes nothing.
    pub async fn retention_plan(
        &self,
        who: &Principal,
        rules: Option<&RetentionSet>,
        repository: Option<&RepositoryGlob>,
        after: Option<&PlanCursor>,
        n: usize,
    ) -> Result<(Vec<PlannedItem>, Option<PlanCursor>), RegistryError> {
        let in_force = self.retention_rules(who)?;
        let rules = rules.unwrap_or(&in_force);
        let inner = &self.0;
        rules.check(inner.options.lease)?;
        let mut items = Vec::new();
        if let Some(cursor) = after {
            let last = &cursor.last;
            inner
                .plan_repository(rules, &cursor.repository, Some(last), n, &mut items)
                .await?;
        }
        let mut last = after.map(|cursor| cursor.repository.clone());
        while items.len() <= n {
            let page = inner.repository_page(last.as_ref(), PAGE).await?;
            for name in &page.items {
                if items.len() <= n && repository.is_none_or(|glob| glob.fits(name.as_str())) {
                    inner
                        .plan_repository(rules, name, None, n, &mut items)
                        .await?;
                    // Each was compared with up to a thousand rules.
                    tokio::task::yield_now().await;
                }
            }
            tokio::task::yield_now().await;
            if !page.more {
                break;
            }
            last = page.items.into_iter().next_back();
        }
        let more = items.len() > n;
        items.truncate(n);
        let cursor = items.last().filter(|_| more).map(|item| PlanCursor {
            repository: item.repository.clone(),
            last: match &item.tag {
                Some(tag) => Last::Tag(tag.to_string()),
                None => Last::Manifest(item.digest),
            },
        });
        Ok((items, cursor))
    }
}

impl Inner {
    /// Up to `n` repositories after `last`.
    pub(in crate::registry) async fn repository_page(
        &self,
        last: Option<&RepositoryName>,
        n: usize,
    ) -> Result<Page<RepositoryName>, RegistryError> {
        let last = last.map(|name| key::repository(name.as_str()));
        self.names(key::repositories(), last, n, |_| true).await
    }

    /// Adds what a repository has after `last`, until there are more than `n` items.
    async fn plan_repository(
        &self,
        rules: &RetentionSet,
        repository: &RepositoryName,
        last: Option<&Last>,
        n: usize,
        items: &mut Vec<PlannedItem>,
    ) -> Result<(), RegistryError> {
        if !matches!(last, Some(Last::Manifest(_))) {
            let tags = key::tags(repository);
            let range = match last {
                Some(Last::Tag(tag)) => key::after(tags, &key::tag(repository, tag)),
                _ => tags,
            };
            self.plan_tags(rules, repository, range, n, items).await?;
        }
        let untagged = key::untagged_in(repository);
        let range = match last {
            Some(Last::Manifest(digest)) => {
                key::after(untagged, &key::untagged(repository, digest))
            }
            _ => untagged,
        };
        self.plan_manifests(rules, repository, range, n, items)
            .await
    }

    async fn plan_tags(
        &self,
        rules: &RetentionSet,
        repository: &RepositoryName,
        range: KeyRange,
        n: usize,
        items: &mut Vec<PlannedItem>,
    ) -> Result<(), RegistryError> {
        let all = key::tags(repository);
        let rule = rule_of(&rules.retention, repository);
        let (judge, share) = match rule {
            Some((_, rule)) => {
                let judge = self.see_tags(repository, rule).await?;
                let share = self.share(repository, &rules.immutable, &judge).await?;
                let held = share.is_too_much() && !rule.allow_mass_removal;
                (Some(judge), held.then_some(share))
            }
            None => (None, None),
        };
        let mut pages = self.pages(range, n.saturating_sub(items.len()) + 1);
        while items.len() <= n
            && let Some(rows) = pages.next().await?
        {
            for (key, row) in &rows {
                let name = std::str::from_utf8(key::last_field(&all, key));
                let Some(tag) = name.ok().and_then(|name| name.parse::<Tag>().ok()) else {
                    continue;
                };
                let row = TagRecord::decode(key, row)?;
                let lock = lock_of(&rules.immutable, repository, tag.as_str());
                let facts = TagFacts {
                    tag: tag.as_str(),
                    pushed_ms: row.pushed_ms,
                    permanent: lock == TagLock::Permanent,
                    has_subject: self.subject(repository, tag.as_str()).await?.0,
                };
                let verdict = judge.as_ref().map(|judge| judge.judge(&facts));
                let goes = verdict == Some(Verdict::Removed);
                let held = share.filter(|_| goes);
                items.push(PlannedItem {
                    repository: repository.clone(),
                    digest: row.digest,
                    since_ms: row.pushed_ms,
                    kept: !goes || held.is_some(),
                    held: held.is_some(),
                    due_ms: None,
                    rule: rule.map(|(no, _)| no),
                    reason: match held {
                        Some(Share { tags, goes }) => format!(
                            "{}, but {goes} of {tags} tags would go at once",
                            reason(rule, verdict)
                        ),
                        None => reason(rule, verdict),
                    },
                    tag: Some(tag),
                });
                // Each was compared with all globs of somebody's rules.
                tokio::task::yield_now().await;
            }
        }
        Ok(())
    }

    async fn plan_manifests(
        &self,
        rules: &RetentionSet,
        repository: &RepositoryName,
        range: KeyRange,
        n: usize,
        items: &mut Vec<PlannedItem>,
    ) -> Result<(), RegistryError> {
        let rule = rule_of(&rules.retention, repository);
        let mut pages = self.pages(range, n.saturating_sub(items.len()) + 1);
        while items.len() <= n
            && let Some(rows) = pages.next().await?
        {
            for (key, row) in &rows {
                let Some((_, digest)) = key::untagged_of(key) else {
                    continue;
                };
                if let Need::By(_) = self.need(repository, &digest).await? {
                    continue;
                }
                let row = UntaggedRecord::decode(key, row)?;
                let due_ms = self.due_ms(rule.map(|(_, rule)| rule), &row);
                let kept = due_ms.is_none_or(|due_ms| due_ms > self.now_ms());
                let after = rule.and_then(|(no, rule)| Some((no, rule.untagged_after?)));
                items.push(PlannedItem {
                    repository: repository.clone(),
                    tag: None,
                    digest,
                    since_ms: row.since_ms,
                    kept,
                    held: false,
                    due_ms: due_ms.filter(|_| kept),
                    rule: rule.map(|(no, _)| no),
                    reason: match after {
                        _ if row.let_go => {
                            "its tag was removed, and nothing else needs it".to_owned()
                        }
                        Some((no, after)) => format!("retention[{no}].untagged_after: {after}"),
                        None => no_rule(rule),
                    },
                });
            }
        }
        Ok(())
    }
}

fn no_rule(rule: Option<(usize, &RetentionRule)>) -> String {
    match rule {
        Some((no, _)) => format!("retention[{no}] does not say otherwise"),
        None => "no rule fits the repository".to_owned(),
    }
}

fn reason(rule: Option<(usize, &RetentionRule)>, verdict: Option<Verdict>) -> String {
    match (rule, verdict) {
        (_, Some(Verdict::Kept(KeptBy::Immutable))) => "immutable".to_owned(),
        (_, Some(Verdict::Kept(KeptBy::Subject))) => {
            "named after a manifest that is there".to_owned()
        }
        (Some((no, rule)), Some(Verdict::Kept(KeptBy::Entry(entry)))) => {
            format!("retention[{no}].keep[{entry}]: {}", rule.keep[entry])
        }
        (Some((no, _)), Some(Verdict::Removed)) => format!("retention[{no}]: no entry keeps it"),
        _ => no_rule(rule),
    }
}
