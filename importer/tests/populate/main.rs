//! Disks onto volumes: every format to every kind of target, over whatever was there before.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod program;
mod resume;
mod streams;
#[path = "../support/mod.rs"]
mod support;

use std::{
    fs,
    path::Path,
    sync::{Arc, atomic::AtomicBool},
    time::Duration,
};

use dvcr_core::disk::CanonicalQcow2;
use dvcr_importer::{
    format::DiskImage,
    layout::{Archive, Content, write_layer},
    populate::{Options, PopulateError, Progress, populate, populate_blank, populate_stream},
    target::{
        Place, Qcow2Target, RawOptions, RawTarget, Sizing, Target, TargetError, stored_clusters,
    },
};
use support::{
    Bench, CONTENTS, Pattern, open, run, text,
    volume::{LoopDevice, allocated, same_disk},
};

static GO_ON: AtomicBool = AtomicBool::new(false);

/// Milliseconds until a program that was just started is itself, on a busy machine.
const LOCKED_MAX: u32 = 10_000;

/// Opens what may be locked: a program that another test starts has our files, and so their locks, until it is that program.
fn unlocked<T, E>(
    mut open: impl FnMut() -> Result<T, E>,
    is_locked: impl Fn(&E) -> bool,
) -> Result<T, E> {
    for _ in 0..LOCKED_MAX {
        match open() {
            Err(error) if is_locked(&error) => std::thread::sleep(Duration::from_millis(1)),
            result => return result,
        }
    }
    open()
}

fn raw_target(
    path: &Path,
    image: &DiskImage,
    options: RawOptions,
) -> Result<RawTarget, TargetError> {
    unlocked(
        || open_target(path, image, options),
        |error| matches!(error, TargetError::Busy(_)),
    )
}

fn open_target(
    path: &Path,
    image: &DiskImage,
    options: RawOptions,
) -> Result<RawTarget, TargetError> {
    RawTarget::open(&Place::of(path)?, Some(image.virtual_len()), options)
}

fn write(image: &DiskImage, target: &dyn Target) -> Progress {
    let progress = Progress::default();
    populate(image, target, Options::new(&GO_ON), &progress).unwrap();
    assert_eq!(progress.done(), progress.total());
    progress
}

/// The disk as an image of every format, and as a layer of the layout.
fn images(bench: &Bench) -> Vec<(String, DiskImage)> {
    let mut images = vec![("raw".to_owned(), open(&bench.raw).unwrap())];
    for (format, options) in [
        ("qcow2", &[][..]),
        ("qcow2", &["-c"]),
        ("qcow2", &["-o", "extended_l2=on,cluster_size=128k"]),
        ("vmdk", &["-o", "subformat=streamOptimized"]),
        ("vdi", &[]),
        ("vpc", &["-o", "force_size=on"]),
        ("vhdx", &[]),
    ] {
        if format == "vhdx"
            && !fs::metadata(&bench.raw)
                .unwrap()
                .len()
                .is_multiple_of(1 << 20)
        {
            continue;
        }
        let path = bench.image(format, options);
        let own = bench.path(&format!("image-{}", images.len()));
        fs::rename(path, &own).unwrap();
        images.push((format!("{format} {options:?}"), open(&own).unwrap()));
    }
    images.push(("layer".to_owned(), layer(&images[0].1)));
    images
}

fn layer(image: &DiskImage) -> DiskImage {
    let mut bytes = vec![];
    let layer = write_layer(&Content::disk(image).unwrap(), 2, &mut bytes).unwrap();
    let archive = Archive::open(Arc::new(bytes), Some(&layer.index_digest));
    archive.unwrap().image().unwrap()
}

#[test]
fn every_format_to_a_file() {
    for (pattern, len) in CONTENTS {
        let bench = Bench::new(pattern, len);
        for ((name, image), direct) in images(&bench)
            .into_iter()
            .zip([false, true].into_iter().cycle())
        {
            let path = bench.path("disk.img");
            // Something longer was there.
            fs::write(&path, vec![0xAA; 3 << 20]).unwrap();
            let options = RawOptions {
                direct,
                ..RawOptions::default()
            };
            let target = raw_target(&path, &image, options).unwrap();
            write(&image, &target);
            drop(target);
            assert_eq!(
                fs::metadata(&path).unwrap().len(),
                image.virtual_len(),
                "{name}"
            );
            same_disk("raw", &path, &bench.raw);
            // Blocks of the file system around each stretch of data.
            let most = allocated(&bench.raw) + (1 << 20);
            assert!(
                allocated(&path) <= most,
                "{name}: {} of {most}",
                allocated(&path)
            );
            fs::remove_file(path).unwrap();
        }
    }
}

