//! Blobs: whole, in parts, as stored zstd frames, and gone.
//!
//! Source: OCI distribution-spec, end-2 and end-10; RFC 9110, sections 13 and 14.

use std::ops::Range;

use axum::{
    body::Body,
    http::{HeaderMap, HeaderValue, StatusCode, header},
    response::Response,
};
use bytes::Bytes;
use dvcr_core::oci::{Digest, Ranges, RepositoryName, parse_range};
use futures::{Stream, StreamExt as _, stream};

use super::{Answer, CONTENT_DIGEST, Call, empty, etag, harden, not_modified, value};
use crate::{
    http::{
        body::{AnswerError, Exact},
        conditional,
        error::{ApiError, RequestError},
        multipart, request_id,
    },
    registry::{BlobReader, RegistryError},
    store::StoreError,
};

/// `HEAD /v2/NAME/blobs/DIGEST`. Its length is the blob's also where a `GET` with the same `Accept-Encoding` would send fewer bytes of
/// zstd: clients ask with HEAD how large a blob is, and RFC 9110, section 9.3.2, would have them told something else. `Vary` says that
/// a `GET` may differ.
pub(super) async fn head(call: &Call, repository: &RepositoryName, digest: &Digest) -> Answer {
    let info = call
        .app
        .registry
        .blob_head(&call.who, repository, digest)
        .await?;
    let etag = etag(digest);
    if conditional::none_match(&call.headers, &etag) {
        return unchanged(call, digest, &etag, info.len);
    }
    let mut response = empty(StatusCode::OK);
    describe(response.headers_mut(), digest, &etag)?;
    set_len(response.headers_mut(), info.len);
    Ok(response)
}

/// `GET /v2/NAME/blobs/DIGEST`.
pub(super) async fn get(call: &Call, repository: &RepositoryName, digest: &Digest) -> Answer {
    let reader = call
        .app
        .registry
        .blob_read(&call.who, repository, digest)
        .await?;
    let headers = &call.headers;
    let len = reader.info().len;

    let range = headers.get(header::RANGE);
    // Rather than break off somewhere in the middle. Ranges may be whole.
    if range.is_none() && call.app.registry.store().is_damaged(digest) {
        return Err(RegistryError::Damaged(*digest).into());
    }
    if range.is_none()
        && conditional::accepts_zstd(headers)
        && let Some((stored_len, frames)) =
            reader.stored_stream().await.map_err(RegistryError::from)?
    {
        return zstd(call, digest, stored_len, frames);
    }

    let etag = etag(digest);
    // Before Range: RFC 9110 section 13.2.2 gives the order.
    if conditional::none_match(headers, &etag) {
        return unchanged(call, digest, &etag, len);
    }
    let ranges = range
        .filter(|_| conditional::if_range(headers, &etag))
        .and_then(|range| range.to_str().ok())
        .map_or(Ranges::Whole, |range| parse_range(range, len));
    let mut response = match ranges {
        Ranges::Whole => whole(&reader, 0..len, StatusCode::OK),
        Ranges::Satisfiable(ranges) if ranges.len() == 1 => one(&reader, &ranges[0], len)?,
        Ranges::Satisfiable(ranges) => several(reader, ranges, len)?,
        Ranges::Unsatisfiable => return Err(unsatisfiable(digest, &etag, len)?),
    };
    describe(response.headers_mut(), digest, &etag)?;
    Ok(response)
}

/// `DELETE /v2/NAME/blobs/DIGEST`.
pub(super) async fn delete(call: &Call, repository: &RepositoryName, digest: &Digest) -> Answer {
    call.app
        .registry
        .blob_delete(&call.who, repository, digest)
        .await?;
    Ok(empty(StatusCode::ACCEPTED))
}

