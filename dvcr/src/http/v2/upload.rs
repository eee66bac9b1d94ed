//! Upload sessions, single-request uploads and mounts.
//!
//! Source: OCI distribution-spec, end-4a, end-4b, end-5, end-6, end-11, end-13, end-14 and digest-algorithm.

use axum::{
    http::{HeaderValue, StatusCode, header},
    response::Response,
};
use dvcr_core::oci::{Algorithm, Digest, RepositoryName, parse_content_range};

use super::{Answer, CHUNK_MIN_LENGTH, CONTENT_DIGEST, Call, UPLOAD_UUID, empty, value};
use crate::{
    http::error::{ApiError, RequestError},
    registry::{RegistryError, SessionId, UploadStatus},
};

/// `POST /v2/NAME/blobs/uploads/`, with `mount`, `digest` or neither.
pub(super) async fn start(call: &Call, repository: &RepositoryName) -> Answer {
    let registry = &call.app.registry;
    if let Some(digest) = digest(call, "mount")? {
        let from = call
            .query
            .get("from")
            .filter(|name| !name.is_empty())
            .map(|name| {
                name.parse::<RepositoryName>()
                    .map_err(|_| RequestError::From)
            })
            .transpose()?;
        if registry
            .blob_mount(&call.who, repository, &digest, from.as_ref())
            .await?
        {
            return created(repository, &digest);
        }
    }
    if let Some(digest) = digest(call, "digest")? {
        let body = call.body.stream();
        registry
            .blob_push(&call.who, repository, digest, body)
            .await?;
        return created(repository, &digest);
    }
    let algorithm = call
        .query
        .get("digest-algorithm")
        .map(|name| {
            name.parse::<Algorithm>()
                .map_err(|_| RequestError::Algorithm(name.to_owned()))
        })
        .transpose()?;
    let status = registry
        .upload_start(&call.who, repository, algorithm)
        .await?;
    let mut response = session(StatusCode::ACCEPTED, repository, &status)?;
    response.headers_mut().insert(
        CHUNK_MIN_LENGTH,
        HeaderValue::from(call.app.limits.chunk_min_bytes),
    );
    Ok(response)
}

/// `GET` of a session: how far it is.
pub(super) async fn status(call: &Call, repository: &RepositoryName, id: &str) -> Answer {
    let id = parse_id(id)?;
    let status = call
        .app
        .registry
        .upload_status(&call.who, repository, &id)
        .await?;
    session(StatusCode::NO_CONTENT, repository, &status)
}

/// `PATCH` of a session: a chunk, a stream, or nothing.
pub(super) async fn append(call: &Call, repository: &RepositoryName, id: &str) -> Answer {
    let id = parse_id(id)?;
    let range = chunk_range(call)?;
    let body = call.body.stream();
    let status = call
        .app
        .registry
        .upload_append(&call.who, repository, &id, range, body)
        .await
        .map_err(|error| refused(error, repository, &id))?;
    session(StatusCode::ACCEPTED, repository, &status)
}

/// `PUT` of a session: the end, with or without a last chunk.
pub(super) async fn finish(call: &Call, repository: &RepositoryName, id: &str) -> Answer {
    let id = parse_id(id)?;
    let digest = digest(call, "digest")?.ok_or(RequestError::DigestMissing)?;
    let range = chunk_range(call)?;
    let body = call.body.stream();
    call.app
        .registry
        .upload_finish(&call.who, repository, &id, range, digest, body)
        .await
        .map_err(|error| refused(error, repository, &id))?;
    created(repository, &digest)
}

/// `DELETE` of a session.
pub(super) async fn cancel(call: &Call, repository: &RepositoryName, id: &str) -> Answer {
    let id = parse_id(id)?;
    call.app
        .registry
        .upload_cancel(&call.who, repository, &id)
        .await?;
    Ok(empty(StatusCode::NO_CONTENT))
}

/// A text that is no session id names no session.
fn parse_id(id: &str) -> Result<SessionId, RegistryError> {
    id.parse().map_err(|_| RegistryError::UploadUnknown)
}

fn digest(call: &Call, parameter: &'static str) -> Result<Option<Digest>, RequestError> {
    call.query
        .get(parameter)
        .map(|text| {
            text.parse()
                .map_err(|source| RequestError::Digest { parameter, source })
        })
        .transpose()
}

/// The range that a chunk says it covers, which must agree with its length where that is announced.
fn chunk_range(call: &Call) -> Result<Option<(u64, u64)>, RequestError> {
    // Several fields are a list, as which they are malformed: which of them counts is not for the server to guess.
    let fields = call.headers.get_all(header::CONTENT_RANGE).iter();
    let fields: Vec<_> = fields
        .map(|field| String::from_utf8_lossy(field.as_bytes()))
        .collect();
    if fields.is_empty() {
        return Ok(None);
    }
    let text = fields.join(", ");
    let malformed = || RequestError::ContentRange(text.chars().take(100).collect());
    let (first, last) = parse_content_range(&text).ok_or_else(malformed)?;
    let covered = last
        .checked_sub(first)
        .and_then(|len| len.checked_add(1))
        .ok_or_else(malformed)?;
    match call.content_length() {
        Some(len) if len != covered => Err(RequestError::LengthMismatch {
            range: covered,
            len,
        }),
        _ => Ok(Some((first, last))),
    }
}

/// A chunk out of order leaves the session as it was: the answer says where it stands.
fn refused(error: RegistryError, repository: &RepositoryName, id: &SessionId) -> ApiError {
    let expected = match &error {
        RegistryError::RangeMismatch { expected, .. } => Some(*expected),
        _ => None,
    };
    let error = ApiError::from(error);
    let Some(offset) = expected else { return error };
    let fields = value(&location(repository, id))
        .and_then(|location| Ok((location, value(&range(offset))?)));
    match fields {
        Ok((location, range)) => error
            .with(header::LOCATION, location)
            .with(header::RANGE, range)
            .with(UPLOAD_UUID, uuid(id)),
        Err(error) => error,
    }
}

/// Relative, so that it is right behind any proxy.
fn location(repository: &RepositoryName, id: &SessionId) -> String {
    format!("/v2/{repository}/blobs/uploads/{id}")
}

/// The bytes that arrived so far, first and last. Nothing has no such form; `0-0` is what other registries say and every
/// client takes.
fn range(offset: u64) -> String {
    format!("0-{}", offset.saturating_sub(1))
}

fn uuid(id: &SessionId) -> HeaderValue {
    HeaderValue::from_str(&id.to_string()).unwrap_or(HeaderValue::from_static(""))
}

fn session(
    status: StatusCode,
    repository: &RepositoryName,
    upload: &UploadStatus,
) -> Result<Response, ApiError> {
    let mut response = empty(status);
    let headers = response.headers_mut();
    headers.insert(header::LOCATION, value(&location(repository, &upload.id))?);
    headers.insert(header::RANGE, value(&range(upload.offset))?);
    headers.insert(UPLOAD_UUID, uuid(&upload.id));
    Ok(response)
}

fn created(repository: &RepositoryName, digest: &Digest) -> Answer {
    let mut response = empty(StatusCode::CREATED);
    let headers = response.headers_mut();
    headers.insert(
        header::LOCATION,
        value(&format!("/v2/{repository}/blobs/{digest}"))?,
    );
    headers.insert(CONTENT_DIGEST, value(&digest.to_string())?);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_name_the_last_byte() {
        assert_eq!(range(0), "0-0");
        assert_eq!(range(1), "0-0");
        assert_eq!(range(1_024), "0-1023");
    }
}
