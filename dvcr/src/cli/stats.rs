//! `dvcr stats`.

use clap::Args;
use dvcr_core::oci::RepositoryName;
use dvcr_openapi::Stats;

use super::{ServerArgs, repository, table};

pub(super) const EXAMPLES: &str = "Examples:
  dvcr stats                        everything
  dvcr stats vi/debian              one repository: what it would take alone, and what it shares with others
  dvcr stats --json | jq '.logical_bytes / .stored_bytes'";

#[derive(Debug, Args)]
pub(super) struct StatsArgs {
    /// Repository to look at; everything without it.
    #[arg(value_parser = repository::<RepositoryName>)]
    repository: Option<RepositoryName>,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) async fn run(args: StatsArgs) -> anyhow::Result<()> {
    let StatsArgs { repository, server } = args;
    let repository = repository.as_ref().map(RepositoryName::as_str);
    let stats = server.client()?.stats(repository).await?;
    if server.json {
        return table::print_json(&stats);
    }
    let mut table = table::table(&["WHAT", "VALUE"]);
    table.add_rows(rows(&stats));
    table::align_right(&mut table, 1);
    table::print(&table)
}

/// Figures in words, then the ratio that people look for.
fn rows(stats: &Stats) -> Vec<[String; 2]> {
    let size = |name: &str, bytes| [name.to_owned(), table::bytes(bytes)];
    let mut rows = vec![
        ["blobs".to_owned(), stats.blobs.to_string()],
        ["chunks".to_owned(), stats.chunks.to_string()],
        size("logical", stats.logical_bytes),
        size("stored", stats.stored_bytes),
    ];
    rows.extend(stats.shared_bytes.map(|bytes| size("shared", bytes)));
    rows.extend(stats.pack_bytes.map(|bytes| size("packs", bytes)));
    if stats.estimated {
        rows.push(["estimated".to_owned(), "yes".to_owned()]);
    }
    if stats.stored_bytes > 0 {
        let ratio = stats.logical_bytes as f64 / stats.stored_bytes as f64;
        rows.push(["logical / stored".to_owned(), format!("{ratio:.2}")]);
    }
    rows
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_shown_in_words() {
        let stats = Stats {
            blobs: 3,
            chunks: 40,
            logical_bytes: 3 << 20,
            stored_bytes: 1 << 20,
            shared_bytes: Some(0),
            pack_bytes: None,
            estimated: true,
        };
        assert_eq!(
            rows(&stats),
            [
                ["blobs", "3"],
                ["chunks", "40"],
                ["logical", "3.00 MiB"],
                ["stored", "1.00 MiB"],
                ["shared", "0 B"],
                ["estimated", "yes"],
                ["logical / stored", "3.00"],
            ]
        );
    }

    #[test]
    fn an_empty_registry_has_no_ratio() {
        assert_eq!(rows(&Stats::default()).len(), 4);
    }
}
