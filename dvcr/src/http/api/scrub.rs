//! Scrub.

use axum::{
    Json,
    http::{HeaderName, StatusCode, header},
};
use dvcr_core::oci::RepositoryName;
use dvcr_openapi::{
    DamageKind, Page, PageQuery, ScrubFinding, ScrubRun, ScrubRunRequest, ScrubRunState,
    ScrubStatus, Timestamp,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    extract::{Call, Document, Params},
    page::{self, Wanted},
    problem::Failure,
};
use crate::{
    gc::scrub,
    http::{App, error::RequestError},
    registry::{Damage, FoundDamage},
};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(get_scrub))
        .routes(routes!(start_scrub))
        .routes(routes!(list_scrub_findings))
}

/// What scrubs are doing and have done.
#[utoipa::path(
    get, path = "/api/v1/scrub", tag = "scrub",
    responses((status = 200, description = "State and sums", body = ScrubStatus)),
)]
async fn get_scrub(call: Call) -> Result<Json<ScrubStatus>, Failure> {
    let status = call.registry.scrub_status(&call.who).await?;
    let progress = status.progress;
    let time = |ms: u64| Some(Timestamp(ms)).filter(|_| ms > 0);
    let (damaged_chunks, damaged_blobs, damaged_packs) = status.found;
    Ok(Json(ScrubStatus {
        bytes_per_hour: status.bytes_per_hour,
        pass_in_progress: progress.last_pack > 0,
        pass_began_at: time(progress.pass_began_ms),
        pass_read_bytes: progress.pass_bytes,
        last_full_pass_at: time(progress.full_pass_ms),
        read_bytes: progress.bytes,
        run: status.run.map(wire),
        damaged_chunks,
        damaged_blobs,
        damaged_packs,
    }))
}

/// Read and verify now.
///
/// Everything that is stored, or what a repository holds, without a budget. 429 while another such scrub is going on.
#[utoipa::path(
    post, path = "/api/v1/scrub/runs", tag = "scrub",
    request_body = ScrubRunRequest,
    responses((
        status = 202, description = "It has begun", body = ScrubRun,
        headers(("Location" = String, description = "Where to ask for it"))
    )),
)]
async fn start_scrub(
    call: Call,
    Document(request): Document<ScrubRunRequest>,
) -> Result<(StatusCode, [(HeaderName, &'static str); 1], Json<ScrubRun>), Failure> {
    let repository = request.repository.as_deref().map(str::parse).transpose();
    let repository: Option<RepositoryName> = repository
        .map_err(|_| RequestError::Parameter("repository is no repository name".to_owned()))?;
    let run = call.registry.scrub_start(&call.who, repository).await?;
    Ok((
        StatusCode::ACCEPTED,
        [(header::LOCATION, "/api/v1/scrub")],
        Json(wire(run)),
    ))
}

/// What is known to be damaged.
///
/// Blobs, then chunks, then packs.
#[utoipa::path(
    get, path = "/api/v1/scrub/findings", tag = "scrub",
    params(PageQuery),
    responses((status = 200, description = "A page of it", body = Page<ScrubFinding>)),
)]
async fn list_scrub_findings(
    call: Call,
    Params(page): Params<PageQuery>,
) -> Result<Json<Page<ScrubFinding>>, Failure> {
    let wanted = Wanted::new(&page)?;
    let found = call
        .registry
        .scrub_findings(&call.who, wanted.after(), wanted.limit)
        .await?;
    Ok(page::answer(found, FoundDamage::position, finding))
}

fn finding(found: FoundDamage) -> ScrubFinding {
    let FoundDamage {
        damage,
        found_ms,
        what,
    } = found;
    let mut finding = ScrubFinding {
        kind: DamageKind::Blob,
        name: String::new(),
        what,
        found_at: Timestamp(found_ms),
        repositories: Vec::new(),
        pack: None,
        offset: None,
    };
    match damage {
        Damage::Blob {
            digest,
            repositories,
        } => {
            finding.name = digest.to_string();
            finding.repositories = repositories.iter().map(ToString::to_string).collect();
        }
        Damage::Chunk { id, pack, offset } => {
            finding.kind = DamageKind::Chunk;
            finding.name = id.to_string();
            finding.pack = Some(pack.to_string());
            finding.offset = Some(offset);
        }
        Damage::Pack(pack) => {
            finding.kind = DamageKind::Pack;
            finding.name = pack.to_string();
        }
    }
    finding
}

fn wire(run: scrub::ScrubRun) -> ScrubRun {
    let scrub::ScrubRun {
        id,
        repository,
        state,
        started_ms,
        finished_ms,
        bytes,
        of_bytes,
        found,
        error,
    } = run;
    ScrubRun {
        id,
        repository: repository.map(|name| name.to_string()),
        state: match state {
            scrub::ScrubState::Running => ScrubRunState::Running,
            scrub::ScrubState::Done => ScrubRunState::Done,
            scrub::ScrubState::Failed => ScrubRunState::Failed,
        },
        started_at: Timestamp(started_ms),
        finished_at: finished_ms.map(Timestamp),
        read_bytes: bytes,
        of_bytes,
        found,
        error,
    }
}
