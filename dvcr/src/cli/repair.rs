//! `dvcr repair`.

use std::{
    io::{IsTerminal as _, Write as _},
    path::PathBuf,
    process::ExitCode,
    time::{Duration, Instant},
};

use anyhow::Context as _;
use clap::Args;

use super::table;
use crate::{
    clock::SystemClock,
    repair::{Progress, RepairOptions, repair},
};

pub(super) const EXAMPLES: &str = "Examples:
  dvcr repair --data /srv/dvcr --dry-run    what would come back? Changes nothing
  dvcr repair --data /srv/dvcr              make lost or damaged metadata anew

Stop the server first. Chunks, recipes and blobs come from the packs; tags, manifests and what repositories hold from the newest
checkpoint in DIR/checkpoints. The metadata that was there is kept aside. It needs room for a second copy of the metadata.
Exit code 3: done, but something could not be brought back.";

/// How often progress is printed.
const PRINT_INTERVAL: Duration = Duration::from_millis(200);

/// The exit code where something was lost.
const INCOMPLETE: u8 = 3;

#[derive(Debug, Args)]
pub(super) struct RepairArgs {
    /// Directory of a server that is stopped.
    #[arg(long, value_name = "DIR", env = "DVCR_DATA")]
    data: PathBuf,
    /// Say what would come back, and change nothing. Needs the room all the same.
    #[arg(long)]
    dry_run: bool,
    /// Also replace metadata that can be opened.
    #[arg(long)]
    force: bool,
    /// Print JSON for programs instead of text for people.
    #[arg(long)]
    json: bool,
}

pub(super) async fn run(args: RepairArgs) -> anyhow::Result<ExitCode> {
    let RepairArgs {
        data,
        dry_run,
        force,
        json,
    } = args;
    let options = RepairOptions { dry_run, force };
    let mut bar = Bar::new();
    let report = repair(&data, options, &SystemClock, &mut bar).await;
    bar.clear();
    let report = report?;
    if json {
        table::print_json(&report)?;
    } else {
        std::io::stdout()
            .write_all(report.to_string().as_bytes())
            .context("print report")?;
    }
    Ok(if report.is_whole() {
        ExitCode::SUCCESS
    } else {
        ExitCode::from(INCOMPLETE)
    })
}

/// One line on a terminal, overwritten again and again.
struct Bar {
    on: bool,
    printed: Option<Instant>,
    width: usize,
}

impl Bar {
    fn new() -> Self {
        Self {
            on: std::io::stderr().is_terminal(),
            printed: None,
            width: 0,
        }
    }

    fn print(&mut self, line: &str) {
        // A terminal that cannot be written to is no reason to stop.
        let _ = write!(std::io::stderr(), "\r{line:<0$}", self.width);
        self.width = line.len();
    }

    fn clear(&mut self) {
        if self.width > 0 {
            self.print("");
            self.print("");
        }
    }
}

impl Progress for Bar {
    fn at(&mut self, stage: &'static str, done: u64, of: u64) {
        let is_new = self.printed.is_none_or(|at| at.elapsed() >= PRINT_INTERVAL);
        if !self.on || !(is_new || done == of) {
            return;
        }
        self.printed = Some(Instant::now());
        let line = match (of, 30 * done) {
            (0, _) => format!("{stage}: {done}"),
            (of, done_30) => {
                let filled = usize::try_from(done_30 / of).unwrap_or(30).min(30);
                let (full, rest) = ("=".repeat(filled), " ".repeat(30 - filled));
                format!("{stage}: [{full}{rest}] {done} of {of}")
            }
        };
        self.print(&line);
    }
}
