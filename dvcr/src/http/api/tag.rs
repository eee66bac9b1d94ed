//! Tags.

use axum::Json;
use dvcr_openapi::{Page, PageQuery, RepositoryQuery, Tag, Timestamp};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    extract::{self, Call, Params},
    manifest,
    page::{self, Wanted},
    problem::Failure,
};
use crate::{http::App, registry::TagEntry};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_tags))
}

/// Tags of a repository, in byte order, with what they name.
#[utoipa::path(
    get, path = "/api/v1/tags", tag = "repositories",
    params(RepositoryQuery, PageQuery),
    responses((status = 200, description = "A page of them", body = Page<Tag>)),
)]
async fn list_tags(
    call: Call,
    Params(query): Params<RepositoryQuery>,
    Params(page): Params<PageQuery>,
) -> Result<Json<Page<Tag>>, Failure> {
    let repository = extract::repository(&query.repository)?;
    let wanted = Wanted::new(&page)?;
    let found = call
        .registry
        .tag_list(&call.who, &repository, wanted.after_text()?, wanted.limit)
        .await?;
    Ok(page::answer(found, |entry| entry.tag.to_string(), wire))
}

fn wire(entry: TagEntry) -> Tag {
    let TagEntry {
        tag,
        digest,
        created_ms,
        pushed_ms,
        manifest,
    } = entry;
    Tag {
        name: tag.to_string(),
        digest: digest.to_string(),
        created_at: Timestamp(created_ms),
        pushed_at: Timestamp(pushed_ms),
        manifest: manifest.map(manifest::wire),
    }
}
