//! `dvcr-importer`: disks in and out of a registry.

use std::{env, process::ExitCode};

use clap::{CommandFactory as _, Parser, Subcommand};

mod cli;

/// Disks in and out of a registry
#[derive(Parser)]
#[command(version, max_term_width = 120, long_about = LONG_ABOUT, after_long_help = EXAMPLES)]
struct Arguments {
    #[command(subcommand)]
    command: Option<Command>,
}

const LONG_ABOUT: &str = "\
Brings disk images from wherever they are into a registry, as images that every OCI client can pull, and from there onto volumes.

Formats are told apart by content: raw, ISO, qcow2, VMDK (OVA, too), VDI, VHD, VHDX; in gzip, xz, zstd, bzip2 and tar, several
deep. In a pod, without a command, the environment says what to do: as for cdi-importer, and for Deckhouse's importer.";

const EXAMPLES: &str = "\
Examples:
  dvcr-importer import debian-12.qcow2 127.0.0.1:5000/vi/debian:12
  dvcr-importer import https://example.org/disk.raw.xz registry.example.org/vi/disk:1 --checksum sha256:9f86d081...
  dvcr-importer import s3://bucket/disk.vmdk registry.example.org/vi/disk:1 --s3-endpoint https://s3.example.org
  zcat disk.gz | dvcr-importer import - 127.0.0.1:5000/vi/disk:1
  dvcr-importer populate registry.example.org/vi/debian:12 /dev/vdb --user me --password-file password
  dvcr-importer populate https://example.org/disk.qcow2 /data --size 20Gi
  dvcr-importer export registry.example.org/vi/debian:12 debian.qcow2 --format qcow2
  dvcr-importer inspect registry.example.org/vi/debian:12 --compare registry.example.org/vi/debian:11

A command that was interrupted goes on where it was when it is run again, and says so if it does not.
Exit codes: 0 done, 1 failed for good, 2 wrong arguments, 75 failed and may succeed later, 130 stopped.";

#[derive(Subcommand)]
enum Command {
    Import(Box<cli::import::ImportArgs>),
    Populate(Box<cli::populate::PopulateArgs>),
    Export(Box<cli::export::ExportArgs>),
    Inspect(Box<cli::inspect::InspectArgs>),
}

fn main() -> ExitCode {
    cli::log::show();
    let in_pod = cli::pod::is_asked();
    let mut words: Vec<_> = env::args_os().skip(1).collect();
    if in_pod {
        cli::pod::leave_out_verbosity(&mut words);
    }
    let program = env!("CARGO_PKG_NAME").into();
    let arguments = match Arguments::try_parse_from([program].into_iter().chain(words)) {
        Ok(arguments) => arguments,
        // Nobody reads what a pod prints before its termination message.
        Err(error) if in_pod && error.use_stderr() => return cli::pod::wrong_arguments(&error),
        Err(error) => error.exit(),
    };
    match &arguments.command {
        Some(command) => run(command),
        None => match cli::pod::Contract::from_environment() {
            Some(contract) => cli::pod::main(contract),
            None => {
                // Nothing was asked for: the help tells what there is.
                let _ = Arguments::command().print_help();
                ExitCode::from(2)
            }
        },
    }
}

fn run(command: &Command) -> ExitCode {
    let process = match cli::process::Process::start() {
        Ok(process) => process,
        Err(error) => return cli::outcome::report(&error, false),
    };
    let result = match command {
        Command::Import(args) => args.run(&process),
        Command::Populate(args) => args.run(&process).map(drop),
        Command::Export(args) => args.run(&process),
        Command::Inspect(args) => args.run(&process),
    };
    let kept = process.kept.load(std::sync::atomic::Ordering::Relaxed);
    process.end();
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => cli::outcome::report(&error, kept),
    }
}
