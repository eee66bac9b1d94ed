#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::collections::BTreeSet;

use super::*;
use crate::backend::suite;

struct Fixture(CrashBackend);

impl suite::Fixture for Fixture {
    fn start() -> Fixture {
        Fixture(CrashBackend::new(&Power::new()))
    }
    fn backend(&self) -> &dyn PackBackend {
        &self.0
    }
    fn reopen(self) -> Fixture {
        Fixture(reboot(&self.0, 1))
    }
}

crate::backend_suite!(Fixture);

/// The packs as they are found once power is back.
fn reboot(backend: &CrashBackend, seed: u64) -> CrashBackend {
    let found = backend.reopen(seed);
    backend.power().restore();
    found
}

fn failing_at(sync: u64) -> CrashBackend {
    let power = Power::new();
    power.fail_at_sync(sync);
    CrashBackend::new(&power)
}

const PACK: PackId = PackId(1);

fn bytes(byte: u8, len: usize) -> [Bytes; 1] {
    [Bytes::from(vec![byte; len])]
}

/// Appends twice, each time with a sync, then seals. Two syncs, one more for the name, one for sealing.
fn write(backend: &CrashBackend) -> io::Result<()> {
    backend.create(PACK)?;
    backend.append(PACK, 0, &bytes(1, 1_000))?;
    backend.make_durable(PACK)?;
    backend.append(PACK, 1_000, &bytes(2, 1_000))?;
    backend.make_durable(PACK)?;
    backend.append(PACK, 2_000, &bytes(3, 1_000))?;
    backend.seal(PACK, 2_500)
}

#[test]
fn a_crash_at_any_sync_keeps_what_was_durable() {
    let power = Power::new();
    write(&CrashBackend::new(&power)).unwrap();
    assert_eq!(power.syncs(), 4);
    let written = [[1; 1_000], [2; 1_000], [3; 1_000]].concat();
    for crash_at in 1..=4 {
        for seed in 0..50 {
            let backend = failing_at(crash_at);
            write(&backend).unwrap_err();
            backend.list().unwrap_err();
            let durable = [None, None, Some(1_000), Some(2_000)][crash_at as usize - 1];
            assert_eq!(backend.durable_len(PACK), durable);
            let found = reboot(&backend, seed);
            if let Some(durable) = durable {
                assert!(found.len(PACK).unwrap() >= durable);
                let len = durable as usize;
                assert_eq!(found.read(PACK, 0, len).unwrap(), written[..len]);
            }
        }
    }
}

#[test]
fn what_was_not_durable_may_be_anything() {
    let mut outcomes = BTreeSet::new();
    for seed in 0..500 {
        let backend = CrashBackend::new(&Power::new());
        backend.create(PACK).unwrap();
        backend.append(PACK, 0, &bytes(1, 1_000)).unwrap();
        backend.make_durable(PACK).unwrap();
        backend.append(PACK, 1_000, &bytes(2, 24)).unwrap();
        backend.append(PACK, 1_024, &bytes(2, 512)).unwrap();
        let found = reboot(&backend, seed);
        backend.list().unwrap_err();
        let len = found.len(PACK).unwrap();
        let tail = found.read(PACK, 1_000, len as usize - 1_000).unwrap();
        outcomes.insert(match tail.len() {
            0 => "nothing",
            _ if tail.iter().all(|byte| *byte == 2) => "written",
            _ if tail.iter().all(|byte| *byte == 0) => "zeros",
            _ if tail.iter().all(|byte| [0, 2].contains(byte)) => "written and zeros",
            _ => "garbage",
        });
    }
    assert_eq!(
        outcomes.into_iter().collect::<Vec<_>>(),
        [
            "garbage",
            "nothing",
            "written",
            "written and zeros",
            "zeros"
        ]
    );
}

#[test]
fn names_may_vanish_or_return() {
    let (mut vanished, mut returned, mut cut) = (0, 0, 0);
    for seed in 0..100 {
        let backend = failing_at(4);
        backend.create(PackId(1)).unwrap();
        backend.create(PackId(2)).unwrap();
        backend.make_durable(PackId(2)).unwrap();
        backend.create(PackId(3)).unwrap();
        backend.append(PackId(3), 0, &bytes(3, 100)).unwrap();
        backend.power().sync(0).unwrap();
        backend.seal(PackId(3), 40).unwrap_err();
        let found = reboot(&backend, seed);
        let list = found.list().unwrap();
        vanished += u32::from(!list.contains(&PackId(1)));
        cut += u32::from(list.contains(&PackId(3)) && found.len(PackId(3)).unwrap() == 40);

        let backend = failing_at(3);
        backend.create(PackId(2)).unwrap();
        backend.make_durable(PackId(2)).unwrap();
        backend.delete(PackId(2)).unwrap_err();
        let list = reboot(&backend, seed).list().unwrap();
        returned += u32::from(list.contains(&PackId(2)));
    }
    assert!((20..80).contains(&vanished), "{vanished}");
    assert!((20..80).contains(&returned), "{returned}");
    assert!((5..60).contains(&cut), "{cut}");
}

#[test]
fn equal_seeds_find_the_same() {
    let backend = CrashBackend::new(&Power::new());
    backend.create(PACK).unwrap();
    backend.make_durable(PACK).unwrap();
    backend.append(PACK, 0, &bytes(7, 100_000)).unwrap();
    let found = |seed| {
        let found = reboot(&backend, seed);
        let len = found.len(PACK).unwrap();
        found.read(PACK, 0, len as usize).unwrap()
    };
    assert_eq!(found(5), found(5));
    assert_ne!(found(5), found(6));
}
