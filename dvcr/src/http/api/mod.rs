//! The management API below `/api/v1`, and the document that describes it.
//!
//! One file a noun. What travels is `dvcr-openapi`'s, beside the client method that carries it; a handler here parses what came,
//! asks one use case of [`Registry`](crate::registry::Registry) as the request's principal, and turns its answer into what travels.
//!
//! A new endpoint takes three pieces:
//! 1. wire types and a method of the client in `openapi/src/NOUN.rs`;
//! 2. a handler under `#[utoipa::path]` in `NOUN.rs` here, named by the `routes` of that file, which [`routes`] merges;
//! 3. `dvcr openapi > openapi/dvcr.json`: a test fails until the committed document says what the code does.
//!
//! Errors are problem documents (RFC 9457), unlike those below `/v2`; [`document`] says so for every operation.

mod blob;
mod checkpoint;
mod deletion;
mod docs;
mod document;
mod extract;
mod gc;
mod manifest;
mod page;
mod problem;
mod repository;
mod retention;
mod scrub;
mod server;
mod stats;
mod tag;
mod upload;
mod usage;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::Method,
    middleware,
    response::{IntoResponse as _, Response},
};
use dvcr_core::oci::RouteError;
use utoipa_axum::router::OpenApiRouter;

use self::extract::BODY_BYTES_MAX;
pub(crate) use self::{document::document_text, problem::problem};
use super::{
    App,
    error::{ApiError, RequestError},
    observe::Endpoint,
};

/// Every endpoint, with its description.
fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .merge(repository::routes())
        .merge(tag::routes())
        .merge(manifest::routes())
        .merge(stats::routes())
        .merge(usage::routes())
        .merge(blob::routes())
        .merge(upload::routes())
        .merge(deletion::routes())
        .merge(retention::routes())
        .merge(gc::routes())
        .merge(scrub::routes())
        .merge(checkpoint::routes())
        .merge(server::routes())
}

/// The service below `/api`.
pub(super) fn router() -> Router<App> {
    let (api, _) = routes().split_for_parts();
    api.merge(docs::routes())
        .method_not_allowed_fallback(async || problem::Failure::from(RequestError::Method))
        .layer(DefaultBodyLimit::max(BODY_BYTES_MAX))
        .layer(middleware::map_response(labelled))
}

/// The answer to a path below `/api` that names nothing.
pub(super) fn unknown(method: &Method) -> Response {
    let mut response = problem(ApiError::from(RouteError::NotFound), method);
    response.extensions_mut().insert(Endpoint("api"));
    response
}

async fn labelled(response: Response) -> Response {
    (axum::Extension(Endpoint("api")), response).into_response()
}

#[cfg(test)]
mod tests;
