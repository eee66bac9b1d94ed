//! Manifests, what they are made of, and what refers to them.

use std::collections::BTreeMap;

use axum::Json;
use dvcr_core::oci::{self, RouteError};
use dvcr_openapi::{
    ChildRole, Manifest, ManifestChild, ManifestDetail, ManifestKind, Page, PageQuery, Referrer,
    ReferrersQuery, RepositoryQuery, Timestamp,
};
use serde::Deserialize;
use utoipa_axum::{router::OpenApiRouter, routes};

use super::{
    extract::{self, Call, Params, Segment},
    page::{self, Wanted},
    problem::Failure,
};
use crate::{
    http::{App, error::RequestError},
    registry::{self, Child, ManifestEntry, Role},
};

pub(super) fn routes() -> OpenApiRouter<App> {
    OpenApiRouter::new()
        .routes(routes!(list_manifests))
        .routes(routes!(get_manifest))
        .routes(routes!(list_referrers))
}

/// Manifests of a repository, in the order of their digests.
#[utoipa::path(
    get, path = "/api/v1/manifests", tag = "repositories",
    params(RepositoryQuery, PageQuery),
    responses((status = 200, description = "A page of them", body = Page<Manifest>)),
)]
async fn list_manifests(
    call: Call,
    Params(query): Params<RepositoryQuery>,
    Params(page): Params<PageQuery>,
) -> Result<Json<Page<Manifest>>, Failure> {
    let repository = extract::repository(&query.repository)?;
    let wanted = Wanted::new(&page)?;
    let after = wanted.after_digest()?;
    let found = call
        .registry
        .manifest_list(&call.who, &repository, after.as_ref(), wanted.limit)
        .await?;
    Ok(page::answer(found, |entry| entry.digest.to_key(), wire))
}

/// A manifest by tag or digest, with what it refers to.
#[utoipa::path(
    get, path = "/api/v1/manifests/{reference}", tag = "repositories",
    params(("reference" = String, Path, description = "Tag or digest"), RepositoryQuery),
    responses((status = 200, description = "The manifest", body = ManifestDetail)),
)]
async fn get_manifest(
    call: Call,
    Segment(reference): Segment<String>,
    Params(query): Params<RepositoryQuery>,
) -> Result<Json<ManifestDetail>, Failure> {
    let repository = extract::repository(&query.repository)?;
    let reference = reference
        .parse()
        .map_err(|_| RouteError::Reference(extract::repeated(&reference)))?;
    let registry::ManifestDetail {
        entry,
        children,
        referrers,
    } = call
        .registry
        .manifest_detail(&call.who, &repository, &reference)
        .await?;
    Ok(Json(ManifestDetail {
        manifest: wire(entry),
        children: children.into_iter().map(child).collect(),
        referrers,
    }))
}

/// Manifests whose subject is a given one, in the order of their digests.
#[utoipa::path(
    get, path = "/api/v1/referrers", tag = "repositories",
    params(ReferrersQuery, PageQuery),
    responses((status = 200, description = "A page of them", body = Page<Referrer>)),
)]
async fn list_referrers(
    call: Call,
    Params(query): Params<ReferrersQuery>,
    Params(page): Params<PageQuery>,
) -> Result<Json<Page<Referrer>>, Failure> {
    let ReferrersQuery {
        repository,
        digest,
        artifact_type,
    } = query;
    let repository = extract::repository(&repository)?;
    let subject = extract::digest(&digest)?;
    let wanted = Wanted::new(&page)?;
    let registry::Page { items, more } = call
        .registry
        .referrers(
            &call.who,
            &repository,
            &subject,
            artifact_type.as_deref(),
            wanted.after_digest()?.as_ref(),
            wanted.limit,
        )
        .await?;
    let items: Result<Vec<Referrer>, Failure> = items.into_iter().map(referrer).collect();
    let page = registry::Page {
        items: items?,
        more,
    };
    let position = |referrer: &Referrer| {
        let digest: Result<oci::Digest, _> = referrer.digest.parse();
        digest.map(|digest| digest.to_key()).unwrap_or_default()
    };
    Ok(page::answer(page, position, |referrer| referrer))
}

/// A descriptor as it was made when the referrer was pushed.
fn referrer(descriptor: serde_json::Value) -> Result<Referrer, Failure> {
    #[derive(Deserialize)]
    #[serde(rename_all = "camelCase")]
    struct Descriptor {
        digest: oci::Digest,
        #[serde(default)]
        media_type: String,
        artifact_type: Option<String>,
        #[serde(default)]
        size: u64,
        #[serde(default)]
        annotations: BTreeMap<String, String>,
    }
    let Descriptor {
        digest,
        media_type,
        artifact_type,
        size,
        annotations,
    } = serde_json::from_value(descriptor)
        .map_err(|error| RequestError::Internal(format!("read a referrer: {error}")))?;
    Ok(Referrer {
        digest: digest.to_string(),
        media_type,
        artifact_type,
        manifest_bytes: size,
        annotations,
    })
}

/// A manifest as it travels.
pub(super) fn wire(entry: ManifestEntry) -> Manifest {
    let ManifestEntry {
        digest,
        media_type,
        kind,
        artifact_type,
        subject,
        created_ms,
        len,
        content_bytes,
        tags,
    } = entry;
    Manifest {
        digest: digest.to_string(),
        media_type,
        kind: kind.map(|kind| match kind {
            oci::ManifestKind::Image => ManifestKind::Image,
            oci::ManifestKind::Index => ManifestKind::Index,
        }),
        artifact_type,
        subject: subject.map(|subject| subject.to_string()),
        created_at: Timestamp(created_ms),
        manifest_bytes: len,
        content_bytes,
        tags,
    }
}

fn child(child: Child) -> ManifestChild {
    let Child {
        role,
        digest,
        media_type,
        size,
        present,
    } = child;
    ManifestChild {
        role: match role {
            Role::Config => ChildRole::Config,
            Role::Layer => ChildRole::Layer,
            Role::Manifest => ChildRole::Manifest,
        },
        digest: digest.to_string(),
        media_type,
        bytes: size,
        present,
    }
}
