//! `dvcr-importer import`.

use std::{sync::atomic::Ordering, thread, time::Instant};

use anyhow::bail;
use clap::{Args, ValueEnum};
use dvcr_client::Reference;
use dvcr_core::oci::Tag;

use super::{
    bar::Bar,
    process::Process,
    registry::{RegistryArgs, parse_destination},
    source::SourceArgs,
    work::WorkArgs,
};
use dvcr_importer::{
    checksum::Checksum,
    import::{Import, Imported, Options, Progress},
    push::{Compression, Destination, architecture},
    source::Location,
};

/// Imports a disk image into a registry
#[derive(Args, Debug)]
pub(crate) struct ImportArgs {
    /// Where the disk is: HOST/REPOSITORY:TAG, a path, an address (https://, s3://, gs://, az://), oci:DIR[:TAG], or - for standard
    /// input
    source: Location,

    /// Where it goes: HOST/REPOSITORY:TAG
    #[arg(value_parser = parse_destination)]
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

    /// Print what was made as JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    work: WorkArgs,

    #[command(flatten)]
    source_args: SourceArgs,

    #[command(flatten)]
    registry: RegistryArgs,
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
    /// Runs the command.
    pub(crate) fn run(&self, process: &Process) -> anyhow::Result<()> {
        let runtime = process.runtime();
        let begin = Instant::now();
        if self.destination.digest().is_some() {
            bail!(
                "the destination is written host/repository:tag; its digest comes from what is imported"
            );
        }
        let repository = self.registry.repository(runtime, &self.destination)?;
        let from = self.source_args.open(&self.source, process)?;
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
            file: self.source_args.file.clone(),
            work_dir: self.work.dir(),
            work_bytes_max: self.work.bytes_max(),
            threads: thread::available_parallelism().map_or(2, usize::from),
            remote: self.source_args.remote(process.stop.clone()),
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
        process.kept.store(progress.is_kept(), Ordering::Relaxed);
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
