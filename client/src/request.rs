//! Sending one request: login, redirects, time limits, refusals.

use std::time::{Duration, SystemTime};

use bytes::{Bytes, BytesMut};
use dvcr_core::oci::ErrorCode;
use reqwest::{
    Method, StatusCode, Url,
    header::{self, HeaderMap},
};
use serde::de::DeserializeOwned;

use crate::{
    BlobStream, Error, Retry,
    auth::{Auth, Shown, Verdict},
    fields,
    stall::Progress,
    token::Scopes,
};

/// Most redirects of one request, as in browsers and docker; a registry needs one.
const REDIRECTS_MAX: u32 = 10;

/// Most challenges answered for one request: one that asks, one for a token that ran out.
const CHALLENGES_MAX: u32 = 2;

/// Longest wait for the answer to a body that has arrived. Some registries hash the whole of a blob again, or copy it to
/// an object store, before they answer; a connection that is dead is noticed by TCP keepalive long before.
const COMMIT_TIME: Duration = Duration::from_secs(900);

/// Longest refusal that is read.
const REFUSAL_BYTES_MAX: u64 = 64 << 10;

/// Longest message of a server that is passed on.
const MESSAGE_CHARS_MAX: usize = 500;

/// A request that can be sent again.
#[derive(Clone, Debug)]
pub(crate) struct Request {
    pub(crate) method: Method,
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) body: Bytes,
    pub(crate) scopes: Scopes,
    /// Whether the server has work to do before it answers.
    pub(crate) slow: bool,
    /// Whether the server may turn out not to be there at all.
    pub(crate) first: bool,
}

impl Request {
    pub(crate) fn new(method: Method, url: Url) -> Self {
        Self {
            method,
            url,
            headers: HeaderMap::new(),
            body: Bytes::new(),
            scopes: Scopes::new(),
            slow: false,
            first: false,
        }
    }

    pub(crate) fn with(mut self, name: header::HeaderName, value: &str) -> Self {
        if let Ok(value) = header::HeaderValue::from_str(value) {
            self.headers.insert(name, value);
        }
        self
    }
}

/// For messages: without the query, which may hold a signature.
fn shown(method: &Method, url: &Url) -> String {
    let mut url = url.clone();
    url.set_query(None);
    url.set_fragment(None);
    let _ = url.set_password(None);
    format!("{method} {url}")
}

/// A body that can be sent once.
pub(crate) struct Streamed {
    pub(crate) stream: BlobStream,
    /// Its length, if known.
    pub(crate) len: Option<u64>,
}

/// An answer that is no refusal.
#[derive(Debug)]
pub(crate) struct Answer {
    /// Where it came from, after redirects.
    pub(crate) url: Url,
    request: String,
    response: reqwest::Response,
    stall: Duration,
    /// Read too far.
    pending: Option<Bytes>,
}

impl Answer {
    pub(crate) fn headers(&self) -> &HeaderMap {
        self.response.headers()
    }

    pub(crate) fn status(&self) -> StatusCode {
        self.response.status()
    }

    /// Gives bytes back, to be read next.
    pub(crate) fn put_back(&mut self, bytes: Bytes) {
        self.pending = Some(bytes);
    }

    /// The next bytes of the body.
    pub(crate) async fn chunk(&mut self) -> Result<Option<Bytes>, Error> {
        if let Some(bytes) = self.pending.take() {
            return Ok(Some(bytes));
        }
        match tokio::time::timeout(self.stall, self.response.chunk()).await {
            Ok(Ok(bytes)) => Ok(bytes),
            Ok(Err(error)) => Err(Error::connection(self.request.clone(), error)),
            Err(_) => Err(Error::Stalled {
                request: self.request.clone(),
                silence: self.stall,
            }),
        }
    }

    /// The body, if it has at most `max` bytes. What the header says does not matter: the answer to a HEAD has the length of a body
    /// that does not come.
    async fn bytes(&mut self, max: u64) -> Result<Bytes, Error> {
        let mut bytes = BytesMut::new();
        while let Some(chunk) = self.chunk().await? {
            if (bytes.len() + chunk.len()) as u64 > max {
                return Err(Error::TooLarge {
                    request: self.request.clone(),
                    max,
                });
            }
            bytes.extend_from_slice(&chunk);
        }
        Ok(bytes.freeze())
    }

    pub(crate) fn protocol(&self, reason: &str) -> Error {
        Error::Protocol {
            request: self.request.clone(),
            reason: reason.to_owned(),
        }
    }

    /// What the server says about a request that it did not fulfil.
    async fn refusal(mut self) -> Error {
        let retry_after = fields::retry_after(self.headers(), SystemTime::now());
        let status = self.status();
        // A refusal without a readable body is still a refusal.
        let body = self.bytes(REFUSAL_BYTES_MAX).await.unwrap_or_default();
        let (code, message) = explain(&body);
        Error::Refused {
            request: self.request,
            status,
            code,
            message,
            retry_after,
        }
    }
}

