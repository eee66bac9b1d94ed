//! Test support: packs in memory, all of them durable at once.

use std::{
    collections::BTreeMap,
    io,
    sync::{Mutex, MutexGuard, PoisonError},
};

use bytes::Bytes;

use super::{PackBackend, PackId};

/// Packs in memory.
#[derive(Debug, Default)]
pub struct MemoryBackend {
    packs: Mutex<BTreeMap<PackId, MemoryPack>>,
}

#[derive(Clone, Debug, Default)]
pub(super) struct MemoryPack {
    pub(super) bytes: Vec<u8>,
    pub(super) sealed: bool,
}

impl MemoryBackend {
    /// No packs.
    pub fn new() -> MemoryBackend {
        MemoryBackend::default()
    }

    fn packs(&self) -> MutexGuard<'_, BTreeMap<PackId, MemoryPack>> {
        self.packs.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl MemoryPack {
    pub(super) fn append(&mut self, offset: u64, data: &[Bytes]) -> io::Result<()> {
        if self.sealed {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "pack is sealed",
            ));
        }
        if offset != self.bytes.len() as u64 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "append is not at the end of the pack",
            ));
        }
        for slice in data {
            self.bytes.extend_from_slice(slice);
        }
        Ok(())
    }

    /// Fails like [`seal`](Self::seal), but does nothing.
    pub(super) fn check_seal(&self, len: u64) -> io::Result<()> {
        if len > self.bytes.len() as u64 {
            return Err(io::Error::new(
                io::ErrorKind::InvalidInput,
                "pack is shorter than it should be sealed at",
            ));
        }
        if self.sealed && len < self.bytes.len() as u64 {
            return Err(io::Error::new(
                io::ErrorKind::PermissionDenied,
                "pack is sealed",
            ));
        }
        Ok(())
    }

    pub(super) fn seal(&mut self, len: u64) -> io::Result<()> {
        self.check_seal(len)?;
        self.bytes.truncate(len as usize);
        self.sealed = true;
        Ok(())
    }

    pub(super) fn read(&self, offset: u64, len: usize) -> io::Result<Bytes> {
        let range = usize::try_from(offset)
            .ok()
            .and_then(|start| Some(start..start.checked_add(len)?));
        let bytes = range
            .and_then(|range| self.bytes.get(range))
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        Ok(Bytes::copy_from_slice(bytes))
    }
}

/// The pack, or `NotFound`.
pub(super) fn find<T>(packs: &mut BTreeMap<PackId, T>, pack: PackId) -> io::Result<&mut T> {
    packs
        .get_mut(&pack)
        .ok_or_else(|| io::ErrorKind::NotFound.into())
}

impl PackBackend for MemoryBackend {
    fn create(&self, pack: PackId) -> io::Result<()> {
        let mut packs = self.packs();
        if packs.contains_key(&pack) {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        packs.insert(pack, MemoryPack::default());
        Ok(())
    }

    fn append(&self, pack: PackId, offset: u64, data: &[Bytes]) -> io::Result<()> {
        find(&mut self.packs(), pack)?.append(offset, data)
    }

    fn make_durable(&self, pack: PackId) -> io::Result<()> {
        find(&mut self.packs(), pack).map(drop)
    }

    fn seal(&self, pack: PackId, len: u64) -> io::Result<()> {
        find(&mut self.packs(), pack)?.seal(len)
    }

    fn read(&self, pack: PackId, offset: u64, len: usize) -> io::Result<Bytes> {
        find(&mut self.packs(), pack)?.read(offset, len)
    }

    fn len(&self, pack: PackId) -> io::Result<u64> {
        Ok(find(&mut self.packs(), pack)?.bytes.len() as u64)
    }

    fn delete(&self, pack: PackId) -> io::Result<()> {
        self.packs().remove(&pack);
        Ok(())
    }

    fn list(&self) -> io::Result<Vec<PackId>> {
        Ok(self.packs().keys().copied().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::backend::suite;

    struct Fixture(MemoryBackend);

    impl suite::Fixture for Fixture {
        fn start() -> Fixture {
            Fixture(MemoryBackend::new())
        }
        fn backend(&self) -> &dyn PackBackend {
            &self.0
        }
        fn reopen(self) -> Fixture {
            self
        }
    }

    crate::backend_suite!(Fixture);
}
