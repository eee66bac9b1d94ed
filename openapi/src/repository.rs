//! Repositories.

use reqwest::Method;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{Client, Error, Page, PageQuery, Timestamp};

/// The repository that a request is about. A query parameter, because names contain slashes.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct RepositoryQuery {
    /// Name of the repository.
    #[param(example = "vi/debian")]
    pub repository: String,
}

impl RepositoryQuery {
    pub(crate) fn of(repository: &str) -> Self {
        Self {
            repository: repository.to_owned(),
        }
    }
}

/// Which repositories.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct RepositoriesQuery {
    /// Only those whose names begin like this.
    #[param(example = "vi/")]
    pub prefix: Option<String>,
}

/// A repository in a list.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Repository {
    /// Its name.
    #[schema(example = "vi/debian")]
    pub name: String,
    /// When something was first pushed to it.
    pub created_at: Timestamp,
    /// Number of its tags.
    pub tags: u64,
}

/// A repository and what it holds.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct RepositoryDetail {
    /// Its name.
    #[schema(example = "vi/debian")]
    pub name: String,
    /// When something was first pushed to it.
    pub created_at: Timestamp,
    /// Number of its tags.
    pub tags: u64,
    /// Number of its manifests, indexes included.
    pub manifests: u64,
    /// Number of blobs that it holds.
    pub blobs: u64,
    /// Bytes of those, as clients see them.
    pub logical_bytes: u64,
}

impl Client {
    /// Repositories whose names begin with `prefix`, by name.
    pub async fn repositories(
        &self,
        prefix: Option<&str>,
        page: &PageQuery,
    ) -> Result<Page<Repository>, Error> {
        let query = RepositoriesQuery {
            prefix: prefix.map(str::to_owned),
        };
        self.call(Method::GET, "/api/v1/repositories")
            .query(&query)
            .query(page)
            .answer()
            .await
    }

    /// One repository.
    pub async fn repository(&self, repository: &str) -> Result<RepositoryDetail, Error> {
        self.call(Method::GET, "/api/v1/repository")
            .query(&RepositoryQuery::of(repository))
            .answer()
            .await
    }
}
