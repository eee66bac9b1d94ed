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
    /// A file has no disk.
    #[error("{}", path.display())]
    NoDisk {
        /// Which one.
        path: PathBuf,
        /// Why.
        #[source]
        error: InputError,
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
    #[error("{0}")]
    Checksum(#[from] Mismatch),
    /// The image that it should come from cannot be read, or has no disk.
    #[error("{0}")]
    Image(#[from] ImageError),
    /// There is no disk in it.
    #[error("{0}")]
    Input(#[from] InputError),
    /// The disk cannot be read, or its layer not be kept.
    #[error("{0}")]
    Layout(#[from] LayoutError),
    /// It cannot be sent.
    #[error("{0}")]
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
            Self::Image(ImageError::Input(InputError::Spool(_))) | Self::WorkDir { .. } => {
                Verdict::Later
            }
            Self::Input(error) | Self::NoDisk { error, .. } => match error {
                InputError::Spool(_)
                | InputError::Wrapping(WrappingError::Source(_))
                | InputError::Format(FormatError::Source(_)) => Verdict::Later,
                _ => Verdict::Final,
            },
            Self::Layout(LayoutError::Io(_) | LayoutError::Changed)
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
    let mut last = error;
    // A broken connection says itself what is at the end; between are the words of an HTTP client.
    let is_told = |error: &(dyn Error + 'static)| {
        matches!(
            error.downcast_ref(),
            Some(dvcr_client::Error::Connection { .. })
        )
    };
    while let Some(error) = cause(last).filter(|_| !is_told(last)) {
        let cause_text = error.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        last = error;
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

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use dvcr_client::{Client, Credentials, Retry, Transport};
    use tokio::{
        io::{AsyncReadExt as _, AsyncWriteExt as _},
        net::TcpListener,
    };

    use super::*;

    /// What a client says of a registry that answers every request so; without an answer, of one that is not there.
    async fn error(answer: Option<&'static str>) -> dvcr_client::Error {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let url = format!("http://{}", listener.local_addr().unwrap());
        let registry = answer.map(|answer| {
            tokio::spawn(async move {
                let (mut socket, _) = listener.accept().await.unwrap();
                let _ = socket.read(&mut [0; 4096]).await;
                let head = format!("HTTP/1.1 {answer}\r\ncontent-length: 0\r\n\r\n");
                socket.write_all(head.as_bytes()).await.unwrap();
                socket.shutdown().await.unwrap();
            })
        });
        let transport = Transport {
            retry: Retry::never(),
            connect_time: Duration::from_secs(5),
            ..Transport::default()
        };
        let client = Client::at(&url, Credentials::Anonymous, &transport).unwrap();
        let error = client.ping().await.unwrap_err();
        if let Some(registry) = registry {
            registry.await.unwrap();
        }
        error
    }

    #[tokio::test]
    async fn failures_of_the_destination_were_final_and_a_full_one_was_not_seen() {
        for (answer, expected, full) in [
            (Some("503 Service Unavailable"), Verdict::Later, false),
            (Some("507 Insufficient Storage"), Verdict::Later, true),
            (Some("401 Unauthorized"), Verdict::Final, false),
            (None, Verdict::Later, false),
        ] {
            let error = ImportError::from(PushError::from(error(answer).await));
            let text = in_one_line(&error);
            assert_eq!(error.verdict(), expected, "{text}");
            assert_eq!(error.is_registry_full(), full, "{text}");
            assert_eq!(text.matches("/v2/").count(), 1, "{text}");
            assert!(!text.contains("error sending request"), "{text}");
        }
    }
}
