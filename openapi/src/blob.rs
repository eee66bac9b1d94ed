//! Blobs: what they take, and what they share.

use reqwest::Method;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{Client, Error, Page, PageQuery, Timestamp};

/// Whose blobs.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct BlobsQuery {
    /// A repository; all blobs without it, which takes an administrator.
    #[param(example = "vi/debian")]
    pub repository: Option<String>,
}

impl BlobsQuery {
    fn of(repository: Option<&str>) -> Self {
        Self {
            repository: repository.map(str::to_owned),
        }
    }
}

/// A blob in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Blob {
    /// Its digest.
    pub digest: String,
    /// Its length, as clients see it.
    pub logical_bytes: u64,
    /// What its chunks took when it was pushed, whoever stored them.
    pub stored_bytes: u64,
    /// When it was first pushed.
    pub created_at: Timestamp,
    /// When the repository got it. Only in lists of a repository.
    pub linked_at: Option<Timestamp>,
    /// Until when the repository keeps it though no manifest refers to it. Only in lists of a repository.
    pub lease_until: Option<Timestamp>,
}

/// What a blob takes and shares.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct BlobDetail {
    /// Its digest.
    pub digest: String,
    /// Its length, as clients see it.
    pub logical_bytes: u64,
    /// Bytes that its chunks take.
    pub stored_bytes: u64,
    /// Of those, bytes of chunks that other blobs use as well.
    pub shared_bytes: u64,
    /// Number of its different chunks.
    pub chunks: u64,
    /// Whether chunks were sampled, so that their number and bytes are estimates.
    pub estimated: bool,
    /// When it was first pushed.
    pub created_at: Timestamp,
    /// Until when the repository keeps it though no manifest refers to it. Only where a repository was named.
    pub lease_until: Option<Timestamp>,
    /// Repositories that hold it, at most 20.
    pub repositories: Vec<String>,
}

impl Client {
    /// Blobs of a repository, or all, in the order of their digests.
    pub async fn blobs(
        &self,
        repository: Option<&str>,
        page: &PageQuery,
    ) -> Result<Page<Blob>, Error> {
        self.call(Method::GET, "/api/v1/blobs")
            .query(&BlobsQuery::of(repository))
            .query(page)
            .answer()
            .await
    }

    /// What a blob takes and shares. The server walks over all blobs for this.
    pub async fn blob(&self, repository: Option<&str>, digest: &str) -> Result<BlobDetail, Error> {
        self.call(Method::GET, &format!("/api/v1/blobs/{digest}"))
            .query(&BlobsQuery::of(repository))
            .answer()
            .await
    }
}
