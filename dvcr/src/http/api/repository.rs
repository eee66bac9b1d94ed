//! Repositories.

use axum::Json;
use dvcr_openapi::{
    Page, PageQuery, RepositoriesQuery, Repository, RepositoryDetail, RepositoryQuery, Timestamp,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    extract::{self, Call, Params},
    page::{self, Wanted},
    problem::Failure,
};
use crate::{
    http::App,
    registry::{self, RepositoryEntry},
};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_repositories))
        .routes(routes!(get_repository))
}

/// Repositories, by name.
#[utoipa::path(
    get, path = "/api/v1/repositories", tag = "repositories",
    params(RepositoriesQuery, PageQuery),
    responses((status = 200, description = "A page of them", body = Page<Repository>)),
)]
async fn list_repositories(
    call: Call,
    Params(query): Params<RepositoriesQuery>,
    Params(page): Params<PageQuery>,
) -> Result<Json<Page<Repository>>, Failure> {
    let wanted = Wanted::new(&page)?;
    let prefix = query.prefix.unwrap_or_default();
    let found = call
        .registry
        .repository_list(&call.who, &prefix, wanted.after_text()?, wanted.limit)
        .await?;
    Ok(page::answer(
        found,
        |entry| entry.name.to_string(),
        |entry| {
            let RepositoryEntry {
                name,
                created_ms,
                tags,
            } = entry;
            Repository {
                name: name.to_string(),
                created_at: Timestamp(created_ms),
                tags,
            }
        },
    ))
}

/// A repository and what it holds.
#[utoipa::path(
    get, path = "/api/v1/repository", tag = "repositories",
    params(RepositoryQuery),
    responses((status = 200, description = "The repository", body = RepositoryDetail)),
)]
async fn get_repository(
    call: Call,
    Params(query): Params<RepositoryQuery>,
) -> Result<Json<RepositoryDetail>, Failure> {
    let name = extract::repository(&query.repository)?;
    let registry::RepositoryDetail {
        entry,
        manifests,
        blobs,
        logical_bytes,
    } = call.registry.repository_detail(&call.who, &name).await?;
    Ok(Json(RepositoryDetail {
        name: entry.name.to_string(),
        created_at: Timestamp(entry.created_ms),
        tags: entry.tags,
        manifests,
        blobs,
        logical_bytes,
    }))
}
