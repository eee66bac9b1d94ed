//! Sizes.

use axum::Json;
use dvcr_openapi::{Stats, StatsQuery};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    extract::{self, Call, Params},
    problem::Failure,
};
use crate::{http::App, registry};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(get_stats))
}

/// Sizes of a repository, or of everything.
///
/// Walks over all blobs: takes about a second for each million chunks.
#[utoipa::path(
    get, path = "/api/v1/stats", tag = "usage",
    params(StatsQuery),
    responses((status = 200, description = "The sizes", body = Stats)),
)]
async fn get_stats(call: Call, Params(query): Params<StatsQuery>) -> Result<Json<Stats>, Failure> {
    let repository = query.repository.as_deref();
    let repository = repository.map(extract::repository).transpose()?;
    let stats = call.registry.stats(&call.who, repository.as_ref()).await?;
    Ok(Json(wire(&stats)))
}

fn wire(stats: &registry::Stats) -> Stats {
    Stats {
        blobs: stats.blobs,
        chunks: stats.chunks,
        logical_bytes: stats.logical_bytes,
        stored_bytes: stats.stored_bytes,
        shared_bytes: stats.shared_bytes,
        pack_bytes: stats.pack_bytes,
        estimated: stats.estimated,
    }
}
