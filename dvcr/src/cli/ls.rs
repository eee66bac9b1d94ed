//! `dvcr ls`.

use std::collections::HashSet;

use anyhow::Context as _;
use clap::Args;
use dvcr_core::oci::{self, Digest, Reference, RepositoryName};
use futures::{StreamExt as _, TryStreamExt as _, stream};
use serde::Serialize;

use super::{
    ServerArgs,
    client::{Client, Manifest},
    table,
};

pub(super) const EXAMPLES: &str = "Examples:
  dvcr ls                           all repositories
  dvcr ls vi/debian                 the tags of one, with digest, type and size
  dvcr ls vi/debian --json | jq -r '.tags[].digest'
  DVCR_SERVER=https://registry.example dvcr ls

Size is what a pull transfers: config and layers, of every platform for an index.";

/// Manifests asked for at once.
const PARALLEL: usize = 8;

/// Most manifests below one index that are looked at for its size.
const CHILDREN_MAX: usize = 1_000;

#[derive(Debug, Args)]
pub(super) struct LsArgs {
    /// Repository whose tags to list; all repositories without it.
    repository: Option<RepositoryName>,
    #[command(flatten)]
    server: ServerArgs,
}

#[derive(Serialize)]
struct Repositories {
    repositories: Vec<String>,
}

#[derive(Serialize)]
struct Tags {
    name: String,
    tags: Vec<TagRow>,
}

#[derive(Serialize)]
struct TagRow {
    tag: String,
    digest: Digest,
    media_type: String,
    /// Bytes of config and layers, each once.
    size: u64,
}

pub(super) async fn run(args: LsArgs) -> anyhow::Result<()> {
    let LsArgs { repository, server } = args;
    let client = Client::new(&server)?;
    match repository {
        None => repositories(&client, server.json).await,
        Some(repository) => tags(&client, &repository, server.json).await,
    }
}

async fn repositories(client: &Client, json: bool) -> anyhow::Result<()> {
    let repositories = client.repositories().await?;
    if json {
        return table::print_json(&Repositories { repositories });
    }
    let mut table = table::table(&["REPOSITORY"]);
    table.add_rows(repositories.into_iter().map(|name| [name]));
    table::print(&table)
}

async fn tags(client: &Client, repository: &RepositoryName, json: bool) -> anyhow::Result<()> {
    let tags = client.tags(repository).await?;
    let rows: Vec<Option<TagRow>> = stream::iter(tags)
        .map(|tag| row(client, repository, tag))
        .buffered(PARALLEL)
        .try_collect()
        .await?;
    // A tag may go between the list and the look.
    let tags: Vec<TagRow> = rows.into_iter().flatten().collect();
    if json {
        let name = repository.to_string();
        return table::print_json(&Tags { name, tags });
    }
    let mut table = table::table(&["TAG", "DIGEST", "SIZE", "TYPE"]);
    table.add_rows(tags.into_iter().map(|row| {
        let size = table::bytes(row.size);
        [row.tag, row.digest.to_string(), size, row.media_type]
    }));
    table::align_right(&mut table, 2);
    table::print(&table)
}

async fn row(
    client: &Client,
    repository: &RepositoryName,
    tag: String,
) -> anyhow::Result<Option<TagRow>> {
    let reference: Reference = tag.parse().context("read tag")?;
    let Some(manifest) = client.manifest(repository, &reference).await? else {
        return Ok(None);
    };
    let Manifest {
        digest, media_type, ..
    } = &manifest;
    Ok(Some(TagRow {
        tag,
        digest: *digest,
        media_type: media_type.clone(),
        size: size(client, repository, &manifest).await?,
    }))
}

/// Bytes of config and layers of a manifest and what is below it, each blob once. Children that are not here count nothing.
async fn size(
    client: &Client,
    repository: &RepositoryName,
    manifest: &Manifest,
) -> anyhow::Result<u64> {
    let mut seen = HashSet::new();
    let mut size = 0;
    let mut children = Vec::new();
    let mut add = |manifest: &Manifest, children: &mut Vec<Digest>| {
        // What this version cannot read was stored by a newer one: its size is unknown, not an error.
        let Ok(parsed) = oci::Manifest::parse(Some(&manifest.media_type), &manifest.bytes) else {
            return;
        };
        for blob in parsed.blobs() {
            if seen.insert(blob.digest) {
                size += blob.size;
            }
        }
        for child in &parsed.children {
            if seen.insert(child.digest) {
                children.push(child.digest);
            }
        }
    };
    add(manifest, &mut children);
    let mut looked_at = 0;
    while let Some(child) = children.pop() {
        looked_at += 1;
        if looked_at > CHILDREN_MAX {
            break;
        }
        if let Some(manifest) = client.manifest(repository, &child.into()).await? {
            add(&manifest, &mut children);
        }
    }
    Ok(size)
}
