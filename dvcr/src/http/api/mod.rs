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
//! Errors are problem documents (RFC 9457), unlike those below `/v2`; the document says so for every operation by itself.

mod deletion;
mod docs;
mod extract;
mod gc;
mod page;
mod problem;
mod repository;
mod retention;
mod stats;

use axum::{
    Router,
    extract::DefaultBodyLimit,
    http::Method,
    middleware,
    response::{IntoResponse as _, Response},
};
use dvcr_core::oci::RouteError;
use utoipa::OpenApi as _;
use utoipa_axum::router::OpenApiRouter;

use self::extract::BODY_BYTES_MAX;
pub(crate) use self::problem::problem;
use super::{
    App,
    error::{ApiError, RequestError},
    observe::Endpoint,
};

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "DVCR management API",
        description = "Look at and run a DVCR server. Images are pushed and pulled below `/v2`, by the OCI distribution specification.\n\n\
            Lists come in pages: send `next` of one page as `after` for the following. Errors are problem documents (RFC 9457). \
            Bodies of requests are JSON and need `Content-Type: application/json`."
    ),
    components(schemas(dvcr_openapi::Problem)),
    tags(
        (name = "gc", description = "Garbage collection"),
        (name = "retention", description = "What goes by itself, and what never does"),
        (name = "repositories", description = "What is stored, by name"),
        (name = "usage", description = "What is stored, by size"),
    )
)]
struct Described;

/// Every endpoint, with its description.
fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .merge(deletion::routes())
        .merge(gc::routes())
        .merge(repository::routes())
        .merge(retention::routes())
        .merge(stats::routes())
}

/// The document that describes the API.
#[must_use]
pub(crate) fn document() -> utoipa::openapi::OpenApi {
    let mut document = Described::openapi();
    document.merge(routes().into_openapi());
    utoipa::Modify::modify(&problem::EveryOperation, &mut document);
    document
}

/// The document as it is committed and served: JSON with a newline at its end.
pub(crate) fn document_text() -> Result<String, serde_json::Error> {
    let mut text = document().to_pretty_json()?;
    text.push('\n');
    Ok(text)
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
