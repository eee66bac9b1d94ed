//! Failures as problem documents, RFC 9457.

use axum::{
    Json,
    http::{HeaderValue, Method, StatusCode, header},
    response::{IntoResponse, Response},
};
use dvcr_openapi::Problem;
use utoipa::{
    Modify,
    openapi::{Content, OpenApi, Ref, RefOr, Response as Described, ResponseBuilder},
};

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

/// What every operation may answer besides what it says itself.
const PROBLEMS: [(StatusCode, &str); 9] = [
    (
        StatusCode::BAD_REQUEST,
        "A parameter or the body makes no sense",
    ),
    (StatusCode::UNAUTHORIZED, "Somebody must log in"),
    (StatusCode::FORBIDDEN, "The principal may not do this"),
    (
        StatusCode::NOT_FOUND,
        "There is no such thing, or the principal may not know that there is",
    ),
    (
        StatusCode::CONFLICT,
        "Something that refers to it is in the way",
    ),
    (
        StatusCode::TOO_MANY_REQUESTS,
        "Too much at once; `Retry-After` says when to try again",
    ),
    (
        StatusCode::INTERNAL_SERVER_ERROR,
        "Stored data is damaged, or the server has a fault; its log tells more",
    ),
    (
        StatusCode::SERVICE_UNAVAILABLE,
        "The storage failed for the moment; `Retry-After` says when to try again",
    ),
    (StatusCode::INSUFFICIENT_STORAGE, "The storage is full"),
];

/// Adds [`PROBLEMS`] to every operation of a document.
pub(super) struct EveryOperation;

impl Modify for EveryOperation {
    fn modify(&self, document: &mut OpenApi) {
        for path in document.paths.paths.values_mut() {
            let operations = [
                &mut path.get,
                &mut path.put,
                &mut path.post,
                &mut path.delete,
                &mut path.patch,
            ];
            for operation in operations.into_iter().flatten() {
                for (status, description) in PROBLEMS {
                    operation
                        .responses
                        .responses
                        .entry(status.as_str().to_owned())
                        .or_insert_with(|| RefOr::T(described(description)));
                }
            }
        }
    }
}

fn described(description: &str) -> Described {
    let schema = Ref::from_schema_name("Problem");
    ResponseBuilder::new()
        .description(description)
        .content("application/problem+json", Content::new(Some(schema)))
        .build()
}
