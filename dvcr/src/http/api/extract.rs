//! What handlers take from a request, with problem documents for what makes no sense.

use std::sync::Arc;

use axum::{
    Json,
    extract::{
        FromRequest, FromRequestParts, Path, Query, Request,
        rejection::{JsonRejection, PathRejection},
    },
    http::{StatusCode, Uri, request::Parts},
};
use dvcr_core::oci::{Digest, RepositoryName, RouteError};
use serde::de::DeserializeOwned;
use serde_json::value::RawValue;

use super::{page, problem::Failure};
use crate::{
    http::{App, ServerFacts, error::RequestError, observe::RequestInfo, query},
    registry::{
        Principal, Registry,
        glob::{Glob, Globbed},
    },
};

/// Longest body of a request: settings of thousands of rules fit.
pub(super) const BODY_BYTES_MAX: usize = 1 << 20;

/// Longest text of a client's that an error repeats.
const REPEATED_CHARS_MAX: usize = 255;

/// Who asks whom. Every handler takes it, because every use case asks for the principal.
pub(super) struct Call {
    pub(super) registry: Registry,
    pub(super) who: Principal,
    pub(super) facts: Arc<ServerFacts>,
}

impl FromRequestParts<App> for Call {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Failure> {
        let info = parts
            .extensions
            .get::<RequestInfo>()
            .ok_or_else(|| RequestError::Internal("no request info".to_owned()))?;
        Ok(Self {
            registry: app.registry.clone(),
            who: info.principal.clone(),
            facts: Arc::clone(&app.facts),
        })
    }
}

/// Parameters of the query.
pub(super) struct Params<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequestParts<App> for Params<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, _: &App) -> Result<Self, Failure> {
        match Query::try_from_uri(&parts.uri) {
            Ok(Query(parameters)) => Ok(Self(parameters)),
            Err(_) if has_malformed_limit(&parts.uri) => Err(page::limit_error().into()),
            Err(rejection) => Err(RequestError::Parameter(rejection.body_text()).into()),
        }
    }
}

/// Whether `limit` is something else than a number, of which the parser's text says less than ours.
fn has_malformed_limit(uri: &Uri) -> bool {
    let limits = query::Query::parse(uri.query());
    limits
        .all("limit")
        .any(|limit| limit.parse::<u32>().is_err())
}

/// A segment of the path, as a text or number.
pub(super) struct Segment<T>(pub(super) T);

impl<T: DeserializeOwned + Send> FromRequestParts<App> for Segment<T> {
    type Rejection = Failure;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self, Failure> {
        match Path::from_request_parts(parts, app).await {
            Ok(Path(segment)) => Ok(Self(segment)),
            Err(PathRejection::FailedToDeserializePathParams(rejection)) => {
                Err(RequestError::Parameter(rejection.body_text()).into())
            }
            Err(rejection) => Err(RequestError::Internal(rejection.body_text()).into()),
        }
    }
}

/// A JSON body. It has to say that it is JSON: a form of another web page cannot, so it cannot send what a person who is logged in
/// here, or the machine that this listens on, did not mean. It is an object: serde would take a list for one, by the order of fields,
/// which is nothing that we promise.
pub(super) struct Document<T>(pub(super) T);

impl<T: DeserializeOwned> FromRequest<App> for Document<T> {
    type Rejection = Failure;

    async fn from_request(request: Request, app: &App) -> Result<Self, Failure> {
        let read = Json::<Box<RawValue>>::from_request(request, app);
        match tokio::time::timeout(app.limits.body_stall, read).await {
            Ok(Ok(Json(raw))) if !raw.get().starts_with('{') => Err(RequestError::Document(
                "the body has to be a JSON object: {...}".to_owned(),
            )
            .into()),
            Ok(Ok(Json(raw))) => match serde_json::from_str(raw.get()) {
                Ok(document) => Ok(Self(document)),
                Err(error) => Err(RequestError::Document(format!(
                    "the body does not say what this needs: {error}"
                ))
                .into()),
            },
            Ok(Err(JsonRejection::MissingJsonContentType(_))) => {
                Err(RequestError::ContentType.into())
            }
            Ok(Err(rejection)) if rejection.status() == StatusCode::PAYLOAD_TOO_LARGE => {
                Err(RequestError::DocumentTooLarge(BODY_BYTES_MAX).into())
            }
            Ok(Err(rejection)) => Err(RequestError::Document(rejection.body_text()).into()),
            Err(_) => Err(RequestError::BodyTimeout.into()),
        }
    }
}

/// Reads a repository's name.
pub(super) fn repository(text: &str) -> Result<RepositoryName, Failure> {
    text.parse()
        .map_err(|_| RouteError::Name(repeated(text)).into())
}

/// Reads a glob in a field of a document.
pub(super) fn glob<N: Globbed>(field: &str, text: &str) -> Result<Glob<N>, Failure> {
    text.parse()
        .map_err(|error| RequestError::Document(format!("{field}: {error}")).into())
}

/// Reads a digest.
pub(super) fn digest(text: &str) -> Result<Digest, Failure> {
    text.parse()
        .map_err(|_| RouteError::Digest(repeated(text)).into())
}

/// A text of the client's, cut for an error.
pub(super) fn repeated(text: &str) -> String {
    text.chars().take(REPEATED_CHARS_MAX).collect()
}
