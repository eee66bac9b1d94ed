//! Checkpoints: the metadata that packs do not have, beside the packs.

use reqwest::Method;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{Client, Error, Timestamp};

/// How to take a checkpoint.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
pub struct CheckpointRequest {
    /// For how long no pack is removed from now on, so that packs can be copied one after the other; at most 604,800. 0 ends
    /// that. Without it, nothing changes.
    #[serde(skip_serializing_if = "Option::is_none")]
    #[schema(example = 7200)]
    pub hold_seconds: Option<u64>,
}

/// A checkpoint that was taken.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Checkpoint {
    /// Its number. The file in `checkpoints/` has it as its name, in 16 hexadecimal digits.
    pub number: u64,
    /// As of when its rows are: what was acknowledged before is in it.
    pub created_at: Timestamp,
    /// Rows.
    pub rows: u64,
    /// Bytes of the file.
    pub file_bytes: u64,
    /// Until when no pack is removed; null if packs are not held.
    pub packs_held_until: Option<Timestamp>,
}

impl Client {
    /// Takes a checkpoint now.
    pub async fn checkpoint(&self, how: &CheckpointRequest) -> Result<Checkpoint, Error> {
        self.call(Method::POST, "/api/v1/checkpoints")
            .json(how)
            .answer()
            .await
    }
}
