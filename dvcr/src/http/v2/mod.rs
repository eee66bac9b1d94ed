//! The OCI distribution API.
//!
//! Source: OCI distribution-spec, main branch. Each file holds the endpoints of one noun.

mod blob;
mod manifest;
mod page;
mod referrer;
mod tag;
mod upload;

use std::convert::Infallible;

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use bytes::Bytes;
use dvcr_core::oci::{Digest, Route};
use futures::stream;

use super::{
    App,
    body::RequestBody,
    error::{ApiError, RequestError},
    observe::{Endpoint, RequestInfo},
    query::Query,
};
use crate::registry::Principal;

/// Tells clients of docker's time that this is the second version of its API.
const API_VERSION: HeaderName = HeaderName::from_static("docker-distribution-api-version");
/// The digest of what is answered or was stored.
const CONTENT_DIGEST: HeaderName = HeaderName::from_static("docker-content-digest");
/// The name of an upload session.
const UPLOAD_UUID: HeaderName = HeaderName::from_static("docker-upload-uuid");
/// The shortest chunk that a client should send.
const CHUNK_MIN_LENGTH: HeaderName = HeaderName::from_static("oci-chunk-min-length");
/// Says that a manifest's subject was understood.
const OCI_SUBJECT: HeaderName = HeaderName::from_static("oci-subject");
/// One for each tag that was set by a parameter.
const OCI_TAG: HeaderName = HeaderName::from_static("oci-tag");
/// Says which filters were applied to a list of referrers.
const FILTERS_APPLIED: HeaderName = HeaderName::from_static("oci-filters-applied");

/// One request below `/v2`, taken apart.
struct Call {
    app: App,
    who: Principal,
    method: Method,
    headers: HeaderMap,
    query: Query,
    body: RequestBody,
}

/// How a handler ends.
type Answer = Result<Response, ApiError>;

/// Answers everything below `/v2`.
pub(super) async fn serve(app: App, request: Request) -> Response {
    let (parts, body) = request.into_parts();
    let method = parts.method.clone();
    let route = Route::parse(parts.uri.path());
    let endpoint = route.as_ref().map_or("none", endpoint);

    let info = parts.extensions.get::<RequestInfo>().cloned();
    let result = match info {
        None => Err(RequestError::Internal("no request info".to_owned()).into()),
        Some(RequestInfo {
            principal,
            received,
        }) => {
            let limits = &app.limits;
            let body = RequestBody::new(
                body,
                &parts.headers,
                limits.blob_bytes_max,
                limits.body_stall,
                received,
            );
            let call = Call {
                who: principal,
                method: parts.method,
                query: Query::parse(parts.uri.query()),
                headers: parts.headers,
                body: body.clone(),
                app,
            };
            let result = match route {
                Ok(route) => call.answer(route).await,
                Err(error) => Err(error.into()),
            };
            if result.is_err() {
                body.drain().await;
            }
            result
        }
    };
    let mut response = result.unwrap_or_else(|error| error.answer(&method));
    response
        .headers_mut()
        .insert(API_VERSION, HeaderValue::from_static("registry/2.0"));
    response.extensions_mut().insert(Endpoint(endpoint));
    response
}

/// The endpoint's name in metrics.
fn endpoint(route: &Route) -> &'static str {
    match route {
        Route::Ping => "ping",
        Route::Catalog => "catalog",
        Route::ExtDiscover => "extensions",
        Route::Tags(_) => "tags",
        Route::Blob(..) => "blob",
        Route::UploadStart(_) | Route::Upload(..) => "upload",
        Route::Manifest(..) => "manifest",
        Route::Referrers(..) => "referrers",
    }
}

