//! The management API: `/api/v1/stats` and `/api/v1/repositories/NAME/stats`.
//!
//! Errors are problem documents (RFC 9457), unlike those below `/v2`.

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderValue, Method, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use dvcr_core::oci::{RepositoryName, RouteError};

use super::{
    App,
    error::{ApiError, Cause, RequestError},
    observe::{Endpoint, RequestInfo},
};

/// Answers everything below `/api/`.
pub(super) async fn serve(app: App, request: Request) -> Response {
    // The body of a GET means nothing.
    let (parts, _) = request.into_parts();
    let mut response = match answer(&app, &parts).await {
        Ok(body) => (
            [(
                header::CONTENT_TYPE,
                HeaderValue::from_static("application/json"),
            )],
            body,
        )
            .into_response(),
        Err(error) => problem(error, &parts.method),
    };
    response.extensions_mut().insert(Endpoint("api"));
    response
}

async fn answer(app: &App, request: &Parts) -> Result<Body, ApiError> {
    let repository = parse(request.uri.path())?;
    if !matches!(request.method, Method::GET | Method::HEAD) {
        return Err(RequestError::MethodNotAllowed(&["GET", "HEAD"]).into());
    }
    let info = request
        .extensions
        .get::<RequestInfo>()
        .ok_or_else(|| RequestError::Internal("no request info".to_owned()))?;
    let stats = app
        .registry
        .stats(&info.principal, repository.as_ref())
        .await?;
    let json = serde_json::to_vec(&stats)
        .map_err(|error| RequestError::Internal(format!("encode stats: {error}")))?;
    Ok(Body::from(json))
}

/// The repository that a path asks about; none for all.
fn parse(path: &str) -> Result<Option<RepositoryName>, RouteError> {
    if path == "/api/v1/stats" {
        return Ok(None);
    }
    let name = path
        .strip_prefix("/api/v1/repositories/")
        .and_then(|rest| rest.strip_suffix("/stats"))
        .ok_or(RouteError::NotFound)?;
    match name.parse() {
        Ok(name) => Ok(Some(name)),
        Err(_) => Err(RouteError::Name(name.chars().take(255).collect())),
    }
}

/// Turns an answer for OCI clients into a problem document.
fn problem(error: ApiError, method: &Method) -> Response {
    let external = match error.cause() {
        Cause::Request(RequestError::Internal(_)) => None,
        cause => Some(cause.to_string()),
    };
    let mut response = error.answer(method);
    let status = response.status();
    // What happened inside stays inside, as in the table.
    let detail = external.filter(|_| !status.is_server_error());
    let document = serde_json::json!({
        "type": "about:blank",
        "title": status.canonical_reason().unwrap_or("Error"),
        "status": status.as_u16(),
        "detail": detail.unwrap_or_else(|| default_detail(status).to_owned()),
    });
    *response.body_mut() = Body::from(document.to_string());
    response.headers_mut().remove(header::CONTENT_LENGTH);
    response.headers_mut().insert(
        header::CONTENT_TYPE,
        HeaderValue::from_static("application/problem+json"),
    );
    response
}

fn default_detail(status: StatusCode) -> &'static str {
    match status {
        StatusCode::SERVICE_UNAVAILABLE => "the registry's storage does not answer; try again",
        StatusCode::INSUFFICIENT_STORAGE => "the registry's storage is full",
        _ => "the server's log tells more",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_name_a_repository_or_all() {
        fn check(path: &str, expected: Result<Option<&str>, RouteError>) {
            let expected = expected.map(|name| name.map(|name| name.parse().unwrap()));
            assert_eq!(parse(path), expected, "{path}");
        }
        check("/api/v1/stats", Ok(None));
        check("/api/v1/repositories/a/stats", Ok(Some("a")));
        check("/api/v1/repositories/a/b/stats", Ok(Some("a/b")));
        check("/api/v1/repositories/a/stats/stats", Ok(Some("a/stats")));
        check("/api/v1/repositories/stats", Err(RouteError::NotFound));
        check("/api/v1/repositories/a", Err(RouteError::NotFound));
        check("/api/v1/stats/", Err(RouteError::NotFound));
        check("/api/v2/stats", Err(RouteError::NotFound));
        check(
            "/api/v1/repositories/A/stats",
            Err(RouteError::Name("A".into())),
        );
        check(
            "/api/v1/repositories/../stats",
            Err(RouteError::Name("..".into())),
        );
    }
}
