//! Retention rules, and what they would do.

use reqwest::Method;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Client, Error, Page, PageQuery, Timestamp};

/// Retention rules and immutable tags.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default)]
pub struct RetentionRules {
    /// What goes by itself. The first rule that fits a repository is the only one for it.
    pub retention: Vec<RetentionRule>,
    /// Tags that stay what they are. The strictest rule that fits decides.
    pub immutable: Vec<ImmutableRule>,
}

/// What goes from the repositories that a glob fits.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct RetentionRule {
    /// Glob of repository names, `*` for any part of a path segment, `**` for any number of segments.
    #[schema(example = "vi/**", max_length = 255)]
    pub repository: String,
    /// How long a manifest stays that has no tag, is in no index, and is about no other manifest: a whole number with one of `s`,
    /// `m`, `h`, `d`. Without it such a manifest stays.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "24h")]
    pub untagged_after: Option<String>,
    /// Whether one round may remove more than half of ten or more tags of a repository, or all tags that it has. Without it such a
    /// round removes none of them.
    #[serde(default)]
    pub allow_mass_removal: bool,
    /// Which tags stay: those that at least one entry keeps. Without an entry all do.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub keep: Vec<KeepRule>,
}

/// Tags that stay.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct KeepRule {
    /// Globs of the tags that this entry is about; all of them by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
    /// Of those, only so many: the ones that were pushed last. 1 to 1,000.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub last: Option<u64>,
    /// Of those, only the ones that were pushed within this time: `30d`. Not together with `last`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "720h")]
    pub within: Option<String>,
}

/// Tags that stay what they are.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ImmutableRule {
    /// Glob of repository names.
    #[schema(example = "cvi/**", max_length = 255)]
    pub repository: String,
    /// Globs of the tags; all of them by default.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tags: Option<Vec<String>>,
    /// Globs of tags that this rule leaves alone.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub except: Vec<String>,
    /// Whether such a tag may be deleted, by hand and by retention.
    #[serde(default)]
    pub deletable: bool,
}

/// What a dry run is to look at.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct RetentionPlanRequest {
    /// Only repositories that this glob fits.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = "vi/**", max_length = 255)]
    pub repository: Option<String>,
    /// Rules to try instead of those in force.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rules: Option<RetentionRules>,
}

/// A tag, or a manifest that nothing needs, and what becomes of it.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RetentionItem {
    /// The repository.
    pub repository: String,
    /// The tag; null for a manifest that has none.
    pub tag: Option<String>,
    /// The manifest.
    pub digest: String,
    /// When a push last named the tag. Of a manifest: since when nothing needs it, or when it was last asked for by its digest.
    pub since: Timestamp,
    /// Whether it stays in the next round.
    pub kept: bool,
    /// Whether it stays only because too many tags of the repository would go at once: `allow_mass_removal` of the rule, or a
    /// collection with `force`, lets it go.
    pub held: bool,
    /// When a manifest goes that stays now; null where nothing removes it, and for tags.
    pub due_at: Option<Timestamp>,
    /// The number of the rule for the repository, from 0; null where none fits.
    pub rule: Option<u64>,
    /// What keeps or removes it.
    #[schema(example = "retention[1].keep[0]: last 10 of nightly-*")]
    pub reason: String,
}

impl Client {
    /// The rules in force.
    pub async fn retention_rules(&self) -> Result<RetentionRules, Error> {
        self.call(Method::GET, "/api/v1/retention").answer().await
    }

    /// What the next round would do. Changes nothing.
    pub async fn retention_plan(
        &self,
        request: &RetentionPlanRequest,
        page: &PageQuery,
    ) -> Result<Page<RetentionItem>, Error> {
        self.call(Method::POST, "/api/v1/retention/plan")
            .query(page)
            .json(request)
            .answer()
            .await
    }
}
