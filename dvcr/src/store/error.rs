//! Failures of the chunk store.

use std::io;

use crate::{backend::PackId, meta::MetaError};

/// Why stored bytes could not be written or read.
#[derive(Debug, thiserror::Error)]
pub enum StoreError {
    /// The device has no room; nothing was acknowledged. Freeing space and trying again is fine.
    #[error("storage is full")]
    Full,
    /// The device failed. The pack concerned takes no more writes; trying again is fine.
    #[error("storage failed: {context}")]
    Io {
        /// What was tried, in the present tense.
        context: String,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// Stored bytes are not what was written.
    #[error("corrupt pack {pack} at offset {offset}: {what}")]
    Corrupt {
        /// The pack.
        pack: PackId,
        /// Offset of the record.
        offset: u64,
        /// What does not fit.
        what: String,
    },
    /// A recipe names a chunk that no pack holds.
    #[error("chunk {0} is missing")]
    Missing(dvcr_core::chunk::ChunkId),
    /// The recipe of a blob went while it was read.
    #[error("the blob was deleted, or stored anew, while it was read; ask for it again")]
    Gone,
    /// The metadata failed.
    #[error(transparent)]
    Meta(#[from] MetaError),
}

impl StoreError {
    /// An I/O failure, or [`StoreError::Full`] where it was for want of room.
    pub(crate) fn io(context: String, source: io::Error) -> Self {
        match source.kind() {
            io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => Self::Full,
            _ => Self::Io { context, source },
        }
    }

    /// A stored upload session that this program cannot go on with.
    pub(crate) fn state(expected: &'static str) -> Self {
        Self::Meta(MetaError::Corrupt {
            key: "upload session".into(),
            what: expected,
        })
    }
}
