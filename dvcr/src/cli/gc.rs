//! `dvcr gc`.

use std::time::Duration;

use anyhow::bail;
use clap::{Args, Subcommand};
use dvcr_core::oci::Digest;
use dvcr_openapi::{Client, GcRun, GcRunRequest, GcRunState, GcStatus, Timestamp};

use super::{ServerArgs, table};
use crate::settings::Time;

pub(super) const EXAMPLES: &str = "Examples:
  dvcr gc status                    what is going on, and what was done
  dvcr gc plan                      which packs would be emptied, and what that frees
  dvcr gc run --wait                collect now rather than within five minutes, and say what came of it
  dvcr gc run --grace 0s --wait     also what was deleted just now; leases and uploads in progress stay protected
  dvcr gc history                   collections of the past
  dvcr gc explain sha256:...        why is this blob or manifest still here?

The server collects by itself; see gc.interval and gc.grace in docs/settings.md.";

/// Time between two questions how far a collection is: a person sees the difference of a fifth of a second.
const POLL: Duration = Duration::from_millis(200);

/// Lines of a history without --all.
const HISTORY_LINES: u32 = 20;

#[derive(Debug, Args)]
pub(super) struct GcArgs {
    #[command(subcommand)]
    command: GcCommand,
}

#[derive(Debug, Subcommand)]
enum GcCommand {
    /// Show what garbage collection is doing and has done.
    Status {
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Show what a collection would do, and do nothing.
    Plan {
        #[command(flatten)]
        server: ServerArgs,
    },
    /// Begin to collect garbage.
    Run {
        /// How long ago something must have been deleted, instead of gc.grace: 0s, 90s, 30m, 12h or 7d. Protection by leases and
        /// uploads in progress holds in any case.
        #[arg(long, value_name = "DURATION")]
        grace: Option<Time>,
        /// Also where that removes more at once than gc.removed_percent allows, or retention rules most tags of a repository.
        #[arg(long)]
        force: bool,
        /// Wait until it is over.
        #[arg(long)]
        wait: bool,
        #[command(flatten)]
        server: ServerArgs,
    },
    /// List collections of the past that did something, failed or were asked for.
    History {
        /// All that are remembered, not only the last 20.
        #[arg(long)]
        all: bool,
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
        GcCommand::Status { server } => status(&server).await,
        GcCommand::Plan { server } => plan(&server).await,
        GcCommand::Run {
            grace,
            force,
            wait,
            server,
        } => {
            let how = GcRunRequest {
                grace_seconds: grace.map(|grace| grace.0.as_millis().div_ceil(1000) as u64),
                force,
            };
            collect(&server, &how, wait).await
        }
        GcCommand::History { all, server } => history(&server, all).await,
        GcCommand::Explain { digest, server } => explain(&server, &digest).await,
    }
}

async fn status(server: &ServerArgs) -> anyhow::Result<()> {
    let status = server.client()?.gc_status().await?;
    if server.json {
        return table::print_json(&status);
    }
    let GcStatus {
        running,
        waiting,
        last,
        interval_seconds,
        grace_seconds,
        next_review_at,
        condemned_packs,
        since_start,
    } = status;
    let time = |at: Option<Timestamp>| at.map_or_else(|| "-".to_owned(), |at| at.to_string());
    let run = |run: Option<&GcRun>| run.map_or_else(|| "-".to_owned(), told);
    let mut table = table::table(&["WHAT", "VALUE"]);
    let mut add = |what: &str, value: String| {
        table.add_row([what.to_owned(), value]);
    };
    add("now", run(running.as_ref()));
    add("waiting", waiting.to_string());
    add("last", run(last.as_ref()));
    add("last ended", time(last.and_then(|last| last.finished_at)));
    add("every", format!("{interval_seconds} s"));
    add("grace", format!("{grace_seconds} s"));
    add("next review", time(next_review_at));
    add("packs being emptied", condemned_packs.to_string());
    add("blobs removed", since_start.removed_blobs.to_string());
    add("freed", table::bytes(since_start.freed_bytes));
    add("copied", table::bytes(since_start.moved_bytes));
    add("damaged packs", since_start.damaged_packs.to_string());
    add("refused", since_start.refused.to_string());
    table::print(&table)
}

async fn plan(server: &ServerArgs) -> anyhow::Result<()> {
    let plan = server.client()?.gc_plan().await?;
    if server.json {
        return table::print_json(&plan);
    }
    let mut packs = table::table(&["PACK", "SIZE", "ALIVE"]);
    packs.add_rows(plan.victims.iter().map(|victim| {
        [
            victim.pack.clone(),
            table::bytes(victim.bytes),
            table::bytes(victim.live_bytes),
        ]
    }));
    for column in [1, 2] {
        table::align_right(&mut packs, column);
    }
    table::print(&packs)?;
    println!(
        "frees {} of {} and copies {} for that",
        table::bytes(plan.freed_bytes),
        table::bytes(plan.bytes),
        table::bytes(plan.moved_bytes),
    );
    if plan.too_much {
        println!("more than one collection may remove by itself: `dvcr gc run --force` does it");
    }
    Ok(())
}

async fn collect(server: &ServerArgs, how: &GcRunRequest, wait: bool) -> anyhow::Result<()> {
    let client = server.client()?;
    let mut run = client.gc_start(how).await?;
    if wait {
        run = wait_for(&client, run).await?;
    }
    if server.json {
        table::print_json(&run)?;
    } else if wait {
        println!("{}", told(&run));
        if run.swept.damaged > 0 {
            println!(
                "{} packs are damaged and stay; the server's log names them, and pushing the same content again heals them",
                run.swept.damaged
            );
        }
    } else {
        println!("begun; `dvcr gc status` tells how far it is");
    }
    match run.state {
        GcRunState::Refused => bail!(
            "this would remove more at once than is allowed: look at `dvcr gc plan`, then run with --force"
        ),
        GcRunState::Failed => bail!("the collection failed: {}", run.error.unwrap_or_default()),
        _ => Ok(()),
    }
}

/// Asks until a collection is over.
async fn wait_for(client: &Client, mut run: GcRun) -> anyhow::Result<GcRun> {
    let bar = table::progress("packs");
    while !run.state.is_over() {
        bar.set_message(match run.state {
            GcRunState::Waiting => "waiting for another collection",
            GcRunState::Reviewing => "looking at what was deleted",
            _ => "emptying packs",
        });
        bar.set_length(run.chosen_packs);
        bar.set_position(run.swept.packs + run.swept.damaged);
        tokio::time::sleep(POLL).await;
        run = client.gc_run(run.id).await?;
    }
    bar.finish_and_clear();
    Ok(run)
}

async fn history(server: &ServerArgs, all: bool) -> anyhow::Result<()> {
    let client = server.client()?;
    let runs = if all {
        dvcr_openapi::all(async |page| client.gc_runs(&page).await).await?
    } else {
        let page = dvcr_openapi::PageQuery {
            limit: Some(HISTORY_LINES),
            after: None,
        };
        client.gc_runs(&page).await?.items
    };
    if server.json {
        return table::print_json(&runs);
    }
    let mut table = table::table(&[
        "BEGAN", "SECONDS", "STATE", "BLOBS", "PACKS", "FREED", "COPIED",
    ]);
    table.add_rows(runs.iter().map(|run| {
        let end = run.finished_at.unwrap_or(run.started_at);
        let millis = end.0.saturating_sub(run.started_at.0);
        [
            run.started_at.to_string(),
            format!("{:.1}", millis as f64 / 1e3),
            state(run.state).to_owned(),
            run.reviewed.removed.to_string(),
            run.swept.packs.to_string(),
            table::bytes(run.swept.freed_bytes),
            table::bytes(run.swept.moved_bytes),
        ]
    }));
    for column in [1, 3, 4, 5, 6] {
        table::align_right(&mut table, column);
    }
    table::print(&table)
}

fn state(state: GcRunState) -> &'static str {
    match state {
        GcRunState::Waiting => "waiting",
        GcRunState::Reviewing => "reviewing",
        GcRunState::Sweeping => "sweeping",
        GcRunState::Done => "done",
        GcRunState::Refused => "refused",
        GcRunState::Failed => "failed",
    }
}

