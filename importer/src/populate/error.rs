//! Why a target was not filled.

use std::io;

use crate::{format::FormatError, target::TargetError};

/// What stopped a populate. What was written before stays, and the state file knows it, if there is one.
#[derive(Debug, thiserror::Error)]
pub enum PopulateError {
    /// The disk cannot be read: its image is broken (final), or its source failed (trying again may help).
    #[error("{0}")]
    Disk(#[from] FormatError),
    /// The stream that the disk comes in failed or is not what was promised.
    #[error("read the disk")]
    Stream(#[source] io::Error),
    /// The target cannot be used.
    #[error("{0}")]
    Target(#[from] TargetError),
    /// The target cannot be written or read back.
    #[error("write the target at byte {offset}")]
    Write {
        /// Where, in bytes of the disk.
        offset: u64,
        /// Why.
        source: io::Error,
    },
    /// What was written cannot be made durable.
    #[error("sync the target")]
    Sync(#[source] io::Error),
    /// The state file cannot be read or written.
    #[error("keep the state file")]
    State(#[source] io::Error),
    /// A stream does not fit. What came before its end has been written.
    #[error("the disk does not fit: the target holds {0} bytes, and more came; use a larger one")]
    TooSmall(u64),
    /// Somebody asked to stop.
    #[error("stopped")]
    Cancelled,
}