/// A whole answer.
#[derive(Debug)]
pub(crate) struct Fetched {
    pub(crate) url: Url,
    pub(crate) headers: HeaderMap,
    pub(crate) status: StatusCode,
    pub(crate) body: Bytes,
    request: String,
}

impl Fetched {
    pub(crate) fn json<T: DeserializeOwned>(&self) -> Result<T, Error> {
        serde_json::from_slice(&self.body)
            .map_err(|error| self.protocol(&format!("the answer cannot be read ({error})")))
    }

    pub(crate) fn protocol(&self, reason: &str) -> Error {
        Error::Protocol {
            request: self.request.clone(),
            reason: reason.to_owned(),
        }
    }

    pub(crate) fn too_large(&self, max: u64) -> Error {
        Error::TooLarge {
            request: self.request.clone(),
            max,
        }
    }
}

/// Sends requests.
#[derive(Clone, Debug)]
pub(crate) struct Http {
    pub(crate) client: reqwest::Client,
    pub(crate) stall: Duration,
    pub(crate) retry: Retry,
}

impl Http {
    /// Sends a request that needs no login at the registry, and reads the answer. One redirect less to worry about: none
    /// is followed, for the credentials in it are meant for this server.
    pub(crate) async fn fetch_unauthorized(
        &self,
        request: Request,
        max: u64,
    ) -> Result<Fetched, Error> {
        let mut backoff = self.retry.start();
        loop {
            let attempt = async {
                let answer = self.once(&request, &request.url, None, None).await?;
                whole(accept(answer).await?, max).await
            };
            match attempt.await {
                Ok(fetched) => return Ok(fetched),
                Err(error) => backoff.wait(error).await?,
            }
        }
    }

    /// Sends a request and reads the answer, trying again where that may help.
    pub(crate) async fn fetch(
        &self,
        auth: &Auth,
        request: &Request,
        max: u64,
    ) -> Result<Fetched, Error> {
        let mut backoff = if request.first {
            self.retry.start_first()
        } else {
            self.retry.start()
        };
        loop {
            let attempt = async {
                let answer = self.send(auth, request).await?;
                whole(answer, max).await
            };
            match attempt.await {
                Ok(fetched) => return Ok(fetched),
                Err(error) => backoff.wait(error).await?,
            }
        }
    }

    /// Sends a request once, login and redirects included. What is no success is an error.
    pub(crate) async fn send(&self, auth: &Auth, request: &Request) -> Result<Answer, Error> {
        let mut url = request.url.clone();
        let (mut redirects, mut challenges) = (0, 0);
        loop {
            // Only the registry itself gets to see credentials.
            let ours = auth.is_for(&url);
            let shown = if ours {
                auth.show(self, &request.scopes).await?
            } else {
                Shown::default()
            };
            let answer = self.once(request, &url, shown.field.clone(), None).await?;
            if answer.status() == StatusCode::UNAUTHORIZED && ours && challenges < CHALLENGES_MAX {
                challenges += 1;
                match auth.challenged(&answer, &shown, &request.scopes).await? {
                    Verdict::Again => continue,
                    Verdict::Refused => return Err(answer.refusal().await),
                }
            }
            match redirect(&request.method, &answer)? {
                None => return accept(answer).await,
                Some(target) => {
                    redirects += 1;
                    if redirects > REDIRECTS_MAX {
                        return Err(answer.protocol("it redirects in circles"));
                    }
                    url = target;
                }
            }
        }
    }

    /// Sends a request whose body can be sent once. Neither redirects nor challenges can be followed: both would need it again.
    pub(crate) async fn send_stream(
        &self,
        auth: &Auth,
        request: &Request,
        body: Streamed,
    ) -> Result<Answer, Error> {
        // Uploads may go to another server than the registry, which gets to see nothing.
        let ours = auth.is_for(&request.url);
        let shown = if ours {
            auth.show(self, &request.scopes).await?
        } else {
            Shown::default()
        };
        let answer = self
            .once(request, &request.url, shown.field.clone(), Some(body))
            .await?;
        if answer.status() == StatusCode::UNAUTHORIZED
            && ours
            && let Verdict::Again = auth.challenged(&answer, &shown, &request.scopes).await?
        {
            return Err(Error::TokenExpired {
                request: answer.request,
            });
        }
        if redirect(&request.method, &answer)?.is_some() {
            return Err(answer.protocol("it redirects an upload, which cannot be followed"));
        }
        accept(answer).await
    }

