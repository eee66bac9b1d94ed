//! What can go wrong, sorted by what the caller does about it.

use std::{error::Error as StdError, time::Duration};

use dvcr_core::oci::{Digest, ErrorCode, ManifestError};
use reqwest::StatusCode;

/// An error of somebody else's.
pub type BoxError = Box<dyn StdError + Send + Sync>;

/// Why something could not be done. [`Error::is_retryable`] tells whether the same may work later.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The registry, or its token service, answered that it will not.
    #[error("{}", refusal(request, *status, message, *code))]
    Refused {
        /// Method and URL.
        request: String,
        /// The status.
        status: StatusCode,
        /// The first registered code in the answer.
        code: Option<ErrorCode>,
        /// What the server said; may be empty.
        message: String,
        /// How long the server asks to wait.
        retry_after: Option<Duration>,
    },
    /// A token ran out while it was in use; the next attempt brings a new one.
    #[error("{request}: the token ran out")]
    TokenExpired {
        /// Method and URL.
        request: String,
    },
    /// No connection, or it broke.
    #[error("{request}: {}", broken(cause))]
    Connection {
        /// Method and URL.
        request: String,
        /// What the HTTP client says. No `source()`: the text has what matters of it, and would say it twice.
        cause: reqwest::Error,
    },
    /// The server's certificate is not trusted. Final.
    #[error(
        "{request}: the server's certificate is not trusted: give the CA that signed it, or check that this is the right server"
    )]
    Certificate {
        /// Method and URL.
        request: String,
        /// What is wrong with it.
        #[source]
        source: reqwest::Error,
    },
    /// The server answers TLS with something else: plain HTTP, most likely. Final.
    #[error(
        "{request}: the server does not speak TLS: allow plain HTTP for this registry, or give the port where it does"
    )]
    NoTls {
        /// Method and URL.
        request: String,
        /// What came instead.
        #[source]
        source: reqwest::Error,
    },
    /// The server took or sent nothing for too long.
    #[error("{request}: the server has been silent for {} s", silence.as_secs())]
    Stalled {
        /// Method and URL.
        request: String,
        /// For how long.
        silence: Duration,
    },
    /// Something else was sent than was asked for. Final: asking again gives the same.
    #[error("{what} should be {expected} but is {found}: the registry's copy is damaged")]
    Digest {
        /// What was asked for.
        what: String,
        /// The digest asked for.
        expected: Digest,
        /// The digest of what came.
        found: Digest,
    },
    /// Longer or shorter than announced.
    #[error("{what} should have {expected} bytes but has {found}: the registry's copy is damaged")]
    Size {
        /// What was asked for.
        what: String,
        /// Bytes announced.
        expected: u64,
        /// Bytes that came, or that the server says it has.
        found: u64,
    },
    /// An answer is longer than anything of its kind may be.
    #[error("{request}: the answer is longer than {max} bytes")]
    TooLarge {
        /// Method and URL.
        request: String,
        /// The bound.
        max: u64,
    },
    /// The server does not speak the protocol.
    #[error("{request}: {reason}: is this an OCI registry?")]
    Protocol {
        /// Method and URL.
        request: String,
        /// What is wrong.
        reason: String,
    },
    /// A manifest that cannot be read.
    #[error("{what}: {source}")]
    Manifest {
        /// Which one.
        what: String,
        /// Why.
        source: ManifestError,
    },
    /// An index has nothing for the platform, or the manifest is no image.
    #[error("{what} has no image for {platform}; it has: {has}")]
    Platform {
        /// The index.
        what: String,
        /// The platform asked for.
        platform: String,
        /// The platforms that there are.
        has: String,
    },
    /// The bytes to be pushed cannot be read.
    #[error("read what is to be pushed")]
    Source(#[source] BoxError),
    /// The settings cannot be used: a certificate that is none, a URL that is none.
    #[error("{0}")]
    Settings(String),
}

