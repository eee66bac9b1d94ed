//! Deletion with everything that hangs on what is deleted.

use reqwest::Method;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Client, Error, Timestamp};

/// What to delete: tags, or one manifest, or with neither of the two whole repositories.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeletionRequest {
    /// A repository, or a glob of repositories: `*` for any part of a path segment, `**` for any number of segments.
    #[schema(example = "vi/debian", max_length = 255)]
    pub repository: String,
    /// A tag, or a glob of tags: those go, and what they name, unless something else needs it.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    #[schema(example = "12", max_length = 128)]
    pub tag: Option<String>,
    /// A manifest, which goes with all its tags. `repository` is no glob then.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub digest: Option<String>,
    /// That whole repositories are meant: required where neither `tag` nor `digest` is given, and only there.
    #[serde(default)]
    pub whole: bool,
    /// Only say what would go.
    #[serde(default)]
    pub dry_run: bool,
    /// Do not count bytes. Counting reads all recipes, which takes about a second for each million chunks.
    #[serde(default)]
    pub skip_bytes: bool,
}

/// What went, or would go.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Deletion {
    /// Whether nothing was done.
    pub dry_run: bool,
    /// Repositories of which something goes.
    pub repositories: u64,
    /// Tags.
    pub tags: u64,
    /// Manifests.
    pub manifests: u64,
    /// Blobs that are in no repository any more. 0 where bytes are not counted.
    pub blobs: u64,
    /// Length of those, as clients see it.
    pub logical_bytes: u64,
    /// What they take and nothing else shares. Null where bytes are not counted. What was deleted before and still is in its grace counts
    /// as used.
    pub freed_bytes: Option<u64>,
    /// When garbage collection may give those bytes back.
    pub free_from: Timestamp,
    /// The first 1,000 tags and manifests of it.
    pub named: Vec<DeletedItem>,
    /// What was selected and stays, and why; the first 1,000.
    pub failures: Vec<DeletionFailure>,
}

/// A tag or manifest that goes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeletedItem {
    /// The repository.
    pub repository: String,
    /// The tag; null for a manifest.
    pub tag: Option<String>,
    /// The manifest.
    pub digest: String,
}

/// What was selected and stays.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct DeletionFailure {
    /// The repository.
    pub repository: String,
    /// A tag or digest; null for the whole repository.
    pub what: Option<String>,
    /// Why.
    pub error: String,
}

impl Client {
    /// Deletes, or says what would be deleted.
    pub async fn delete(&self, request: &DeletionRequest) -> Result<Deletion, Error> {
        self.call(Method::POST, "/api/v1/deletions")
            .json(request)
            .answer()
            .await
    }
}