impl Call {
    async fn answer(&self, route: Route) -> Answer {
        let methods = route.methods();
        let refused = || Err(RequestError::MethodNotAllowed(methods).into());
        // Decided before the handlers are, so that what they answer and what `Allow` says cannot differ.
        if !methods.contains(&self.method.as_str()) {
            return refused();
        }
        match (route, self.method.as_str()) {
            (Route::Ping, _) => Ok(json(StatusCode::OK, "{}")),
            (Route::ExtDiscover, _) => Ok(json(StatusCode::OK, r#"{"extensions":[]}"#)),
            (Route::Catalog, _) => tag::catalog(self).await,
            (Route::Tags(repository), _) => tag::list(self, &repository).await,
            (Route::Referrers(repository, digest), _) => {
                referrer::list(self, &repository, &digest).await
            }
            (Route::Blob(repository, digest), "HEAD") => {
                blob::head(self, &repository, &digest).await
            }
            (Route::Blob(repository, digest), "GET") => blob::get(self, &repository, &digest).await,
            (Route::Blob(repository, digest), "DELETE") => {
                blob::delete(self, &repository, &digest).await
            }
            (Route::UploadStart(repository), _) => upload::start(self, &repository).await,
            (Route::Upload(repository, id), "GET") => upload::status(self, &repository, &id).await,
            (Route::Upload(repository, id), "PATCH") => {
                upload::append(self, &repository, &id).await
            }
            (Route::Upload(repository, id), "PUT") => upload::finish(self, &repository, &id).await,
            (Route::Upload(repository, id), "DELETE") => {
                upload::cancel(self, &repository, &id).await
            }
            (Route::Manifest(repository, reference), "GET" | "HEAD") => {
                manifest::get(self, &repository, &reference).await
            }
            (Route::Manifest(repository, reference), "PUT") => {
                manifest::put(self, &repository, &reference).await
            }
            (Route::Manifest(repository, reference), "DELETE") => {
                manifest::delete(self, &repository, &reference).await
            }
            _ => refused(),
        }
    }

    /// `Content-Length`; hyper has made sure that it is a number if it is there.
    fn content_length(&self) -> Option<u64> {
        self.headers
            .get(header::CONTENT_LENGTH)?
            .to_str()
            .ok()?
            .parse()
            .ok()
    }
}

/// An answer without a body.
fn empty(status: StatusCode) -> Response {
    let mut response = status.into_response();
    // 204 and 304 have no length; what else has no body says so.
    if !matches!(status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED) {
        response
            .headers_mut()
            .insert(header::CONTENT_LENGTH, HeaderValue::from(0_u64));
    }
    response
}

/// 304 where the answer to that method would have had a body of `len` bytes: RFC 9110, section 8.6, allows to say nothing else. After
/// a GET it says nothing, because Go's HTTP/2 client misses bytes that are announced; axum says 0 of a body whose length it knows.
fn not_modified(method: &Method, len: u64) -> Response {
    let mut response = empty(StatusCode::NOT_MODIFIED);
    if method == Method::HEAD {
        let len = HeaderValue::from(len);
        response.headers_mut().insert(header::CONTENT_LENGTH, len);
    } else {
        let unknown = stream::empty::<Result<Bytes, Infallible>>();
        *response.body_mut() = Body::from_stream(unknown);
    }
    response
}

/// An answer with a JSON document.
fn json(status: StatusCode, document: impl Into<Body>) -> Response {
    let content_type = HeaderValue::from_static("application/json");
    (
        status,
        [(header::CONTENT_TYPE, content_type)],
        document.into(),
    )
        .into_response()
}

/// Serialises an answer of ours.
fn encode(document: &impl serde::Serialize) -> Result<Vec<u8>, ApiError> {
    serde_json::to_vec(document)
        .map_err(|error| RequestError::Internal(format!("encode answer: {error}")).into())
}

/// A header value out of names, digests and numbers, which contain nothing that a header may not.
fn value(text: &str) -> Result<HeaderValue, ApiError> {
    HeaderValue::from_str(text)
        .map_err(|_| RequestError::Internal(format!("header value {text:?}")).into())
}

/// What a browser may do with content that other people pushed, whose type they chose as well: show it. `default-src` does not stand
/// for forms, frames and bases.
const CONTENT_POLICY: &str =
    "default-src 'none'; sandbox; form-action 'none'; frame-ancestors 'none'; base-uri 'none'";

/// Content that other people pushed must not run in a browser that shows it.
fn harden(headers: &mut HeaderMap) {
    headers.insert(
        header::X_CONTENT_TYPE_OPTIONS,
        HeaderValue::from_static("nosniff"),
    );
    headers.insert(
        header::CONTENT_SECURITY_POLICY,
        HeaderValue::from_static(CONTENT_POLICY),
    );
}

/// The strong entity tag of content that never changes.
fn etag(digest: &Digest) -> String {
    format!("\"{digest}\"")
}
