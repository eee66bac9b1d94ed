//! Talking to a server.

use std::time::Duration;

use reqwest::{Method, StatusCode, Url};
use serde::{Serialize, de::DeserializeOwned};

use crate::Problem;

/// Longest answer that is read: a page of 1,000 items takes about 1 MB.
const ANSWER_BYTES_MAX: usize = 64 << 20;

/// Longest time for finding the server.
const CONNECT_TIME_MAX: Duration = Duration::from_secs(10);

/// Longest silence of the server. Statistics walk over every blob.
const ANSWER_TIME_MAX: Duration = Duration::from_secs(300);

/// Why there is no answer, sorted by what to do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The text is no address of a server.
    #[error("{0:?} is no address of a server: write for example http://127.0.0.1:5000")]
    Address(String),
    /// Nobody listens there.
    #[error("no server answers at {server}")]
    Unreachable {
        /// The server.
        server: String,
        /// The cause.
        #[source]
        source: reqwest::Error,
    },
    /// Something answers there, but not with TLS that this machine trusts.
    #[error("no trusted connection to {server}")]
    Untrusted {
        /// The server.
        server: String,
        /// The cause.
        #[source]
        source: reqwest::Error,
    },
    /// The connection broke, or the server said nothing for too long. The request may have been carried out.
    #[error("ask {server}")]
    Broken {
        /// The server.
        server: String,
        /// The cause.
        #[source]
        source: reqwest::Error,
    },
    /// The server did not do what it was asked for, and says why.
    #[error("server says {0}")]
    Refused(Problem),
    /// The answer is nothing that this version understands.
    #[error(
        "read answer (status {status}): {what}; is the server a DVCR registry of this version?"
    )]
    Answer {
        /// The status.
        status: StatusCode,
        /// What is wrong with the body.
        what: String,
    },
}

impl Error {
    /// The problem, where the server told one.
    #[must_use]
    pub fn problem(&self) -> Option<&Problem> {
        match self {
            Self::Refused(problem) => Some(problem),
            _ => None,
        }
    }
}

/// Whether TLS failed, such as over a certificate that nobody here trusts. That fails a connection, too, but somebody answers.
#[must_use]
pub fn is_tls(error: &reqwest::Error) -> bool {
    let mut next: Option<&(dyn std::error::Error + 'static)> = Some(error);
    while let Some(error) = next {
        if error.is::<rustls::Error>() {
            return true;
        }
        // What an I/O error wraps is not its source: that is the source of what it wraps.
        let wrapped = error.downcast_ref::<std::io::Error>();
        next = match wrapped.and_then(std::io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => error.source(),
        };
    }
    false
}

/// A client of one server. Cloning is cheap; clones share connections.
#[derive(Clone, Debug)]
pub struct Client {
    server: Url,
    http: reqwest::Client,
}

impl Client {
    /// A client of the server at `http://HOST:PORT` or `https://HOST`; without a scheme, plain HTTP.
    pub fn new(server: &str) -> Result<Self, Error> {
        let http = reqwest::Client::builder()
            .user_agent(concat!("dvcr/", env!("CARGO_PKG_VERSION")))
            .connect_timeout(CONNECT_TIME_MAX)
            .read_timeout(ANSWER_TIME_MAX)
            // The API never redirects; what does is something else, and not to be trusted with what is sent here.
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .map_err(|source| Error::Broken {
                server: server.to_owned(),
                source,
            })?;
        Self::with_http(server, http)
    }

    /// A client that asks through `http`, which may know certificates and credentials.
    pub fn with_http(server: &str, http: reqwest::Client) -> Result<Self, Error> {
        let text = if server.contains("://") {
            server.to_owned()
        } else {
            format!("http://{server}")
        };
        match Url::parse(&text) {
            Ok(server) if server.has_host() && matches!(server.scheme(), "http" | "https") => {
                Ok(Self { server, http })
            }
            _ => Err(Error::Address(server.to_owned())),
        }
    }

    /// Begins a request. `path` is absolute and needs no escaping.
    pub(crate) fn call(&self, method: Method, path: &str) -> Call<'_> {
        let mut url = self.server.clone();
        // A server may live below a path of a proxy.
        let base = url.path().trim_end_matches('/').to_owned();
        url.set_path(&format!("{base}{path}"));
        Call {
            client: self,
            request: self.http.request(method, url),
        }
    }
}

/// A request to be sent.
#[must_use]
pub(crate) struct Call<'a> {
    client: &'a Client,
    request: reqwest::RequestBuilder,
}

impl Call<'_> {
    /// Adds the fields of a struct to the query; what is `None` is left out.
    pub(crate) fn query(mut self, query: &impl Serialize) -> Self {
        self.request = self.request.query(query);
        self
    }

    /// Adds a body.
    pub(crate) fn json(mut self, body: &impl Serialize) -> Self {
        self.request = self.request.json(body);
        self
    }

    /// Sends it and reads the answer.
    pub(crate) async fn answer<T: DeserializeOwned>(self) -> Result<T, Error> {
        let (status, bytes) = self.send().await?;
        serde_json::from_slice(&bytes).map_err(|error| Error::Answer {
            status,
            what: error.to_string(),
        })
    }

    /// Sends it; success has nothing more to say.
    pub(crate) async fn done(self) -> Result<(), Error> {
        self.send().await.map(|_| ())
    }

    async fn send(self) -> Result<(StatusCode, Vec<u8>), Error> {
        let server = || self.client.server.to_string();
        let broken = |source| Error::Broken {
            server: server(),
            source,
        };
        let mut response = match self.request.send().await {
            Ok(response) => response,
            Err(source) if is_tls(&source) => {
                return Err(Error::Untrusted {
                    server: server(),
                    source,
                });
            }
            Err(source) if source.is_connect() => {
                return Err(Error::Unreachable {
                    server: server(),
                    source,
                });
            }
            Err(source) => return Err(broken(source)),
        };
        let status = response.status();
        let mut bytes = Vec::new();
        while let Some(frame) = response.chunk().await.map_err(broken)? {
            if bytes.len() + frame.len() > ANSWER_BYTES_MAX {
                return Err(Error::Answer {
                    status,
                    what: format!("longer than {ANSWER_BYTES_MAX} bytes"),
                });
            }
            bytes.extend_from_slice(&frame);
        }
        if status.is_success() {
            return Ok((status, bytes));
        }
        Err(match serde_json::from_slice(&bytes) {
            Ok(problem) => Error::Refused(problem),
            Err(_) => Error::Answer {
                status,
                what: "no problem document".to_owned(),
            },
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn servers_have_addresses() {
        fn check(server: &str, expected: Option<&str>) {
            let client = Client::new(server).ok();
            let url = client.map(|client| {
                let call = client.call(Method::GET, "/api/v1/gc");
                call.request.build().map(|r| r.url().to_string())
            });
            assert_eq!(url.map(Result::unwrap).as_deref(), expected, "{server}");
        }
        check(
            "http://127.0.0.1:5000",
            Some("http://127.0.0.1:5000/api/v1/gc"),
        );
        check(
            "http://127.0.0.1:5000/",
            Some("http://127.0.0.1:5000/api/v1/gc"),
        );
        check(
            "https://a.example/dvcr/",
            Some("https://a.example/dvcr/api/v1/gc"),
        );
        check("localhost:5000", Some("http://localhost:5000/api/v1/gc"));
        check("ftp://a.example", None);
        check("", None);
        check("http://", None);
    }
}
