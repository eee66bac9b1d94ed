//! Blobs.

use axum::Json;
use dvcr_openapi::{Blob, BlobDetail, BlobsQuery, Page, PageQuery, Timestamp};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    extract::{self, Call, Params, Segment},
    page::{self, Wanted},
    problem::Failure,
};
use crate::{
    http::App,
    registry::{self, BlobEntry},
};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_blobs))
        .routes(routes!(get_blob))
}

/// Blobs of a repository, or all, in the order of their digests.
#[utoipa::path(
    get, path = "/api/v1/blobs", tag = "usage",
    params(BlobsQuery, PageQuery),
    responses((status = 200, description = "A page of them", body = Page<Blob>)),
)]
async fn list_blobs(
    call: Call,
    Params(query): Params<BlobsQuery>,
    Params(page): Params<PageQuery>,
) -> Result<Json<Page<Blob>>, Failure> {
    let repository = query.repository.as_deref();
    let repository = repository.map(extract::repository).transpose()?;
    let wanted = Wanted::new(&page)?;
    let after = wanted.after_digest()?;
    let found = call
        .registry
        .blob_list(&call.who, repository.as_ref(), after.as_ref(), wanted.limit)
        .await?;
    Ok(page::answer(found, |entry| entry.digest.to_key(), wire))
}

/// What a blob takes and shares.
///
/// Walks over all blobs: takes about a second for each million chunks.
#[utoipa::path(
    get, path = "/api/v1/blobs/{digest}", tag = "usage",
    params(("digest" = String, Path, description = "Digest of the blob"), BlobsQuery),
    responses((status = 200, description = "The blob", body = BlobDetail)),
)]
async fn get_blob(
    call: Call,
    Segment(text): Segment<String>,
    Params(query): Params<BlobsQuery>,
) -> Result<Json<BlobDetail>, Failure> {
    let digest = extract::digest(&text)?;
    let repository = query.repository.as_deref();
    let repository = repository.map(extract::repository).transpose()?;
    let registry::BlobDetail {
        entry,
        chunks,
        stored_bytes,
        shared_bytes,
        estimated,
        repositories,
    } = call
        .registry
        .blob_detail(&call.who, repository.as_ref(), &digest)
        .await?;
    Ok(Json(BlobDetail {
        digest: entry.digest.to_string(),
        logical_bytes: entry.len,
        stored_bytes,
        shared_bytes,
        chunks,
        estimated,
        created_at: Timestamp(entry.created_ms),
        lease_until: entry.hold.map(|hold| Timestamp(hold.lease_ms)),
        repositories: repositories.iter().map(ToString::to_string).collect(),
    }))
}

fn wire(entry: BlobEntry) -> Blob {
    let BlobEntry {
        digest,
        len,
        stored_len,
        created_ms,
        hold,
    } = entry;
    Blob {
        digest: digest.to_string(),
        logical_bytes: len,
        stored_bytes: stored_len,
        created_at: Timestamp(created_ms),
        linked_at: hold.map(|hold| Timestamp(hold.linked_ms)),
        lease_until: hold.map(|hold| Timestamp(hold.lease_ms)),
    }
}