impl Error {
    /// Whether the same may work later: the server was away, busy, or broke the connection. All else is final.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Refused { status, .. } => {
                // 507 is a full disk: it takes somebody to make room.
                matches!(
                    *status,
                    StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_MANY_REQUESTS
                ) || (status.is_server_error()
                    && !matches!(
                        *status,
                        StatusCode::NOT_IMPLEMENTED
                            | StatusCode::HTTP_VERSION_NOT_SUPPORTED
                            | StatusCode::INSUFFICIENT_STORAGE
                    ))
            }
            Self::Connection { cause, .. } => !cause.is_builder(),
            Self::TokenExpired { .. } | Self::Stalled { .. } => true,
            Self::Certificate { .. }
            | Self::NoTls { .. }
            | Self::Digest { .. }
            | Self::Size { .. }
            | Self::TooLarge { .. }
            | Self::Protocol { .. }
            | Self::Manifest { .. }
            | Self::Platform { .. }
            | Self::Source(_)
            | Self::Settings(_) => false,
        }
    }

    /// How long the server asks to wait before the next attempt.
    pub fn retry_after(&self) -> Option<Duration> {
        match self {
            Self::Refused { retry_after, .. } => *retry_after,
            _ => None,
        }
    }

    /// The status of a refusal.
    pub fn status(&self) -> Option<StatusCode> {
        match self {
            Self::Refused { status, .. } => Some(*status),
            _ => None,
        }
    }

    /// The registered code of a refusal.
    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused { code, .. } => *code,
            _ => None,
        }
    }

    /// Whether the server says that there is no such thing.
    pub fn is_not_found(&self) -> bool {
        self.status() == Some(StatusCode::NOT_FOUND)
    }

    /// Whether other credentials are needed.
    pub fn is_denied(&self) -> bool {
        matches!(
            self.status(),
            Some(StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN)
        )
    }

    /// Whether the server has no room left.
    pub fn is_full(&self) -> bool {
        self.status() == Some(StatusCode::INSUFFICIENT_STORAGE)
    }

    /// Whether the bytes themselves are not what they should be.
    pub fn is_corrupt(&self) -> bool {
        matches!(self, Self::Digest { .. } | Self::Size { .. })
            || self.code() == Some(ErrorCode::DigestInvalid)
    }

    /// Whether the server's name does not resolve.
    pub(crate) fn is_name_unknown(&self) -> bool {
        matches!(self, Self::Connection { cause, .. } if cause.is_dns())
    }

    /// Whether nobody listens at the server's address, or nothing leads there.
    pub(crate) fn is_absent(&self) -> bool {
        matches!(self, Self::Connection { cause, .. } if cause.is_connect())
    }

    /// Tells a broken connection from one that can never come about.
    pub(crate) fn connection(request: String, source: reqwest::Error) -> Self {
        let source = source.without_url();
        let tls = |what: fn(&rustls::Error) -> bool| {
            chain(&source).any(|cause| cause.downcast_ref().is_some_and(what))
        };
        if tls(is_untrusted) {
            Self::Certificate { request, source }
        } else if tls(is_no_tls) {
            Self::NoTls { request, source }
        } else {
            Self::Connection {
                request,
                cause: source,
            }
        }
    }
}

fn is_untrusted(error: &rustls::Error) -> bool {
    matches!(
        error,
        rustls::Error::InvalidCertificate(_) | rustls::Error::NoCertificatesPresented
    )
}

fn is_no_tls(error: &rustls::Error) -> bool {
    let other = rustls::InvalidMessage::InvalidContentType;
    matches!(error, rustls::Error::InvalidMessage(found) if *found == other)
}

/// The error and its causes; `io::Error` keeps its own out of `source()`.
fn chain<'a>(
    error: &'a (dyn StdError + 'static),
) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    std::iter::successors(Some(error), |&error| {
        let inner = error
            .downcast_ref::<std::io::Error>()
            .and_then(std::io::Error::get_ref)
            .map(|inner| inner as &(dyn StdError + 'static));
        inner.or_else(|| error.source())
    })
}

/// The innermost cause says what happened; the layers above say "error sending request".
fn broken(source: &reqwest::Error) -> String {
    let cause = chain(source)
        .last()
        .map_or_else(String::new, ToString::to_string);
    if source.is_dns() {
        format!("the server's name is unknown ({cause}): check the name, and that DNS works here")
    } else if source.is_connect() {
        format!("no server answers ({cause}): check the address, and that the registry runs")
    } else {
        format!("the connection broke ({cause})")
    }
}

/// What was refused, why, and what to do.
fn refusal(request: &str, status: StatusCode, message: &str, code: Option<ErrorCode>) -> String {
    let mut text = format!("{request}: the server says {status}");
    if !message.is_empty() {
        text.push_str(": ");
        text.push_str(message);
    }
    let advice = match status {
        StatusCode::UNAUTHORIZED => "give credentials that the registry accepts",
        StatusCode::FORBIDDEN => "these credentials do not permit it",
        StatusCode::NOT_FOUND => match code {
            Some(ErrorCode::ManifestUnknown) => "check the tag or digest",
            Some(ErrorCode::NameUnknown) => "check the repository's name",
            Some(_) => return text,
            None => "check the name, and that this is a registry",
        },
        StatusCode::PAYLOAD_TOO_LARGE => "a proxy in front of the registry may limit bodies",
        StatusCode::TOO_MANY_REQUESTS => "wait, or log in for a higher limit",
        StatusCode::INSUFFICIENT_STORAGE => "the registry is full: make room there",
        _ => return text,
    };
    text.push_str(" (");
    text.push_str(advice);
    text.push(')');
    text
}

#[cfg(test)]
mod tests {
    use super::*;

    fn refused(status: u16) -> Error {
        Error::Refused {
            request: "GET https://r.example/v2/".to_owned(),
            status: StatusCode::from_u16(status).unwrap(),
            code: None,
            message: "no".to_owned(),
            retry_after: None,
        }
    }

    #[test]
    fn statuses_are_final_or_worth_a_retry() {
        for status in [408, 429, 500, 502, 503, 504, 522] {
            assert!(refused(status).is_retryable(), "{status}");
        }
        for status in [400, 401, 403, 404, 405, 409, 413, 416, 501, 505, 507] {
            assert!(!refused(status).is_retryable(), "{status}");
        }
    }

    #[test]
    fn refusals_say_what_to_do() {
        let text = refused(401).to_string();
        assert!(text.starts_with("GET https://r.example/v2/: the server says 401"));
        assert!(text.contains("give credentials"), "{text}");
    }
}
