//! Uploads in progress.

use axum::{Json, http::StatusCode};
use dvcr_openapi::{Page, PageQuery, Timestamp, Upload};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    extract::{Call, Params, Segment},
    page::{self, Wanted},
    problem::Failure,
};
use crate::{
    http::{App, error::RequestError},
    registry::{SessionId, SessionIdError, UploadEntry},
};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_uploads))
        .routes(routes!(cancel_upload))
}

/// Uploads in progress, the oldest first.
#[utoipa::path(
    get, path = "/api/v1/uploads", tag = "uploads",
    params(PageQuery),
    responses((status = 200, description = "A page of them", body = Page<Upload>)),
)]
async fn list_uploads(
    call: Call,
    Params(page): Params<PageQuery>,
) -> Result<Json<Page<Upload>>, Failure> {
    let wanted = Wanted::new(&page)?;
    let after = wanted.after_bytes()?.map(SessionId);
    let found = call
        .registry
        .upload_list(&call.who, after.as_ref(), wanted.limit)
        .await?;
    Ok(page::answer(found, |entry| entry.id.0, wire))
}

/// End an upload, whoever began it.
///
/// A request that works on it fails; its client is told that there is no such upload.
#[utoipa::path(
    delete, path = "/api/v1/uploads/{id}", tag = "uploads",
    params(("id" = String, Path, description = "The session")),
    responses((status = 204, description = "It is gone")),
)]
async fn cancel_upload(call: Call, Segment(id): Segment<String>) -> Result<StatusCode, Failure> {
    let id: SessionId = id
        .parse()
        .map_err(|error: SessionIdError| RequestError::Parameter(error.to_string()))?;
    call.registry.upload_abort(&call.who, &id).await?;
    Ok(StatusCode::NO_CONTENT)
}

fn wire(entry: UploadEntry) -> Upload {
    let UploadEntry {
        id,
        repository,
        principal,
        offset,
        active,
        began_ms,
        last_request_ms,
        expires_ms,
    } = entry;
    Upload {
        id: id.to_string(),
        repository: repository.to_string(),
        principal,
        received_bytes: offset,
        active,
        began_at: began_ms.map(Timestamp),
        last_request_at: Timestamp(last_request_ms),
        expires_at: Timestamp(expires_ms),
    }
}
