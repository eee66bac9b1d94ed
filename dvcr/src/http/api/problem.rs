//! Failures as problem documents, RFC 9457.

use axum::{
    Json,
    http::{HeaderValue, Method, header},
    response::{IntoResponse, Response},
};
use dvcr_openapi::Problem;

use crate::http::error::{ApiError, Cause};

/// A failed request to the management API: what handlers fail with.
#[derive(Debug)]
pub(super) struct Failure(ApiError);

impl<C: Into<Cause>> From<C> for Failure {
    fn from(cause: C) -> Self {
        Self(ApiError::from(cause))
    }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        problem(self.0, &Method::GET)
    }
}

/// The answer to a request with that method.
pub(crate) fn problem(error: ApiError, method: &Method) -> Response {
    let failed = error.describe(method);
    let document = Problem {
        kind: "about:blank".to_owned(),
        title: failed
            .status
            .canonical_reason()
            .unwrap_or("Error")
            .to_owned(),
        status: failed.status.as_u16(),
        detail: failed.message,
        code: failed.code.to_owned(),
    };
    let mut response = (failed.status, failed.headers, Json(document)).into_response();
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    response
}
