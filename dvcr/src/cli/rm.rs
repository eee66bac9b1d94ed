//! `dvcr rm`.

use std::{
    collections::HashSet,
    io::{IsTerminal as _, Write as _},
    str::FromStr,
};

use anyhow::{Context as _, bail};
use clap::Args;
use dvcr_core::oci::{self, Digest, Reference, RepositoryName};
use serde::Serialize;

use super::{ServerArgs, client::Client, table};

pub(super) const EXAMPLES: &str = "Examples:
  dvcr rm vi/debian:12              remove a tag; the manifest stays while other tags or an index name it
  dvcr rm vi/debian@sha256:...      remove a manifest and all tags that name it
  dvcr rm vi/debian                 remove every tag of the repository, with what hangs on it; asks first
  dvcr rm vi/debian --yes           the same without asking

Space is given back by garbage collection, after its grace period.";

#[derive(Debug, Args)]
pub(super) struct RmArgs {
    /// What to remove: REPOSITORY, REPOSITORY:TAG or REPOSITORY@DIGEST.
    target: Target,
    /// Remove a whole repository without asking.
    #[arg(long, short)]
    yes: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// What to remove.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    repository: RepositoryName,
    reference: Option<Reference>,
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (repository, reference) = if let Some((repository, digest)) = text.split_once('@') {
            let digest: Digest = digest
                .parse()
                .map_err(|error| format!("{digest:?}: {error}"))?;
            (repository, Some(digest.into()))
        } else if let Some((repository, tag)) = text.split_once(':') {
            let tag: oci::Tag = tag.parse().map_err(|error| format!("{tag:?}: {error}"))?;
            (repository, Some(tag.into()))
        } else {
            (text, None)
        };
        let repository = repository
            .parse()
            .map_err(|error| format!("{repository:?}: {error}"))?;
        Ok(Self {
            repository,
            reference,
        })
    }
}

#[derive(Default, Serialize)]
struct Removed {
    removed: Vec<String>,
}

pub(super) async fn run(args: RmArgs) -> anyhow::Result<()> {
    let RmArgs {
        target,
        yes,
        server,
    } = args;
    let client = Client::new(&server)?;
    let Target {
        repository,
        reference,
    } = target;
    let mut removed = Removed::default();
    match reference {
        Some(reference) => {
            if !client.delete_manifest(&repository, &reference).await? {
                bail!("{repository} has no {reference}; `dvcr ls {repository}` lists what it has");
            }
            removed.removed.push(reference.to_string());
        }
        None => {
            let tags = client.tags(&repository).await?;
            if !yes {
                confirm(&repository, tags.len())?;
            }
            for digest in everything(&client, &repository, &tags).await? {
                if client.delete_manifest(&repository, &digest.into()).await? {
                    removed.removed.push(digest.to_string());
                }
            }
        }
    }
    if server.json {
        return table::print_json(&removed);
    }
    for what in &removed.removed {
        println!("removed {what} from {repository}");
    }
    if removed.removed.is_empty() {
        println!("nothing to remove in {repository}");
    }
    Ok(())
}

/// Every manifest that the tags reach: what they name, children of indexes, and what refers to any of them. Parents come before
/// their children, as the specification asks of whoever deletes.
async fn everything(
    client: &Client,
    repository: &RepositoryName,
    tags: &[String],
) -> anyhow::Result<Vec<Digest>> {
    let mut seen = HashSet::new();
    let mut order = Vec::new();
    let mut next: Vec<Reference> = Vec::new();
    for tag in tags {
        next.push(tag.parse().context("read tag")?);
    }
    while !next.is_empty() {
        let mut below = Vec::new();
        for reference in next {
            let Some(manifest) = client.manifest(repository, &reference).await? else {
                continue;
            };
            if !seen.insert(manifest.digest) {
                continue;
            }
            order.push(manifest.digest);
            if let Ok(parsed) = oci::Manifest::parse(Some(&manifest.media_type), &manifest.bytes) {
                below.extend(parsed.children.iter().map(|child| child.digest.into()));
            }
            let referrers = client.referrers(repository, &manifest.digest).await?;
            below.extend(referrers.into_iter().map(Reference::from));
        }
        next = below;
    }
    Ok(order)
}

/// Asks a person. Without one, refuses.
fn confirm(repository: &RepositoryName, tags: usize) -> anyhow::Result<()> {
    if !std::io::stdin().is_terminal() {
        bail!(
            "removing all of {repository} ({tags} tags) needs --yes, because nobody is there to ask"
        );
    }
    eprint!("Remove all {tags} tags of {repository} and what hangs on them? [y/N] ");
    std::io::stderr().flush().context("ask")?;
    let mut answer = String::new();
    std::io::stdin()
        .read_line(&mut answer)
        .context("read answer")?;
    if matches!(answer.trim(), "y" | "Y" | "yes") {
        Ok(())
    } else {
        bail!("nothing removed");
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn targets_are_repositories_tags_or_digests() {
        fn check(text: &str, expected: Option<(&str, Option<&str>)>) {
            let parsed = text.parse::<Target>().ok();
            let shown = parsed.map(|target| {
                let reference = target.reference.map(|reference| reference.to_string());
                (target.repository.to_string(), reference)
            });
            let expected = expected.map(|(repository, reference)| {
                (repository.to_owned(), reference.map(str::to_owned))
            });
            assert_eq!(shown, expected, "{text}");
        }
        let digest = Digest::sha256(b"").to_string();
        check("vi/debian", Some(("vi/debian", None)));
        check("vi/debian:12", Some(("vi/debian", Some("12"))));
        check(&format!("a@{digest}"), Some(("a", Some(&digest))));
        check("a:", None);
        check("a@", None);
        check("a@sha256:00", None);
        check("A", None);
        check(":12", None);
        check("", None);
        check("localhost:5000/a", None);
    }
}
