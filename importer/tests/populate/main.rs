//! Disks onto volumes: every format to every kind of target, over whatever was there before.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{
    fs,
    io::{self, Cursor},
    os::unix::fs::FileExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use dvcr_core::disk::CanonicalQcow2;
use dvcr_importer::{
    format::DiskImage,
    image::DiskStream,
    layout::{Archive, Content, write_layer},
    populate::{
        Header, Options, PopulateError, Progress, State, WINDOW_BYTES, populate, populate_blank,
        populate_stream,
    },
    source::ReadAt,
    target::{
        Place, Qcow2Target, RawOptions, RawTarget, Sizing, Target, TargetError, stored_clusters,
    },
    wrapping::Unwrapped,
};
use support::{
    Bench, CONTENTS, Pattern, open, run, text,
    volume::{LoopDevice, allocated, same_disk},
};

static GO_ON: AtomicBool = AtomicBool::new(false);

/// Opens what may be locked: a program that another test starts has our files, and so their locks, until it is that program.
fn unlocked<T, E>(
    mut open: impl FnMut() -> Result<T, E>,
    is_locked: impl Fn(&E) -> bool,
) -> Result<T, E> {
    for _ in 0..10_000 {
        match open() {
            Err(error) if is_locked(&error) => std::thread::yield_now(),
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
    let place = Place::of(path)?;
    unlocked(
        || RawTarget::open(&place, Some(image.virtual_len()), options),
        |error| matches!(error, TargetError::Busy(_)),
    )
}

fn open_state(path: &Path, image: &str) -> State {
    let header = header(image);
    unlocked(
        || State::open(path, &header),
        |error| error.kind() == io::ErrorKind::WouldBlock,
    )
    .unwrap()
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
                let target = Qcow2Target::open(&path, len, &qcow2, false, false).unwrap();
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
                    raw_target(device.path(), &image, options),
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
    let result = raw_target(device.path(), &image, RawOptions::default());
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
        let stream = Unwrapped::new(fs::File::open(&bench.raw).unwrap(), 1 << 40).unwrap();
        let stream = DiskStream::unverified(stream).unwrap().unwrap();
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
    let stream = Unwrapped::new(fs::File::open(&bench.raw).unwrap(), 1 << 40).unwrap();
    let stream = DiskStream::unverified(stream).unwrap().unwrap();
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
                let stream = Unwrapped::new(Cursor::new(bytes), 1 << 40).unwrap();
                DiskStream::unverified(stream).unwrap().unwrap()
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

/// A source that can be told to fail, and counts what is read.
struct Flaky {
    inner: Vec<u8>,
    reads_left: std::sync::atomic::AtomicI64,
    read: std::sync::atomic::AtomicU64,
}

impl Flaky {
    fn new(inner: Vec<u8>) -> Arc<Self> {
        Arc::new(Self {
            inner,
            reads_left: i64::MAX.into(),
            read: 0.into(),
        })
    }
}

impl ReadAt for Flaky {
    fn len(&self) -> u64 {
        self.inner.len() as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        if self.reads_left.fetch_sub(1, Ordering::Relaxed) <= 0 {
            return Err(io::ErrorKind::ConnectionReset.into());
        }
        self.read.fetch_add(buf.len() as u64, Ordering::Relaxed);
        self.inner.read_at(offset, buf)
    }
}

fn header(image: &str) -> Header {
    Header {
        image: image.to_owned(),
        virtual_len: 64 << 20,
        target: "raw".to_owned(),
    }
}

fn flaky_disk(bench: &Bench) -> (Arc<Flaky>, DiskImage) {
    let source = Flaky::new(fs::read(&bench.raw).unwrap());
    let image = DiskImage::open(source.clone()).unwrap();
    (source, image)
}

/// What an earlier run wrote is not read from the source again, unless somebody changed it since.
#[test]
fn a_run_that_failed_goes_on() {
    let bench = Bench::new(Pattern::Incompressible, 64 << 20);
    let (source, image) = flaky_disk(&bench);
    let state_path = bench.path("state");
    let device = LoopDevice::new(bench.dir.path(), 64 << 20, 0xAA);
    let file = bench.path("disk.img");
    let run = |path: &Path, name: &str| {
        source.read.store(0, Ordering::Relaxed);
        let state = open_state(&state_path, name);
        let options = RawOptions {
            keep: state.is_resumed(),
            ..RawOptions::default()
        };
        let target = raw_target(path, &image, options).unwrap();
        let progress = Progress::default();
        let options = Options {
            threads: 3,
            state: Some(&state),
            cancel: &GO_ON,
        };
        let result = populate(&image, &target, options, &progress);
        if result.is_ok() {
            state.remove().unwrap();
        }
        (result, progress, source.read.load(Ordering::Relaxed))
    };
    for path in [device.path(), &file] {
        source.reads_left.store(9, Ordering::Relaxed);
        let (result, ..) = run(path, "one");
        let error = result.unwrap_err();
        assert!(matches!(error, PopulateError::Disk(_)), "{error}");
        source.reads_left.store(i64::MAX, Ordering::Relaxed);
        let (result, progress, read) = run(path, "one");
        result.unwrap();
        assert!(progress.kept() >= 7 * WINDOW_BYTES, "{progress:?}");
        assert_eq!(progress.kept() + read, 64 << 20);
        same_disk("raw", path, &bench.raw);

        // The state of another image, and a target that was changed.
        source.reads_left.store(9, Ordering::Relaxed);
        run(path, "one").0.unwrap_err();
        source.reads_left.store(9, Ordering::Relaxed);
        let (result, progress, _) = run(path, "two");
        result.unwrap_err();
        assert_eq!(progress.kept(), 0);
        let target = fs::File::options().write(true).open(path).unwrap();
        target.write_all_at(b"changed", WINDOW_BYTES + 99).unwrap();
        drop(target);
        source.reads_left.store(i64::MAX, Ordering::Relaxed);
        let (result, progress, read) = run(path, "two");
        result.unwrap();
        assert!(progress.kept() >= 6 * WINDOW_BYTES, "{progress:?}");
        assert_eq!(progress.kept() + read, 64 << 20);
        same_disk("raw", path, &bench.raw);
    }
}

/// Asked to stop, it stops, and what it wrote is known.
#[test]
fn a_run_that_was_stopped_goes_on() {
    struct Stopping(Vec<u8>, Arc<AtomicBool>);

    impl ReadAt for Stopping {
        fn len(&self) -> u64 {
            self.0.len() as u64
        }

        fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
            if offset > 40 << 20 {
                self.1.store(true, Ordering::Relaxed);
            }
            self.0.read_at(offset, buf)
        }
    }

    let bench = Bench::new(Pattern::Incompressible, 64 << 20);
    let cancel = Arc::new(AtomicBool::new(false));
    let source = Stopping(fs::read(&bench.raw).unwrap(), cancel.clone());
    let image = DiskImage::open(Arc::new(source)).unwrap();
    let path = bench.path("disk.img");
    // Opening looked at the disk's end.
    cancel.store(false, Ordering::Relaxed);
    let state = open_state(&bench.path("state"), "one");
    let target = raw_target(&path, &image, RawOptions::default()).unwrap();
    let options = Options {
        threads: 2,
        state: Some(&state),
        cancel: &cancel,
    };
    let result = populate(&image, &target, options, &Progress::default());
    assert!(
        matches!(result, Err(PopulateError::Cancelled)),
        "{result:?}"
    );
    drop((state, target));
    let state = open_state(&bench.path("state"), "one");
    assert!(state.is_resumed());
}

/// The page cache still gives what the device did not take: read back, it would count as written.
#[test]
fn what_a_failed_sync_left_in_doubt_is_not_taken_for_written() {
    struct Unsyncable(RawTarget);

    impl Target for Unsyncable {
        fn guest_len(&self) -> Option<u64> {
            self.0.guest_len()
        }

        fn room(&self) -> u64 {
            self.0.room()
        }

        fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
            self.0.read_at(offset, buf)
        }

        fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()> {
            self.0.write_at(offset, data)
        }

        fn zero_at(&self, offset: u64, len: u64) -> io::Result<()> {
            self.0.zero_at(offset, len)
        }

        fn sync(&self) -> io::Result<()> {
            Err(io::Error::from_raw_os_error(5))
        }

        fn finish(&self, len: u64) -> io::Result<u64> {
            self.0.finish(len)
        }
    }

    let bench = Bench::new(Pattern::Incompressible, 16 << 20);
    let image = open(&bench.raw).unwrap();
    let target = raw_target(&bench.path("disk.img"), &image, RawOptions::default()).unwrap();
    let state = open_state(&bench.path("state"), "one");
    let options = Options {
        state: Some(&state),
        ..Options::new(&GO_ON)
    };
    let result = populate(&image, &Unsyncable(target), options, &Progress::default());
    assert!(matches!(result, Err(PopulateError::Sync(_))), "{result:?}");
    drop(state);
    let state = open_state(&bench.path("state"), "one");
    assert!(!state.is_resumed());
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
    let stream = Unwrapped::new(fs::File::open(&bench.raw).unwrap(), 1 << 40).unwrap();
    let stream = DiskStream::unverified(stream).unwrap().unwrap();
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
        let stream = Unwrapped::new(fs::File::open(&vhd).unwrap(), 1 << 40).unwrap();
        let stream = DiskStream::unverified(stream).unwrap().unwrap();
        let place = Place::of(path).unwrap();
        let target = RawTarget::open(&place, None, RawOptions::default()).unwrap();
        let len = populate_stream(stream, &target, Options::new(&GO_ON), &Progress::default());
        assert_eq!(len.unwrap(), 2 << 20, "{place:?}");
        same_disk("raw", path, &bench.raw);
    }
}

#[test]
fn only_disks_have_a_place() {
    for path in ["/dev/null", "/dev/no-such-device"] {
        let result = Place::of(Path::new(path));
        assert!(matches!(result, Err(TargetError::Unfit { .. })), "{path}");
    }
}
