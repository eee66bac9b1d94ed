//! The document, and Swagger UI for it, from what is compiled in.

use std::sync::{Arc, LazyLock};

use axum::{
    Router,
    extract::Path,
    http::{HeaderName, HeaderValue, header},
    response::{IntoResponse as _, Redirect, Response},
    routing::get,
};
use dvcr_core::oci::RouteError;
use utoipa_swagger_ui::Config;

use super::problem::Failure;
use crate::http::{App, error::RequestError};

/// Where the document is.
const DOCUMENT_PATH: &str = "/api/v1/openapi.json";

/// Where people look at it.
const DOCS_PATH: &str = "/api/docs/";

/// Nothing from elsewhere, nobody else's frame. Swagger UI sets styles on elements, and its icons are `data:` URLs.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; \
    img-src 'self' data:; connect-src 'self'; form-action 'none'; base-uri 'none'; frame-ancestors 'none'";

pub(super) fn routes() -> Router<App> {
    Router::new()
        .route(DOCUMENT_PATH, get(document))
        .route("/api", get(async || Redirect::temporary(DOCS_PATH)))
        .route("/api/", get(async || Redirect::temporary(DOCS_PATH)))
        .route("/api/docs", get(async || Redirect::temporary(DOCS_PATH)))
        .route(DOCS_PATH, get(async || file("index.html")))
        .route(
            "/api/docs/{*file}",
            get(async |Path(name): Path<String>| file(&name)),
        )
}

async fn document() -> Result<Response, Failure> {
    static TEXT: LazyLock<Result<String, String>> =
        LazyLock::new(|| super::document::document_text().map_err(|error| error.to_string()));
    match &*TEXT {
        Ok(text) => Ok((json(), text.as_str()).into_response()),
        Err(error) => Err(RequestError::Internal(error.clone()).into()),
    }
}

fn json() -> [(HeaderName, HeaderValue); 1] {
    [(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/json"),
    )]
}

/// A file of Swagger UI.
fn file(name: &str) -> Result<Response, Failure> {
    static CONFIG: LazyLock<Arc<Config<'static>>> =
        LazyLock::new(|| Arc::new(Config::from(DOCUMENT_PATH)));
    let found = utoipa_swagger_ui::serve(name, Arc::clone(&CONFIG))
        .map_err(|error| RequestError::Internal(format!("serve Swagger UI: {error}")))?;
    let file = found.ok_or(RouteError::NotFound)?;
    let content_type = HeaderValue::from_str(&file.content_type)
        .map_err(|error| RequestError::Internal(format!("serve Swagger UI: {error}")))?;
    let fields = [
        (header::CONTENT_TYPE, content_type),
        (
            header::CONTENT_SECURITY_POLICY,
            HeaderValue::from_static(CONTENT_SECURITY_POLICY),
        ),
        (
            header::X_CONTENT_TYPE_OPTIONS,
            HeaderValue::from_static("nosniff"),
        ),
        (
            header::REFERRER_POLICY,
            HeaderValue::from_static("no-referrer"),
        ),
    ];
    Ok((fields, file.bytes.into_owned()).into_response())
}
