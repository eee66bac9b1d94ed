//! `dvcr-importer import`.

use std::{path::PathBuf, thread, time::Instant};

use anyhow::bail;
use clap::{Args, ValueEnum};
use dvcr_client::Reference;
use dvcr_core::oci::Tag;

use dvcr_importer::{
    checksum::Checksum,
    import::{Import, Imported, Options, Progress, WORK_BYTES_MAX},
    push::{Compression, Destination, architecture},
    source::Location,
};
use tokio::runtime::Handle;
use tokio_util::sync::CancellationToken;

use super::{
    bar::Bar,
    registry::RegistryArgs,
    size::parse_size,
    source::{SourceArgs, default_work_dir},
};

/// Imports a disk image into a registry
#[derive(Args, Debug)]
pub(crate) struct ImportArgs {
    /// Where the disk is: a path, - for standard input, or http(s)://, s3://, gs://, az://, docker://
    source: Location,

    /// Where it goes: host/repository:tag
    destination: Reference,

    /// Another tag for it; may be given several times
    #[arg(long = "tag", value_name = "TAG")]
    tags: Vec<Tag>,

    /// What the source's bytes must hash to, like sha256:9f86...; also md5, sha1, sha512, streebog256, streebog512; may be given
    /// several times
    #[arg(long = "checksum", value_name = "ALGORITHM:HEX")]
    checksums: Vec<Checksum>,

    /// Keep the source byte for byte, whatever it is, instead of the disk in it
    #[arg(long)]
    verbatim: bool,

    /// How the layer is stored; `none` is for docker engines before version 23
    #[arg(long, value_name = "KIND", default_value = "zstd")]
    layer_compression: LayerCompression,

    /// The processor that the image says it is for
    #[arg(long, value_name = "NAME", default_value = architecture())]
    architecture: String,

    /// Where an interrupted import keeps what it has [default: dvcr-importer in the user's cache directory]
    #[arg(long, value_name = "DIR", env = "DVCR_WORK_DIR")]
    work_dir: Option<PathBuf>,

    /// Most bytes in there
    #[arg(long, value_name = "SIZE", default_value_t = WORK_BYTES_MAX, value_parser = parse_size)]
    work_max: u64,

    /// Print what was made as JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    registry: RegistryArgs,

    #[command(flatten)]
    source_args: SourceArgs,
}

/// How a layer is stored.
#[derive(Copy, Clone, Debug, ValueEnum)]
enum LayerCompression {
    /// In zstd frames that a registry deduplicates
    Zstd,
    /// Plain
    None,
}

impl ImportArgs {
    /// Runs the command, until `stop` says otherwise.
    pub(crate) fn run(&self, runtime: &Handle, stop: CancellationToken) -> anyhow::Result<()> {
        let begin = Instant::now();
        if self.destination.digest().is_some() {
            bail!(
                "the destination is written host/repository:tag; its digest comes from what is imported"
            );
        }
        let repository = self.registry.repository(runtime, &self.destination)?;
        let from = self.source_args.open(self.source.clone(), runtime)?;
        let mut tags: Vec<Tag> = self.destination.tag().cloned().into_iter().collect();
        tags.extend(self.tags.iter().cloned());
        if tags.is_empty() {
            tags.push("latest".parse().expect("`latest` is a well-formed tag"));
        }
        let destination = Destination {
            repository,
            tags,
            architecture: self.architecture.clone(),
        };
        let options = Options {
            checksums: self.checksums.clone(),
            compression: match self.layer_compression {
                LayerCompression::Zstd => Compression::Zstd,
                LayerCompression::None => Compression::None,
            },
            verbatim: self.verbatim,
            work_dir: self.work_dir.clone().unwrap_or_else(default_work_dir),
            work_bytes_max: self.work_max,
            threads: thread::available_parallelism().map_or(2, usize::from),
            remote: self.source_args.remote(stop),
        };
        let progress = Progress::default();
        let bar = Bar::follow_import(progress.clone(), self.json);
        let import = Import {
            options: &options,
            destination: &destination,
            runtime,
            progress: &progress,
        };
        let imported = import.run(from, std::time::SystemTime::now());
        drop(bar);
        let imported = imported?;
        let seconds = begin.elapsed().as_secs_f64();
        if self.json {
            println!("{}", json(&imported, &progress, seconds));
        } else {
            tell(&self.destination, &imported, seconds);
        }
        Ok(())
    }
}

fn json(imported: &Imported, progress: &Progress, seconds: f64) -> serde_json::Value {
    let Imported { image, source } = imported;
    serde_json::json!({
        "manifest": image.manifest.to_string(),
        "layer": image.layer.digest.to_string(),
        "layerSize": image.layer.len,
        "sent": image.sent,
        "received": progress.received(),
        "format": source.format,
        "sourceSize": source.len,
        "virtualSize": source.virtual_len,
        "seconds": seconds,
    })
}

fn tell(destination: &Reference, imported: &Imported, seconds: f64) {
    let Imported { image, source } = imported;
    let bytes = |bytes: u64| indicatif::HumanBytes(bytes).to_string();
    println!("{destination} {}", image.manifest);
    println!(
        "{} disk of {} from {}; layer of {}, {} sent, in {seconds:.1} s",
        source.format,
        bytes(source.virtual_len),
        bytes(source.len),
        bytes(image.layer.len),
        bytes(image.sent),
    );
}
