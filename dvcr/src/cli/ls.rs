//! `dvcr ls`.

use clap::Args;
use dvcr_core::oci::RepositoryName;
use dvcr_openapi::Client;
use serde::Serialize;

use super::{ServerArgs, repository, table};

pub(super) const EXAMPLES: &str = "Examples:
  dvcr ls                           all repositories
  dvcr ls vi/debian                 the tags of one, with digest, type and size
  dvcr ls vi/debian --json | jq -r '.tags[].digest'
  DVCR_SERVER=https://registry.example dvcr ls

Size is what a pull transfers: config and layers, of every platform for an index.";

#[derive(Debug, Args)]
pub(super) struct LsArgs {
    /// Repository whose tags to list; all repositories without it.
    #[arg(value_parser = listed)]
    repository: Option<RepositoryName>,
    #[command(flatten)]
    server: ServerArgs,
}

fn listed(text: &str) -> Result<RepositoryName, String> {
    repository(text).map_err(|error| match text.split_once([':', '@']) {
        Some((name, rest)) if name.parse::<RepositoryName>().is_ok() && !rest.contains('/') => {
            format!("`ls` takes a repository, without a tag: {name}")
        }
        _ => error,
    })
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
    digest: String,
    media_type: String,
    /// Bytes of configs and layers, each once.
    size: u64,
}

pub(super) async fn run(args: LsArgs) -> anyhow::Result<()> {
    let LsArgs { repository, server } = args;
    let client = server.client()?;
    match repository {
        None => repositories(&client, server.json).await,
        Some(repository) => tags(&client, &repository, server.json).await,
    }
}

async fn repositories(client: &Client, json: bool) -> anyhow::Result<()> {
    let all = dvcr_openapi::all(async |page| client.repositories(None, &page).await).await?;
    if json {
        let repositories = all.into_iter().map(|repository| repository.name).collect();
        return table::print_json(&Repositories { repositories });
    }
    let mut table = table::table(&["REPOSITORY", "TAGS", "SINCE"]);
    table.add_rows(all.into_iter().map(|repository| {
        let since = repository.created_at.to_string();
        [repository.name, repository.tags.to_string(), since]
    }));
    table::align_right(&mut table, 1);
    table::print(&table)
}

async fn tags(client: &Client, repository: &RepositoryName, json: bool) -> anyhow::Result<()> {
    let name = repository.as_str();
    let tags = dvcr_openapi::all(async |page| client.tags(name, &page).await).await?;
    let rows = tags.into_iter().filter_map(|tag| {
        // A tag's manifest may go between the list and the look.
        let manifest = tag.manifest?;
        Some(TagRow {
            tag: tag.name,
            digest: tag.digest,
            media_type: manifest.media_type,
            size: manifest.content_bytes,
        })
    });
    if json {
        return table::print_json(&Tags {
            name: name.to_owned(),
            tags: rows.collect(),
        });
    }
    let mut table = table::table(&["TAG", "DIGEST", "SIZE", "TYPE"]);
    table.add_rows(rows.map(|row| [row.tag, row.digest, table::bytes(row.size), row.media_type]));
    table::align_right(&mut table, 2);
    table::print(&table)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_more_than_a_repository_is_told() {
        fn check(text: &str, words: &str) {
            let error = listed(text).unwrap_err();
            assert!(error.contains(words), "{text}: {error}");
        }
        check(
            "vi/debian:12",
            "`ls` takes a repository, without a tag: vi/debian",
        );
        check("debian:12", "without a tag: debian");
        check("vi/debian@sha256:00", "without a tag: vi/debian");
        check("127.0.0.1:5000/vi/debian", "leave out the registry");
        check("127.0.0.1:5000/vi/debian:12", "leave out the registry");
        check("Vi/debian:12", "lower-case");
        assert_eq!(listed("vi/debian").unwrap().as_str(), "vi/debian");
    }
}
