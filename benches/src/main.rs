//! `dvcr-bench`: measures DVCR and other registries beside each other. README.md says how to run it and what the rows mean.

mod compare;
mod data;
mod dedup;
mod disks;
mod gc;
mod http;
mod load;
mod machine;
mod oci;
mod registry;
mod report;
mod row;
mod rows;
mod startup;
mod stats;

use clap::{Parser, Subcommand};

/// Load driver and comparison of DVCR with other registries.
#[derive(Parser)]
#[command(name = "dvcr-bench", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Compare(compare::Options),
    Dedup(dedup::Options),
    Disks(disks::Options),
    Gc(gc::Options),
    Startup(startup::Options),
}

fn main() -> anyhow::Result<()> {
    match Arguments::parse().command {
        Command::Compare(options) => compare::run(&options),
        Command::Dedup(options) => dedup::run(&options),
        Command::Disks(options) => disks::run(&options),
        Command::Gc(options) => gc::run(&options),
        Command::Startup(options) => startup::run(&options),
    }
}
