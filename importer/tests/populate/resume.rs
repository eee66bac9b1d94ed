//! Runs that were cut off, and what the next one takes over.

use std::{
    fs, io,
    os::unix::fs::FileExt,
    path::Path,
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use dvcr_importer::{
    format::DiskImage,
    populate::{Header, Options, PopulateError, Progress, State, WINDOW_BYTES, populate},
    source::ReadAt,
    target::{RawOptions, RawTarget, Target},
};

use crate::{
    GO_ON, raw_target,
    support::{
        Bench, Pattern, open,
        volume::{LoopDevice, same_disk},
    },
    unlocked,
};

fn open_state(path: &Path, image: &str) -> State {
    let header = header(image);
    unlocked(
        || State::open(path, &header),
        |error| error.kind() == io::ErrorKind::WouldBlock,
    )
    .unwrap()
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
            ..Options::new(&GO_ON)
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
        ..Options::new(&cancel)
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
