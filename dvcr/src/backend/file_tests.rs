#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::os::unix::fs::symlink;

use tempfile::TempDir;

use super::*;
use crate::backend::suite;

const PACK: PackId = PackId(0x1f);

struct Fixture {
    backend: FileBackend,
    dir: TempDir,
}

impl suite::Fixture for Fixture {
    fn start() -> Fixture {
        let dir = tempfile::tempdir().unwrap();
        Fixture {
            backend: FileBackend::new(dir.path(), 0).unwrap(),
            dir,
        }
    }
    fn backend(&self) -> &dyn PackBackend {
        &self.backend
    }
    fn reopen(self) -> Fixture {
        Fixture {
            backend: FileBackend::new(self.dir.path(), 0).unwrap(),
            dir: self.dir,
        }
    }
}

crate::backend_suite!(Fixture);

fn start() -> Fixture {
    suite::Fixture::start()
}

fn kind<T>(result: io::Result<T>) -> io::ErrorKind {
    result.err().unwrap().kind()
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn files_are_named_by_number_and_read_only_once_sealed() {
    let Fixture { backend, dir } = start();
    let path = dir.path().join("000000000000001f.pack");
    backend.create(PACK).unwrap();
    assert_eq!(mode(&path), 0o600);
    backend
        .append(PACK, 0, &[Bytes::from_static(b"bytes")])
        .unwrap();
    backend.seal(PACK, 5).unwrap();
    assert_eq!(mode(&path), 0o400);
    assert_eq!(fs::read(&path).unwrap(), b"bytes");
    backend.delete(PACK).unwrap();
    assert!(!path.exists());
}

#[test]
fn foreign_files_are_not_packs() {
    let Fixture { backend, dir } = start();
    backend.create(PACK).unwrap();
    for name in [
        "000000000000001F.pack",
        "00000000000000020.pack",
        "000000000000020.pack",
        "+00000000000001f.pack",
        "0000000000000020.pack.tmp",
        "0000000000000020",
        ".pack",
        "lost+found",
        "0000000000000020.PACK",
        "00000000000000é.pack",
    ] {
        fs::write(dir.path().join(name), b"").unwrap();
    }
    fs::create_dir(dir.path().join("0000000000000021.pack")).unwrap();
    symlink(
        "000000000000001f.pack",
        dir.path().join("0000000000000022.pack"),
    )
    .unwrap();
    assert_eq!(backend.list().unwrap(), [PACK]);
    // Nor is a link followed out of the directory.
    assert!(backend.read(PackId(0x22), 0, 0).is_err());
    assert_eq!(
        kind(backend.create(PackId(0x22))),
        io::ErrorKind::AlreadyExists
    );
}

#[test]
fn the_directory_has_to_exist() {
    let dir = tempfile::tempdir().unwrap();
    assert_eq!(
        kind(FileBackend::new(&dir.path().join("absent"), 0)),
        io::ErrorKind::NotFound
    );
    fs::write(dir.path().join("file"), b"").unwrap();
    assert_eq!(
        kind(FileBackend::new(&dir.path().join("file"), 0)),
        io::ErrorKind::NotADirectory
    );
}

#[test]
fn a_full_device_takes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let backend = FileBackend::new(dir.path(), u64::MAX).unwrap();
    backend.create(PACK).unwrap();
    assert_eq!(
        kind(backend.append(PACK, 0, &[Bytes::from_static(b"x")])),
        io::ErrorKind::StorageFull
    );
    assert_eq!(backend.len(PACK).unwrap(), 0);
    // Nothing was written, so the pack is as good as before.
    backend.make_durable(PACK).unwrap();
    backend.seal(PACK, 0).unwrap();
}

#[test]
fn errors_of_a_full_device_are_told_apart() {
    for (errno, expected) in [
        (libc::ENOSPC, io::ErrorKind::StorageFull),
        (libc::EDQUOT, io::ErrorKind::StorageFull),
        (libc::EIO, io::Error::from_raw_os_error(libc::EIO).kind()),
    ] {
        assert_eq!(full(io::Error::from_raw_os_error(errno)).kind(), expected);
    }
}

/// Replaces the file of an open pack, to see what happens when the device fails.
fn replace_file(backend: &FileBackend, pack: PackId, file: File) {
    let appends = Mutex::new(Appends {
        len: 0,
        written_back: 0,
        closed: false,
    });
    let open = OpenPack {
        file,
        appends,
        name_durable: Mutex::new(true),
        broken: AtomicBool::new(false),
        uses_reserve: AtomicBool::new(false),
    };
    backend.open_packs().insert(pack, Arc::new(open));
}

