//! Test support: what every [`PackBackend`] does. [`backend_suite!`](crate::backend_suite) makes a test of each function.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]
#![allow(missing_docs, reason = "the names of tests are sentences")]

use std::{
    fmt::Debug,
    io::{self, ErrorKind},
    sync::{
        Barrier,
        atomic::{AtomicBool, Ordering},
    },
};

use bytes::Bytes;

use super::{PackBackend, PackId};

/// A backend under test and whatever it lives in.
pub trait Fixture: Sized + Sync {
    /// An empty backend.
    fn start() -> Self;
    /// The backend.
    fn backend(&self) -> &dyn PackBackend;
    /// The backend as it is found by the next process, after an orderly stop or the worst kind of crash.
    fn reopen(self) -> Self;
}

/// One test for each function of [`suite`](crate::backend::suite), for the given fixture.
#[macro_export]
macro_rules! backend_suite {
    ($fixture:ident) => {
        $crate::backend_suite!(@ $fixture:
            creates_once, reads_back_what_was_appended, appends_many_slices, appends_at_the_end_only,
            reads_nothing_beyond_the_end, knows_no_pack_that_was_not_created, seals_at_a_length, seals_what_it_finds,
            takes_nothing_after_sealing, lists_in_order, forgets_deleted_packs, deletes_while_reading,
            keeps_what_was_made_durable, keeps_packs_apart, names_any_number,
        );
    };
    (@ $fixture:ident: $($case:ident,)*) => {
        mod suite_cases {
            $(
                #[test]
                fn $case() {
                    $crate::backend::suite::$case::<super::$fixture>();
                }
            )*
        }
    };
}

const PACK: PackId = PackId(0x1f);

fn kind<T: Debug>(result: io::Result<T>) -> ErrorKind {
    result.unwrap_err().kind()
}

fn append(backend: &dyn PackBackend, pack: PackId, offset: u64, bytes: &[u8]) {
    backend
        .append(pack, offset, &[Bytes::copy_from_slice(bytes)])
        .unwrap();
}

/// `len` bytes that differ from place to place.
fn pattern(len: usize) -> Vec<u8> {
    (0..len)
        .map(|index| (index * 31 + index / 256) as u8)
        .collect()
}

pub fn creates_once<F: Fixture>() {
    let fixture = F::start();
    let backend = fixture.backend();
    backend.create(PACK).unwrap();
    assert_eq!(backend.len(PACK).unwrap(), 0);
    append(backend, PACK, 0, b"bytes");
    assert_eq!(kind(backend.create(PACK)), ErrorKind::AlreadyExists);
    assert_eq!(backend.len(PACK).unwrap(), 5);
    backend.seal(PACK, 5).unwrap();
    assert_eq!(kind(backend.create(PACK)), ErrorKind::AlreadyExists);
}

pub fn reads_back_what_was_appended<F: Fixture>() {
    let fixture = F::start();
    let backend = fixture.backend();
    backend.create(PACK).unwrap();
    let bytes = pattern(10_000);
    let mut offset = 0;
    for (index, piece) in bytes.chunks(333).enumerate() {
        append(backend, PACK, offset, piece);
        offset += piece.len() as u64;
        // Before it is durable, too.
        assert_eq!(backend.len(PACK).unwrap(), offset);
        assert_eq!(
            backend.read(PACK, index as u64 * 333, piece.len()).unwrap(),
            piece
        );
    }
    assert_eq!(backend.read(PACK, 0, bytes.len()).unwrap(), bytes);
    assert_eq!(backend.read(PACK, 4_095, 2).unwrap(), bytes[4_095..4_097]);
    assert_eq!(backend.read(PACK, 5, 0).unwrap(), Bytes::new());
}

pub fn appends_many_slices<F: Fixture>() {
    let fixture = F::start();
    let backend = fixture.backend();
    backend.create(PACK).unwrap();
    // More than one system call takes, and some of them empty.
    let bytes = Bytes::from(pattern(9_000));
    let mut slices = Vec::new();
    for start in (0..9_000).step_by(3) {
        slices.push(bytes.slice(start..start + 3));
        if start % 7 == 0 {
            slices.push(Bytes::new());
        }
    }
    backend.append(PACK, 0, &slices).unwrap();
    assert_eq!(backend.read(PACK, 0, 9_000).unwrap(), bytes);
    backend.append(PACK, 9_000, &[]).unwrap();
    backend
        .append(PACK, 9_000, &[Bytes::new(), Bytes::new()])
        .unwrap();
    assert_eq!(backend.len(PACK).unwrap(), 9_000);
    append(backend, PACK, 9_000, b"more");
    assert_eq!(&backend.read(PACK, 8_999, 5).unwrap()[1..], b"more");
}

