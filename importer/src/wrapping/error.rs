//! What is wrong with a wrapping.

use std::{fmt, io};

use super::Wrapping;

/// Why a wrapped image cannot be had.
#[derive(Debug, thiserror::Error)]
pub enum WrappingError {
    /// The source failed; trying again may help.
    #[error("read the source of the image")]
    Source(#[source] io::Error),
    /// The stream is damaged, ends early or goes beyond a limit. Final.
    #[error("broken {wrapping}: {reason}")]
    Broken {
        /// The layer in which it was noticed.
        wrapping: Wrapping,
        /// What is wrong.
        reason: String,
    },
    /// It holds nothing that could be a disk, or something that an honest archive does not hold. Final.
    #[error("refused: {reason}")]
    Refused {
        /// What was found instead.
        reason: String,
    },
}

impl WrappingError {
    pub(super) fn broken(wrapping: Wrapping, reason: impl fmt::Display) -> Self {
        Self::Broken {
            wrapping,
            reason: reason.to_string(),
        }
    }

    pub(super) fn refused(reason: impl Into<String>) -> Self {
        Self::Refused {
            reason: reason.into(),
        }
    }

    /// An error that came out of a decoder of this wrapping: the source's, that of a layer below, or its own.
    pub(super) fn from_io(wrapping: Wrapping, error: io::Error) -> Self {
        if !error.get_ref().is_some_and(|inner| inner.is::<Self>()) {
            return match error.kind() {
                io::ErrorKind::UnexpectedEof => Self::broken(wrapping, "it ends early"),
                _ => Self::broken(wrapping, error),
            };
        }
        match error.into_inner().map(|inner| inner.downcast::<Self>()) {
            Some(Ok(inner)) => *inner,
            // It was just seen to be one.
            Some(Err(other)) => Self::broken(wrapping, other),
            None => Self::broken(wrapping, "unknown error"),
        }
    }
}

/// The other way round: what a reader of this crate gave.
impl From<io::Error> for WrappingError {
    fn from(error: io::Error) -> Self {
        if !error.get_ref().is_some_and(|inner| inner.is::<Self>()) {
            return Self::Source(error);
        }
        // It was just seen to be one.
        Self::from_io(Wrapping::Tar, error)
    }
}

/// For readers: [`WrappingError::Source`] becomes the source's own error, the others [`io::ErrorKind::InvalidData`] with the
/// [`WrappingError`] inside.
impl From<WrappingError> for io::Error {
    fn from(error: WrappingError) -> Self {
        match error {
            WrappingError::Source(error) => error,
            error => io::Error::new(io::ErrorKind::InvalidData, error),
        }
    }
}
