//! Garbage collection.

use std::{sync::atomic::Ordering::Relaxed, time::Duration};

use axum::{
    Json,
    http::{HeaderName, StatusCode, header},
};
use dvcr_openapi::{
    Explanation, GcPlan, GcReviewed, GcRun, GcRunRequest, GcRunState, GcStatus, GcSwept, GcTotals,
    GcTrigger, GcVictim, Holder, Keeper, Page, PageQuery, Timestamp,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    extract::{self, Call, Document, Params, Segment},
    page::{self, Wanted},
    problem::Failure,
};
use crate::{
    gc::{GcStats, Run, RunOptions, RunState, Trigger, plan::SweepPlan},
    http::{App, error::RequestError},
    registry,
};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(get_gc))
        .routes(routes!(list_gc_runs, start_gc_run))
        .routes(routes!(get_gc_run))
        .routes(routes!(plan_gc))
        .routes(routes!(explain))
}

/// What garbage collection is doing and has done.
#[utoipa::path(
    get, path = "/api/v1/gc", tag = "gc",
    responses((status = 200, description = "State and sums", body = GcStatus)),
)]
async fn get_gc(call: Call) -> Result<Json<GcStatus>, Failure> {
    let status = call.registry.gc_status(&call.who).await?;
    Ok(Json(GcStatus {
        running: status.runs.running.map(wire),
        waiting: status.runs.waiting.len() as u64,
        last: status.runs.last.map(wire),
        interval_seconds: status.interval.as_secs(),
        grace_seconds: status.grace.as_secs(),
        next_review_at: status.next_review_ms.map(Timestamp),
        condemned_packs: status.condemned_packs,
        since_start: totals(call.registry.gc().stats()),
    }))
}

/// Collections of the past, the last first.
///
/// Those that did something, failed, or were asked for; at most 1,000.
#[utoipa::path(
    get, path = "/api/v1/gc/runs", tag = "gc",
    params(PageQuery),
    responses((status = 200, description = "A page of them", body = Page<GcRun>)),
)]
async fn list_gc_runs(
    call: Call,
    Params(page): Params<PageQuery>,
) -> Result<Json<Page<GcRun>>, Failure> {
    let wanted = Wanted::new(&page)?;
    let found = call
        .registry
        .gc_history(&call.who, wanted.after_number()?, wanted.limit)
        .await?;
    Ok(page::answer(found, |run| run.id.to_be_bytes(), wire))
}

/// Begin a collection.
///
/// It waits for one that is going on. Ask for it by its id until its state is `done`, `refused` or `failed`.
#[utoipa::path(
    post, path = "/api/v1/gc/runs", tag = "gc",
    request_body = GcRunRequest,
    responses((
        status = 202, description = "It has begun, or waits", body = GcRun,
        headers(("Location" = String, description = "Where to ask for it"))
    )),
)]
async fn start_gc_run(
    call: Call,
    Document(request): Document<GcRunRequest>,
) -> Result<(StatusCode, [(HeaderName, String); 1], Json<GcRun>), Failure> {
    let GcRunRequest {
        grace_seconds,
        force,
    } = request;
    let options = RunOptions {
        grace: grace_seconds.map(Duration::from_secs),
        force,
    };
    let run = call.registry.gc_start(&call.who, options).await?;
    let location = format!("/api/v1/gc/runs/{}", run.id);
    Ok((
        StatusCode::ACCEPTED,
        [(header::LOCATION, location)],
        Json(wire(run)),
    ))
}

/// A collection: one that waits or goes on, or one of the past.
#[utoipa::path(
    get, path = "/api/v1/gc/runs/{id}", tag = "gc",
    params(("id" = u64, Path, description = "Its number")),
    responses((status = 200, description = "The collection", body = GcRun)),
)]
async fn get_gc_run(call: Call, Segment(id): Segment<u64>) -> Result<Json<GcRun>, Failure> {
    let run = call.registry.gc_find(&call.who, id).await?;
    let run = run.ok_or(RequestError::Unknown("collection"))?;
    Ok(Json(wire(run)))
}