pub fn appends_at_the_end_only<F: Fixture>() {
    let fixture = F::start();
    let backend = fixture.backend();
    backend.create(PACK).unwrap();
    append(backend, PACK, 0, b"bytes");
    for offset in [0, 4, 6, u64::MAX] {
        let result = backend.append(PACK, offset, &[Bytes::from_static(b"no")]);
        assert_eq!(kind(result), ErrorKind::InvalidInput, "at {offset}");
    }
    append(backend, PACK, 5, b"!");
    assert_eq!(&backend.read(PACK, 0, 6).unwrap()[..], b"bytes!");
}

pub fn reads_nothing_beyond_the_end<F: Fixture>() {
    let fixture = F::start();
    let backend = fixture.backend();
    backend.create(PACK).unwrap();
    append(backend, PACK, 0, b"bytes");
    for (offset, len) in [
        (0, 6),
        (4, 2),
        (5, 1),
        (6, 1),
        (u64::MAX, 1),
        (u64::MAX - 1, 5),
        (1 << 63, 1),
    ] {
        assert_eq!(
            kind(backend.read(PACK, offset, len)),
            ErrorKind::UnexpectedEof,
            "{len} bytes at {offset}"
        );
    }
}

pub fn knows_no_pack_that_was_not_created<F: Fixture>() {
    let fixture = F::start();
    let backend = fixture.backend();
    backend.create(PackId(7)).unwrap();
    assert_eq!(kind(backend.read(PACK, 0, 1)), ErrorKind::NotFound);
    assert_eq!(kind(backend.read(PACK, 0, 0)), ErrorKind::NotFound);
    assert_eq!(kind(backend.len(PACK)), ErrorKind::NotFound);
    assert_eq!(
        kind(backend.append(PACK, 0, &[Bytes::from_static(b"x")])),
        ErrorKind::NotFound
    );
    assert_eq!(kind(backend.make_durable(PACK)), ErrorKind::NotFound);
    assert_eq!(kind(backend.seal(PACK, 0)), ErrorKind::NotFound);
    backend.delete(PACK).unwrap();
    assert_eq!(backend.list().unwrap(), [PackId(7)]);
}

pub fn seals_at_a_length<F: Fixture>() {
    let fixture = F::start();
    let backend = fixture.backend();
    backend.create(PACK).unwrap();
    append(backend, PACK, 0, &pattern(10_000));
    assert_eq!(kind(backend.seal(PACK, 10_001)), ErrorKind::InvalidInput);
    // That changed nothing.
    append(backend, PACK, 10_000, b"more");
    backend.seal(PACK, 9_000).unwrap();
    assert_eq!(backend.len(PACK).unwrap(), 9_000);
    assert_eq!(backend.read(PACK, 0, 9_000).unwrap(), pattern(9_000));
    assert_eq!(kind(backend.read(PACK, 8_999, 2)), ErrorKind::UnexpectedEof);

    let fixture = fixture.reopen();
    let backend = fixture.backend();
    assert_eq!(backend.len(PACK).unwrap(), 9_000);
    assert_eq!(backend.read(PACK, 0, 9_000).unwrap(), pattern(9_000));
}

pub fn seals_what_it_finds<F: Fixture>() {
    let fixture = F::start();
    fixture.backend().create(PACK).unwrap();
    append(fixture.backend(), PACK, 0, &pattern(5_000));
    fixture.backend().make_durable(PACK).unwrap();

    let fixture = fixture.reopen();
    let backend = fixture.backend();
    backend.make_durable(PACK).unwrap();
    assert_eq!(kind(backend.seal(PACK, 5_001)), ErrorKind::InvalidInput);
    backend.seal(PACK, 4_000).unwrap();
    assert_eq!(backend.len(PACK).unwrap(), 4_000);

    let fixture = fixture.reopen();
    assert_eq!(
        fixture.backend().read(PACK, 0, 4_000).unwrap(),
        pattern(4_000)
    );
    assert_eq!(fixture.backend().len(PACK).unwrap(), 4_000);
}

pub fn takes_nothing_after_sealing<F: Fixture>() {
    let mut fixture = F::start();
    fixture.backend().create(PACK).unwrap();
    append(fixture.backend(), PACK, 0, b"bytes");
    fixture.backend().seal(PACK, 5).unwrap();
    for _ in 0..2 {
        let backend = fixture.backend();
        let result = backend.append(PACK, 5, &[Bytes::from_static(b"x")]);
        assert_eq!(kind(result), ErrorKind::PermissionDenied);
        assert_eq!(kind(backend.seal(PACK, 4)), ErrorKind::PermissionDenied);
        // Somebody who waits for a sync may come late, and an interrupted seal is done again.
        backend.make_durable(PACK).unwrap();
        backend.seal(PACK, 5).unwrap();
        assert_eq!(&backend.read(PACK, 0, 5).unwrap()[..], b"bytes");
        fixture = fixture.reopen();
    }
}

