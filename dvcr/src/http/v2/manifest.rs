//! Manifests and indexes, byte for byte.
//!
//! Source: OCI distribution-spec, end-3, end-7 and end-9.

use axum::{
    body::Body,
    http::{HeaderValue, Method, StatusCode, header},
    response::Response,
};
use dvcr_core::oci::{Reference, RepositoryName, Tag};

use super::{
    Answer, CONTENT_DIGEST, Call, OCI_SUBJECT, OCI_TAG, empty, etag, harden, not_modified, value,
};
use crate::http::{
    conditional,
    error::{ApiError, RequestError},
};

/// Most `tag` parameters of one request. The specification asks for at least 10; each is a row of one transaction.
const TAG_PARAMETERS_MAX: usize = 100;

/// `GET` and `HEAD /v2/NAME/manifests/REFERENCE`. `Accept` is not looked at: what was pushed is what is answered, and a client
/// that cannot use it says so better than a 406 could.
pub(super) async fn get(call: &Call, repository: &RepositoryName, reference: &Reference) -> Answer {
    let manifest = call
        .app
        .registry
        .manifest_get(&call.who, repository, reference)
        .await?;
    let digest = match reference {
        Reference::Digest(digest) => *digest,
        Reference::Tag(_) => manifest.digest,
    };
    let etag = etag(&digest);
    let len = manifest.bytes.len() as u64;
    let mut response = if conditional::none_match(&call.headers, &etag) {
        not_modified(&call.method, len)
    } else {
        let body = if call.method == Method::HEAD {
            Body::empty()
        } else {
            Body::from(manifest.bytes)
        };
        let mut response = Response::new(body);
        let headers = response.headers_mut();
        headers.insert(header::CONTENT_TYPE, value(&manifest.media_type)?);
        headers.insert(header::CONTENT_LENGTH, HeaderValue::from(len));
        response
    };
    let headers = response.headers_mut();
    headers.insert(CONTENT_DIGEST, value(&digest.to_string())?);
    headers.insert(header::ETAG, value(&etag)?);
    harden(headers);
    Ok(response)
}

/// `PUT /v2/NAME/manifests/REFERENCE`, with any number of `tag` parameters.
pub(super) async fn put(call: &Call, repository: &RepositoryName, reference: &Reference) -> Answer {
    let tags = tags(call)?;
    let bytes = call
        .body
        .collect(call.content_length(), call.app.limits.manifest_bytes_max)
        .await?;
    let content_type = call
        .headers
        .get(header::CONTENT_TYPE)
        .map(|value| String::from_utf8_lossy(value.as_bytes()).into_owned());
    let put = call
        .app
        .registry
        .manifest_put(
            &call.who,
            repository,
            reference,
            &tags,
            content_type.as_deref(),
            bytes,
        )
        .await?;
    let mut response = empty(StatusCode::CREATED);
    let headers = response.headers_mut();
    headers.insert(
        header::LOCATION,
        value(&format!("/v2/{repository}/manifests/{}", put.digest))?,
    );
    headers.insert(CONTENT_DIGEST, value(&put.digest.to_string())?);
    if let Some(subject) = put.subject {
        headers.insert(OCI_SUBJECT, value(&subject.to_string())?);
    }
    for tag in &put.tags {
        headers.append(OCI_TAG, value(tag.as_str())?);
    }
    Ok(response)
}

/// `DELETE /v2/NAME/manifests/REFERENCE`.
pub(super) async fn delete(
    call: &Call,
    repository: &RepositoryName,
    reference: &Reference,
) -> Answer {
    call.app
        .registry
        .manifest_delete(&call.who, repository, reference)
        .await?;
    Ok(empty(StatusCode::ACCEPTED))
}

/// The tags that the parameters name, each once, in the order sent.
fn tags(call: &Call) -> Result<Vec<Tag>, ApiError> {
    let mut tags: Vec<Tag> = Vec::new();
    for text in call.query.all("tag") {
        let tag = text
            .parse()
            .map_err(|_| RequestError::Tag(text.chars().take(128).collect()))?;
        if !tags.contains(&tag) {
            tags.push(tag);
        }
        if tags.len() > TAG_PARAMETERS_MAX {
            return Err(RequestError::TooManyTags(TAG_PARAMETERS_MAX).into());
        }
    }
    Ok(tags)
}
