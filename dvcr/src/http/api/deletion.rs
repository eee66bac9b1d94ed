//! Deletion with everything that hangs on what is deleted.

use axum::Json;
use dvcr_openapi::{DeletedItem, Deletion, DeletionFailure, DeletionRequest, Timestamp};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    extract::{self, Call, Document},
    problem::Failure,
};
use crate::{
    http::{App, error::RequestError},
    registry::deletion::{self, DeletionOptions, Selection},
};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(delete))
}

/// Delete tags, a manifest, or whole repositories, with everything that nothing else needs.
///
/// What cannot go is told in the answer. It is an error where it is all that was asked for, by its name.
#[utoipa::path(
    post, path = "/api/v1/deletions", tag = "repositories",
    request_body = DeletionRequest,
    responses((status = 200, description = "What went, or would go", body = Deletion)),
)]
async fn delete(
    call: Call,
    Document(request): Document<DeletionRequest>,
) -> Result<Json<Deletion>, Failure> {
    let DeletionRequest {
        repository,
        tag,
        digest,
        whole,
        dry_run,
        skip_bytes,
    } = request;
    let selection = match (tag, digest, whole) {
        (Some(tags), None, false) => Selection::Tags {
            repositories: extract::glob("repository", &repository)?,
            tags: extract::glob("tag", &tags)?,
        },
        (None, Some(digest), false) => Selection::Manifest {
            repository: extract::repository(&repository)?,
            digest: extract::digest(&digest)?,
        },
        (None, None, true) => Selection::Repositories(extract::glob("repository", &repository)?),
        _ => {
            let text = "name a tag, or a digest, or say with whole that everything goes";
            return Err(RequestError::Document(text.to_owned()).into());
        }
    };
    let options = DeletionOptions {
        dry_run,
        measure: !skip_bytes,
    };
    let deletion = call.registry.delete(&call.who, &selection, options).await?;
    Ok(Json(wire(dry_run, deletion)))
}

fn wire(dry_run: bool, deletion: deletion::Deletion) -> Deletion {
    let named = deletion.named.into_iter().map(|item| DeletedItem {
        repository: item.repository.to_string(),
        tag: item.tag.map(|tag| tag.to_string()),
        digest: item.digest.to_string(),
    });
    let failures = deletion
        .failures
        .into_iter()
        .map(|failure| DeletionFailure {
            repository: failure.repository.to_string(),
            what: failure.what,
            error: failure.error,
        });
    Deletion {
        dry_run,
        repositories: deletion.repositories,
        tags: deletion.tags,
        manifests: deletion.manifests,
        blobs: deletion.blobs,
        logical_bytes: deletion.logical_bytes,
        freed_bytes: deletion.freed_bytes,
        free_from: Timestamp(deletion.free_from_ms),
        named: named.collect(),
        failures: failures.collect(),
    }
}