#[test]
fn every_format_to_a_qcow2() {
    for (pattern, len) in CONTENTS {
        let bench = Bench::new(pattern, len);
        for (name, image) in images(&bench) {
            let path = bench.path("disk.qcow2");
            let grown = image.virtual_len() + (7 << 20);
            for len in [image.virtual_len(), grown] {
                let map = stored_clusters(&image).unwrap();
                let qcow2 = CanonicalQcow2::new(len, map).unwrap();
                let target = Qcow2Target::open(&path, len, &qcow2, RawOptions::default()).unwrap();
                write(&image, &target);
                drop(target);
                run("qemu-img", &["check", "-q", "-f", "qcow2", text(&path)]);
                same_disk("qcow2", &path, &bench.raw);
                assert_eq!(open(&path).unwrap().virtual_len(), len, "{name}");
            }
            fs::remove_file(path).unwrap();
        }
    }
}

/// The device held something else, is larger than the disk, and is all the disk and zeros afterwards.
#[test]
fn every_format_to_a_dirty_device() {
    for (pattern, len) in [
        (Pattern::Mixed, 8 << 20),
        (Pattern::Islands, 64 << 20),
        (Pattern::Incompressible, (5 << 20) + 512),
    ] {
        let bench = Bench::new(pattern, len);
        for (name, image) in images(&bench) {
            for direct in [false, true] {
                let device = LoopDevice::new(
                    bench.dir.path(),
                    len.next_multiple_of(4096) + (2 << 20),
                    0xAA,
                );
                let options = RawOptions {
                    direct,
                    ..RawOptions::default()
                };
                let target = raw_target(device.path(), &image, options).unwrap();
                assert!(matches!(
                    open_target(device.path(), &image, options),
                    Err(TargetError::Busy(_))
                ));
                write(&image, &target);
                drop(target);
                same_disk("raw", device.path(), &bench.raw);
                let file = device.file().to_owned();
                drop(device);
                // Zeros gave their space back.
                let most = allocated(&bench.raw) + (1 << 20);
                assert!(
                    allocated(&file) <= most,
                    "{name}: {} of {most}",
                    allocated(&file)
                );
            }
        }
    }
}

/// Zeros that are known to be there are not written, and would be missed if they were not.
#[test]
fn a_device_that_is_known_to_be_zero() {
    let bench = Bench::new(Pattern::Islands, 64 << 20);
    let image = open(&bench.raw).unwrap();
    for (fill, same) in [(0, true), (0xAA, false)] {
        let device = LoopDevice::new(bench.dir.path(), 64 << 20, fill);
        let options = RawOptions {
            known_zero: true,
            ..RawOptions::default()
        };
        write(&image, &raw_target(device.path(), &image, options).unwrap());
        let args = ["compare", "-q", "-f", "raw", "-F", "raw"];
        let disks = [text(device.path()), text(&bench.raw)];
        let status = std::process::Command::new("qemu-img")
            .args(args)
            .args(disks)
            .status();
        assert_eq!(status.unwrap().success(), same, "{fill}");
    }
}

#[test]
fn a_mounted_device_is_refused() {
    let bench = Bench::new(Pattern::Empty, 16 << 20);
    let device = LoopDevice::new(bench.dir.path(), 16 << 20, 0);
    let mounted = bench.path("mounted");
    fs::create_dir(&mounted).unwrap();
    let script = format!(
        "export PATH=$PATH:/usr/sbin:/sbin; mkfs.ext4 -q {d} && mount {d} {m}",
        d = text(device.path()),
        m = text(&mounted)
    );
    run("sh", &["-c", &script]);
    let image = open(&bench.raw).unwrap();
    let result = open_target(device.path(), &image, RawOptions::default());
    run("umount", &[text(&mounted)]);
    assert!(matches!(result, Err(TargetError::Busy(_))), "{result:?}");
}

/// Nothing is written to what is too small.
#[test]
fn targets_that_are_too_small() {
    let bench = Bench::new(Pattern::Mixed, 8 << 20);
    let image = open(&bench.raw).unwrap();
    let sized = |claim: u64, overhead| RawOptions {
        sizing: Sizing {
            claim: Some(claim),
            overhead,
        },
        ..RawOptions::default()
    };
    let check = |path: &Path, options, expected| {
        let Err(TargetError::TooSmall {
            needed, available, ..
        }) = raw_target(path, &image, options)
        else {
            panic!("{} is large enough", path.display());
        };
        assert_eq!((needed, available), (8 << 20, expected));
    };
    let device = LoopDevice::new(bench.dir.path(), 7 << 20, 0xAA);
    check(device.path(), RawOptions::default(), 7 << 20);
    assert!(fs::read(device.file()).unwrap() == vec![0xAA; 7 << 20]);
    let large = LoopDevice::new(bench.dir.path(), 9 << 20, 0xAA);
    check(large.path(), sized(6 << 20, 0.0), 6 << 20);

    let path = bench.path("disk.img");
    fs::write(&path, b"what was there").unwrap();
    check(&path, sized((8 << 20) - 1, 0.0), 7 << 20);
    check(&path, sized(8 << 20, 0.06), 7 << 20);
    assert_eq!(fs::read(&path).unwrap(), b"what was there");
}