/// What a sweep of packs would do now.
///
/// Walks over all recipes: takes about a second for each million chunks.
#[utoipa::path(
    get, path = "/api/v1/gc/plan", tag = "gc",
    responses((status = 200, description = "The plan", body = GcPlan)),
)]
async fn plan_gc(call: Call) -> Result<Json<GcPlan>, Failure> {
    let SweepPlan {
        victims,
        bytes,
        live_bytes,
        freed_bytes,
        moved_bytes,
        too_much,
    } = call.registry.gc_plan(&call.who).await?;
    let victims = victims.into_iter().map(|victim| GcVictim {
        pack: victim.pack.to_string(),
        bytes: victim.bytes,
        live_bytes: victim.live_bytes,
        condemned: victim.condemned,
    });
    Ok(Json(GcPlan {
        victims: victims.collect(),
        bytes,
        live_bytes,
        freed_bytes,
        moved_bytes,
        too_much,
    }))
}

/// Why a blob or manifest is still here.
#[utoipa::path(
    get, path = "/api/v1/gc/explain/{digest}", tag = "gc",
    params(("digest" = String, Path, description = "Digest of a blob or manifest")),
    responses((status = 200, description = "What keeps it", body = Explanation)),
)]
async fn explain(call: Call, Segment(text): Segment<String>) -> Result<Json<Explanation>, Failure> {
    let digest = extract::digest(&text)?;
    let told = call.registry.gc_explain(&call.who, &digest).await?;
    let kept_by = told.kept_by.into_iter().map(|keeper| Keeper {
        repository: keeper.repository.to_string(),
        lease_until: keeper.lease_ms.map(Timestamp),
        manifests: keeper.manifests.into_iter().map(holder).collect(),
    });
    Ok(Json(Explanation {
        digest: told.digest.to_string(),
        len: told.len,
        kept_by: kept_by.collect(),
    }))
}

fn holder(holder: registry::gc::Holder) -> Holder {
    Holder {
        digest: holder.digest.to_string(),
        tags: holder.tags,
    }
}

fn wire(run: Run) -> GcRun {
    let Run {
        id,
        trigger,
        options: RunOptions { grace, force },
        state,
        started_ms,
        finished_ms,
        collected,
        chosen_packs,
        error,
    } = run;
    let (reviewed, swept) = (collected.reviewed, collected.swept);
    GcRun {
        id,
        trigger: match trigger {
            Trigger::Interval => GcTrigger::Interval,
            Trigger::Request => GcTrigger::Request,
            Trigger::Full => GcTrigger::Full,
        },
        grace_seconds: grace.map(|grace| grace.as_secs()),
        force,
        state: match state {
            RunState::Waiting => GcRunState::Waiting,
            RunState::Reviewing => GcRunState::Reviewing,
            RunState::Sweeping => GcRunState::Sweeping,
            RunState::Done => GcRunState::Done,
            RunState::Refused => GcRunState::Refused,
            RunState::Failed => GcRunState::Failed,
        },
        started_at: Timestamp(started_ms),
        finished_at: finished_ms.map(Timestamp),
        reviewed: GcReviewed {
            reviews: reviewed.reviews,
            unlinked: reviewed.unlinked,
            removed: reviewed.removed,
            removed_bytes: reviewed.removed_bytes,
        },
        swept: GcSwept {
            packs: swept.packs,
            freed_bytes: swept.freed_bytes,
            moved_bytes: swept.moved_bytes,
            damaged: swept.damaged,
        },
        chosen_packs,
        error,
    }
}

fn totals(stats: &GcStats) -> GcTotals {
    GcTotals {
        reviews: stats.reviews.load(Relaxed),
        removed_blobs: stats.removed_blobs.load(Relaxed),
        freed_bytes: stats.freed_bytes.load(Relaxed),
        moved_bytes: stats.moved_bytes.load(Relaxed),
        damaged_packs: stats.damaged_packs.load(Relaxed),
        refused: stats.refused.load(Relaxed),
    }
}
