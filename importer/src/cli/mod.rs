//! The command line: one file a command. Started without a command in a pod, the environment says what to do ([`pod`]).

mod bar;
mod import;
mod process;
mod registry;
mod source;

use std::process::ExitCode;

use clap::{CommandFactory, Parser, Subcommand};

pub use process::{EXIT_LATER, EXIT_STOPPED};

/// Disk images in and out of registries.
#[derive(Parser)]
#[command(name = "dvcr-importer", version, long_about = LONG_ABOUT, after_long_help = EXAMPLES)]
struct Cli {
    #[command(subcommand)]
    command: Option<Command>,
}

#[derive(Subcommand)]
enum Command {
    /// Import a disk image into a registry
    Import(Box<import::ImportArgs>),
}

const LONG_ABOUT: &str = "\
Brings disk images from wherever they are into a registry, as images that every OCI client can pull, and from there onto volumes.

Formats are told apart by content: raw, ISO, qcow2, VMDK (OVA, too), VDI, VHD, VHDX; in gzip, xz, zstd, bzip2 and tar, several deep.";

const EXAMPLES: &str = "\
Examples:
  dvcr-importer import debian-12.qcow2 127.0.0.1:5000/vi/debian:12
  dvcr-importer import https://example.org/disk.raw.xz registry.example.org/vi/disk:1 --checksum sha256:9f86d081...
  dvcr-importer import s3://bucket/disk.vmdk registry.example.org/vi/disk:1 --s3-endpoint https://s3.example.org
  zcat disk.gz | dvcr-importer import - 127.0.0.1:5000/vi/disk:1

An import that was interrupted goes on where it was when the same command is run again.
Exit codes: 0 done, 1 failed for good, 2 wrong arguments, 75 failed and may succeed later, 130 stopped.";

/// Does what the arguments say.
pub fn main() -> ExitCode {
    match Cli::parse().command {
        Some(Command::Import(args)) => process::run(|process| import::run(&args, process)),
        None => {
            // Nothing was asked for: the short help tells what there is.
            let _ = Cli::command().print_help();
            ExitCode::from(2)
        }
    }
}
