//! `dvcr-importer import`.

use std::{error::Error, path::PathBuf, thread, time::Instant};

use clap::{Args, ValueEnum};
use dvcr_client::Reference;
use dvcr_core::oci::Tag;

use super::{
    bar::Bar,
    process::Process,
    registry::{RegistryArgs, Wrong},
    source::{SourceArgs, default_work_dir},
};
use crate::{
    checksum::Checksum,
    import::{Import, Imported, Options, Progress, WORK_BYTES_MAX},
    push::{Compression, Destination, architecture},
    source::Location,
};

/// Import a disk image into a registry.
#[derive(Args)]
pub(super) struct ImportArgs {
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
    #[arg(long, value_name = "BYTES", default_value_t = WORK_BYTES_MAX)]
    work_bytes_max: u64,

    /// Print what was made as JSON
    #[arg(long)]
    json: bool,

    #[command(flatten)]
    registry: RegistryArgs,

    #[command(flatten)]
    source_args: SourceArgs,
}

#[derive(Copy, Clone, ValueEnum)]
enum LayerCompression {
    Zstd,
    None,
}

/// Imports, with a bar, and says what it has made.
pub(super) fn run(args: &ImportArgs, process: &Process) -> Result<(), Box<dyn Error>> {
    let begin = Instant::now();
    if args.destination.digest().is_some() {
        let text = "the destination is written host/repository:tag; its digest comes from what is imported";
        return Err(Wrong(text.to_owned()).into());
    }
    let repository = args
        .registry
        .repository(&process.runtime, &args.destination)?;
    let from = args.source_args.open(args.source.clone())?;
    let mut tags: Vec<Tag> = args.destination.tag().cloned().into_iter().collect();
    tags.extend(args.tags.iter().cloned());
    if tags.is_empty() {
        tags.push("latest".parse().expect("`latest` is a well-formed tag"));
    }
    let destination = Destination {
        repository,
        tags,
        architecture: args.architecture.clone(),
    };
    let options = Options {
        checksums: args.checksums.clone(),
        compression: match args.layer_compression {
            LayerCompression::Zstd => Compression::Zstd,
            LayerCompression::None => Compression::None,
        },
        verbatim: args.verbatim,
        work_dir: args.work_dir.clone().unwrap_or_else(default_work_dir),
        work_bytes_max: args.work_bytes_max,
        threads: thread::available_parallelism().map_or(2, usize::from),
        remote: args.source_args.remote(process.stop.clone()),
    };
    let progress = Progress::default();
    let bar = Bar::new(progress.clone());
    let import = Import {
        options: &options,
        destination: &destination,
        runtime: &process.runtime,
        progress: &progress,
    };
    let imported = import.run(from);
    drop(bar);
    let imported = imported?;
    let seconds = begin.elapsed().as_secs_f64();
    if args.json {
        println!("{}", json(&imported, &progress, seconds));
    } else {
        tell(&args.destination, &imported, seconds);
    }
    Ok(())
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
