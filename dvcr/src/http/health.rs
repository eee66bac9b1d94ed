//! For whoever runs the registry: is it alive, is it ready, what does it do.

use std::time::Duration;

use axum::{
    Extension,
    extract::State,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};

use super::{App, error::chain, observe::Endpoint};
use crate::registry::Principal;

/// Longest time that the metadata may take to answer before the registry counts as not ready. Kubernetes gives a probe one
/// second by default, so a probe sees our answer rather than its own timeout.
const READY_TIME_MAX: Duration = Duration::from_millis(900);

/// `/healthz`: the process lives. Says nothing about storage, on purpose: restarting does not mend a full disk.
pub(super) async fn healthz() -> Response {
    (Extension(Endpoint("healthz")), "ok\n").into_response()
}

/// `/readyz`: requests can be answered. 503 while draining, and while the metadata does not answer.
pub(super) async fn readyz(State(app): State<App>) -> Response {
    let (status, text) = if app.draining.is_cancelled() {
        (StatusCode::SERVICE_UNAVAILABLE, "draining\n")
    } else {
        let answer = app.registry.repositories(&Principal::System, None, 1);
        match tokio::time::timeout(READY_TIME_MAX, answer).await {
            Ok(Ok(_)) => (StatusCode::OK, "ok\n"),
            Ok(Err(error)) => {
                tracing::warn!(error = chain(&error), "not ready");
                (StatusCode::SERVICE_UNAVAILABLE, "storage does not answer\n")
            }
            Err(_) => {
                tracing::warn!("not ready: storage takes longer than {READY_TIME_MAX:?}");
                (StatusCode::SERVICE_UNAVAILABLE, "storage is too slow\n")
            }
        }
    };
    (status, Extension(Endpoint("readyz")), text).into_response()
}

/// `/metrics`: OpenMetrics text.
pub(super) async fn metrics(State(app): State<App>) -> Response {
    let content_type =
        HeaderValue::from_static("application/openmetrics-text; version=1.0.0; charset=utf-8");
    (
        Extension(Endpoint("metrics")),
        [(header::CONTENT_TYPE, content_type)],
        app.metrics.encode(),
    )
        .into_response()
}