#[cfg(target_os = "linux")]
#[test]
fn after_a_failed_append_a_pack_can_only_be_sealed() {
    let Fixture { backend, dir } = start();
    backend.create(PACK).unwrap();
    backend
        .append(PACK, 0, &[Bytes::from_static(b"bytes")])
        .unwrap();
    replace_file(
        &backend,
        PACK,
        OpenOptions::new().write(true).open("/dev/full").unwrap(),
    );
    let data = [Bytes::from_static(b"x")];
    assert_eq!(
        kind(backend.append(PACK, 0, &data)),
        io::ErrorKind::StorageFull
    );
    // The device would take it now.
    let file = OpenOptions::new()
        .write(true)
        .open(dir.path().join("000000000000001f.pack"))
        .unwrap();
    let broken = backend
        .open_pack(PACK)
        .unwrap()
        .broken
        .load(Ordering::SeqCst);
    replace_file(&backend, PACK, file);
    let open = backend.open_pack(PACK).unwrap();
    open.broken.store(broken, Ordering::SeqCst);
    assert_eq!(kind(backend.append(PACK, 0, &data)), io::ErrorKind::Other);
    assert_eq!(kind(backend.make_durable(PACK)), io::ErrorKind::Other);
    backend.seal(PACK, 4).unwrap();
    assert_eq!(&backend.read(PACK, 0, 4).unwrap()[..], b"byte");
}

#[cfg(target_os = "linux")]
#[test]
fn a_failed_sync_breaks_a_pack() {
    let Fixture { backend, dir: _dir } = start();
    // A character device without fsync: EINVAL.
    replace_file(
        &backend,
        PACK,
        OpenOptions::new().write(true).open("/dev/null").unwrap(),
    );
    assert_eq!(
        kind(backend.make_durable(PACK)),
        io::ErrorKind::InvalidInput
    );
    assert_eq!(kind(backend.make_durable(PACK)), io::ErrorKind::Other);
}

#[cfg(target_os = "linux")]
#[test]
fn a_pack_whose_seal_failed_is_never_durable_again() {
    let Fixture { backend, dir: _dir } = start();
    backend.create(PACK).unwrap();
    // A character device has no length that could be set: EINVAL.
    let device = OpenOptions::new().write(true).open("/dev/null").unwrap();
    replace_file(&backend, PACK, device);
    assert_eq!(kind(backend.seal(PACK, 0)), io::ErrorKind::InvalidInput);
    // A new descriptor of the file would say that all is well.
    assert_eq!(kind(backend.make_durable(PACK)), io::ErrorKind::Other);
    let late = backend.append(PACK, 0, &[Bytes::from_static(b"x")]);
    assert_eq!(kind(late), io::ErrorKind::PermissionDenied);
}

#[test]
fn short_writes_go_on_where_they_stopped() {
    let data: Vec<Bytes> = [&b"one"[..], b"", b"two", b"three", b""]
        .iter()
        .map(|s| Bytes::from_static(s))
        .collect();
    for step in 1..12 {
        let mut written = Vec::new();
        let mut interrupted = false;
        write_all(&data, 100, |slices, offset| {
            assert_eq!(offset, 100 + written.len() as u64);
            interrupted = !interrupted;
            if interrupted {
                return Err(io::ErrorKind::Interrupted.into());
            }
            let bytes: Vec<u8> = slices
                .iter()
                .flat_map(|slice| slice.iter().copied())
                .take(step)
                .collect();
            written.extend_from_slice(&bytes);
            Ok(bytes.len())
        })
        .unwrap();
        assert_eq!(written, b"onetwothree");
    }
    assert_eq!(
        kind(write_all(&data, 0, |_, _| Ok(0))),
        io::ErrorKind::WriteZero
    );
    write_all(&[Bytes::new()], 0, |_, _| unreachable!("nothing to write")).unwrap();
}

#[test]
fn no_call_gets_more_slices_than_the_system_takes() {
    let data = vec![Bytes::from_static(b"x"); 2 * SLICES_MAX + 1];
    let mut calls = Vec::new();
    write_all(&data, 0, |slices, _| {
        calls.push(slices.len());
        Ok(slices.len())
    })
    .unwrap();
    assert_eq!(calls, [SLICES_MAX, SLICES_MAX, 1]);
}

#[test]
fn write_back_starts_every_few_megabytes() {
    let Fixture { backend, dir: _dir } = start();
    backend.create(PACK).unwrap();
    let piece = Bytes::from(vec![7; (1 << 20) + 1]);
    let mut starts = Vec::new();
    for number in 0..20 {
        backend
            .append(
                PACK,
                number * piece.len() as u64,
                std::slice::from_ref(&piece),
            )
            .unwrap();
        let open = backend.open_pack(PACK).unwrap();
        let written_back = lock(&open.appends).written_back;
        if starts.last() != Some(&written_back) {
            starts.push(written_back);
        }
    }
    assert_eq!(
        starts,
        [0, 8 << 20, 16 << 20],
        "whole pages, and all of them once"
    );
    backend.make_durable(PACK).unwrap();
}

#[test]
fn handles_for_reading_are_few() {
    let Fixture { backend, dir: _dir } = start();
    for number in 0..READ_HANDLES_MAX as u64 + 100 {
        backend.create(PackId(number)).unwrap();
        backend
            .append(PackId(number), 0, &[Bytes::from_static(b"x")])
            .unwrap();
        backend.seal(PackId(number), 1).unwrap();
        backend.read(PackId(number), 0, 1).unwrap();
        assert!(backend.readers.len() <= READ_HANDLES_MAX);
    }
    for number in 0..READ_HANDLES_MAX as u64 + 100 {
        assert_eq!(&backend.read(PackId(number), 0, 1).unwrap()[..], b"x");
    }
    assert!(backend.readers.len() <= READ_HANDLES_MAX);
    assert!(backend.open_packs().is_empty());
}
