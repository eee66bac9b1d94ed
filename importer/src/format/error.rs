//! What is wrong with an image.

use std::io;

use super::Format;

/// Why an image cannot be read.
#[derive(Debug, thiserror::Error)]
pub enum FormatError {
    /// The source failed; the image may be fine, and trying again may help.
    #[error("read the source of the image")]
    Source(#[from] io::Error),
    /// The image contradicts itself, ends early, or goes beyond a limit. Final.
    #[error("broken {format} image: {reason}")]
    Broken {
        /// What it was taken for.
        format: Format,
        /// What does not hold.
        reason: String,
    },
    /// The image is of a kind that is not read on purpose. Final, and the reason says what to do.
    #[error("{what} cannot be imported: {reason}")]
    Refused {
        /// What it is.
        what: &'static str,
        /// Why not, and what helps.
        reason: String,
    },
}

impl FormatError {
    pub(super) fn broken(format: Format, reason: impl Into<String>) -> Self {
        Self::Broken {
            format,
            reason: reason.into(),
        }
    }

    pub(super) fn refused(what: &'static str, reason: impl Into<String>) -> Self {
        Self::Refused {
            what,
            reason: reason.into(),
        }
    }
}
