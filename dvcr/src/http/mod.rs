//! The HTTP side of the registry: paths, headers, status codes and bodies in and out of [`Registry`]'s use cases.
//!
//! Nothing here decides what a principal may do or touches storage. Answers below `/v2` follow the OCI distribution
//! specification; the management API is below `/api/v1`; `/healthz`, `/readyz` and `/metrics` are for operators.
//! Safe for any number of concurrent requests.

pub mod activity;
pub(crate) mod api;
mod auth;
mod body;
mod conditional;
mod error;
mod health;
mod multipart;
mod observe;
pub(crate) mod origin;
mod query;
mod request_id;
mod v2;

use std::{path::PathBuf, sync::Arc, time::Duration};

use axum::{
    Router,
    extract::{Request, State},
    middleware,
    response::Response,
    routing::get,
};
use dvcr_core::oci::{MANIFEST_BYTES_MAX, RouteError};
use tokio::sync::Semaphore;
use tokio_util::sync::CancellationToken;

pub use self::origin::Hosts;
use crate::{http::error::ApiError, metrics::Metrics, registry::Registry};

/// Requests of the management API at once, besides those of [`HttpLimits::requests_max`]: whoever has to look after a server that
/// its clients fill must get in.
const API_REQUESTS_MAX: usize = 64;

/// Bounds on what one client, or all of them, may ask for. Plain values; the settings hold defaults and ranges.
#[derive(Clone, Debug)]
pub struct HttpLimits {
    /// Names of the server; requests for others get 421.
    pub hosts: Hosts,
    /// Most requests at once; more get 429.
    pub requests_max: usize,
    /// Longest path and query in bytes; longer ones get 414.
    pub uri_bytes_max: usize,
    /// Longest header fields of a request in bytes, all together; longer ones get 431.
    pub header_bytes_max: usize,
    /// Longest manifest in bytes; longer ones get 413.
    pub manifest_bytes_max: usize,
    /// Longest body of one blob request in bytes; longer ones get 413.
    pub blob_bytes_max: u64,
    /// Longest silence inside a request's body; then the request gets 408.
    pub body_stall: Duration,
    /// Shortest chunk that a client should send, as `OCI-Chunk-Min-Length`; a hint, smaller ones are taken.
    pub chunk_min_bytes: u64,
}

impl Default for HttpLimits {
    fn default() -> Self {
        Self {
            hosts: Hosts::Any,
            requests_max: 1_024,
            uri_bytes_max: 16 << 10,
            header_bytes_max: 64 << 10,
            manifest_bytes_max: MANIFEST_BYTES_MAX,
            blob_bytes_max: 16 << 40,
            body_stall: Duration::from_secs(60),
            chunk_min_bytes: 1 << 20,
        }
    }
}

/// What the server tells about itself.
#[derive(Clone, Debug, Default)]
pub struct ServerFacts {
    /// When it started, milliseconds since 1970.
    pub started_ms: u64,
    /// Its data directory; none where nothing is on a device.
    pub data: Option<PathBuf>,
    /// Bytes there that uploads never take.
    pub reserve_bytes: u64,
    /// The settings in force, as a document. What is secret in it is redacted when it is told.
    pub settings: serde_json::Map<String, serde_json::Value>,
}

/// What every handler can reach. Cheap to clone.
#[derive(Clone)]
pub(crate) struct App {
    pub(crate) registry: Registry,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) limits: Arc<HttpLimits>,
    pub(crate) facts: Arc<ServerFacts>,
    /// One permit for each request of the registry that runs.
    requests: Arc<Semaphore>,
    /// The same for the management API.
    api_requests: Arc<Semaphore>,
    /// Cancelled when the server begins to drain.
    draining: CancellationToken,
}

/// The whole service. `draining` makes `/readyz` answer 503, so that nothing new is sent here.
pub fn router(
    registry: Registry,
    metrics: Arc<Metrics>,
    limits: HttpLimits,
    facts: ServerFacts,
    draining: CancellationToken,
) -> Router {
    let app = App {
        registry,
        metrics,
        requests: Arc::new(Semaphore::new(limits.requests_max)),
        api_requests: Arc::new(Semaphore::new(API_REQUESTS_MAX)),
        limits: Arc::new(limits),
        facts: Arc::new(facts),
        draining,
    };
    // Names contain slashes, and axum cannot match a wildcard mid-path: everything below /v2 has one fallback.
    Router::new()
        .route("/healthz", get(health::healthz))
        .route("/readyz", get(health::readyz))
        .route("/metrics", get(health::metrics))
        .merge(api::router())
        .fallback(dispatch)
        .layer(middleware::from_fn_with_state(
            app.clone(),
            observe::observe,
        ))
        .with_state(app)
}

async fn dispatch(State(app): State<App>, request: Request) -> Response {
    let path = request.uri().path();
    if path == "/v2" || path.starts_with("/v2/") {
        observe::boxed(v2::serve(app, request)).await
    } else if path.starts_with("/api/") {
        api::unknown(request.method())
    } else {
        ApiError::from(RouteError::NotFound).answer(request.method())
    }
}