#[test]
fn disks_grow_to_their_claim() {
    let bench = Bench::new(Pattern::Mixed, (8 << 20) - 512);
    let image = open(&bench.raw).unwrap();
    let path = bench.path("disk.img");
    for (claim, overhead, expected) in [
        (64 << 20, 0.0, 64 << 20),
        ((64 << 20) + 512, 0.0, 64 << 20),
        (64 << 20, 0.06, 60 << 20),
        ((8 << 20) - 512, 0.0, 0),
    ] {
        let options = RawOptions {
            sizing: Sizing {
                claim: Some(claim),
                overhead,
            },
            ..RawOptions::default()
        };
        let stream = streams::of(fs::File::open(&bench.raw).unwrap());
        let streamed = bench.path("streamed.img");
        let target = RawTarget::open(&Place::of(&streamed).unwrap(), None, options).unwrap();
        let result = populate_stream(stream, &target, Options::new(&GO_ON), &Progress::default());
        drop(target);
        let target = raw_target(&path, &image, options);
        if expected == 0 {
            // 7 MiB are usable.
            assert!(matches!(target, Err(TargetError::TooSmall { .. })));
            assert!(matches!(result, Err(PopulateError::TooSmall(_))));
            continue;
        }
        assert_eq!(result.unwrap(), expected);
        write(&image, &target.unwrap());
        for path in [&path, &streamed] {
            assert_eq!(fs::metadata(path).unwrap().len(), expected);
            same_disk("raw", path, &bench.raw);
            assert!(allocated(path) <= allocated(&bench.raw) + (1 << 20));
        }
    }
}

#[test]
fn preallocated_disks_take_their_space() {
    let bench = Bench::new(Pattern::Islands, 64 << 20);
    let image = open(&bench.raw).unwrap();
    let options = RawOptions {
        preallocate: true,
        ..RawOptions::default()
    };
    let path = bench.path("disk.img");
    write(&image, &raw_target(&path, &image, options).unwrap());
    same_disk("raw", &path, &bench.raw);
    assert!(allocated(&path) >= 64 << 20);

    // Its length shows at its end only, and it grows.
    let stream = streams::of(fs::File::open(&bench.raw).unwrap());
    let streamed = RawOptions {
        sizing: Sizing {
            claim: Some(80 << 20),
            ..Sizing::default()
        },
        ..options
    };
    let path = bench.path("streamed.img");
    let target = RawTarget::open(&Place::of(&path).unwrap(), None, streamed).unwrap();
    populate_stream(stream, &target, Options::new(&GO_ON), &Progress::default()).unwrap();
    same_disk("raw", &path, &bench.raw);
    assert!(allocated(&path) >= 80 << 20);

    let device = LoopDevice::new(bench.dir.path(), 64 << 20, 0xAA);
    write(&image, &raw_target(device.path(), &image, options).unwrap());
    same_disk("raw", device.path(), &bench.raw);
    assert!(allocated(device.file()) >= 64 << 20);
}

#[test]
fn blank_disks() {
    let dir = tempfile::tempdir().unwrap();
    let sizing = Sizing {
        claim: Some(32 << 20),
        overhead: 0.0,
    };
    let options = RawOptions {
        sizing,
        ..RawOptions::default()
    };
    let progress = Progress::default();
    let device = LoopDevice::new(dir.path(), 32 << 20, 0xAA);
    for (place, zeroed) in [(dir.path(), 0), (device.path(), 32 << 20)] {
        let target = RawTarget::open(&Place::of(place).unwrap(), Some(0), options).unwrap();
        populate_blank(&target, Options::new(&GO_ON), &progress).unwrap();
        assert_eq!(progress.written(), 0);
        assert!(progress.zeroed() >= zeroed);
    }
    for path in [&dir.path().join("disk.img"), device.file()] {
        assert!(fs::read(path).unwrap() == vec![0; 32 << 20]);
        assert_eq!(allocated(path), 0);
    }
}

#[test]
fn only_disks_have_a_place() {
    for path in ["/dev/null", "/dev/no-such-device"] {
        let result = Place::of(Path::new(path));
        assert!(matches!(result, Err(TargetError::Unfit { .. })), "{path}");
    }
}
