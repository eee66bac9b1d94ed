//! `dvcr`: the registry.

use std::path::PathBuf;

use clap::{Parser, Subcommand};
use dvcr::{logging, serve, settings};

/// A registry for virtual-machine disks.
#[derive(Parser)]
#[command(name = "dvcr", version)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    /// Run the registry.
    Serve {
        /// Settings file (TOML).
        #[arg(long, env = "DVCR_CONFIG")]
        config: Option<PathBuf>,
        /// Address and port to listen on [default: 127.0.0.1:5000].
        #[arg(long, value_name = "ADDRESS:PORT")]
        listen: Option<String>,
        /// Directory for everything that is stored [default: ./dvcr-data].
        #[arg(long, value_name = "DIR")]
        data: Option<String>,
    },
}

#[tokio::main]
async fn main() -> anyhow::Result<()> {
    let Command::Serve {
        config,
        listen,
        data,
    } = Arguments::parse().command;
    let flags: Vec<_> = [("listen", listen), ("data", data)]
        .into_iter()
        .filter_map(|(key, value)| Some((key.to_owned(), value?)))
        .collect();
    let settings = settings::load(config.as_deref(), |name| std::env::var(name).ok(), &flags)?;
    logging::init(&settings.log)?;
    serve::serve(settings).await
}