/// The stored frames, undecoded. Another representation has another entity tag, but the same digest: that is of the blob.
fn zstd(
    call: &Call,
    digest: &Digest,
    stored_len: u64,
    frames: impl Stream<Item = Result<Bytes, StoreError>> + Send + 'static,
) -> Answer {
    let etag = format!("\"{digest}-zstd\"");
    if conditional::none_match(&call.headers, &etag) {
        return unchanged(call, digest, &etag, stored_len);
    }
    let frames = Exact::new(Box::pin(frames), stored_len);
    let mut response = Response::new(Body::from_stream(frames));
    let headers = response.headers_mut();
    describe(headers, digest, &etag)?;
    set_len(headers, stored_len);
    headers.insert(header::CONTENT_ENCODING, HeaderValue::from_static("zstd"));
    Ok(response)
}

fn whole(reader: &BlobReader, range: Range<u64>, status: StatusCode) -> Response {
    let len = range.end - range.start;
    let body = if len == 0 {
        Body::empty()
    } else {
        Body::from_stream(Exact::new(Box::pin(reader.body(range)), len))
    };
    let mut response = Response::new(body);
    *response.status_mut() = status;
    set_len(response.headers_mut(), len);
    response
}

fn one(reader: &BlobReader, range: &Range<u64>, len: u64) -> Answer {
    let mut response = whole(reader, range.clone(), StatusCode::PARTIAL_CONTENT);
    response.headers_mut().insert(
        header::CONTENT_RANGE,
        value(&multipart::content_range(range, len))?,
    );
    Ok(response)
}

fn several(reader: BlobReader, ranges: Vec<Range<u64>>, len: u64) -> Answer {
    let plan = multipart::plan(ranges, len, &request_id::random_hex());
    // Each part is opened when the one before it is sent, so that 256 parts do not read ahead all at once.
    let frames = stream::iter(plan.parts)
        .map(move |(head, range)| {
            let expected = range.end - range.start;
            let head = stream::iter([Ok::<_, AnswerError>(head)]);
            head.chain(Exact::new(Box::pin(reader.body(range)), expected))
        })
        .flatten()
        .chain(stream::iter([Ok(plan.end)]));
    let mut response = Response::new(Body::from_stream(Exact::new(Box::pin(frames), plan.len)));
    *response.status_mut() = StatusCode::PARTIAL_CONTENT;
    let headers = response.headers_mut();
    set_len(headers, plan.len);
    headers.insert(header::CONTENT_TYPE, value(&plan.content_type)?);
    Ok(response)
}

fn unsatisfiable(digest: &Digest, etag: &str, len: u64) -> Result<ApiError, ApiError> {
    Ok(ApiError::from(RequestError::RangeNotSatisfiable(len))
        .with(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"))
        .with(header::ETAG, value(etag)?)
        .with(CONTENT_DIGEST, value(&digest.to_string())?))
}

/// `len` is that of the answer that the client has already.
fn unchanged(call: &Call, digest: &Digest, etag: &str, len: u64) -> Answer {
    let mut response = not_modified(&call.method, len);
    describe(response.headers_mut(), digest, etag)?;
    response.headers_mut().remove(header::CONTENT_TYPE);
    Ok(response)
}

/// Fields of every answer about a blob's content. A `Content-Type` that is there stays.
fn describe(headers: &mut HeaderMap, digest: &Digest, etag: &str) -> Result<(), ApiError> {
    headers
        .entry(header::CONTENT_TYPE)
        .or_insert(HeaderValue::from_static("application/octet-stream"));
    headers.insert(CONTENT_DIGEST, value(&digest.to_string())?);
    headers.insert(header::ETAG, value(etag)?);
    headers.insert(header::ACCEPT_RANGES, HeaderValue::from_static("bytes"));
    headers.insert(header::VARY, HeaderValue::from_static("Accept-Encoding"));
    harden(headers);
    Ok(())
}

fn set_len(headers: &mut HeaderMap, len: u64) {
    headers.insert(header::CONTENT_LENGTH, HeaderValue::from(len));
}
