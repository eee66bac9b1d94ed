//! The one table that turns failures into answers: status, error code, text for the client.
//!
//! The client gets a text that says what to do; the log gets the cause, here and nowhere else. Bodies are the JSON of the
//! distribution specification ("Error Codes").

use std::{error::Error, fmt::Write as _};

use axum::{
    body::Body,
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use dvcr_core::oci::{DigestError, ErrorCode, ManifestError, RouteError};

use crate::{meta::MetaError, registry::RegistryError, store::StoreError};

/// Seconds after which a client should try again when the storage is unavailable: a pack or database is reopened within
/// one or two.
const RETRY_UNAVAILABLE_SECONDS: u32 = 5;

/// Seconds after which a client should try again when it met others, or too many of them.
const RETRY_BUSY_SECONDS: u32 = 1;

/// A request that cannot be answered as asked, for reasons that only HTTP knows.
#[derive(Debug, thiserror::Error)]
pub(crate) enum RequestError {
    /// The endpoint exists, the method on it does not.
    #[error("method not allowed here; allowed: {}", .0.join(", "))]
    MethodNotAllowed(&'static [&'static str]),
    /// It does not say which server it is for, or says it twice.
    #[error("the request has to say which server it is for: send one Host field")]
    Host,
    /// It is for another server.
    #[error(
        "this server is not known as {0:?}; if that is a name of it, its operator adds it to the setting hosts"
    )]
    Misdirected(String),
    /// A browser sent it for a page of another site.
    #[error("a web page of another site may not change what is here")]
    CrossSite,
    /// Path and query are too long.
    #[error("request target is longer than {0} bytes; send fewer or shorter parameters")]
    UriTooLong(usize),
    /// The header fields are too many or too long.
    #[error("header fields are longer than {0} bytes in all")]
    HeadersTooLarge(usize),
    /// More `tag` parameters than one request may have.
    #[error("more than {0} tag parameters in one request; push the others with another request")]
    TooManyTags(usize),
    /// A body that is collected in memory is too long.
    #[error("manifest is longer than {0} bytes; move large data into a blob")]
    ManifestTooLarge(usize),
    /// A body that is collected in memory broke off.
    #[error("request body broke off: {0}")]
    BodyBroken(String),
    /// A body that is collected in memory stalled.
    #[error("request body stalled for too long")]
    BodyTimeout,
    /// No part of the blob was asked for.
    #[error("the blob has {0} bytes; no requested range lies within it")]
    RangeNotSatisfiable(u64),
    /// An upload ends without a digest.
    #[error("parameter digest is missing: finish an upload with ?digest=ALGORITHM:HEX")]
    DigestMissing,
    /// A digest in the query is malformed.
    #[error("parameter {parameter} is no digest: {source}")]
    Digest {
        /// Which parameter.
        parameter: &'static str,
        /// What is wrong with it.
        source: DigestError,
    },
    /// `digest-algorithm` names none of ours.
    #[error("unsupported digest algorithm {0:?}: use sha256 or sha512")]
    Algorithm(String),
    /// `from` is no repository name.
    #[error("parameter from is no repository name")]
    From,
    /// A `tag` parameter is no tag.
    #[error("parameter tag is no tag: {0:?}")]
    Tag(String),
    /// `n` is no number.
    #[error("parameter n is no number of entries: {0:?}")]
    PageSize(String),
    /// The range of a chunk is malformed.
    #[error(
        "Content-Range {0:?} is malformed: send FIRST-LAST, both counted from the start of the blob"
    )]
    ContentRange(String),
    /// The chunk's range and its length differ.
    #[error("Content-Range covers {range} bytes, but Content-Length is {len}")]
    LengthMismatch {
        /// Bytes that the range covers.
        range: u64,
        /// Bytes that the body has.
        len: u64,
    },
    /// The endpoint exists, the method on it does not; whoever answers knows which do.
    #[error("method not allowed here; the Allow header lists those that are")]
    Method,
    /// A parameter of the management API is missing or makes no sense.
    #[error("{0}")]
    Parameter(String),
    /// A JSON body makes no sense.
    #[error("{0}")]
    Document(String),
    /// A JSON body is too long.
    #[error("the body is longer than {0} bytes")]
    DocumentTooLarge(usize),
    /// A body does not say that it is JSON.
    #[error("the body has to be JSON and to say so: send Content-Type: application/json")]
    ContentType,
    /// There is no such thing.
    #[error("no such {0}")]
    Unknown(&'static str),
    /// As many requests as the server takes at once are running.
    #[error("too many requests at once; try again later")]
    Busy,
    /// The server's own answer could not be built: a bug.
    #[error("answer could not be built: {0}")]
    Internal(String),
}

