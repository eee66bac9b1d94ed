//! Usage over time.

use reqwest::Method;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::{Client, Error, Page, PageQuery, Timestamp};

/// Which part of the past.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct UsageQuery {
    /// Samples from then on; from the first one without it.
    #[param(value_type = Option<String>, format = DateTime, example = "2026-11-21T00:00:00Z")]
    pub from: Option<Timestamp>,
    /// Samples before then; up to now without it.
    #[param(value_type = Option<String>, format = DateTime)]
    pub to: Option<Timestamp>,
}

/// What was stored at some time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct UsageSample {
    /// When.
    pub at: Timestamp,
    /// Number of blobs.
    pub blobs: u64,
    /// Bytes of all blobs, as clients see them.
    pub logical_bytes: u64,
    /// Bytes of all packs, what is not referred to any more included.
    pub stored_bytes: u64,
    /// Number of chunks in packs, those that are not referred to any more included.
    pub chunks: u64,
}

impl Client {
    /// Usage over time, the oldest first: every ten minutes of the last day, every hour of the last month, every day before.
    pub async fn usage(
        &self,
        query: &UsageQuery,
        page: &PageQuery,
    ) -> Result<Page<UsageSample>, Error> {
        self.call(Method::GET, "/api/v1/usage")
            .query(query)
            .query(page)
            .answer()
            .await
    }
}
