//! Lists of tags and of repositories.
//!
//! Source: OCI distribution-spec, end-8; the catalog is docker's extension.

use axum::http::{StatusCode, header};
use dvcr_core::oci::{RepositoryName, Tag};
use serde::Serialize;

use super::{
    Answer, Call, encode, json,
    page::{entries, link},
};
use crate::registry::Page;

/// `GET /v2/NAME/tags/list`.
pub(super) async fn list(call: &Call, repository: &RepositoryName) -> Answer {
    #[derive(Serialize)]
    struct Tags<'a> {
        name: &'a str,
        tags: Vec<&'a str>,
    }

    let n = entries(call.query.get("n"))?;
    let page = call
        .app
        .registry
        // Even an empty page is one of a repository that exists.
        .tags(&call.who, repository, call.last(), n.max(1))
        .await?;
    let (tags, next) = cut(&page, n, Tag::as_str);
    let document = Tags {
        name: repository.as_str(),
        tags,
    };
    let path = format!("/v2/{repository}/tags/list");
    paged(&document, &path, n, next)
}

/// `GET /v2/_catalog`.
pub(super) async fn catalog(call: &Call) -> Answer {
    #[derive(Serialize)]
    struct Catalog<'a> {
        repositories: Vec<&'a str>,
    }

    let n = entries(call.query.get("n"))?;
    let page = call
        .app
        .registry
        .repositories(&call.who, call.last(), n.max(1))
        .await?;
    let (repositories, next) = cut(&page, n, RepositoryName::as_str);
    paged(&Catalog { repositories }, "/v2/_catalog", n, next)
}

/// The entries to show, and the one after which the next page begins if there is one. Nothing follows an empty page.
fn cut<'a, T>(
    page: &'a Page<T>,
    n: usize,
    text: impl Fn(&'a T) -> &'a str,
) -> (Vec<&'a str>, Option<&'a str>) {
    let entries: Vec<&str> = page.items.iter().take(n).map(text).collect();
    let next = entries.last().copied().filter(|_| page.more);
    (entries, next)
}

fn paged(document: &impl Serialize, path: &str, n: usize, next: Option<&str>) -> Answer {
    let mut response = json(StatusCode::OK, encode(document)?);
    if let Some(last) = next {
        let link = link(path, &[("n", &n.to_string()), ("last", last)])?;
        response.headers_mut().insert(header::LINK, link);
    }
    Ok(response)
}
