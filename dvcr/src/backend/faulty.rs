//! Test support: a backend that fails, or reads wrong bytes, on command.

use std::{
    collections::BTreeMap,
    io,
    ops::Range,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

use super::{PackBackend, PackId, Room};

/// An operation of a [`PackBackend`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "named like the methods")]
pub enum Op {
    Create,
    Append,
    MakeDurable,
    Seal,
    Read,
    Len,
    Delete,
    List,
}

/// What shall go wrong. Shared between a test and a [`FaultyBackend`].
#[derive(Debug, Default)]
pub struct FaultScript {
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    failures: Vec<Failure>,
    flips: BTreeMap<(PackId, u64), u8>,
}

#[derive(Debug)]
struct Failure {
    op: Op,
    pack: Option<PackId>,
    kind: io::ErrorKind,
}

impl FaultScript {
    /// Nothing goes wrong.
    pub fn new() -> Arc<FaultScript> {
        Arc::default()
    }

    /// The next `op` on `pack` (on any, if none) fails with `kind`, once. Further calls queue up further failures.
    ///
    /// A failed append leaves the first half of its bytes behind, unless the kind is `StorageFull`, which promises that
    /// nothing was written. Other failed operations do nothing.
    pub fn fail_next(&self, op: Op, pack: Option<PackId>, kind: io::ErrorKind) {
        self.state().failures.push(Failure { op, pack, kind });
    }

    /// From now on the byte at `offset` of `pack` is read with the bits of `mask` flipped.
    pub fn flip(&self, pack: PackId, offset: u64, mask: u8) {
        self.state().flips.insert((pack, offset), mask);
    }

    /// Forgets all failures and flips that are left.
    pub fn heal(&self) {
        *self.state() = State::default();
    }

    /// How many failures have not happened yet.
    pub fn left(&self) -> usize {
        self.state().failures.len()
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn check(&self, op: Op, pack: Option<PackId>) -> io::Result<()> {
        let failures = &mut self.state().failures;
        let matches = |failure: &Failure| {
            failure.op == op && (failure.pack.is_none() || failure.pack == pack)
        };
        match failures.iter().position(matches) {
            Some(index) => Err(failures.remove(index).kind.into()),
            None => Ok(()),
        }
    }

    fn bend(&self, pack: PackId, offset: u64, bytes: Bytes) -> Bytes {
        let state = self.state();
        let range = (pack, offset)..(pack, offset.saturating_add(bytes.len() as u64));
        let mut flips = state.flips.range(range).peekable();
        if flips.peek().is_none() {
            return bytes;
        }
        let mut bytes = bytes.to_vec();
        for ((_, at), mask) in flips {
            bytes[(at - offset) as usize] ^= mask;
        }
        bytes.into()
    }
}

/// A backend whose operations fail as a [`FaultScript`] says.
#[derive(Debug)]
pub struct FaultyBackend<B> {
    inner: B,
    script: Arc<FaultScript>,
}

impl<B: PackBackend> FaultyBackend<B> {
    /// Wraps a backend.
    pub fn new(inner: B, script: Arc<FaultScript>) -> FaultyBackend<B> {
        FaultyBackend { inner, script }
    }

    /// The backend that does the work.
    pub fn inner(&self) -> &B {
        &self.inner
    }
}

impl<B: PackBackend> PackBackend for FaultyBackend<B> {
    fn create(&self, pack: PackId) -> io::Result<()> {
        self.script.check(Op::Create, Some(pack))?;
        self.inner.create(pack)
    }

    fn append(&self, pack: PackId, offset: u64, data: &[Bytes]) -> io::Result<()> {
        if let Err(error) = self.script.check(Op::Append, Some(pack)) {
            if error.kind() != io::ErrorKind::StorageFull {
                let bytes = data.concat();
                let half = Bytes::copy_from_slice(&bytes[..bytes.len() / 2]);
                self.inner.append(pack, offset, &[half])?;
            }
            return Err(error);
        }
        self.inner.append(pack, offset, data)
    }

    fn use_reserve(&self, pack: PackId) {
        self.inner.use_reserve(pack);
    }

    fn room(&self) -> io::Result<Option<Room>> {
        self.inner.room()
    }

    fn release(&self, pack: PackId, ranges: &[Range<u64>]) -> io::Result<()> {
        self.inner.release(pack, ranges)
    }

    fn make_durable(&self, pack: PackId) -> io::Result<()> {
        self.script.check(Op::MakeDurable, Some(pack))?;
        self.inner.make_durable(pack)
    }

    fn seal(&self, pack: PackId, len: u64) -> io::Result<()> {
        self.script.check(Op::Seal, Some(pack))?;
        self.inner.seal(pack, len)
    }

    fn read(&self, pack: PackId, offset: u64, len: usize) -> io::Result<Bytes> {
        self.script.check(Op::Read, Some(pack))?;
        let bytes = self.inner.read(pack, offset, len)?;
        Ok(self.script.bend(pack, offset, bytes))
    }

    fn len(&self, pack: PackId) -> io::Result<u64> {
        self.script.check(Op::Len, Some(pack))?;
        self.inner.len(pack)
    }

    fn delete(&self, pack: PackId) -> io::Result<()> {
        self.script.check(Op::Delete, Some(pack))?;
        self.inner.delete(pack)
    }

    fn list(&self) -> io::Result<Vec<PackId>> {
        self.script.check(Op::List, None)?;
        self.inner.list()
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

    use super::*;
    use crate::backend::{memory::MemoryBackend, suite};

    struct Fixture(FaultyBackend<MemoryBackend>);

    impl suite::Fixture for Fixture {
        fn start() -> Fixture {
            Fixture(FaultyBackend::new(MemoryBackend::new(), FaultScript::new()))
        }
        fn backend(&self) -> &dyn PackBackend {
            &self.0
        }
        fn reopen(self) -> Fixture {
            self
        }
    }

    crate::backend_suite!(Fixture);

    fn kind<T: std::fmt::Debug>(result: io::Result<T>) -> io::ErrorKind {
        result.unwrap_err().kind()
    }

    #[test]
    fn failures_come_once_and_where_they_should() {
        let script = FaultScript::new();
        let backend = FaultyBackend::new(MemoryBackend::new(), script.clone());
        let (one, two) = (PackId(1), PackId(2));
        backend.create(one).unwrap();
        backend.create(two).unwrap();
        script.fail_next(Op::MakeDurable, Some(two), io::ErrorKind::TimedOut);
        script.fail_next(Op::Read, None, io::ErrorKind::NotConnected);
        backend.make_durable(one).unwrap();
        assert_eq!(kind(backend.make_durable(two)), io::ErrorKind::TimedOut);
        assert_eq!(kind(backend.read(one, 0, 0)), io::ErrorKind::NotConnected);
        assert_eq!(script.left(), 0);
        backend.make_durable(two).unwrap();
        backend.read(one, 0, 0).unwrap();
        script.fail_next(Op::List, None, io::ErrorKind::TimedOut);
        script.heal();
        backend.list().unwrap();
    }

    #[test]
    fn a_failed_append_leaves_garbage_that_sealing_cuts() {
        let script = FaultScript::new();
        let backend = FaultyBackend::new(MemoryBackend::new(), script.clone());
        let pack = PackId(1);
        backend.create(pack).unwrap();
        backend
            .append(pack, 0, &[Bytes::from_static(b"good")])
            .unwrap();
        let bad = [Bytes::from_static(b"lo"), Bytes::from_static(b"st")];
        script.fail_next(Op::Append, Some(pack), io::ErrorKind::StorageFull);
        assert_eq!(
            kind(backend.append(pack, 4, &bad)),
            io::ErrorKind::StorageFull
        );
        assert_eq!(backend.len(pack).unwrap(), 4);
        script.fail_next(Op::Append, Some(pack), io::ErrorKind::Other);
        assert_eq!(kind(backend.append(pack, 4, &bad)), io::ErrorKind::Other);
        assert_eq!(&backend.read(pack, 0, 6).unwrap()[..], b"goodlo");
        backend.seal(pack, 4).unwrap();
        assert_eq!(backend.len(pack).unwrap(), 4);
    }

    #[test]
    fn flipped_bits_stay_flipped() {
        let script = FaultScript::new();
        let backend = FaultyBackend::new(MemoryBackend::new(), script.clone());
        let pack = PackId(1);
        backend.create(pack).unwrap();
        backend
            .append(pack, 0, &[Bytes::from_static(&[0; 8])])
            .unwrap();
        script.flip(pack, 5, 0x80);
        assert_eq!(&backend.read(pack, 4, 4).unwrap()[..], [0, 0x80, 0, 0]);
        assert_eq!(&backend.read(pack, 5, 1).unwrap()[..], [0x80]);
        assert_eq!(&backend.read(pack, 0, 5).unwrap()[..], [0; 5]);
        assert_eq!(&backend.read(pack, 6, 2).unwrap()[..], [0; 2]);
        script.heal();
        assert_eq!(&backend.read(pack, 0, 8).unwrap()[..], [0; 8]);
    }
}
