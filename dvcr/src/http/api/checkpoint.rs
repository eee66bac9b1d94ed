//! Checkpoints.

use std::time::Duration;

use axum::{Json, http::StatusCode};
use dvcr_openapi::{Checkpoint, CheckpointRequest, Timestamp};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    extract::{Call, Document},
    problem::Failure,
};
use crate::http::App;

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(take_checkpoint))
}

/// Take a checkpoint now.
///
/// Answers when it is durable, about a second for each million rows later; with `hold_seconds`, after a sweep of packs
/// that is going on.
#[utoipa::path(
    post, path = "/api/v1/checkpoints", tag = "server",
    request_body = CheckpointRequest,
    responses((status = 201, description = "It was taken", body = Checkpoint)),
)]
async fn take_checkpoint(
    call: Call,
    Document(request): Document<CheckpointRequest>,
) -> Result<(StatusCode, Json<Checkpoint>), Failure> {
    let hold = request.hold_seconds.map(Duration::from_secs);
    let taken = call.registry.checkpoint(&call.who, hold).await?;
    let checkpoint = taken.checkpoint;
    Ok((
        StatusCode::CREATED,
        Json(Checkpoint {
            number: checkpoint.number,
            created_at: Timestamp(checkpoint.created_ms),
            rows: checkpoint.rows,
            file_bytes: checkpoint.bytes,
            packs_held_until: taken.packs_held_until_ms.map(Timestamp),
        }),
    ))
}
