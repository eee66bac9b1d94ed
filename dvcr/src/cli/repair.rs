//! `dvcr repair`.

use std::{io::Write as _, path::PathBuf, process::ExitCode};

use anyhow::Context as _;
use clap::Args;
use indicatif::ProgressBar;

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
    let mut bar = Bar(table::progress(""));
    let report = repair(&data, options, &SystemClock, &mut bar).await;
    bar.0.finish_and_clear();
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

/// A bar for whoever looks.
struct Bar(ProgressBar);

impl Progress for Bar {
    fn at(&mut self, stage: &'static str, done: u64, of: u64) {
        self.0.set_message(stage);
        if of > 0 {
            self.0.set_length(of);
        }
        self.0.set_position(done);
    }
}