/// What went wrong.
#[derive(Debug, thiserror::Error)]
pub(crate) enum Cause {
    /// A use case failed.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// The path names nothing.
    #[error(transparent)]
    Route(#[from] RouteError),
    /// The request cannot be answered as asked.
    #[error(transparent)]
    Request(#[from] RequestError),
}

/// A failed request: the cause, and header fields that the answer needs besides.
#[derive(Debug)]
pub(crate) struct ApiError(Box<(Cause, HeaderMap)>);

impl<C: Into<Cause>> From<C> for ApiError {
    fn from(cause: C) -> Self {
        Self(Box::new((cause.into(), HeaderMap::new())))
    }
}

impl ApiError {
    /// Adds a header field to the answer.
    pub(crate) fn with(mut self, name: HeaderName, value: HeaderValue) -> Self {
        self.0.1.insert(name, value);
        self
    }

    /// What the management API answers to a request with that method; the log gets the rest. It is not bound to the statuses of the
    /// distribution specification.
    pub(crate) fn describe(self, method: &Method) -> Answer {
        let (cause, headers) = *self.0;
        let mut answer = Answer::to(&cause, method);
        if let Cause::Registry(RegistryError::InUse(_)) = cause {
            answer.status = StatusCode::CONFLICT;
            answer.headers.remove(header::ALLOW);
        }
        log(&cause, answer.status);
        answer.headers.extend(headers);
        answer
    }

    /// The answer of the distribution specification to a request with that method.
    pub(crate) fn answer(self, method: &Method) -> Response {
        let (cause, headers) = *self.0;
        let answer = Answer::to(&cause, method);
        log(&cause, answer.status);
        let body = serde_json::json!({
            "errors": [{ "code": answer.code, "message": answer.message, "detail": null }]
        })
        .to_string();
        let mut response = (
            answer.status,
            [(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/json"),
            )],
            Body::from(body),
        )
            .into_response();
        response.headers_mut().extend(answer.headers);
        response.headers_mut().extend(headers);
        response
    }
}

/// Tells the log what the client does not need to know.
fn log(cause: &Cause, status: StatusCode) {
    if status == StatusCode::INTERNAL_SERVER_ERROR || status == StatusCode::INSUFFICIENT_STORAGE {
        tracing::error!(error = chain(cause), "request failed");
    } else if status.is_server_error() {
        tracing::warn!(error = chain(cause), "request failed");
    } else {
        tracing::debug!(error = chain(cause), "request refused");
    }
}

/// An error and what caused it, as one line.
pub(crate) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        // Transparent errors repeat their source's text.
        if !text.ends_with(&cause_text) {
            // Writing to a String cannot fail.
            let _ = write!(text, ": {cause_text}");
        }
        source = cause.source();
    }
    text
}

/// One row of the table.
#[derive(Debug)]
pub(crate) struct Answer {
    pub(crate) status: StatusCode,
    /// Of the distribution specification, or one of ours.
    pub(crate) code: &'static str,
    /// What the client learns.
    pub(crate) message: String,
    /// Fields that the answer needs.
    pub(crate) headers: HeaderMap,
}

/// Code of failures that are the server's; the specification registers none.
const UNKNOWN: &str = "UNKNOWN";
/// Code of failures that pass; the specification registers none.
const UNAVAILABLE: &str = "UNAVAILABLE";

impl Answer {
    fn new(status: StatusCode, code: ErrorCode, error: &dyn Error) -> Self {
        Self {
            status,
            code: code.as_str(),
            message: error.to_string(),
            headers: HeaderMap::new(),
        }
    }

    /// An answer that does not say what happened inside.
    fn ours(status: StatusCode, code: &'static str, message: &str) -> Self {
        Self {
            status,
            code,
            message: message.to_owned(),
            headers: HeaderMap::new(),
        }
    }

    fn with(mut self, name: HeaderName, value: impl Into<HeaderValue>) -> Self {
        self.headers.insert(name, value.into());
        self
    }

    fn corrupt() -> Self {
        Self::ours(
            StatusCode::INTERNAL_SERVER_ERROR,
            UNKNOWN,
            "stored data is damaged; the server's log names it, and pushing the same content again repairs it",
        )
    }

    fn full() -> Self {
        Self::ours(
            StatusCode::INSUFFICIENT_STORAGE,
            UNAVAILABLE,
            "the registry's storage is full; delete images or enlarge it, then try again",
        )
    }

    fn unavailable() -> Self {
        Self::ours(
            StatusCode::SERVICE_UNAVAILABLE,
            UNAVAILABLE,
            "the registry's storage failed for the moment; try again",
        )
        .with(header::RETRY_AFTER, RETRY_UNAVAILABLE_SECONDS)
    }

