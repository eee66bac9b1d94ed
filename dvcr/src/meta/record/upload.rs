//! Uploads in progress.

use bytes::Bytes;

use super::record;

/// An upload session that has reached a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadRecord {
    /// The repository that it belongs to.
    pub repository: String,
    /// The principal that it belongs to.
    pub principal: String,
    /// When it is given up, milliseconds since 1970.
    pub expires_ms: u64,
    /// How far the ingest has come: [`crate::store::IngestState`], encoded.
    pub ingest: Bytes,
}

record!(UploadRecord: repository, principal, expires_ms; rest ingest);
