//! `dvcr scrub`.

use std::{process::ExitCode, time::Duration};

use anyhow::bail;
use clap::Args;
use dvcr_core::oci::RepositoryName;
use dvcr_openapi::{
    Client, DamageKind, ScrubFinding, ScrubRun, ScrubRunRequest, ScrubRunState, ScrubStatus,
    Timestamp,
};

use super::{ServerArgs, table};

pub(super) const EXAMPLES: &str = "Examples:
  dvcr scrub --status                what is known to be damaged, and how far the background is
  dvcr scrub --wait                  read and verify everything that is stored, now
  dvcr scrub --repository vi/debian --wait
                                     read the blobs of a repository and compare their digests

The server reads by itself, scrub.bytes_per_hour. A damaged blob is healed by pushing it again.
Exit code 3: done, and something is damaged.";

/// Time between two questions how far a scrub is.
const POLL: Duration = Duration::from_millis(200);

/// The exit code where something is damaged.
const DAMAGED: u8 = 3;

#[derive(Debug, Args)]
pub(super) struct ScrubArgs {
    /// Show what scrubs do and have found, and begin none.
    #[arg(long, conflicts_with_all = ["repository", "wait"])]
    status: bool,
    /// Only the blobs of this repository.
    #[arg(long, value_name = "REPOSITORY")]
    repository: Option<RepositoryName>,
    /// Wait until it is over.
    #[arg(long)]
    wait: bool,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) async fn run(args: ScrubArgs) -> anyhow::Result<ExitCode> {
    let ScrubArgs {
        status,
        repository,
        wait,
        server,
    } = args;
    let client = server.client()?;
    if !status {
        let what = ScrubRunRequest {
            repository: repository.map(|name| name.to_string()),
        };
        let run = client.scrub_start(&what).await?;
        if !wait {
            if server.json {
                table::print_json(&run)?;
            } else {
                println!("begun; `dvcr scrub --status` tells how far it is");
            }
            return Ok(ExitCode::SUCCESS);
        }
        wait_for(&client, run).await?;
    }
    let status = client.scrub_status().await?;
    let findings = dvcr_openapi::all(async |page| client.scrub_findings(&page).await).await?;
    if server.json {
        let document = serde_json::json!({ "status": status, "findings": findings });
        table::print_json(&document)?;
    } else {
        tell(&status, &findings)?;
    }
    if let Some(run) = status
        .run
        .filter(|run| run.state == ScrubRunState::Failed && wait)
    {
        bail!("the scrub failed: {}", run.error.unwrap_or_default());
    }
    Ok(if findings.is_empty() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(DAMAGED)
    })
}

/// Asks until a scrub is over.
async fn wait_for(client: &Client, begun: ScrubRun) -> anyhow::Result<()> {
    let bar = table::progress("MiB");
    bar.set_message("reading");
    let mut run = begun.clone();
    while run.state == ScrubRunState::Running {
        bar.set_length(run.of_bytes >> 20);
        bar.set_position(run.read_bytes >> 20);
        tokio::time::sleep(POLL).await;
        match client.scrub_status().await?.run {
            Some(now) if now.id == begun.id => run = now,
            _ => bail!("the server was restarted; run `dvcr scrub` again"),
        }
    }
    bar.finish_and_clear();
    Ok(())
}

fn tell(status: &ScrubStatus, findings: &[ScrubFinding]) -> anyhow::Result<()> {
    let time = |at: Option<Timestamp>| at.map_or_else(|| "-".to_owned(), |at| at.to_string());
    let mut rows = table::table(&["WHAT", "VALUE"]);
    let mut add = |what: &str, value: String| {
        rows.add_row([what.to_owned(), value]);
    };
    add("last full pass", time(status.last_full_pass_at));
    add("read in all", table::bytes(status.read_bytes));
    add("background, an hour", table::bytes(status.bytes_per_hour));
    if status.pass_in_progress {
        let read = table::bytes(status.pass_read_bytes);
        let began = time(status.pass_began_at);
        add("this pass", format!("{read} since {began}"));
    }
    if let Some(run) = &status.run {
        let state = match run.state {
            ScrubRunState::Running => "running",
            ScrubRunState::Done => "done",
            ScrubRunState::Failed => "failed",
        };
        let (read, of) = (table::bytes(run.read_bytes), table::bytes(run.of_bytes));
        let what = run.repository.as_deref().unwrap_or("everything");
        add("asked for", format!("{what}: {state}, read {read} of {of}"));
    }
    add("damaged blobs", status.damaged_blobs.to_string());
    add("damaged chunks", status.damaged_chunks.to_string());
    add("damaged packs", status.damaged_packs.to_string());
    table::print(&rows)?;
    if findings.is_empty() {
        return Ok(());
    }
    println!();
    let mut rows = table::table(&["DAMAGED", "NAME", "REPOSITORIES", "WHAT"]);
    for finding in findings {
        let kind = match finding.kind {
            DamageKind::Blob => "blob",
            DamageKind::Chunk => "chunk",
            DamageKind::Pack => "pack",
        };
        let place = finding.pack.as_ref().zip(finding.offset);
        let what = match place {
            Some((pack, offset)) => format!("{} (pack {pack}, offset {offset})", finding.what),
            None => finding.what.clone(),
        };
        rows.add_row([
            kind.to_owned(),
            finding.name.clone(),
            finding.repositories.join(", "),
            what,
        ]);
    }
    table::print(&rows)?;
    println!("pushing a damaged blob again, to any repository, heals it");
    Ok(())
}