    /// The table.
    fn to(cause: &Cause, method: &Method) -> Self {
        match cause {
            Cause::Registry(error) => Self::to_registry(error),
            Cause::Route(error) => Self::to_route(error, method),
            Cause::Request(error) => Self::to_request(error),
        }
    }

    fn to_registry(error: &RegistryError) -> Self {
        use RegistryError as E;
        use StatusCode as S;
        match error {
            E::NameUnknown(_) => Self::new(S::NOT_FOUND, ErrorCode::NameUnknown, error),
            E::BlobUnknown(_) => Self::new(S::NOT_FOUND, ErrorCode::BlobUnknown, error),
            E::ManifestUnknown(_) => Self::new(S::NOT_FOUND, ErrorCode::ManifestUnknown, error),
            E::ManifestBlobUnknown(_) => {
                Self::new(S::BAD_REQUEST, ErrorCode::ManifestBlobUnknown, error)
            }
            E::ManifestInvalid(ManifestError::TooLarge(_)) => {
                Self::new(S::PAYLOAD_TOO_LARGE, ErrorCode::SizeInvalid, error)
            }
            E::ManifestInvalid(_) => Self::new(S::BAD_REQUEST, ErrorCode::ManifestInvalid, error),
            E::DigestMismatch { .. } => Self::new(S::BAD_REQUEST, ErrorCode::DigestInvalid, error),
            E::SizeMismatch { .. } => Self::new(S::BAD_REQUEST, ErrorCode::SizeInvalid, error),
            E::UploadUnknown => Self::new(S::NOT_FOUND, ErrorCode::BlobUploadUnknown, error),
            E::RangeMismatch { .. } => Self::new(
                S::RANGE_NOT_SATISFIABLE,
                ErrorCode::BlobUploadInvalid,
                error,
            ),
            E::Body(_) => Self::new(S::BAD_REQUEST, ErrorCode::BlobUploadInvalid, error),
            E::BodyTimeout => Self::new(S::REQUEST_TIMEOUT, ErrorCode::BlobUploadInvalid, error),
            E::TooLarge { .. } => Self::new(S::PAYLOAD_TOO_LARGE, ErrorCode::SizeInvalid, error),
            E::TooMany {
                retry_after_seconds,
                ..
            } => Self::new(S::TOO_MANY_REQUESTS, ErrorCode::TooManyRequests, error)
                .with(header::RETRY_AFTER, *retry_after_seconds),
            E::Denied => Self::new(S::FORBIDDEN, ErrorCode::Denied, error),
            E::Unauthorized => Self::new(S::UNAUTHORIZED, ErrorCode::Unauthorized, error).with(
                header::WWW_AUTHENTICATE,
                HeaderValue::from_static("Basic realm=\"dvcr\""),
            ),
            // The specification's statuses for a delete that is not offered are 400 and 405; its conformance suites take 405
            // only. Reading stays possible, which `Allow` says.
            E::InUse(_) => Self::new(S::METHOD_NOT_ALLOWED, ErrorCode::Unsupported, error)
                .with(header::ALLOW, HeaderValue::from_static("GET, HEAD")),
            // The code that the specification registers for it, and Docker Hub's. Others answer 412 (Harbor), for which no request
            // header gave a condition, or 400 TAG_INVALID (ECR), though nothing is wrong with the tag. No client tries it again.
            E::TagImmutable { .. } => Self::new(S::FORBIDDEN, ErrorCode::Denied, error),
            // Not 404: it should be there.
            E::Damaged(_) => Self::ours(S::INTERNAL_SERVER_ERROR, UNKNOWN, &error.to_string()),
            E::Invalid(_) => Self::new(S::BAD_REQUEST, ErrorCode::Unsupported, error),
            // Not 409: clients try 503 again by themselves, and trying again is all there is to do.
            E::Conflict => Self::ours(S::SERVICE_UNAVAILABLE, UNAVAILABLE, &error.to_string())
                .with(header::RETRY_AFTER, RETRY_BUSY_SECONDS),
            E::Store(error) => Self::to_store(error),
            E::Meta(error) => Self::to_meta(error),
        }
    }

    fn to_store(error: &StoreError) -> Self {
        match error {
            StoreError::Full => Self::full(),
            StoreError::Io { .. } | StoreError::Gone => Self::unavailable(),
            StoreError::Corrupt { .. } | StoreError::Missing(_) => Self::corrupt(),
            StoreError::Meta(error) => Self::to_meta(error),
        }
    }

    fn to_meta(error: &MetaError) -> Self {
        match error {
            MetaError::Full(_) => Self::full(),
            MetaError::Unavailable(_) => Self::unavailable(),
            MetaError::Corrupt { .. } => Self::corrupt(),
        }
    }

