//! Disks that come once, from start to end.

use std::{
    fs,
    io::{self, Cursor, Read},
};

use dvcr_importer::{
    image::DiskStream,
    populate::{Options, PopulateError, Progress, populate_stream},
    target::{Place, RawOptions, RawTarget, Sizing, TargetError},
    wrapping::Unwrapped,
};

use crate::{
    GO_ON,
    support::{
        Bench, CONTENTS, Pattern,
        volume::{LoopDevice, allocated, same_disk},
    },
};

/// The disk in a stream.
pub(crate) fn of(stream: impl Read + Send + 'static) -> DiskStream {
    let stream = Unwrapped::new(stream, 1 << 40).unwrap();
    DiskStream::unverified(stream).unwrap().unwrap()
}

/// A stream whose length nobody knows grows its file, and stops at the end of a device.
#[test]
fn streams_are_written_as_they_come() {
    for (pattern, len) in CONTENTS {
        let bench = Bench::new(pattern, len);
        let path = bench.path("disk.img");
        let sectors = len.next_multiple_of(512);
        for gzip in [false, true] {
            let stream = || {
                let mut bytes = fs::read(&bench.raw).unwrap();
                if gzip {
                    let mut encoder =
                        flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
                    io::copy(&mut Cursor::new(bytes), &mut encoder).unwrap();
                    bytes = encoder.finish().unwrap();
                }
                of(Cursor::new(bytes))
            };
            fs::write(&path, vec![0xAA; 5 << 20]).unwrap();
            let target =
                RawTarget::open(&Place::of(&path).unwrap(), None, RawOptions::default()).unwrap();
            let progress = Progress::default();
            let written =
                populate_stream(stream(), &target, Options::new(&GO_ON), &progress).unwrap();
            assert_eq!(written, sectors);
            drop(target);
            assert_eq!(fs::metadata(&path).unwrap().len(), sectors);
            same_disk("raw", &path, &bench.raw);
            assert!(allocated(&path) <= allocated(&bench.raw) + (1 << 20));
            fs::remove_file(&path).unwrap();

            if len > 64 << 20 {
                continue;
            }
            for (room, fits) in [
                (sectors + 4096, true),
                (sectors.saturating_sub(4096), false),
            ] {
                let device = LoopDevice::new(bench.dir.path(), room / 512 * 512, 0xAA);
                if room == 0 {
                    continue;
                }
                let place = Place::of(device.path()).unwrap();
                let target = RawTarget::open(&place, None, RawOptions::default()).unwrap();
                let result = populate_stream(stream(), &target, Options::new(&GO_ON), &progress);
                drop(target);
                if fits {
                    assert_eq!(result.unwrap(), room / 512 * 512);
                    same_disk("raw", device.path(), &bench.raw);
                } else {
                    assert!(
                        matches!(result, Err(PopulateError::TooSmall(_))),
                        "{result:?}"
                    );
                }
            }
        }
    }
}

/// What a stream has at least must fit before anything is changed.
#[test]
fn a_stream_that_cannot_fit_changes_nothing() {
    let bench = Bench::new(Pattern::Mixed, 1 << 20);
    let device = LoopDevice::new(bench.dir.path(), 4 << 20, 0xAA);
    let file = bench.path("disk.img");
    fs::write(&file, "kept").unwrap();
    for path in [device.path(), &file] {
        let options = RawOptions {
            least_len: (4 << 20) + 1,
            sizing: Sizing {
                claim: Some(4 << 20),
                ..Sizing::default()
            },
            ..RawOptions::default()
        };
        let target = RawTarget::open(&Place::of(path).unwrap(), None, options);
        assert!(matches!(target, Err(TargetError::TooSmall { .. })));
    }
    assert_eq!(fs::read(&file).unwrap(), b"kept");
}

/// A stream that goes on behind what was promised is not written beyond it.
#[test]
fn a_stream_that_is_longer_than_promised() {
    let bench = Bench::new(Pattern::Incompressible, 16 << 20);
    let small = bench.path("small");
    let place = Place::of(&small).unwrap();
    let target = RawTarget::open(&place, Some(4 << 20), RawOptions::default()).unwrap();
    let stream = of(fs::File::open(&bench.raw).unwrap());
    let result = populate_stream(stream, &target, Options::new(&GO_ON), &Progress::default());
    assert!(matches!(result, Err(PopulateError::TooSmall(_))));
    assert!(fs::metadata(&small).unwrap().len() <= 4 << 20);
}

/// Its footer comes last, and is no sector of the disk. A device that is as long as the disk is long enough.
#[test]
fn a_fixed_vhd_in_a_stream() {
    let bench = Bench::new(Pattern::Mixed, 2 << 20);
    let vhd = bench.image("vpc", &["-o", "subformat=fixed,force_size=on"]);
    let device = LoopDevice::new(bench.dir.path(), 2 << 20, 0xAA);
    for path in [&bench.path("out"), device.path()] {
        let stream = of(fs::File::open(&vhd).unwrap());
        let place = Place::of(path).unwrap();
        let target = RawTarget::open(&place, None, RawOptions::default()).unwrap();
        let len = populate_stream(stream, &target, Options::new(&GO_ON), &Progress::default());
        assert_eq!(len.unwrap(), 2 << 20, "{place:?}");
        same_disk("raw", path, &bench.raw);
    }
}
