//! Sizes over time.

use super::record;

/// What was stored at some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsageRecord {
    /// Number of blobs.
    pub blobs: u64,
    /// Bytes of all blobs, as clients see them.
    pub logical_bytes: u64,
    /// Bytes of all packs.
    pub stored_bytes: u64,
    /// Number of chunk rows, estimated where there are many.
    pub chunks: u64,
}

record!(UsageRecord: blobs, logical_bytes, stored_bytes, chunks);
