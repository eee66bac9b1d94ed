//! `dvcr gc`.

use clap::{Args, Subcommand};
use dvcr_core::oci::Digest;
use serde_json::{Map, Value};

use super::{ServerArgs, client::Client, table};

pub(super) const EXAMPLES: &str = "Examples:
  dvcr gc plan                      which packs would be emptied, and what that frees
  dvcr gc run                       collect now rather than within five minutes
  dvcr gc explain sha256:...        why is this blob or manifest still here?

The server collects by itself; see gc.interval and gc.grace in docs/settings.md.";

#[derive(Debug, Args)]
pub(super) struct GcArgs {
    #[command(subcommand)]
    command: GcCommand,
}

#[derive(Debug, Subcommand)]
enum GcCommand {
    /// Show what a collection would do, and do nothing.
    Plan {
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Collect garbage now, and wait until that is done.
    Run {
        /// Also where that removes more at once than gc.removed_percent allows.
        #[arg(long)]
        force: bool,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Say why a blob or manifest is still stored.
    Explain {
        /// Digest of the blob or manifest.
        digest: Digest,
        #[command(flatten)]
        server: ServerArgs,
    },
}

pub(super) async fn run(args: GcArgs) -> anyhow::Result<()> {
    match args.command {
        GcCommand::Plan { server } => plan(&server).await,
        GcCommand::Run { force, server } => collect(&server, force).await,
        GcCommand::Explain { digest, server } => explain(&server, &digest).await,
    }
}

async fn plan(server: &ServerArgs) -> anyhow::Result<()> {
    let plan: Map<String, Value> = Client::new(server)?.json("/api/v1/gc/plan").await?;
    if server.json {
        return table::print_json(&plan);
    }
    let figure = |of: &Value| table::bytes(of.as_u64().unwrap_or(0));
    let mut packs = table::table(&["PACK", "SIZE", "ALIVE"]);
    for victim in plan
        .get("victims")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        let name = victim["pack"].as_str().unwrap_or("?").to_owned();
        packs.add_row([
            name,
            figure(&victim["bytes"]),
            figure(&victim["live_bytes"]),
        ]);
    }
    for column in [1, 2] {
        table::align_right(&mut packs, column);
    }
    table::print(&packs)?;
    let total = |name: &str| plan.get(name).map_or_else(|| "?".to_owned(), figure);
    println!(
        "frees {} of {} and copies {} for that",
        total("freed_bytes"),
        total("bytes"),
        total("moved_bytes"),
    );
    if plan.get("too_much").and_then(Value::as_bool) == Some(true) {
        println!("more than one collection may remove by itself: `dvcr gc run --force` does it");
    }
    Ok(())
}

async fn collect(server: &ServerArgs, force: bool) -> anyhow::Result<()> {
    let path = format!("/api/v1/gc/run?force={force}");
    let done: Value = Client::new(server)?.post(&path).await?;
    if server.json {
        return table::print_json(&done);
    }
    let count = |level: &str, name: &str| done[level][name].as_u64().unwrap_or(0);
    println!(
        "removed {} blobs ({}); emptied {} packs: freed {}, copied {}",
        count("reviewed", "removed"),
        table::bytes(count("reviewed", "removed_bytes")),
        count("swept", "packs"),
        table::bytes(count("swept", "freed_bytes")),
        table::bytes(count("swept", "moved_bytes")),
    );
    if count("swept", "damaged") > 0 {
        println!(
            "{} packs are damaged and stay; the server's log names them, and pushing the same content again heals them",
            count("swept", "damaged")
        );
    }
    if done["swept"]["refused"] == Value::Bool(true) {
        anyhow::bail!(
            "this would remove more at once than is allowed: look at `dvcr gc plan`, then run with --force"
        );
    }
    Ok(())
}

async fn explain(server: &ServerArgs, digest: &Digest) -> anyhow::Result<()> {
    let path = format!("/api/v1/gc/explain/{digest}");
    let told: Value = Client::new(server)?.json(&path).await?;
    if server.json {
        return table::print_json(&told);
    }
    let keepers = told["kept_by"].as_array().cloned().unwrap_or_default();
    if keepers.is_empty() && told["len"].is_null() {
        println!("{digest} is not stored");
        return Ok(());
    }
    if keepers.is_empty() {
        println!("{digest} is kept by nothing: it goes with the next collection");
        return Ok(());
    }
    let mut rows = table::table(&["REPOSITORY", "MANIFEST", "TAGS"]);
    for keeper in keepers {
        let repository = keeper["repository"].as_str().unwrap_or("?").to_owned();
        let manifests = keeper["manifests"].as_array().cloned().unwrap_or_default();
        if manifests.is_empty() {
            rows.add_row([
                repository,
                "(protected for a while: lease or grace)".to_owned(),
                String::new(),
            ]);
            continue;
        }
        for manifest in manifests {
            let tags = manifest["tags"].as_array().cloned().unwrap_or_default();
            let tags: Vec<_> = tags.iter().filter_map(Value::as_str).collect();
            let digest = manifest["digest"].as_str().unwrap_or("?").to_owned();
            rows.add_row([repository.clone(), digest, tags.join(", ")]);
        }
    }
    table::print(&rows)
}
