//! `dvcr migrate`.

use std::{
    fs,
    io::IsTerminal as _,
    path::{Path, PathBuf},
    sync::{Arc, atomic::Ordering},
    time::Duration,
};

use anyhow::{Context as _, bail};
use clap::{Args, Subcommand};
use dvcr_client::{Client, Credentials, DockerConfig, Host, Transport};
use dvcr_openapi::Stats;
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::json;

use super::{ServerArgs, table};
use crate::{
    migrate::{Counters, Directory, Failure, Options, Remote, Report, Source, migrate},
    registry::glob::RepositoryGlob,
};

pub(super) const EXAMPLES: &str = "Examples:
  dvcr migrate distribution /var/lib/registry             a data directory of docker-registry or CNCF Distribution
  dvcr migrate registry https://old.example:5000          a running registry
  dvcr migrate registry https://dvcr.d8-virtualization.svc --ca-file ca.crt --auth-file auth.json
  dvcr migrate distribution DIR --repository 'vi/**'      only some repositories
  dvcr migrate distribution DIR --dry-run                 what there is, and what cannot be read

An interrupted migration goes on when the same command is run again; a later run brings what changed since. The source is only
read. Exit code 1 means that something did not come over: the report says what and why. See docs/migration.md.";

/// Blobs under way at once. Two keep a disk and a network busy, four a registry behind an object store.
const PARALLEL: usize = 4;

/// Most blobs under way at once: each has a connection and a buffer of 1 MiB.
const PARALLEL_MAX: u64 = 64;

/// Longest wait for what the server says that it stores: nothing depends on it.
const STATS_TIME_MAX: Duration = Duration::from_secs(30);

/// How often the progress bar moves.
const TICK: Duration = Duration::from_millis(200);

#[derive(Debug, Args)]
pub(super) struct MigrateArgs {
    #[command(subcommand)]
    from: From,
}

#[derive(Debug, Subcommand)]
enum From {
    /// From the data directory of docker-registry or CNCF Distribution, whether it runs or not.
    #[command(after_help = EXAMPLES)]
    Distribution {
        /// The directory: what the registry's configuration has as storage.filesystem.rootdirectory.
        #[arg(value_name = "DIR")]
        directory: PathBuf,
        #[command(flatten)]
        common: Common,
    },
    /// From a running registry, over the OCI distribution API.
    ///
    /// Comes over: what its catalog lists, each tag with all that its manifest refers to, and referrers. A manifest that neither a
    /// tag, an index nor the referrers API leads to cannot be found from outside: `dvcr migrate distribution` brings those.
    #[command(after_help = EXAMPLES)]
    Registry {
        /// Address of the registry to read.
        #[arg(value_name = "URL")]
        url: String,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, Args)]
struct Common {
    #[command(flatten)]
    server: ServerArgs,
    /// Only repositories that fit: `*` stands for a part of a segment, `**` for any number of segments; may be repeated.
    #[arg(long, value_name = "GLOB")]
    repository: Vec<RepositoryGlob>,
    /// Blobs under way at once.
    #[arg(long, value_name = "N", default_value_t = PARALLEL as u64, value_parser = clap::value_parser!(u64).range(1..=PARALLEL_MAX))]
    parallel: u64,
    /// Read the source and say what there is; send nothing.
    #[arg(long)]
    dry_run: bool,
    /// File with credentials for both registries, in the form of docker's config.json.
    #[arg(long, value_name = "FILE", env = "REGISTRY_AUTH_FILE")]
    auth_file: Option<PathBuf>,
    /// PEM file with CAs to trust besides the system's; may be repeated.
    #[arg(long, value_name = "FILE")]
    ca_file: Vec<PathBuf>,
    /// Trust any certificate.
    #[arg(long)]
    insecure: bool,
    /// Where uploads that are under way are noted, so that an interrupted one goes on in the next run
    /// [default: dvcr/migrate.json in the user's state directory]
    #[arg(long, value_name = "FILE")]
    state_file: Option<PathBuf>,
}

pub(super) fn run(args: MigrateArgs) -> anyhow::Result<()> {
    tokio::runtime::Builder::new_multi_thread()
        .enable_all()
        .build()
        .context("start worker threads")?
        .block_on(bring(args.from))
}

async fn bring(from: From) -> anyhow::Result<()> {
    let (common, directory, url) = match from {
        From::Distribution { directory, common } => (common, Some(directory), None),
        From::Registry { url, common } => (common, None, Some(url)),
    };
    let access = Access::load(&common)?;
    let source = match (directory, url) {
        (Some(directory), _) => Source::Directory(Directory::open(&directory)?),
        (None, url) => Source::Remote(Remote::new(access.client(&url.unwrap_or_default())?)),
    };
    let server = access.client(&common.server.server)?;
    let options = Options {
        repositories: common.repository,
        parallel: usize::try_from(common.parallel).unwrap_or(PARALLEL),
        dry_run: common.dry_run,
        sessions: common.state_file.or_else(state_file),
    };
    let counters = Arc::new(Counters::default());
    let shown = tokio::spawn(show(Arc::clone(&counters)));
    let done = migrate(source, &server, &options, &counters).await;
    shown.abort();
    // It takes the bar away.
    let _ = shown.await;
    let report = done?;
    let stats = if report.dry_run {
        None
    } else {
        stats(&server).await
    };
    print(&report, stats.as_ref(), common.server.json)?;
    if report.is_complete() {
        Ok(())
    } else {
        bail!(
            "{} did not come over; all else did",
            match report.failed {
                0 => "something".to_owned(),
                1 => "one thing".to_owned(),
                n => format!("{n} things"),
            }
        )
    }
}

