//! `dvcr stats`.

use clap::Args;
use dvcr_core::oci::RepositoryName;
use serde_json::{Map, Value};

use super::{ServerArgs, client::Client, table};

pub(super) const EXAMPLES: &str = "Examples:
  dvcr stats                        everything
  dvcr stats vi/debian              one repository: what it would take alone, and what it shares with others
  dvcr stats --json | jq '.logical_bytes / .stored_bytes'";

#[derive(Debug, Args)]
pub(super) struct StatsArgs {
    /// Repository to look at; everything without it.
    repository: Option<RepositoryName>,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) async fn run(args: StatsArgs) -> anyhow::Result<()> {
    let StatsArgs { repository, server } = args;
    let client = Client::new(&server)?;
    let path = match &repository {
        None => "/api/v1/stats".to_owned(),
        Some(name) => format!("/api/v1/repositories/{name}/stats"),
    };
    // Shown as they come: a newer server may tell more.
    let stats: Map<String, Value> = client.json(&path).await?;
    if server.json {
        return table::print_json(&stats);
    }
    let mut table = table::table(&["WHAT", "VALUE"]);
    table.add_rows(rows(&stats));
    table::align_right(&mut table, 1);
    table::print(&table)
}

/// Figures in words, then the ratio that people look for.
fn rows(stats: &Map<String, Value>) -> Vec<[String; 2]> {
    let mut rows: Vec<[String; 2]> = stats
        .iter()
        .map(|(name, value)| {
            let shown = match (name.strip_suffix("_bytes"), value.as_u64()) {
                (Some(what), Some(n)) => return [words(what), table::bytes(n)],
                (None, Some(n)) => n.to_string(),
                _ => match value {
                    Value::Bool(yes) => (if *yes { "yes" } else { "no" }).to_owned(),
                    Value::String(text) => text.clone(),
                    other => other.to_string(),
                },
            };
            [words(name), shown]
        })
        .collect();
    let figure = |name: &str| stats.get(name).and_then(Value::as_u64).filter(|n| *n > 0);
    if let (Some(logical), Some(stored)) = (figure("logical_bytes"), figure("stored_bytes")) {
        let ratio = logical as f64 / stored as f64;
        rows.push(["logical / stored".to_owned(), format!("{ratio:.2}")]);
    }
    rows
}

fn words(name: &str) -> String {
    name.replace('_', " ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_are_shown_in_words() {
        let Value::Object(stats) = serde_json::json!({
            "blobs": 3, "estimated": true, "logical_bytes": 3 << 20, "stored_bytes": 1 << 20, "alone_bytes": 0,
        }) else {
            panic!("an object is an object");
        };
        assert_eq!(
            rows(&stats),
            [
                ["alone", "0 B"],
                ["blobs", "3"],
                ["estimated", "yes"],
                ["logical", "3.00 MiB"],
                ["stored", "1.00 MiB"],
                ["logical / stored", "3.00"],
            ]
        );
    }

    #[test]
    fn an_empty_registry_has_no_ratio() {
        let Value::Object(stats) = serde_json::json!({"logical_bytes": 0, "stored_bytes": 0})
        else {
            panic!("an object is an object");
        };
        assert_eq!(rows(&stats).len(), 2);
    }
}
