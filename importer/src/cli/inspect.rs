//! `dvcr-importer inspect`: what a disk is, and what is on it.

use std::collections::BTreeMap;

use anyhow::{Context as _, bail};
use clap::Args;
use comfy_table::{Table, presets::NOTHING};
use dvcr_client::Reference;
use dvcr_importer::{
    image::{Disk, Kind},
    inspect::{Report, Share, StoredFrames, inspect, share_of_disk, share_of_layer},
    source::Location,
};
use serde::Serialize;

use super::{
    disk::{DiskArgs, Opened, Wanted},
    keep::Keep,
    process::Process,
    size::show_size,
};

/// Shows what a disk is: format, sizes, partitions, file systems, and what it shares with others
#[derive(Args, Debug)]
pub(crate) struct InspectArgs {
    /// HOST/REPOSITORY:TAG, a path, an address (https://, s3://, gs://, az://), oci:DIR[:TAG], or - for standard input
    source: Location,
    /// An image that is stored: tell what the disk would share with it. Can be said several times
    #[arg(long, value_name = "HOST/REPOSITORY:TAG")]
    compare: Vec<Reference>,
    /// Print JSON
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    disk: DiskArgs,
}

#[derive(Serialize)]
struct Inspection {
    #[serde(skip_serializing_if = "Option::is_none")]
    image: Option<ImageInfo>,
    #[serde(flatten)]
    disk: Report,
    #[serde(skip_serializing_if = "BTreeMap::is_empty")]
    shares: BTreeMap<String, Share>,
}

#[derive(Serialize)]
struct ImageInfo {
    reference: String,
    digest: String,
    kind: &'static str,
    /// Bytes of all layers, as they are stored.
    stored_bytes: u64,
    labels: BTreeMap<String, String>,
}

impl InspectArgs {
    /// Runs the command.
    pub(crate) fn run(&self, process: &Process) -> anyhow::Result<()> {
        let wanted = Wanted {
            streams: false,
            checksums: &[],
            keep: &Keep::default(),
            progress: &Default::default(),
        };
        let opened = self.disk.open(&self.source, wanted, process)?;
        let Disk::Image(disk) = &opened.disk else {
            bail!("a disk that was not to be a stream is one");
        };
        let mut inspection = Inspection {
            image: image_info(&opened)?,
            disk: inspect(disk)?,
            shares: BTreeMap::new(),
        };
        let layer = match &opened.image {
            Some((image, _)) if image.kind() == Kind::Indexed => image.archive()?,
            _ => None,
        };
        for reference in &self.compare {
            let (image, _) = self.disk.source.image(reference, process)?;
            let name = reference.to_string();
            let other = image.archive()?.with_context(|| {
                format!(
                    "{name} has no index: only images that this program pushed can be compared with"
                )
            })?;
            let other = StoredFrames::of(&other)?;
            let share = match &layer {
                Some(layer) => share_of_layer(layer, &other)?,
                None => share_of_disk(disk, &other)?,
            };
            inspection.shares.insert(name, share);
        }
        if self.json {
            println!("{}", serde_json::to_string_pretty(&inspection)?);
        } else {
            print!("{}", inspection.text());
        }
        Ok(())
    }
}

fn image_info(opened: &Opened) -> anyhow::Result<Option<ImageInfo>> {
    let Some((image, reference)) = &opened.image else {
        return Ok(None);
    };
    Ok(Some(ImageInfo {
        reference: reference.clone(),
        digest: image.digest().to_string(),
        kind: image.kind().name(),
        stored_bytes: image.manifest().layers.iter().map(|layer| layer.size).sum(),
        labels: image.labels()?,
    }))
}

impl Inspection {
    fn text(&self) -> String {
        let mut table = new_table();
        let mut row = |name: &str, value: String| {
            table.add_row([name.to_owned(), value]);
        };
        let exact = |bytes: u64| format!("{} ({bytes} bytes)", show_size(bytes));
        if let Some(image) = &self.image {
            row("image", image.reference.clone());
            row("digest", image.digest.clone());
            row("kind", image.kind.to_owned());
            row("stored", exact(image.stored_bytes));
        }
        row("format", self.disk.format.to_owned());
        row("virtual size", exact(self.disk.virtual_size));
        row("data", exact(self.disk.data_bytes));
        if let Some(filesystem) = self.disk.filesystem {
            row("file system", filesystem.to_owned());
        }
        for (name, share) in &self.shares {
            let percent = 100 * share.shared_bytes / share.bytes.max(1);
            let value = format!(
                "{} of {} ({percent} %) with {name}",
                show_size(share.shared_bytes),
                show_size(share.bytes)
            );
            row("shares", value);
        }
        if let Some(image) = &self.image {
            for (label, value) in &image.labels {
                row("label", format!("{label}={value}"));
            }
        }
        let mut text = format!("{table}\n");
        if let Some(partitions) = &self.disk.partition_table {
            let mut table = new_table();
            table.set_header(["partition", "start", "size", "type", "file system", "name"]);
            for partition in &partitions.partitions {
                table.add_row([
                    format!(
                        "{}{}",
                        partition.number,
                        if partition.bootable { " *" } else { "" }
                    ),
                    partition.start.to_string(),
                    show_size(partition.size),
                    partition.kind.clone(),
                    partition.filesystem.clone().unwrap_or_default(),
                    partition.name.clone().unwrap_or_default(),
                ]);
            }
            text += &format!("\n{}\n{table}\n", partitions.kind);
        }
        text
    }
}

fn new_table() -> Table {
    let mut table = Table::new();
    table.load_style(NOTHING);
    table
}
