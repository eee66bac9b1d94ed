//! What happens to every request, whichever endpoint it is for: name, limits, principal, span, metrics, access log.

use std::{
    future::Future,
    pin::Pin,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering::Relaxed},
    },
    task::{Context, Poll},
};

use axum::{
    body::Body,
    extract::{Request, State},
    http::{HeaderMap, HeaderValue, Method, StatusCode, header, request::Parts},
    middleware::Next,
    response::Response,
};
use bytes::Bytes;
use http_body::{Body as _, Frame, SizeHint};
use tokio::{sync::OwnedSemaphorePermit, time::Instant};
use tracing::{Instrument as _, Span};

use super::{
    App,
    activity::{Activity, Running},
    api, auth,
    error::{ApiError, RequestError},
    origin,
    request_id::{REQUEST_ID, RequestId},
};
use crate::{
    metrics::{Metrics, RequestLabels},
    registry::Principal,
};

/// Status that the access log and the metrics show for a request whose client went away before there was an answer.
/// No such status is ever sent; nginx's log uses the same number.
const CLIENT_GONE: u16 = 499;

/// Longest part of a client's text (path, user agent) that a log line repeats, in bytes.
const LOGGED_BYTES_MAX: usize = 1_024;

/// Handed to the handlers as a request extension.
#[derive(Clone)]
pub(crate) struct RequestInfo {
    /// Who asks.
    pub(crate) principal: Principal,
    /// Counts what arrives of the body.
    pub(crate) received: Arc<AtomicU64>,
}

/// Which endpoint answered, as a response extension: the label of metrics.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Endpoint(pub(crate) &'static str);

/// The outermost layer.
pub(crate) async fn observe(State(app): State<App>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    let id = RequestId::of(&parts.headers);
    let span = tracing::info_span!("request", id = id.as_str());
    let activity = parts.extensions.get::<Arc<Activity>>().cloned();
    let mut record = Record::begin(
        Arc::clone(&app.metrics),
        activity.unwrap_or_default(),
        &parts,
        span.clone(),
    );
    let method = parts.method.clone();
    let is_api = parts.uri.path().starts_with("/api");

    let answer = async {
        // Probes and scrapes are answered also when the server is busy: a restart would not make it less so.
        let requests = match parts.uri.path() {
            path if path.starts_with("/v2") => Some(&app.requests),
            _ if is_api => Some(&app.api_requests),
            _ => None,
        };
        if let Some(requests) = requests {
            // Taken first, so that a refused request is cheap; kept until the answer is complete.
            let permit = Arc::clone(requests).try_acquire_owned();
            record.permit = Some(permit.map_err(|_| RequestError::Busy)?);
        }
        origin::check(&app.limits.hosts, &parts)?;
        check_size(&app, &parts)?;
        let principal = auth::principal(&parts)?;
        record.principal = principal.to_string();
        parts.extensions.insert(RequestInfo {
            principal,
            received: Arc::clone(&record.received),
        });
        Ok::<_, ApiError>(next.run(Request::from_parts(parts, body)).await)
    };
    let mut response = async {
        match answer.await {
            Ok(response) => response,
            Err(error) if is_api => api::problem(error, &method),
            Err(error) => error.answer(&method),
        }
    }
    .instrument(span)
    .await;

    if let Ok(id) = HeaderValue::from_str(id.as_str()) {
        response.headers_mut().insert(REQUEST_ID, id);
    }
    record.status = Some(response.status());
    if let Some(Endpoint(endpoint)) = response.extensions().get() {
        record.endpoint = endpoint;
    }
    record.len = response
        .headers()
        .get(header::CONTENT_LENGTH)
        .and_then(|len| len.to_str().ok()?.parse().ok());
    response.map(|body| {
        // A HEAD has the fields of a GET and never its bytes; hyper sees to it, but callers in process have no hyper.
        let body = if method == Method::HEAD {
            Body::empty()
        } else {
            body
        };
        Body::new(Observed {
            body,
            record: Some(record),
        })
    })
}

/// Refuses what is larger than the settings allow. hyper has wider limits of its own, because its read buffer, which also
/// bounds the header, is sized for bodies.
fn check_size(app: &App, parts: &Parts) -> Result<(), RequestError> {
    let uri_bytes_max = app.limits.uri_bytes_max;
    let target = parts
        .uri
        .path_and_query()
        .map_or(0, |target| target.as_str().len());
    if target > uri_bytes_max {
        return Err(RequestError::UriTooLong(uri_bytes_max));
    }
    let header_bytes_max = app.limits.header_bytes_max;
    if header_bytes(&parts.headers) > header_bytes_max {
        return Err(RequestError::HeadersTooLarge(header_bytes_max));
    }
    Ok(())
}

/// Size of the fields as HTTP/1.1 writes them.
fn header_bytes(headers: &HeaderMap) -> usize {
    const SEPARATORS: usize = ": \r\n".len();
    headers
        .iter()
        .map(|(name, value)| name.as_str().len() + value.len() + SEPARATORS)
        .sum()
}

