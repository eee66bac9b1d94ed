//! What is stored, what it would cost alone, what is shared.

use reqwest::Method;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{Client, Error};

/// Which sizes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct StatsQuery {
    /// A repository; everything without it.
    #[param(example = "vi/debian")]
    pub repository: Option<String>,
}

/// Sizes of a repository or of the whole registry.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Stats {
    /// Number of blobs.
    pub blobs: u64,
    /// Number of different chunks.
    pub chunks: u64,
    /// Bytes of all blobs, as clients see them.
    pub logical_bytes: u64,
    /// Bytes that its chunks take: what it would cost if nothing else were stored.
    pub stored_bytes: u64,
    /// Of those, bytes of chunks that other repositories use as well. Only for a repository.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub shared_bytes: Option<u64>,
    /// Bytes of all packs, what is not referred to any more included. Only for the whole registry.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub pack_bytes: Option<u64>,
    /// Whether chunks were sampled, so that their number and bytes are estimates.
    pub estimated: bool,
}

impl Client {
    /// Sizes of a repository, or of everything. The server walks over all blobs for this.
    pub async fn stats(&self, repository: Option<&str>) -> Result<Stats, Error> {
        let query = StatsQuery {
            repository: repository.map(str::to_owned),
        };
        self.call(Method::GET, "/api/v1/stats")
            .query(&query)
            .answer()
            .await
    }
}
