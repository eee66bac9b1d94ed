//! Retention rules, and what they would do.

use axum::Json;
use dvcr_openapi::{
    ImmutableRule, KeepRule, Page, PageQuery, RetentionItem, RetentionPlanRequest, RetentionRule,
    RetentionRules, Timestamp,
};
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    extract::{self, Call, Document, Params},
    page::Wanted,
    problem::Failure,
};
use crate::{
    http::{App, error::RequestError},
    registry::glob::TagGlob,
    registry::retention::{Keep, PlanCursor, PlannedItem, RetentionSet},
};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(get_retention))
        .routes(routes!(plan_retention))
}

/// The retention rules and immutable tags in force.
#[utoipa::path(
    get, path = "/api/v1/retention", tag = "retention",
    responses((status = 200, description = "The rules", body = RetentionRules)),
)]
async fn get_retention(call: Call) -> Result<Json<RetentionRules>, Failure> {
    let RetentionSet {
        retention,
        immutable,
    } = call.registry.retention_rules(&call.who)?;
    let texts = |globs: Vec<TagGlob>| globs.into_iter().map(String::from).collect();
    let keep = |keep: Keep| KeepRule {
        tags: Some(texts(keep.tags)),
        last: keep.last.map(|last| last as u64),
        within: keep.within.map(|within| within.to_string()),
    };
    let retention = retention.into_iter().map(|rule| RetentionRule {
        repository: rule.repository.into(),
        untagged_after: rule.untagged_after.map(|after| after.to_string()),
        allow_mass_removal: rule.allow_mass_removal,
        keep: rule.keep.into_iter().map(keep).collect(),
    });
    let immutable = immutable.into_iter().map(|rule| ImmutableRule {
        repository: rule.repository.into(),
        tags: Some(texts(rule.tags)),
        except: texts(rule.except),
        deletable: rule.deletable,
    });
    Ok(Json(RetentionRules {
        retention: retention.collect(),
        immutable: immutable.collect(),
    }))
}

/// What the next round of retention would do, tag by tag.
///
/// With the rules in force, or others that are tried. Of each repository first the tags, by name, then the manifests that nothing needs. Changes nothing.
#[utoipa::path(
    post, path = "/api/v1/retention/plan", tag = "retention",
    params(PageQuery),
    request_body = RetentionPlanRequest,
    responses((status = 200, description = "A page of what stays and goes", body = Page<RetentionItem>)),
)]
async fn plan_retention(
    call: Call,
    Params(page): Params<PageQuery>,
    Document(request): Document<RetentionPlanRequest>,
) -> Result<Json<Page<RetentionItem>>, Failure> {
    let RetentionPlanRequest { repository, rules } = request;
    let rules = rules.as_ref().map(parse).transpose()?;
    let repository = repository.map(|text| extract::glob("repository", &text));
    let repository = repository.transpose()?;
    let wanted = Wanted::new(&page)?;
    let after: Option<PlanCursor> = wanted.after_text()?.map(str::parse).transpose()?;
    let (items, next) = call
        .registry
        .retention_plan(
            &call.who,
            rules.as_ref(),
            repository.as_ref(),
            after.as_ref(),
            wanted.limit,
        )
        .await?;
    Ok(Json(Page {
        items: items.into_iter().map(item).collect(),
        next: next.map(|next| hex::encode(next.to_string())),
    }))
}

/// The rules have the same form in the settings, where times are texts, too.
fn parse(rules: &RetentionRules) -> Result<RetentionSet, Failure> {
    let value = serde_json::to_value(rules)
        .map_err(|error| RequestError::Document(format!("rules: {error}")))?;
    serde_path_to_error::deserialize(value).map_err(|error| {
        let (path, error) = (error.path(), error.inner());
        RequestError::Document(format!("rules.{path}: {error}")).into()
    })
}

fn item(item: PlannedItem) -> RetentionItem {
    let PlannedItem {
        repository,
        tag,
        digest,
        since_ms,
        kept,
        held,
        due_ms,
        rule,
        reason,
    } = item;
    RetentionItem {
        repository: repository.to_string(),
        tag: tag.map(|tag| tag.to_string()),
        digest: digest.to_string(),
        since: Timestamp(since_ms),
        kept,
        held,
        due_at: due_ms.map(Timestamp),
        rule: rule.map(|rule| rule as u64),
        reason,
    }
}
