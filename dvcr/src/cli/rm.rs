//! `dvcr rm`.

use std::{
    io::{IsTerminal as _, Write as _},
    str::FromStr,
};

use anyhow::{Context as _, bail};
use clap::Args;
use dvcr_core::oci::Digest;
use dvcr_openapi::{DeletedItem, Deletion, DeletionFailure, DeletionRequest};

use super::{ServerArgs, repository, table};
use crate::registry::glob::{RepositoryGlob, TagGlob};

pub(super) const EXAMPLES: &str = "Examples:
  dvcr rm vi/debian:12              remove a tag, and its image unless another tag or an index names it
  dvcr rm vi/debian@sha256:...      remove an image with all its tags
  dvcr rm 'vi/debian:nightly-*'     remove the tags that a glob fits; shows them and asks first
  dvcr rm --all vi/debian           remove a whole repository; asks first
  dvcr rm 'vi/test-*'               remove all repositories that a glob fits; asks first
  dvcr rm 'vi/test-*' --dry-run     only show what would go
  dvcr rm 'vi/test-*' --yes         do it without asking

In a glob, * stands for any part of a path segment, ** for any number of segments.
Space is given back by garbage collection, after its grace period: see gc.grace in docs/settings.md.";

/// Lines that say what goes; more are counted.
const LINES_MAX: usize = 20;

#[derive(Debug, Args)]
pub(super) struct RmArgs {
    /// What to remove: REPOSITORY:TAG, REPOSITORY@DIGEST, or a glob of repositories or tags.
    #[arg(value_parser = repository::<Target>)]
    target: Target,
    /// Remove everything in a repository.
    #[arg(long)]
    all: bool,
    /// Do not ask.
    #[arg(long, short)]
    yes: bool,
    /// Only show what would go.
    #[arg(long)]
    dry_run: bool,
    /// Do not count the bytes that become free: that reads an entry for each chunk stored.
    #[arg(long)]
    skip_bytes: bool,
    #[command(flatten)]
    server: ServerArgs,
}

/// What to remove.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Target {
    repository: RepositoryGlob,
    which: Which,
}

#[derive(Clone, Debug, PartialEq, Eq)]
enum Which {
    Tag(TagGlob),
    Digest(Digest),
    Whole,
}

impl Target {
    /// One thing that the user named: it goes without a question.
    fn is_one(&self) -> bool {
        let named = self.repository.name().is_some();
        match &self.which {
            Which::Tag(tag) => named && tag.name().is_some(),
            Which::Digest(_) => named,
            Which::Whole => false,
        }
    }
}

impl FromStr for Target {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        let (repository, which) = if let Some((repository, digest)) = text.split_once('@') {
            let digest = digest
                .parse()
                .map_err(|error| format!("{digest:?}: {error}"))?;
            (repository, Which::Digest(digest))
        } else if let Some((repository, tag)) = text.split_once(':') {
            let tag: TagGlob = tag.parse().map_err(|error| format!("{error}"))?;
            (repository, Which::Tag(tag))
        } else {
            (text, Which::Whole)
        };
        let repository: RepositoryGlob = repository.parse().map_err(|error| format!("{error}"))?;
        if matches!(which, Which::Digest(_)) && repository.name().is_none() {
            return Err("a digest needs the name of its repository, not a glob".to_owned());
        }
        Ok(Self { repository, which })
    }
}

pub(super) async fn run(args: RmArgs) -> anyhow::Result<()> {
    let RmArgs {
        target,
        all,
        yes,
        dry_run,
        skip_bytes,
        server,
    } = args;
    let whole = target.which == Which::Whole;
    if all && !whole {
        bail!("--all removes whole repositories: name one without tag and digest");
    }
    if whole && !all && target.repository.name().is_some() {
        let name = &target.repository;
        bail!(
            "name a tag or a digest, as in `dvcr rm {name}:TAG`; `dvcr rm --all {name}` removes the whole repository"
        );
    }
    let client = server.client()?;
    let ask = !yes && !dry_run && !target.is_one();
    if ask && !std::io::stdin().is_terminal() {
        bail!(
            "this needs --yes, because nobody is there to ask; --dry-run shows what it would remove"
        );
    }
    let Target { repository, which } = target;
    let mut request = DeletionRequest {
        repository: repository.into(),
        tag: None,
        digest: None,
        whole,
        dry_run: dry_run || ask,
        skip_bytes,
    };
    match which {
        Which::Tag(tag) => request.tag = Some(tag.into()),
        Which::Digest(digest) => request.digest = Some(digest.to_string()),
        Which::Whole => {}
    }
    let mut deletion = client.delete(&request).await?;
    if ask {
        show(&deletion)?;
        confirm()?;
        let told = deletion;
        request.dry_run = false;
        // They were counted a moment ago.
        request.skip_bytes = true;
        deletion = client.delete(&request).await?;
        deletion.blobs = told.blobs;
        deletion.logical_bytes = told.logical_bytes;
        deletion.freed_bytes = told.freed_bytes;
    }
    if server.json {
        table::print_json(&deletion)?;
    } else {
        show(&deletion)?;
    }
    if deletion.failures.is_empty() || deletion.dry_run {
        Ok(())
    } else {
        bail!("{} could not be removed", deletion.failures.len())
    }
}

