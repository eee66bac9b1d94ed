//! The command line: what the program can do, and how it says so.

mod check_config;
mod checkpoint;
mod client;
mod gc;
mod ls;
mod migrate;
mod openapi;
mod repair;
mod retention;
mod rm;
mod scrub;
mod serve;
mod stats;
mod table;
mod uploads;

use std::{fmt, path::PathBuf, process::ExitCode, str::FromStr};

use clap::{Args, Parser, Subcommand};

use crate::settings::{self, Settings};

/// The registry for VM disks.
#[derive(Debug, Parser)]
#[command(
    name = "dvcr",
    version,
    about = "A registry for virtual-machine disks: an OCI registry that stores every chunk once",
    after_help = "Examples:\n  \
        dvcr serve                                  data in ./dvcr-data, http://127.0.0.1:5000\n  \
        skopeo copy --dest-tls-verify=false docker-archive:disk.tar docker://127.0.0.1:5000/vi/debian:12\n  \
        dvcr ls vi/debian                           tags, digests and sizes\n  \
        dvcr stats                                  what is stored, and what storing chunks once saves\n  \
        dvcr rm vi/debian:12                        remove a tag\n  \
        dvcr migrate registry https://old.example   bring everything over from another registry\n\n\
        `dvcr COMMAND --help` tells more about a command."
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run the registry.
    #[command(after_help = serve::EXAMPLES)]
    Serve(SettingsArgs),
    /// Print the effective settings as TOML, and check them.
    #[command(after_help = check_config::EXAMPLES)]
    CheckConfig(SettingsArgs),
    /// List repositories, or the tags of one.
    #[command(after_help = ls::EXAMPLES)]
    Ls(ls::LsArgs),
    /// Show how much is stored, and what it would take without sharing.
    #[command(after_help = stats::EXAMPLES)]
    Stats(stats::StatsArgs),
    /// Collect garbage, or see what that would do.
    #[command(after_help = gc::EXAMPLES)]
    Gc(gc::GcArgs),
    /// Show retention rules, and what they would remove.
    #[command(after_help = retention::EXAMPLES)]
    Retention(retention::RetentionArgs),
    /// List uploads in progress, or end one.
    #[command(after_help = uploads::EXAMPLES)]
    Uploads(uploads::UploadsArgs),
    /// Bring everything over from another registry, running or at rest.
    #[command(after_help = migrate::EXAMPLES)]
    Migrate(migrate::MigrateArgs),
    /// Remove tags, images or whole repositories, and say what becomes free.
    #[command(after_help = rm::EXAMPLES)]
    Rm(rm::RmArgs),
    /// Read what is stored and verify it, or see what is damaged.
    #[command(after_help = scrub::EXAMPLES)]
    Scrub(scrub::ScrubArgs),
    /// Write the metadata that packs do not have beside the packs, for backups and repairs.
    #[command(after_help = checkpoint::EXAMPLES)]
    Checkpoint(checkpoint::CheckpointArgs),
    /// Make the metadata of a stopped server anew, from its packs and checkpoints.
    #[command(after_help = repair::EXAMPLES)]
    Repair(repair::RepairArgs),
    /// Print the document that describes the management API.
    #[command(after_help = openapi::EXAMPLES)]
    Openapi,
}

/// Flags of the commands that need settings. Each is over its environment variable, which is over the file.
#[derive(Debug, Args)]
struct SettingsArgs {
    /// Settings file (TOML). `dvcr check-config` prints one with every key.
    #[arg(long, value_name = "FILE", env = "DVCR_CONFIG")]
    config: Option<PathBuf>,
    /// Address and port to listen on [default: 127.0.0.1:5000] [env: DVCR_LISTEN]
    #[arg(long, value_name = "ADDRESS:PORT")]
    listen: Option<String>,
    /// Directory for everything that is stored [default: ./dvcr-data] [env: DVCR_DATA]
    #[arg(long, value_name = "DIR")]
    data: Option<String>,
    /// Say in words that nobody needs to log in: everyone-may-read-and-write [env: DVCR_ALLOW_ANONYMOUS]
    #[arg(long, value_name = "WORDS")]
    allow_anonymous: Option<String>,
    /// PEM file with certificate and issuers, for HTTPS [env: DVCR_TLS_CERTIFICATE]
    #[arg(long, value_name = "FILE")]
    tls_certificate: Option<String>,
    /// PEM file with the certificate's key [env: DVCR_TLS_KEY]
    #[arg(long, value_name = "FILE")]
    tls_key: Option<String>,
    /// What manifests may lack: none, index (child manifests) or all (blobs, too) [default: none] [env: DVCR_SPARSE]
    #[arg(long, value_name = "WHAT")]
    sparse: Option<String>,
    /// Form of log lines: text or json [default: text] [env: DVCR_LOG_FORMAT]
    #[arg(long, value_name = "FORM")]
    log_format: Option<String>,
    /// What is logged, for example info,dvcr=debug [default: info] [env: DVCR_LOG_FILTER]
    #[arg(long, value_name = "FILTER")]
    log_filter: Option<String>,
    /// Any other setting, for example limits.requests=100; may be repeated [env: DVCR_LIMITS_REQUESTS and so on]
    #[arg(long = "set", value_name = "KEY=VALUE", value_parser = key_value)]
    set: Vec<(String, String)>,
}

fn key_value(text: &str) -> Result<(String, String), String> {
    let (key, value) = text
        .split_once('=')
        .ok_or("write KEY=VALUE, for example drain=10s")?;
    Ok((key.trim().to_owned(), value.trim().to_owned()))
}