    async fn once(
        &self,
        request: &Request,
        url: &Url,
        authorization: Option<header::HeaderValue>,
        body: Option<Streamed>,
    ) -> Result<Answer, Error> {
        let mut builder = self
            .client
            .request(request.method.clone(), url.clone())
            .headers(request.headers.clone());
        if let Some(value) = authorization {
            builder = builder.header(header::AUTHORIZATION, value);
        }
        let shown = shown(&request.method, url);
        let progress = match body {
            Some(Streamed { stream, len }) => {
                let (progress, watched) = Progress::watch(stream, len);
                if let Some(len) = len {
                    builder = builder.header(header::CONTENT_LENGTH, len);
                }
                builder = builder.body(reqwest::Body::wrap_stream(watched));
                Some(progress)
            }
            None => {
                let sends = matches!(request.method, Method::POST | Method::PUT | Method::PATCH);
                if sends || !request.body.is_empty() {
                    builder = builder.body(request.body.clone());
                }
                None
            }
        };
        let answer_time = if request.slow {
            COMMIT_TIME
        } else {
            self.stall
        };
        let silence = async {
            match &progress {
                Some(progress) => progress.stalled(self.stall, COMMIT_TIME).await,
                None => {
                    tokio::time::sleep(answer_time).await;
                    answer_time
                }
            }
        };
        let sent = tokio::select! {
            sent = builder.send() => sent,
            silence = silence => return Err(Error::Stalled { request: shown, silence }),
        };
        match sent {
            Ok(response) => Ok(Answer {
                url: url.clone(),
                request: shown,
                response,
                stall: self.stall,
                pending: None,
            }),
            Err(error) => {
                if let Some(failure) = progress.and_then(|progress| progress.failure()) {
                    return Err(Error::Source(failure));
                }
                Err(Error::connection(shown, error))
            }
        }
    }
}

async fn whole(mut answer: Answer, max: u64) -> Result<Fetched, Error> {
    let body = answer.bytes(max).await?;
    Ok(Fetched {
        url: answer.url,
        headers: answer.response.headers().clone(),
        status: answer.response.status(),
        body,
        request: answer.request,
    })
}

async fn accept(answer: Answer) -> Result<Answer, Error> {
    if answer.status().is_success() {
        Ok(answer)
    } else {
        Err(answer.refusal().await)
    }
}

/// Where a redirect leads, if the answer is one that this method may follow.
fn redirect(method: &Method, answer: &Answer) -> Result<Option<Url>, Error> {
    let reads = matches!(*method, Method::GET | Method::HEAD);
    let follow = match answer.status() {
        StatusCode::TEMPORARY_REDIRECT | StatusCode::PERMANENT_REDIRECT => true,
        // Others would make a GET of it.
        StatusCode::MOVED_PERMANENTLY | StatusCode::FOUND | StatusCode::SEE_OTHER => reads,
        _ => false,
    };
    if !follow {
        return Ok(None);
    }
    let target = fields::text(answer.headers(), header::LOCATION)
        .and_then(|target| answer.url.join(target).ok())
        .ok_or_else(|| answer.protocol("it redirects to nowhere"))?;
    match (answer.url.scheme(), target.scheme()) {
        (_, "https") | ("http", "http") => Ok(Some(target)),
        _ => Err(answer.protocol("it redirects to a server without TLS")),
    }
}

/// The first registered code and the messages of an OCI error document, or a problem's detail. What else servers and proxies send,
/// HTML for example, helps nobody.
fn explain(body: &[u8]) -> (Option<ErrorCode>, String) {
    let Ok(document) = serde_json::from_slice::<serde_json::Value>(body) else {
        return (None, String::new());
    };
    let mut code = None;
    let mut messages = Vec::new();
    let errors = document.get("errors").and_then(|errors| errors.as_array());
    for error in errors.into_iter().flatten() {
        let text = |name: &str| error.get(name).and_then(serde_json::Value::as_str);
        let sent = text("code").unwrap_or_default();
        code = code.or_else(|| {
            ErrorCode::ALL
                .into_iter()
                .find(|code| code.as_str() == sent)
        });
        messages.extend(
            text("message")
                .filter(|text| !text.is_empty())
                .or(text("code")),
        );
    }
    for name in ["detail", "details", "error_description"] {
        messages.extend(document.get(name).and_then(serde_json::Value::as_str));
    }
    (code, printable(&messages.join("; "), MESSAGE_CHARS_MAX))
}

/// At most so many characters of somebody else's text, fit for terminals and logs: control characters would let a server colour what
/// it did not say, or forge lines.
pub fn printable(text: &str, chars_max: usize) -> String {
    text.chars()
        .map(|c| if c.is_control() { ' ' } else { c })
        .take(chars_max)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn refusals_are_explained() {
        fn check(body: &str, code: Option<ErrorCode>, message: &str) {
            assert_eq!(
                explain(body.as_bytes()),
                (code, message.to_owned()),
                "{body}"
            );
        }
        check(
            r#"{"errors":[{"code":"TAG_INVALID","message":"a"},{"code":"MANIFEST_UNKNOWN","message":"b\nc"}]}"#,
            Some(ErrorCode::ManifestUnknown),
            "a; b c",
        );
        check(
            r#"{"errors":[{"code":"DENIED"}]}"#,
            Some(ErrorCode::Denied),
            "DENIED",
        );
        check(r#"{"title":"x","detail":"no room"}"#, None, "no room");
        check(
            r#"{"details":"incorrect password"}"#,
            None,
            "incorrect password",
        );
        check("<html>", None, "");
        check("", None, "");
    }

    #[test]
    fn queries_are_not_shown() {
        let url = Url::parse("https://me:pw@r.example/v2/a?X-Signature=s#f").unwrap();
        assert_eq!(shown(&Method::GET, &url), "GET https://me@r.example/v2/a");
    }
}