/// A collection in one line.
fn told(run: &GcRun) -> String {
    format!(
        "{}: removed {} blobs ({}); emptied {} packs: freed {}, copied {}",
        state(run.state),
        run.reviewed.removed,
        table::bytes(run.reviewed.removed_bytes),
        run.swept.packs,
        table::bytes(run.swept.freed_bytes),
        table::bytes(run.swept.moved_bytes),
    )
}

async fn explain(server: &ServerArgs, digest: &Digest) -> anyhow::Result<()> {
    let told = server.client()?.gc_explain(&digest.to_string()).await?;
    if server.json {
        return table::print_json(&told);
    }
    if told.kept_by.is_empty() && told.len.is_none() {
        println!("{digest} is not stored");
        return Ok(());
    }
    if told.kept_by.is_empty() {
        println!("{digest} is kept by nothing: it goes with the next collection");
        return Ok(());
    }
    let mut rows = table::table(&["REPOSITORY", "MANIFEST", "TAGS"]);
    for keeper in told.kept_by {
        if keeper.manifests.is_empty() {
            let until = match keeper.lease_until {
                Some(until) if until > Timestamp::now() => format!("(lease until {until})"),
                _ => "(grace: goes with a collection soon)".to_owned(),
            };
            rows.add_row([keeper.repository, until, String::new()]);
            continue;
        }
        for manifest in keeper.manifests {
            let tags = manifest.tags.join(", ");
            rows.add_row([keeper.repository.clone(), manifest.digest, tags]);
        }
    }
    table::print(&rows)
}
