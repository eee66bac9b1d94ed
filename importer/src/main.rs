//! `dvcr-importer`: disks in and out of a registry.

use std::{
    process::ExitCode,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use clap::{Parser, Subcommand};

mod cli;

/// Disks in and out of a registry
#[derive(Parser)]
#[command(version, max_term_width = 120)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    Populate(Box<cli::populate::PopulateArgs>),
    Export(Box<cli::export::ExportArgs>),
    Inspect(Box<cli::inspect::InspectArgs>),
}

fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(&arguments.command) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => cli::outcome::report(&error),
    }
}

fn run(command: &Command) -> anyhow::Result<()> {
    let runtime = tokio::runtime::Builder::new_multi_thread()
        .worker_threads(2)
        .enable_all()
        .build()?;
    let cancel = Arc::new(AtomicBool::new(false));
    runtime.spawn(watch_signals(cancel.clone()));
    let handle = runtime.handle();
    match command {
        Command::Populate(args) => args.run(handle, &cancel),
        Command::Export(args) => args.run(handle, &cancel),
        Command::Inspect(args) => args.run(handle),
    }
}

/// The first signal asks to stop, which leaves a state to go on from; the second ends the program.
async fn watch_signals(cancel: Arc<AtomicBool>) {
    use tokio::signal::unix::{SignalKind, signal};

    let (Ok(mut interrupt), Ok(mut terminate)) = (
        signal(SignalKind::interrupt()),
        signal(SignalKind::terminate()),
    ) else {
        return;
    };
    loop {
        tokio::select! {
            _ = interrupt.recv() => {}
            _ = terminate.recv() => {}
        }
        if cancel.swap(true, Ordering::Relaxed) {
            std::process::exit(cli::outcome::STOPPED.into());
        }
    }
}