    fn to_route(error: &RouteError, method: &Method) -> Self {
        use StatusCode as S;
        match error {
            RouteError::NotFound => Self::new(S::NOT_FOUND, ErrorCode::Unsupported, error),
            RouteError::Name(_) => Self::new(S::BAD_REQUEST, ErrorCode::NameInvalid, error),
            // What cannot exist is as gone as a client can wish: the conformance suite takes 404 there, not 400.
            RouteError::Digest(_) if method == Method::DELETE => {
                Self::new(S::NOT_FOUND, ErrorCode::DigestInvalid, error)
            }
            RouteError::Digest(_) => Self::new(S::BAD_REQUEST, ErrorCode::DigestInvalid, error),
            // A text with a colon was meant as a digest: tags have none.
            RouteError::Reference(text) if text.contains(':') => {
                Self::new(S::BAD_REQUEST, ErrorCode::DigestInvalid, error)
            }
            RouteError::Reference(_) if method == Method::PUT => {
                Self::new(S::BAD_REQUEST, ErrorCode::ManifestInvalid, error)
            }
            // No manifest can have such a name, so there is none to read or delete.
            RouteError::Reference(_) => Self::new(S::NOT_FOUND, ErrorCode::ManifestUnknown, error),
        }
    }

    fn to_request(error: &RequestError) -> Self {
        use RequestError as E;
        use StatusCode as S;
        match error {
            E::MethodNotAllowed(methods) => {
                let answer = Self::new(S::METHOD_NOT_ALLOWED, ErrorCode::Unsupported, error);
                match HeaderValue::from_str(&methods.join(", ")) {
                    Ok(methods) => answer.with(header::ALLOW, methods),
                    Err(_) => answer,
                }
            }
            E::Host => Self::new(S::BAD_REQUEST, ErrorCode::Unsupported, error),
            E::Misdirected(_) => Self::new(S::MISDIRECTED_REQUEST, ErrorCode::Unsupported, error),
            E::CrossSite => Self::new(S::FORBIDDEN, ErrorCode::Denied, error),
            E::UriTooLong(_) | E::TooManyTags(_) => {
                Self::new(S::URI_TOO_LONG, ErrorCode::Unsupported, error)
            }
            E::HeadersTooLarge(_) => Self::new(
                S::REQUEST_HEADER_FIELDS_TOO_LARGE,
                ErrorCode::Unsupported,
                error,
            ),
            E::ManifestTooLarge(_) | E::DocumentTooLarge(_) => {
                Self::new(S::PAYLOAD_TOO_LARGE, ErrorCode::SizeInvalid, error)
            }
            E::BodyBroken(_) => Self::new(S::BAD_REQUEST, ErrorCode::ManifestInvalid, error),
            E::BodyTimeout => Self::new(S::REQUEST_TIMEOUT, ErrorCode::ManifestInvalid, error),
            E::RangeNotSatisfiable(len) => {
                let answer = Self::new(S::RANGE_NOT_SATISFIABLE, ErrorCode::SizeInvalid, error);
                match HeaderValue::from_str(&format!("bytes */{len}")) {
                    Ok(range) => answer.with(header::CONTENT_RANGE, range),
                    Err(_) => answer,
                }
            }
            E::DigestMissing | E::Digest { .. } => {
                Self::new(S::BAD_REQUEST, ErrorCode::DigestInvalid, error)
            }
            E::Algorithm(_) | E::PageSize(_) => {
                Self::new(S::BAD_REQUEST, ErrorCode::Unsupported, error)
            }
            E::From => Self::new(S::BAD_REQUEST, ErrorCode::NameInvalid, error),
            E::Tag(_) => Self::new(S::BAD_REQUEST, ErrorCode::ManifestInvalid, error),
            E::ContentRange(_) => Self::new(S::BAD_REQUEST, ErrorCode::BlobUploadInvalid, error),
            E::LengthMismatch { .. } => Self::new(S::BAD_REQUEST, ErrorCode::SizeInvalid, error),
            E::Method => Self::new(S::METHOD_NOT_ALLOWED, ErrorCode::Unsupported, error),
            E::Parameter(_) | E::Document(_) => {
                Self::new(S::BAD_REQUEST, ErrorCode::Unsupported, error)
            }
            E::ContentType => Self::new(S::UNSUPPORTED_MEDIA_TYPE, ErrorCode::Unsupported, error),
            E::Unknown(_) => Self::new(S::NOT_FOUND, ErrorCode::Unsupported, error),
            E::Busy => Self::new(S::TOO_MANY_REQUESTS, ErrorCode::TooManyRequests, error)
                .with(header::RETRY_AFTER, RETRY_BUSY_SECONDS),
            E::Internal(_) => Self::ours(
                S::INTERNAL_SERVER_ERROR,
                UNKNOWN,
                "internal error; the server's log tells more",
            ),
        }
    }
}

#[cfg(test)]
mod tests;