pub fn lists_in_order<F: Fixture>() {
    let fixture = F::start();
    assert_eq!(fixture.backend().list().unwrap(), []);
    let sorted = [0, 1, 2, 0xff, 0x100, 1 << 40, u64::MAX].map(PackId);
    for pack in [3, 0, 6, 2, 5, 1, 4].map(|index: usize| sorted[index]) {
        fixture.backend().create(pack).unwrap();
        fixture.backend().make_durable(pack).unwrap();
    }
    assert_eq!(fixture.backend().list().unwrap(), sorted);
    assert_eq!(fixture.reopen().backend().list().unwrap(), sorted);
}

pub fn forgets_deleted_packs<F: Fixture>() {
    let fixture = F::start();
    let backend = fixture.backend();
    for seal in [false, true] {
        backend.create(PACK).unwrap();
        append(backend, PACK, 0, b"bytes");
        backend.read(PACK, 0, 1).unwrap();
        if seal {
            backend.seal(PACK, 5).unwrap();
        }
        backend.delete(PACK).unwrap();
        assert_eq!(kind(backend.read(PACK, 0, 1)), ErrorKind::NotFound);
        assert_eq!(kind(backend.len(PACK)), ErrorKind::NotFound);
        assert_eq!(kind(backend.append(PACK, 5, &[])), ErrorKind::NotFound);
        assert_eq!(kind(backend.make_durable(PACK)), ErrorKind::NotFound);
        assert_eq!(kind(backend.seal(PACK, 5)), ErrorKind::NotFound);
        assert_eq!(backend.list().unwrap(), []);
        backend.delete(PACK).unwrap();
    }
}

pub fn deletes_while_reading<F: Fixture>() {
    let fixture = F::start();
    let backend = fixture.backend();
    let bytes = pattern(100_000);
    for number in 0..20 {
        let pack = PackId(number);
        backend.create(pack).unwrap();
        append(backend, pack, 0, &bytes);
        backend.seal(pack, bytes.len() as u64).unwrap();
        let (started, deleted) = (Barrier::new(3), AtomicBool::new(false));
        std::thread::scope(|scope| {
            for _ in 0..2 {
                scope.spawn(|| {
                    started.wait();
                    loop {
                        let was_deleted = deleted.load(Ordering::SeqCst);
                        match backend.read(pack, 7, 90_000) {
                            Ok(read) => {
                                assert_eq!(read, bytes[7..90_007]);
                                assert!(!was_deleted, "read a deleted pack");
                            }
                            Err(error) => {
                                assert_eq!(error.kind(), ErrorKind::NotFound);
                                break;
                            }
                        }
                    }
                });
            }
            started.wait();
            backend.delete(pack).unwrap();
            deleted.store(true, Ordering::SeqCst);
        });
    }
}

pub fn keeps_what_was_made_durable<F: Fixture>() {
    let fixture = F::start();
    let bytes = pattern(3_000_000);
    fixture.backend().create(PACK).unwrap();
    append(fixture.backend(), PACK, 0, &bytes[..1_234_567]);
    fixture.backend().make_durable(PACK).unwrap();
    append(
        fixture.backend(),
        PACK,
        1_234_567,
        &bytes[1_234_567..2_000_000],
    );
    fixture.backend().make_durable(PACK).unwrap();
    append(fixture.backend(), PACK, 2_000_000, &bytes[2_000_000..]);

    let fixture = fixture.reopen();
    assert!(fixture.backend().len(PACK).unwrap() >= 2_000_000);
    assert_eq!(
        fixture.backend().read(PACK, 0, 2_000_000).unwrap(),
        bytes[..2_000_000]
    );
}

pub fn keeps_packs_apart<F: Fixture>() {
    let fixture = F::start();
    let backend = fixture.backend();
    // Several lanes, each with its own thread.
    std::thread::scope(|scope| {
        for number in 0..4_u8 {
            scope.spawn(move || {
                let pack = PackId(u64::from(number));
                backend.create(pack).unwrap();
                for round in 0..50 {
                    append(backend, pack, round * 1_000, &[number; 1_000]);
                    if round % 16 == 0 {
                        backend.make_durable(pack).unwrap();
                    }
                }
                backend.seal(pack, 50_000).unwrap();
            });
        }
    });
    let fixture = fixture.reopen();
    for number in 0..4_u8 {
        assert_eq!(
            fixture
                .backend()
                .read(PackId(u64::from(number)), 0, 50_000)
                .unwrap(),
            vec![number; 50_000]
        );
    }
}

pub fn names_any_number<F: Fixture>() {
    let fixture = F::start();
    for number in [0, 0xabcd_ef01_2345_6789, u64::MAX] {
        let (backend, pack) = (fixture.backend(), PackId(number));
        backend.create(pack).unwrap();
        append(backend, pack, 0, &number.to_le_bytes());
        backend.seal(pack, 8).unwrap();
    }
    let fixture = fixture.reopen();
    for number in [0, 0xabcd_ef01_2345_6789, u64::MAX] {
        assert_eq!(
            fixture.backend().read(PackId(number), 0, 8).unwrap(),
            number.to_le_bytes()[..]
        );
    }
}