/// Everything about one request that is told when it is over, however it ends: dropping this writes the access log.
struct Record {
    metrics: Arc<Metrics>,
    span: Span,
    running: Running,
    started: Instant,
    method: Method,
    path: String,
    user_agent: String,
    principal: String,
    endpoint: &'static str,
    status: Option<StatusCode>,
    received: Arc<AtomicU64>,
    sent: u64,
    /// Length of the answer's body, if its header says so: nobody asks such a body whether it has ended.
    len: Option<u64>,
    /// The answer was handed over whole.
    complete: bool,
    permit: Option<OwnedSemaphorePermit>,
}

impl Record {
    fn begin(metrics: Arc<Metrics>, activity: Arc<Activity>, parts: &Parts, span: Span) -> Self {
        metrics.http.in_flight.inc();
        let user_agent = parts
            .headers
            .get(header::USER_AGENT)
            .map(|value| String::from_utf8_lossy(value.as_bytes()));
        Self {
            metrics,
            span,
            running: Running::begin(activity, parts.version),
            started: Instant::now(),
            method: parts.method.clone(),
            path: cut(parts.uri.path()),
            user_agent: cut(&user_agent.unwrap_or_default()),
            principal: String::new(),
            endpoint: "none",
            status: None,
            received: Arc::new(AtomicU64::new(0)),
            sent: 0,
            len: None,
            complete: false,
            permit: None,
        }
    }
}

impl Drop for Record {
    fn drop(&mut self) {
        let duration = self.started.elapsed();
        let status = self.status.map_or(CLIENT_GONE, |status| status.as_u16());
        let received = self.received.load(Relaxed);
        let labels = RequestLabels::new(self.endpoint, &self.method, status);
        let http = &self.metrics.http;
        http.in_flight.dec();
        http.requests.get_or_create(&labels).inc();
        http.seconds
            .get_or_create(&labels.without_status())
            .observe(duration.as_secs_f64());
        http.received_bytes.inc_by(received);
        http.sent_bytes.inc_by(self.sent);

        let _entered = self.span.enter();
        macro_rules! log {
            ($level:ident) => {
                tracing::$level!(
                    target: "dvcr::access",
                    method = self.method.as_str(),
                    path = self.path,
                    status,
                    sent_bytes = self.sent,
                    received_bytes = received,
                    duration_ms = duration.as_micros() as f64 / 1e3,
                    complete = self.complete,
                    principal = self.principal,
                    user_agent = self.user_agent,
                    "request"
                )
            };
        }
        // Probes and scrapes come every few seconds and would bury the rest.
        if matches!(self.endpoint, "healthz" | "readyz" | "metrics") {
            log!(debug);
        } else {
            log!(info);
        }
    }
}

/// A text of the client's, cut for the log.
fn cut(text: &str) -> String {
    text[..text.floor_char_boundary(LOGGED_BYTES_MAX)].to_owned()
}

/// An answer's body that tells the record what becomes of it.
struct Observed {
    body: Body,
    record: Option<Record>,
}

impl http_body::Body for Observed {
    type Data = Bytes;
    type Error = axum::Error;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, axum::Error>>> {
        let this = &mut *self;
        let Some(record) = &mut this.record else {
            return Poll::Ready(None);
        };
        record.running.asked_for_more();
        // A guard of a span may not be held across polls; in one poll it may.
        let frame = record
            .span
            .in_scope(|| Pin::new(&mut this.body).poll_frame(cx));
        match std::task::ready!(frame) {
            Some(Ok(frame)) => {
                record.sent += frame.data_ref().map_or(0, |data| data.len() as u64);
                // The last frame may be asked for without asking for the end.
                record.complete = this.body.is_end_stream() || record.len == Some(record.sent);
                record.running.handed_over();
                Poll::Ready(Some(Ok(frame)))
            }
            Some(Err(error)) => {
                this.record = None;
                Poll::Ready(Some(Err(error)))
            }
            None => {
                record.complete = true;
                this.record = None;
                Poll::Ready(None)
            }
        }
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> SizeHint {
        self.body.size_hint()
    }
}

impl Drop for Observed {
    fn drop(&mut self) {
        if let Some(record) = &mut self.record {
            record.complete |= self.body.is_end_stream();
        }
    }
}

/// Keeps the compiler from growing the future of every request by the size of the largest handler.
pub(crate) fn boxed<'a, T>(
    future: impl Future<Output = T> + Send + 'a,
) -> Pin<Box<dyn Future<Output = T> + Send + 'a>> {
    Box::pin(future)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn header_sizes_are_those_on_the_wire() {
        let headers = HeaderMap::from_iter([
            (header::HOST, "a".parse().unwrap()),
            (header::RANGE, "bytes=0-".parse().unwrap()),
        ]);
        assert_eq!(
            header_bytes(&headers),
            "host: a\r\nrange: bytes=0-\r\n".len()
        );
    }

    #[test]
    fn texts_are_cut_between_characters() {
        assert_eq!(cut("a"), "a");
        assert_eq!(cut(&"é".repeat(1_000)), "é".repeat(512));
        assert_eq!(cut(&format!("a{}", "é".repeat(1_000))).len(), 1_023);
    }
}
