//! Files on web servers (RFC 9110).

use std::{
    error::Error,
    ops::Range,
    sync::{
        Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use bytes::Bytes;
use dvcr_client::{HTTP_1, trust};
use futures::{Stream, StreamExt, TryStreamExt};
use reqwest::{
    Client, Response, StatusCode, Url,
    header::{self, HeaderMap, HeaderName, HeaderValue},
};

use super::{
    content_range::ContentRange,
    fetch::{Body, Fetch, FetchError, Opened, Version},
};

/// Most redirects from the address to the file: what browsers allow.
const REDIRECTS_MAX: usize = 20;

/// Longest wait for a connection.
pub(super) const CONNECT_TIMEOUT: Duration = Duration::from_secs(20);

/// What to do about a proxy that does not know us.
const WANTS_LOGIN_AT_PROXY: &str = "the proxy wants a user and a password: \
                                    write http_proxy and https_proxy as http://USER:PASSWORD@HOST:PORT";

/// Parts of errors that trying again does not mend, and what to say instead. The libraries below give nothing but texts for these.
const FINAL: [(&str, &str); 5] = [
    (
        "invalid peer certificate",
        "the server's certificate is not trusted: name the authority that signed it, if it is one of your own, with --source-ca",
    ),
    (
        "InvalidContentType",
        "the server does not speak TLS: is its address http://...?",
    ),
    (
        "invalid HTTP version",
        "the server does not speak HTTP: is its address https://...?",
    ),
    ("proxy authorization required", WANTS_LOGIN_AT_PROXY),
    // Of a name server that cannot answer now it is said that it is temporary.
    (
        "Name or service not known",
        "the server's name is unknown: check the address, and that DNS works here",
    ),
];

/// Who we are, for the logs of servers.
pub const USER_AGENT: &str = concat!("dvcr-importer/", env!("CARGO_PKG_VERSION"));

/// How to talk to a web server. Proxies come from the environment (`https_proxy`, `http_proxy`, `no_proxy`).
#[derive(Clone, Default)]
pub struct HttpOptions {
    /// User and password. Those in the address come second.
    pub credentials: Option<(String, String)>,
    /// Further headers; secret ones are no different, because no value is ever shown.
    pub headers: HeaderMap,
    /// Certificates to trust beside those of the system, PEM bundles.
    pub ca: Vec<Vec<u8>>,
    /// Whether any certificate will do.
    pub insecure: bool,
    /// Never ask for ranges: for servers that answer them wrongly.
    pub no_ranges: bool,
    /// A connection without a byte for so long is broken.
    pub stall: Option<Duration>,
}

/// A connection without a byte for so long is broken, unless the options say otherwise: a server that reads a file
/// from tape takes less.
pub const STALL: Duration = Duration::from_secs(60);

/// A file on a web server.
pub struct Http {
    client: Client,
    url: Url,
    credentials: Option<(String, String)>,
    headers: HeaderMap,
    insecure: bool,
    stall: Duration,
    /// Ranges are not asked for, or not any more.
    no_ranges: AtomicBool,
    /// Where redirects led.
    resolved: Mutex<Option<Url>>,
}

/// A header from text of the form `Name: value`.
pub fn parse_header(text: &str) -> Result<(HeaderName, HeaderValue), String> {
    let wrong = || "a header is written as `Name: value`".to_owned();
    let (name, value) = text.split_once(':').ok_or_else(wrong)?;
    let name = name.trim().parse().map_err(|_| wrong())?;
    let mut value = HeaderValue::from_str(value.trim())
        .map_err(|_| format!("the value of the header {name} has control characters"))?;
    value.set_sensitive(true);
    Ok((name, value))
}

impl Http {
    /// A file at `url`; nothing is asked yet. What is wrong with the address or the options is final.
    pub fn new(mut url: Url, options: HttpOptions) -> Result<Self, FetchError> {
        let wrong = |reason: String| FetchError::Final(reason);
        if !matches!(url.scheme(), "http" | "https") || url.host_str().is_none() {
            return Err(wrong("the address is not one of a web server".to_owned()));
        }
        let in_url = (!url.username().is_empty()).then(|| {
            let password = url.password().unwrap_or_default();
            (decode(url.username()), decode(password))
        });
        // Neither can fail for an address with a host.
        let _ = url.set_username("");
        let _ = url.set_password(None);
        url.set_fragment(None);
        let builder = || {
            Client::builder()
                // Credentials go to one host only; see `open`.
                .redirect(reqwest::redirect::Policy::none())
                .connect_timeout(CONNECT_TIMEOUT)
                .user_agent(USER_AGENT)
                .referer(false)
                // Ranges in parallel get a connection each: in HTTP/2 they would share one, and its window.
                .http1_only()
                .tls_danger_accept_invalid_certs(options.insecure)
        };
        let trusting = match options.insecure {
            true => Ok(builder()),
            false => trust(builder(), &options.ca, HTTP_1),
        };
        let client = match trusting.map_err(|error| wrong(error.to_string()))?.build() {
            // A slim container has no authorities; plain HTTP needs none.
            Err(_) if url.scheme() == "http" => builder().tls_certs_only([]).build(),
            built => built,
        };
        let client = client.map_err(|error| {
            wrong(format!(
                "set up TLS: {}: install ca-certificates, or name the authority with --source-ca",
                chain(&error)
            ))
        })?;
        Ok(Self {
            client,
            url,
            credentials: options.credentials.or(in_url),
            headers: options.headers,
            insecure: options.insecure,
            stall: options.stall.unwrap_or(STALL),
            no_ranges: AtomicBool::new(options.no_ranges),
            resolved: Mutex::default(),
        })
    }

    fn resolved(&self) -> std::sync::MutexGuard<'_, Option<Url>> {
        // The value is replaced as a whole.
        self.resolved.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Follows redirects to an answer that is none. Returns it with the address that gave it.
    async fn ask(
        &self,
        from: Url,
        range: Option<&Range<u64>>,
        version: Option<&Version>,
    ) -> Result<(Url, Response), FetchError> {
        let mut url = from;
        for _ in 0..=REDIRECTS_MAX {
            let response = self.ask_once(&url, range, version).await?;
            let status = response.status();
            let target = response.headers().get(header::LOCATION);
            let (true, Some(target)) = (status.is_redirection(), target) else {
                return Ok((url, response));
            };
            let secure = url.scheme() == "https" && !self.insecure;
            let target = target.to_str().ok().and_then(|text| url.join(text).ok());
            url = target
                .filter(|url| matches!(url.scheme(), "http" | "https"))
                .ok_or_else(|| {
                    FetchError::Final("the server redirects to no web address".to_owned())
                })?;
            if secure && url.scheme() == "http" {
                let reason = "the server redirects from https to http, where anybody may change the file: \
                              if that is meant, give the http address, and a checksum";
                return Err(FetchError::Final(reason.to_owned()));
            }
        }
        Err(FetchError::Final(format!(
            "more than {REDIRECTS_MAX} redirects"
        )))
    }

    async fn ask_once(
        &self,
        url: &Url,
        range: Option<&Range<u64>>,
        version: Option<&Version>,
    ) -> Result<Response, FetchError> {
        let mut request = self
            .client
            .get(url.clone())
            // Ranges of an encoding made on the way would be ranges of something else.
            .header(header::ACCEPT_ENCODING, "identity");
        if let Some(range) = range {
            let value = match range.end {
                u64::MAX => format!("bytes={}-", range.start),
                end => format!("bytes={}-{}", range.start, end - 1),
            };
            request = request.header(header::RANGE, value);
            if let Some(condition) = version.and_then(|version| version.condition(&host(url))) {
                request = request.header(header::IF_RANGE, condition);
            }
        }
        if self.is_trusted(url) {
            request = request.headers(self.headers.clone());
            if let Some((user, password)) = &self.credentials {
                request = request.basic_auth(user, Some(password));
            }
        }
        match tokio::time::timeout(self.stall, request.send()).await {
            Ok(answer) => answer.map_err(failed),
            Err(_) => Err(stalled(self.stall)),
        }
    }

    /// Whether user, password and headers may go there: to the server that was named, or to the same host by way of TLS.
    fn is_trusted(&self, url: &Url) -> bool {
        let upgraded = (self.url.scheme(), url.scheme()) == ("http", "https")
            && (self.url.port(), url.port()) == (None, None)
            && self.url.host() == url.host();
        upgraded || url.origin() == self.url.origin()
    }

    /// The server answers ranges wrongly. From now on it is asked for whole files.
    fn lies(&self, how: &str) -> FetchError {
        self.no_ranges.store(true, Ordering::Relaxed);
        FetchError::again(format!("the server lies about ranges: {how}"))
    }

    fn body(&self, response: Response, len: Option<u64>) -> Body {
        let chunks = response.bytes_stream().map_err(failed).boxed();
        Box::pin(bounded(chunks, self.stall, len))
    }
}

#[async_trait]
impl Fetch for Http {
    async fn open(
        &self,
        range: Range<u64>,
        version: Option<&Version>,
    ) -> Result<Opened, FetchError> {
        let range_asked = (!self.no_ranges.load(Ordering::Relaxed)).then_some(&range);
        let resolved = self.resolved().clone();
        let again = resolved.is_some();
        let start = resolved.unwrap_or_else(|| self.url.clone());
        let (mut url, mut response) = self.ask(start, range_asked, version).await?;
        if again && response.status().is_client_error() {
            // Where redirects lead may be good for some minutes only.
            (url, response) = self.ask(self.url.clone(), range_asked, version).await?;
        }
        let found = Version {
            len: None,
            etag: text(&response, header::ETAG),
            modified: text(&response, header::LAST_MODIFIED),
            host: host(&url),
        };
        let opened = match response.status() {
            StatusCode::OK => Opened {
                start: 0,
                ranges: false,
                version: Version {
                    len: response.content_length(),
                    ..found
                },
                body: self.body(response, None),
            },
            StatusCode::PARTIAL_CONTENT if range_asked.is_some() => {
                let asked = range_asked.map_or(0..0, Clone::clone);
                let part = text(&response, header::CONTENT_RANGE)
                    .and_then(|text| ContentRange::parse(&text))
                    .ok_or_else(|| self.lies("a part without saying which"))?;
                if part.first != asked.start || part.last >= asked.end {
                    return Err(self.lies("it sends another part than it was asked for"));
                }
                Opened {
                    start: part.first,
                    ranges: true,
                    version: Version {
                        len: part.len,
                        ..found
                    },
                    body: self.body(response, Some(part.last - part.first + 1)),
                }
            }
            StatusCode::RANGE_NOT_SATISFIABLE if range.start == 0 => Opened {
                start: 0,
                ranges: true,
                version: Version {
                    len: Some(0),
                    ..found
                },
                body: Box::pin(futures::stream::empty()),
            },
            StatusCode::RANGE_NOT_SATISFIABLE => return Err(changed()),
            _ => return Err(self.refused(&response)),
        };
        if version.is_some_and(|version| !version.same(&opened.version)) {
            return Err(changed());
        }
        *self.resolved() = (url != self.url).then_some(url);
        Ok(opened)
    }

    fn address(&self) -> String {
        // What follows the path may be a signature.
        let mut url = self.url.clone();
        url.set_query(None);
        url.to_string()
    }
}

impl Http {
    /// What an answer without a file means.
    fn refused(&self, response: &Response) -> FetchError {
        let status = response.status();
        let secrets = self.credentials.is_some() || !self.headers.is_empty();
        let refuses = matches!(status, StatusCode::UNAUTHORIZED | StatusCode::FORBIDDEN);
        if secrets && refuses && !self.is_trusted(response.url()) {
            return FetchError::Final(format!(
                "the server redirects to {}, to which user, password and headers do not follow, and which refuses ({status}): \
                 give that address, if they are for it",
                host(response.url())
            ));
        }
        let what = match status {
            StatusCode::UNAUTHORIZED if self.credentials.is_none() => {
                "the server wants a user and a password: give them with --source-user"
            }
            StatusCode::UNAUTHORIZED => "the server does not take this user and password",
            StatusCode::FORBIDDEN => "the server does not allow it",
            StatusCode::NOT_FOUND | StatusCode::GONE => {
                return FetchError::Final(format!(
                    "there is no such file ({status}): check the address"
                ));
            }
            StatusCode::PROXY_AUTHENTICATION_REQUIRED => WANTS_LOGIN_AT_PROXY,
            _ => "the server cannot answer",
        };
        let reason = format!("{what} ({status})");
        let again = status.is_server_error() && status != StatusCode::NOT_IMPLEMENTED
            || matches!(
                status,
                StatusCode::REQUEST_TIMEOUT | StatusCode::TOO_EARLY | StatusCode::TOO_MANY_REQUESTS
            );
        if !again {
            return FetchError::Final(reason);
        }
        let after = text(response, header::RETRY_AFTER).and_then(|text| text.trim().parse().ok());
        FetchError::Again {
            reason,
            after: after.map(Duration::from_secs),
        }
    }
}

fn changed() -> FetchError {
    FetchError::Final("the file was changed while it was read; import it again".to_owned())
}

fn stalled(stall: Duration) -> FetchError {
    FetchError::again(format!("no byte for {} s", stall.as_secs()))
}

/// What reqwest failed with.
fn failed(error: reqwest::Error) -> FetchError {
    // Queries may be signatures.
    let reason = chain(&error.without_url());
    for (part, advice) in FINAL {
        if reason.contains(part) {
            return FetchError::Final(format!("{advice} ({reason})"));
        }
    }
    FetchError::again(reason)
}

/// An error and what caused it, in one line.
pub(super) fn chain(error: &dyn Error) -> String {
    let mut text = error.to_string();
    let mut next = error.source();
    while let Some(error) = next {
        let cause = error.to_string();
        if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
        next = error.source();
    }
    text
}

/// Passes bytes on, as long as they come and are no more than promised.
pub(super) fn bounded(
    chunks: impl Stream<Item = Result<Bytes, FetchError>> + Send + Unpin,
    stall: Duration,
    len: Option<u64>,
) -> impl Stream<Item = Result<Bytes, FetchError>> + Send {
    let state = Some((chunks, 0u64));
    futures::stream::unfold(state, move |state| async move {
        let (mut chunks, given) = state?;
        let chunk = match tokio::time::timeout(stall, chunks.next()).await {
            Err(_) => Err(stalled(stall)),
            Ok(None) => return None,
            Ok(Some(chunk)) => chunk,
        };
        match chunk {
            Ok(chunk) => {
                let given = given + chunk.len() as u64;
                if len.is_some_and(|len| given > len) {
                    let error = "the server sends more than it announced".to_owned();
                    return Some((Err(FetchError::Final(error)), None));
                }
                Some((Ok(chunk), Some((chunks, given))))
            }
            Err(error) => Some((Err(error), None)),
        }
    })
}

fn text(response: &Response, name: HeaderName) -> Option<String> {
    let value = response.headers().get(name)?;
    Some(value.to_str().ok()?.to_owned())
}

fn host(url: &Url) -> String {
    url.origin().ascii_serialization()
}

/// What percent signs in a user or a password stand for.
fn decode(text: &str) -> String {
    let mut bytes = Vec::with_capacity(text.len());
    let mut rest = text.as_bytes();
    while let [first, behind @ ..] = rest {
        let digits = behind
            .get(..2)
            .and_then(|hex| std::str::from_utf8(hex).ok());
        match digits.and_then(|hex| u8::from_str_radix(hex, 16).ok()) {
            Some(byte) if *first == b'%' => {
                bytes.push(byte);
                rest = &behind[2..];
            }
            _ => {
                bytes.push(*first);
                rest = behind;
            }
        }
    }
    String::from_utf8_lossy(&bytes).into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_hide_secrets() {
        let url = "https://me:s%40crt@host/disk.img?signature=abc#x";
        let http = Http::new(url.parse().unwrap(), HttpOptions::default()).unwrap();
        assert_eq!(http.address(), "https://host/disk.img");
        assert_eq!(
            http.credentials,
            Some(("me".to_owned(), "s@crt".to_owned()))
        );
    }

    #[test]
    fn credentials_were_lost_on_the_way_to_tls() {
        for (named, other, expected) in [
            ("http://host/a", "http://host/b", true),
            ("http://host/a", "https://host/a", true),
            ("http://host:80/a", "https://host:443/a", true),
            ("https://host/a", "http://host/a", false),
            ("http://host:8080/a", "https://host:8443/a", false),
            ("http://host/a", "https://host:8443/a", false),
            ("http://host/a", "https://other/a", false),
            ("http://host/a", "http://host:81/a", false),
        ] {
            let http = Http::new(named.parse().unwrap(), HttpOptions::default()).unwrap();
            let found = http.is_trusted(&other.parse().unwrap());
            assert_eq!(found, expected, "{named} {other}");
        }
    }

    #[test]
    fn headers() {
        let (name, value) = parse_header("X-Token:  a:b ").unwrap();
        assert_eq!((name.as_str(), value.to_str().unwrap()), ("x-token", "a:b"));
        assert!(value.is_sensitive());
        for wrong in ["", "X-Token", "X Token: a", "X: a\nb"] {
            assert!(parse_header(wrong).is_err(), "{wrong}");
        }
    }
}
