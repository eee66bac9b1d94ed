//! `dvcr checkpoint`.

use clap::Args;
use dvcr_openapi::CheckpointRequest;

use super::{ServerArgs, table};
use crate::settings::Time;

pub(super) const EXAMPLES: &str = "Examples:
  dvcr checkpoint                    write the metadata that packs do not have beside the packs, now
  dvcr checkpoint --hold 2h          and remove no pack for two hours: time to copy checkpoints/ and then packs/
  dvcr checkpoint --hold 0s          end that

The server takes one every checkpoint.interval and when it stops. docs/backup.md says how to make and restore a backup.";

#[derive(Debug, Args)]
pub(super) struct CheckpointArgs {
    /// Remove no pack for so long, at most 7d; 0s ends that.
    #[arg(long, value_name = "DURATION")]
    hold: Option<Time>,
    #[command(flatten)]
    server: ServerArgs,
}

pub(super) async fn run(args: CheckpointArgs) -> anyhow::Result<()> {
    let CheckpointArgs { hold, server } = args;
    let how = CheckpointRequest {
        hold_seconds: hold.map(|hold| hold.0.as_millis().div_ceil(1000) as u64),
    };
    let taken = server.client()?.checkpoint(&how).await?;
    if server.json {
        return table::print_json(&taken);
    }
    println!(
        "checkpoint {:016x} as of {}: {} rows, {}",
        taken.number,
        taken.created_at,
        taken.rows,
        table::bytes(taken.file_bytes),
    );
    if let Some(until) = taken.packs_held_until {
        println!("no pack is removed until {until}");
    }
    Ok(())
}
