//! Checkpoints: the metadata that packs do not have, in files beside the packs, so that `dvcr repair` can bring it back.
//!
//! Packs hold chunks, recipes and blob heads. What repositories hold, manifests, tags, referrers, small blobs, reviews,
//! retention state and so on are in the metadata only; a checkpoint is one consistent snapshot of those rows
//! ([`key::checkpointed`](crate::meta::key::checkpointed)), taken from one read transaction.
//!
//! A file is written under another name, synced and renamed, so that a name is a whole checkpoint. Its content is verified
//! before it is used ([`format`]).

mod files;
pub mod format;

pub use files::{Checkpoint, CheckpointStats, Checkpoints, TakeError};
pub(crate) use files::{list, open};