impl SettingsArgs {
    /// All layers: file, environment, flags.
    fn load(self) -> anyhow::Result<Settings> {
        let Self {
            config,
            listen,
            data,
            allow_anonymous,
            tls_certificate,
            tls_key,
            sparse,
            log_format,
            log_filter,
            set,
        } = self;
        let named = [
            ("listen", listen),
            ("data", data),
            ("allow_anonymous", allow_anonymous),
            ("tls.certificate", tls_certificate),
            ("tls.key", tls_key),
            ("sparse", sparse),
            ("log.format", log_format),
            ("log.filter", log_filter),
        ];
        let mut flags: Vec<(String, String)> = named
            .into_iter()
            .filter_map(|(key, value)| Some((key.to_owned(), value?)))
            .collect();
        flags.extend(set);
        let environment = |name: &str| std::env::var(name).ok();
        Ok(settings::load(config.as_deref(), environment, &flags)?)
    }
}

/// Where the server is, for the commands that talk to one.
#[derive(Debug, Args)]
struct ServerArgs {
    /// Address of the registry.
    #[arg(
        long,
        value_name = "URL",
        env = "DVCR_SERVER",
        default_value = "http://127.0.0.1:5000"
    )]
    server: String,
    /// Print JSON for programs instead of a table for people.
    #[arg(long)]
    json: bool,
}

/// Reads what names a repository; people write the registry before it, as other programs want it.
fn repository<T: FromStr<Err: fmt::Display>>(text: &str) -> Result<T, String> {
    let registry = text
        .split_once('/')
        .map(|(registry, _)| registry)
        .filter(|registry| registry.contains(':'));
    match registry {
        Some(registry) => Err(format!(
            "leave out the registry {registry:?}; --server names it"
        )),
        None => text.parse().map_err(|error: T::Err| error.to_string()),
    }
}

impl ServerArgs {
    /// A client of the server's management API.
    fn client(&self) -> anyhow::Result<dvcr_openapi::Client> {
        Ok(dvcr_openapi::Client::new(&self.server)?)
    }
}

/// Reads the arguments of the process and does what they say. Exit codes: 0 done, 1 failed, 2 wrong arguments.
pub fn main() -> ExitCode {
    let cli = Cli::parse();
    // Before any TLS: with one provider compiled in there would be no choice, but dependencies may bring another.
    if rustls::crypto::aws_lc_rs::default_provider()
        .install_default()
        .is_err()
    {
        tracing::debug!("a TLS provider was installed before");
    }
    match run(cli.command) {
        Ok(code) => code,
        Err(error) => {
            // A reader that went away, such as `head`, is no failure to talk about.
            let piped = error.chain().any(|cause| {
                cause
                    .downcast_ref::<std::io::Error>()
                    .is_some_and(|error| error.kind() == std::io::ErrorKind::BrokenPipe)
            });
            if !piped {
                eprintln!("dvcr: {error:#}");
                if let Some(hint) = hint(&error) {
                    eprintln!("{hint}");
                }
            }
            ExitCode::FAILURE
        }
    }
}

/// What to do about an error that every command can meet.
fn hint(error: &anyhow::Error) -> Option<&'static str> {
    match error.downcast_ref::<dvcr_openapi::Error>()? {
        dvcr_openapi::Error::Untrusted { .. } => Some(
            "let this machine trust the certificate's issuer, for example with SSL_CERT_FILE=ISSUERS.pem",
        ),
        dvcr_openapi::Error::Unreachable { .. } => Some(
            "start a server with `dvcr serve`, or name another with --server URL or DVCR_SERVER",
        ),
        _ => None,
    }
}

fn run(command: Command) -> anyhow::Result<ExitCode> {
    match command {
        Command::Repair(args) => return client::block_on(repair::run(args)),
        Command::Scrub(args) => return client::block_on(scrub::run(args)),
        Command::Checkpoint(args) => client::block_on(checkpoint::run(args)),
        Command::Serve(args) => serve::run(args),
        Command::CheckConfig(args) => check_config::run(args),
        Command::Ls(args) => client::block_on(ls::run(args)),
        Command::Stats(args) => client::block_on(stats::run(args)),
        Command::Gc(args) => client::block_on(gc::run(args)),
        Command::Retention(args) => client::block_on(retention::run(args)),
        Command::Uploads(args) => client::block_on(uploads::run(args)),
        Command::Migrate(args) => migrate::run(args),
        Command::Rm(args) => client::block_on(rm::run(args)),
        Command::Openapi => openapi::run(),
    }
    .map(|()| ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests {
    use clap::CommandFactory as _;

    use super::*;

    #[test]
    fn arguments_make_sense() {
        Cli::command().debug_assert();
    }

    #[test]
    fn every_command_shows_examples() {
        for command in Cli::command().get_subcommands() {
            assert!(command.get_after_help().is_some(), "{}", command.get_name());
        }
    }

    #[test]
    fn flags_become_settings() {
        let cli = Cli::try_parse_from([
            "dvcr",
            "serve",
            "--listen",
            "[::1]:0",
            "--set",
            "limits.requests = 7",
            "--set=drain=1s",
        ]);
        let Command::Serve(args) = cli.unwrap().command else {
            panic!("serve is serve");
        };
        let settings = args.load().unwrap();
        assert_eq!(settings.listen.to_string(), "[::1]:0");
        assert_eq!(settings.limits.requests, 7);
        assert_eq!(settings.drain, settings::Time::seconds(1));
    }
}
