//! A request's body, as the use cases see it.

use std::pin::Pin;

use bytes::Bytes;
use futures::Stream;

use super::RegistryError;

/// Why a body ended early.
#[derive(Debug, thiserror::Error)]
pub enum BodyError {
    /// The connection broke, or the framing is wrong.
    #[error("{0}")]
    Broken(String),
    /// The client sent nothing for too long.
    #[error("the client sent nothing for too long")]
    Timeout,
    /// The body is longer than was announced or is allowed.
    #[error("the body is longer than announced")]
    TooLarge,
}

/// Bytes of a request body as they arrive.
pub type Body = Pin<Box<dyn Stream<Item = Result<Bytes, BodyError>> + Send>>;

impl From<BodyError> for RegistryError {
    fn from(error: BodyError) -> Self {
        match error {
            BodyError::Timeout => Self::BodyTimeout,
            other => Self::Body(other.to_string()),
        }
    }
}
