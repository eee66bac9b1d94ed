//! Uploads in progress.

use reqwest::Method;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Client, Error, Page, PageQuery, Timestamp};

/// An upload in progress.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Upload {
    /// The session.
    #[schema(example = "019aa7c54d1e7a7f8091a2b3c4d5e6f7")]
    pub id: String,
    /// The repository that it belongs to.
    pub repository: String,
    /// Who began it, as logs name them.
    pub principal: String,
    /// Bytes received; while a request brings more, those at the last checkpoint (every 64 MiB).
    pub received_bytes: u64,
    /// Whether a request works on it now.
    pub active: bool,
    /// When it began; null if an earlier version of the server began it.
    pub began_at: Option<Timestamp>,
    /// When its last request began or got to a checkpoint.
    pub last_request_at: Timestamp,
    /// When it is given up unless it goes on.
    pub expires_at: Timestamp,
}

impl Client {
    /// Uploads in progress, the oldest first.
    pub async fn uploads(&self, page: &PageQuery) -> Result<Page<Upload>, Error> {
        self.call(Method::GET, "/api/v1/uploads")
            .query(page)
            .answer()
            .await
    }

    /// Ends an upload, whoever began it. Its client is told that there is no such upload.
    pub async fn cancel_upload(&self, id: &str) -> Result<(), Error> {
        self.call(Method::DELETE, &format!("/api/v1/uploads/{id}"))
            .done()
            .await
    }
}