/// How both registries are reached.
struct Access {
    transport: Transport,
    logins: DockerConfig,
}

impl Access {
    fn load(common: &Common) -> anyhow::Result<Self> {
        let read = |path: &Path| fs::read(path).with_context(|| format!("read {}", path.display()));
        let ca_pems: Result<_, _> = common.ca_file.iter().map(|path| read(path)).collect();
        let logins = match &common.auth_file {
            Some(path) => DockerConfig::parse(&read(path)?)
                .with_context(|| format!("read {}", path.display()))?,
            None => DockerConfig::default(),
        };
        let transport = Transport {
            ca_pems: ca_pems?,
            insecure: common.insecure,
            ..Transport::default()
        };
        Ok(Self { transport, logins })
    }

    fn client(&self, url: &str) -> anyhow::Result<Client> {
        let name = url.split_once("://").map_or(url, |(_, rest)| rest);
        let name = name.split('/').next().unwrap_or(name);
        // What is no host is refused below, with what to write instead.
        let credentials = match name.parse::<Host>() {
            Ok(host) => self.logins.credentials(&host, None)?,
            Err(_) => Credentials::Anonymous,
        };
        Ok(Client::at(url, credentials, &self.transport)?)
    }
}

/// Where a user's programs keep what should outlive them. Source: XDG Base Directory Specification.
fn state_file() -> Option<PathBuf> {
    let home = || Some(PathBuf::from(std::env::var_os("HOME")?).join(".local/state"));
    let base = std::env::var_os("XDG_STATE_HOME").map(PathBuf::from);
    Some(base.or_else(home)?.join("dvcr/migrate.json"))
}

/// Shows how it goes, to people.
async fn show(counters: Arc<Counters>) {
    if !std::io::stderr().is_terminal() {
        return;
    }
    let read = |counter: &std::sync::atomic::AtomicU64| counter.load(Ordering::Relaxed);
    let bar = Bar(ProgressBar::no_length());
    let looking = ProgressStyle::with_template("{spinner} reading the source: {msg} manifests");
    let sending = ProgressStyle::with_template(
        "{wide_bar} {bytes} of {total_bytes}, {binary_bytes_per_sec}, {msg} blobs, {eta} left",
    );
    let (Ok(looking), Ok(sending)) = (looking, sending) else {
        return;
    };
    bar.0.set_style(looking);
    let mut ticks = tokio::time::interval(TICK);
    let mut planned = false;
    loop {
        ticks.tick().await;
        let blobs = read(&counters.planned_blobs);
        if blobs == 0 {
            bar.0
                .set_message(read(&counters.planned_manifests).to_string());
            bar.0.tick();
            continue;
        }
        bar.0
            .set_message(format!("{} of {blobs}", read(&counters.done_blobs)));
        if !planned {
            planned = true;
            bar.0.set_style(sending.clone());
            bar.0.set_length(read(&counters.planned_bytes));
            bar.0.reset();
        }
        bar.0.set_position(read(&counters.done_bytes));
    }
}

/// Gone from the terminal when dropped.
struct Bar(ProgressBar);

impl Drop for Bar {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}

/// What the server stores by now, if it is one that tells.
async fn stats(server: &Client) -> Option<Stats> {
    let api = dvcr_openapi::Client::with_http(server.url().as_str(), server.http().clone()).ok()?;
    tokio::time::timeout(STATS_TIME_MAX, api.stats(None))
        .await
        .ok()?
        .ok()
}

fn print(report: &Report, stats: Option<&Stats>, as_json: bool) -> anyhow::Result<()> {
    let stored = stats.map(|stats| (stats.logical_bytes, stats.stored_bytes));
    if as_json {
        let mut document = serde_json::to_value(report).context("write JSON")?;
        if let Some((logical, stored)) = stored {
            document["server"] = json!({
                "logical_bytes": logical,
                "stored_bytes": stored,
                "saved_bytes": logical.saturating_sub(stored),
            });
        }
        return table::print_json(&document);
    }
    let mut rows = table::table(&["WHAT", "VALUE"]);
    let number = |n: u64| n.to_string();
    rows.add_rows([
        ["repositories", &number(report.repositories)],
        ["tags", &number(report.tags)],
        ["manifests", &number(report.manifests)],
        ["blobs", &number(report.blobs)],
        ["source stores", &table::bytes(report.source_bytes)],
    ]);
    if !report.dry_run {
        let there = report.manifests_present;
        rows.add_rows([
            ["manifests sent", &number(report.manifests_sent)],
            ["manifests already there", &number(there)],
            ["blobs sent", &number(report.blobs_sent)],
            ["blobs mounted", &number(report.blobs_mounted)],
            ["blobs already there", &number(report.blobs_present)],
            ["read from the source", &table::bytes(report.bytes_read)],
            ["sent to the server", &table::bytes(report.bytes_sent)],
            ["tags compared and equal", &number(report.tags_verified)],
        ]);
    }
    if let Some((logical, stored)) = stored {
        rows.add_row(["server holds", &table::bytes(logical)]);
        rows.add_row(["server stores", &table::bytes(stored)]);
        if let Some(percent) = (logical.saturating_sub(stored) * 100).checked_div(logical) {
            rows.add_row(["saved", &format!("{percent} %")]);
        }
    }
    table::align_right(&mut rows, 1);
    table::print(&rows)?;
    for failure in &report.failures {
        let Failure {
            repository,
            item,
            reason,
        } = failure;
        match item.as_str() {
            "repository" | "glob" => eprintln!("not brought over: {item} {repository}: {reason}"),
            _ => eprintln!("not brought over: {item} in {repository}: {reason}"),
        }
    }
    Ok(())
}