/// Says what went, or would go.
fn show(deletion: &Deletion) -> anyhow::Result<()> {
    let Deletion {
        dry_run,
        repositories,
        tags,
        manifests,
        blobs: _,
        logical_bytes: _,
        freed_bytes,
        free_from,
        named,
        failures,
    } = deletion;
    let mut out = String::new();
    for DeletionFailure {
        repository,
        what,
        error,
    } in failures
    {
        let what = what.as_deref().map(|what| format!(" {what}"));
        let what = what.unwrap_or_default();
        out.push_str(&format!("stays: {repository}{what}: {error}\n"));
    }
    let verb = if *dry_run { "would remove" } else { "removed" };
    for DeletedItem {
        repository,
        tag,
        digest,
    } in named.iter().take(LINES_MAX)
    {
        match tag {
            Some(tag) => out.push_str(&format!("{verb} {repository}:{tag} ({digest})\n")),
            None => out.push_str(&format!("{verb} {repository}@{digest}\n")),
        }
    }
    let more = (tags + manifests).saturating_sub(named.len().min(LINES_MAX) as u64);
    if more > 0 {
        out.push_str(&format!("{verb} {more} more\n"));
    }
    let count = |n: u64, one: &str, many: &str| format!("{n} {}", if n == 1 { one } else { many });
    out.push_str(&format!(
        "{verb} {} and {} of {}",
        count(*tags, "tag", "tags"),
        count(*manifests, "manifest", "manifests"),
        count(*repositories, "repository", "repositories"),
    ));
    if let Some(bytes) = freed_bytes {
        let bytes = table::bytes(*bytes);
        out.push_str(&format!(
            "; nothing else shares {bytes}, which become free after {free_from}"
        ));
    }
    out.push('\n');
    table::write(&out)
}

/// Asks a person.
fn confirm() -> anyhow::Result<()> {
    eprint!("Do that? [y/N] ");
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
    fn targets_are_repositories_tags_digests_or_globs() {
        /// Whether it is one thing that goes without a question.
        fn check(text: &str, expected: Option<(&str, Which, bool)>) {
            let parsed = text.parse::<Target>().ok();
            let shown = parsed.map(|target| {
                let one = target.is_one();
                (target.repository, target.which, one)
            });
            let expected =
                expected.map(|(repository, which, one)| (repository.parse().unwrap(), which, one));
            assert_eq!(shown, expected, "{text}");
        }
        let digest = Digest::sha256(b"");
        let tag = |tag: &str| Which::Tag(tag.parse().unwrap());
        check("vi/debian", Some(("vi/debian", Which::Whole, false)));
        check("vi/debian:12", Some(("vi/debian", tag("12"), true)));
        check("vi/debian:1*", Some(("vi/debian", tag("1*"), false)));
        check("vi/*:12", Some(("vi/*", tag("12"), false)));
        check("vi/test-*", Some(("vi/test-*", Which::Whole, false)));
        check("**", Some(("**", Which::Whole, false)));
        let by_digest = Some(("a", Which::Digest(digest), true));
        check(&format!("a@{digest}"), by_digest);
        check(&format!("*@{digest}"), None);
        check("a:", None);
        check("a@", None);
        check("a@sha256:00", None);
        check("A", None);
        check(":12", None);
        check("", None);
        check("localhost:5000/a", None);
        check("localhost:5000/*", None);
    }

    #[test]
    fn a_registry_before_the_repository_is_told() {
        for text in [
            "127.0.0.1:5000/vi/debian:12",
            "localhost:5000/vi/*",
            "http://r.example/a:1",
        ] {
            let error = repository::<Target>(text).unwrap_err();
            assert!(error.contains("leave out the registry"), "{error}");
            assert!(error.contains("--server names it"), "{error}");
        }
        let error = repository::<Target>("vi/debian:v[0-9]*").unwrap_err();
        assert!(error.contains("because of '['"), "{error}");
        assert!(repository::<Target>("vi/debian:12").is_ok());
    }
}
