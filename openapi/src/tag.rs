//! Tags.

use reqwest::Method;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Client, Error, Manifest, Page, PageQuery, RepositoryQuery, Timestamp};

/// A tag and what it names.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Tag {
    /// The tag.
    #[schema(example = "12")]
    pub name: String,
    /// Digest of the manifest that it names.
    pub digest: String,
    /// When it came to be.
    pub created_at: Timestamp,
    /// When a push last named it, whether or not that moved it.
    pub pushed_at: Timestamp,
    /// The manifest; null where it went while the list was made.
    pub manifest: Option<Manifest>,
}

impl Client {
    /// Tags of a repository, in byte order.
    pub async fn tags(&self, repository: &str, page: &PageQuery) -> Result<Page<Tag>, Error> {
        self.call(Method::GET, "/api/v1/tags")
            .query(&RepositoryQuery::of(repository))
            .query(page)
            .answer()
            .await
    }
}
