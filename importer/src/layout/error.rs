//! What can go wrong between a disk and its layer.

use std::io;

use dvcr_core::disk::IndexError;

use crate::format::FormatError;

/// Why a layer cannot be written or read.
#[derive(Debug, thiserror::Error)]
pub enum LayoutError {
    /// The disk cannot be read.
    #[error("{0}")]
    Disk(#[from] FormatError),
    /// Where the layer goes, or comes from, failed; trying again may help.
    #[error("read or write the layer")]
    Io(#[from] io::Error),
    /// It is more than a layer can hold.
    #[error("the disk is too large for one layer")]
    TooLarge,
    /// The second pass saw other data than the first.
    #[error("the disk was changed while it was read; stop what writes to it, or import a snapshot")]
    Changed,
    /// The layer is not of this layout; it may be a fine one of another.
    #[error("the layer was not written by an importer of this layout")]
    Other,
    /// The layer is damaged. Final.
    #[error("broken layer: {0}")]
    Broken(&'static str),
}

impl From<IndexError> for LayoutError {
    fn from(error: IndexError) -> Self {
        match error {
            IndexError::Absent => Self::Other,
            IndexError::Broken => Self::Broken("its index contradicts itself"),
        }
    }
}
