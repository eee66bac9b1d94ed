//! Why there is no image.

use std::{error::Error, io, path::PathBuf};

use crate::{
    checksum::Mismatch,
    format::FormatError,
    image::ImageError,
    input::InputError,
    layout::LayoutError,
    push::{PushError, SpoolError},
    source::retry::{FetchError, SourceError, Verdict, verdict},
    wrapping::WrappingError,
};

/// Why an import failed.
#[derive(Debug, thiserror::Error)]
pub enum ImportError {
    /// The source does not answer, or not with what is needed.
    #[error("{address}: {error}")]
    Source {
        /// The source.
        address: String,
        /// What it did.
        error: SourceError,
    },
    /// A file cannot be opened or read.
    #[error("{}", path.display())]
    File {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// The directory for what is kept cannot be used.
    #[error("the work directory {}", path.display())]
    WorkDir {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        error: io::Error,
    },
    /// What came is not what should have come.
    #[error(transparent)]
    Checksum(#[from] Mismatch),
    /// The image that it should come from cannot be read, or has no disk.
    #[error(transparent)]
    Image(#[from] ImageError),
    /// There is no disk in it.
    #[error(transparent)]
    Input(#[from] InputError),
    /// The disk cannot be read, or its layer not be kept.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// It cannot be sent.
    #[error(transparent)]
    Push(#[from] PushError),
    /// It was told to stop.
    #[error("stopped")]
    Stopped,
}

impl From<WrappingError> for ImportError {
    fn from(error: WrappingError) -> Self {
        InputError::from(error).into()
    }
}

impl From<FormatError> for ImportError {
    fn from(error: FormatError) -> Self {
        InputError::from(error).into()
    }
}

impl ImportError {
    pub(super) fn source(address: &str, error: impl Into<SourceError>) -> Self {
        Self::Source {
            address: address.to_owned(),
            error: error.into(),
        }
    }

    /// Whether the same import may succeed later.
    pub fn verdict(&self) -> Verdict {
        match self {
            Self::Checksum(_) => return Verdict::Final,
            Self::Stopped => return Verdict::Stopped,
            Self::Source { error, .. } => return verdict(error).unwrap_or(Verdict::Final),
            _ => {}
        }
        if let Some(found) = verdict(self) {
            return found;
        }
        if let Some(error) = find::<dvcr_client::Error>(self)
            && !matches!(error, dvcr_client::Error::Source(_))
        {
            return match error.is_retryable() || error.is_full() {
                true => Verdict::Later,
                false => Verdict::Final,
            };
        }
        if find::<SpoolError>(self).is_some_and(|error| matches!(error, SpoolError::Full(_))) {
            return Verdict::Final;
        }
        match self {
            Self::Image(ImageError::Input(InputError::Spool(_)))
            | Self::Input(InputError::Spool(_))
            | Self::WorkDir { .. } => Verdict::Later,
            Self::Input(InputError::Wrapping(WrappingError::Source(_)))
            | Self::Input(InputError::Format(FormatError::Source(_)))
            | Self::Layout(LayoutError::Io(_) | LayoutError::Changed)
            | Self::Push(PushError::Layer(LayoutError::Io(_) | LayoutError::Changed)) => {
                Verdict::Later
            }
            _ => Verdict::Final,
        }
    }

    /// Whether the registry has no room.
    pub fn is_registry_full(&self) -> bool {
        find::<dvcr_client::Error>(self).is_some_and(dvcr_client::Error::is_full)
    }
}

/// An error and what caused it, in one line.
pub fn in_one_line(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut next = cause(error);
    while let Some(error) = next {
        let cause_text = error.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        next = cause(error);
    }
    text
}

/// What caused an error; what an [`io::Error`] wraps counts.
fn cause<'a>(error: &'a (dyn Error + 'static)) -> Option<&'a (dyn Error + 'static)> {
    match error
        .downcast_ref::<io::Error>()
        .and_then(io::Error::get_ref)
    {
        Some(inner) => Some(inner),
        None => error.source(),
    }
}

/// The first error of a type among an error and what caused it.
pub fn find<'a, T: Error + 'static>(error: &'a (dyn Error + 'static)) -> Option<&'a T> {
    let mut next = Some(error);
    while let Some(error) = next {
        if let Some(found) = error.downcast_ref() {
            return Some(found);
        }
        next = cause(error);
    }
    None
}

impl From<FetchError> for SourceError {
    fn from(error: FetchError) -> Self {
        match error {
            FetchError::Final(reason) => Self::Final(reason),
            FetchError::Again { reason, .. } => Self::GaveUp { reason, tries: 1 },
        }
    }
}
