//! The management API: `/api/v1/stats`, `/api/v1/repositories/NAME/stats`, `/api/v1/gc/{plan,run,explain/DIGEST}`.
//!
//! Errors are problem documents (RFC 9457), unlike those below `/v2`.

use axum::{
    body::Body,
    extract::Request,
    http::{HeaderValue, Method, StatusCode, header, request::Parts},
    response::{IntoResponse, Response},
};
use dvcr_core::oci::{Digest, RepositoryName, RouteError};

use super::{
    App,
    error::{ApiError, Cause, RequestError},
    observe::{Endpoint, RequestInfo},
    query::Query,
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
    let wanted = parse(request.uri.path())?;
    let (allowed, methods): (_, &[&str]) = match wanted {
        Wanted::GcRun => (request.method == Method::POST, &["POST"]),
        _ => (
            matches!(request.method, Method::GET | Method::HEAD),
            &["GET", "HEAD"],
        ),
    };
    if !allowed {
        return Err(RequestError::MethodNotAllowed(methods).into());
    }
    let info = request
        .extensions
        .get::<RequestInfo>()
        .ok_or_else(|| RequestError::Internal("no request info".to_owned()))?;
    let (registry, who) = (&app.registry, &info.principal);
    match wanted {
        Wanted::Stats(repository) => encode(&registry.stats(who, repository.as_ref()).await?),
        Wanted::GcPlan => encode(&registry.gc_plan(who).await?),
        Wanted::GcExplain(digest) => encode(&registry.gc_explain(who, &digest).await?),
        Wanted::GcRun => {
            let query = Query::parse(request.uri.query());
            encode(
                &registry
                    .gc_run(who, query.get("force") == Some("true"))
                    .await?,
            )
        }
    }
}

fn encode(document: &impl serde::Serialize) -> Result<Body, ApiError> {
    let json = serde_json::to_vec(document)
        .map_err(|error| RequestError::Internal(format!("encode an answer: {error}")))?;
    Ok(Body::from(json))
}

/// What a path asks for.
#[derive(Debug, PartialEq, Eq)]
enum Wanted {
    /// Sizes of a repository, or of everything.
    Stats(Option<RepositoryName>),
    GcPlan,
    GcRun,
    GcExplain(Digest),
}

fn parse(path: &str) -> Result<Wanted, RouteError> {
    let path = path.strip_prefix("/api/v1/").ok_or(RouteError::NotFound)?;
    match path {
        "stats" => return Ok(Wanted::Stats(None)),
        "gc/plan" => return Ok(Wanted::GcPlan),
        "gc/run" => return Ok(Wanted::GcRun),
        _ => {}
    }
    if let Some(digest) = path.strip_prefix("gc/explain/") {
        return match digest.parse() {
            Ok(digest) => Ok(Wanted::GcExplain(digest)),
            Err(_) => Err(RouteError::Digest(digest.chars().take(255).collect())),
        };
    }
    let name = path
        .strip_prefix("repositories/")
        .and_then(|rest| rest.strip_suffix("/stats"))
        .ok_or(RouteError::NotFound)?;
    match name.parse() {
        Ok(name) => Ok(Wanted::Stats(Some(name))),
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
            let expected =
                expected.map(|name| Wanted::Stats(name.map(|name| name.parse().unwrap())));
            assert_eq!(parse(path), expected, "{path}");
        }
        assert_eq!(parse("/api/v1/gc/plan"), Ok(Wanted::GcPlan));
        assert_eq!(parse("/api/v1/gc/run"), Ok(Wanted::GcRun));
        let digest = Digest::sha256(b"");
        assert_eq!(
            parse(&format!("/api/v1/gc/explain/{digest}")),
            Ok(Wanted::GcExplain(digest))
        );
        check("/api/v1/gc/explain/x", Err(RouteError::Digest("x".into())));
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
