//! Where a disk goes, and what is there then.

use std::fs;

use clap::ValueEnum;
use serde_json::Value;
use sha2::{Digest as _, Sha256};

use crate::{
    cells::{Cell, Outlook},
    formats::Image,
    place::{Directory, Place},
    sources::{Served, Source, serve},
    support::{
        text,
        volume::{LoopDevice, same_disk},
    },
};

/// What a device has more than the disk needs.
const DEVICE_SPARE_BYTES: u64 = 1 << 20;

/// What was on a device before.
const OLD: u8 = 0xAA;

/// Where a disk goes.
#[derive(Copy, Clone, PartialEq, Eq, Hash, Debug, ValueEnum)]
pub(crate) enum Target {
    /// An image in `dvcr serve`, over TLS.
    Registry,
    /// `disk.img` in a directory.
    File,
    /// A block device that is larger, and was used before.
    Device,
}

/// Goes one way, and compares what arrived. Panics unless it ends as it should.
pub(crate) fn go(place: &Place, cell: Cell) {
    let served = serve(place, cell);
    let image = place.image(cell.format);
    let directory = Directory::new(place);
    match cell.target {
        Target::Registry => import(place, cell, &served, &image, &directory),
        Target::File => to_file(place, cell, &served, &image, &directory),
        Target::Device => to_device(place, cell, &served, &image, &directory),
    }
    if cell.source == Source::HttpBreaks {
        assert!(served.requests() > 2, "no connection broke");
    }
}

/// Runs a command; its output, or nothing if it was refused as it should be.
fn ends(place: &Place, cell: Cell, served: &Served, args: &[&str]) -> Option<Vec<u8>> {
    let finished = place.importer(served, args);
    match cell.outlook() {
        Outlook::Same => {
            assert!(finished.success, "{args:?}: {}", finished.log);
            Some(finished.stdout)
        }
        Outlook::Refused(why) => {
            let said = !finished.success && finished.log.contains(why);
            assert!(said, "{args:?} does not say {why:?}: {}", finished.log);
            None
        }
    }
}

fn import(place: &Place, cell: Cell, served: &Served, image: &Image, directory: &Directory) {
    let registry = place.dvcr();
    let to = registry.reference(&format!("vi/{}", place.name(cell)));
    let work = directory.join("work");
    let mut args = vec![
        "import",
        &served.source,
        &to,
        "--json",
        "--ca",
        registry.ca(),
    ];
    args.extend(["--work-dir", text(&work)]);
    args.extend(served.options.iter().map(String::as_str));
    let made = ends(place, cell, served, &args);
    assert_eq!(fs::read_dir(work).unwrap().count(), 0, "something is left");
    let copy = directory.join("copy.qcow2");
    let export = [
        "export",
        &to,
        text(&copy),
        "--format=qcow2",
        "--ca",
        registry.ca(),
    ];
    let Some(made) = made else {
        let finished = place.importer(&Served::default(), &export);
        let absent = !finished.success && finished.log.contains("404");
        assert!(absent, "there is an image: {}", finished.log);
        return;
    };
    let made: Value = serde_json::from_slice(&made).unwrap();
    assert_eq!(made["virtualSize"], image.len, "{made}");
    assert_eq!(made["format"], cell.format.label(), "{made}");
    // What is copied stays as it is.
    if cell.source != Source::Dvcr {
        let layer = made["layer"].as_str().unwrap().to_owned();
        let first = place.layers.get(image.sha256, || layer.clone());
        assert_eq!(layer, first, "equal disks, other layers");
    }
    // The same manifest is the same image.
    place.checked.get(made["manifest"].to_string(), || {
        place.ok(&export);
        same_disk("qcow2", &copy, &image.raw);
    });
}

fn to_file(place: &Place, cell: Cell, served: &Served, image: &Image, directory: &Directory) {
    let mut args = vec!["populate", &served.source, text(directory.path())];
    args.extend(served.options.iter().map(String::as_str));
    let done = ends(place, cell, served, &args);
    let names = fs::read_dir(directory.path()).unwrap();
    let names: Vec<_> = names.map(|entry| entry.unwrap().file_name()).collect();
    if done.is_none() {
        assert!(names.is_empty(), "{names:?} is left");
        return;
    }
    assert_eq!(names, ["disk.img"]);
    assert_disk(&fs::read(directory.join("disk.img")).unwrap(), image);
}

fn to_device(place: &Place, cell: Cell, served: &Served, image: &Image, directory: &Directory) {
    let len = image.len.next_multiple_of(4096) + DEVICE_SPARE_BYTES;
    let device = LoopDevice::new(directory.path(), len, OLD);
    let mut args = vec!["populate", &served.source, text(device.path())];
    args.extend(served.options.iter().map(String::as_str));
    if ends(place, cell, served, &args).is_some() {
        let bytes = fs::read(device.path()).unwrap();
        let (disk, behind) = bytes.split_at(image.len as usize);
        assert_disk(disk, image);
        assert!(behind.iter().all(|byte| *byte == 0), "old data is left");
    }
}

fn assert_disk(bytes: &[u8], image: &Image) {
    assert_eq!(bytes.len() as u64, image.len);
    let found: [u8; 32] = Sha256::digest(bytes).into();
    assert!(found == image.sha256, "the disk is another one");
}
