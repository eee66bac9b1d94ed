//! Why there is no disk to be had from an image.

use std::io;

use dvcr_core::oci::{Digest, ManifestError};

use crate::{input::InputError, layout::LayoutError, wrapping::WrappingError};

/// What is wrong with an image, sorted by what helps.
#[derive(Debug, thiserror::Error)]
pub enum ImageError {
    /// The repository failed or has no such thing; its own error says whether trying again may help.
    #[error("read the image")]
    Repository(#[from] io::Error),
    /// The manifest cannot be read. Final.
    #[error("the manifest is invalid")]
    Manifest(#[from] ManifestError),
    /// Bytes do not hash to the digest under which they were asked for. Final, unless a proxy spoiled them.
    #[error("{what} {expected} hashes to {found}: the copy in the registry is damaged")]
    Digest {
        /// What was read.
        what: &'static str,
        /// What it was asked for as.
        expected: Digest,
        /// What came.
        found: Digest,
    },
    /// There is no disk, or no one disk, in the image. Final, and the reason says what to do.
    #[error("{0}")]
    Refused(String),
    /// A layer of our layout is broken.
    #[error("{0}")]
    Layout(#[from] LayoutError),
    /// What the layer holds cannot be opened as a disk.
    #[error("{0}")]
    Input(#[from] InputError),
}

impl ImageError {
    pub(super) fn refused(reason: impl Into<String>) -> Self {
        Self::Refused(reason.into())
    }
}

impl From<WrappingError> for ImageError {
    fn from(error: WrappingError) -> Self {
        Self::Input(error.into())
    }
}
