//! Usage over time.

use axum::Json;
use dvcr_openapi::{Page, PageQuery, Timestamp, UsageQuery, UsageSample};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    extract::{Call, Params},
    page::{self, Wanted},
    problem::Failure,
};
use crate::{http::App, meta::record::UsageRecord, registry};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new().routes(routes!(list_usage))
}

/// Usage over time, the oldest first.
///
/// Every ten minutes of the last day, every hour of the last month, every day before.
#[utoipa::path(
    get, path = "/api/v1/usage", tag = "usage",
    params(UsageQuery, PageQuery),
    responses((status = 200, description = "A page of samples", body = Page<UsageSample>)),
)]
async fn list_usage(
    call: Call,
    Params(query): Params<UsageQuery>,
    Params(page): Params<PageQuery>,
) -> Result<Json<Page<UsageSample>>, Failure> {
    let wanted = Wanted::new(&page)?;
    let bound = |at: Option<Timestamp>, open| at.map_or(open, |at| at.0);
    let range = bound(query.from, 0)..bound(query.to, u64::MAX);
    let found = call
        .registry
        .usage(&call.who, range, wanted.after_number()?, wanted.limit)
        .await?;
    Ok(page::answer(
        found,
        |sample| sample.at_ms.to_be_bytes(),
        wire,
    ))
}

fn wire(sample: registry::UsageSample) -> UsageSample {
    let UsageRecord {
        blobs,
        logical_bytes,
        stored_bytes,
        chunks,
    } = sample.usage;
    UsageSample {
        at: Timestamp(sample.at_ms),
        blobs,
        logical_bytes,
        stored_bytes,
        chunks,
    }
}
