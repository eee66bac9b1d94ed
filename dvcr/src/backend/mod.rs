//! Where packs live: an append-only store of named byte strings.
//!
//! All methods block: call them through [`crate::blocking::run`]. They are safe for concurrent use; only the creator of a
//! pack appends to it.

#[cfg(any(test, feature = "testing"))]
pub mod crash;
#[cfg(any(test, feature = "testing"))]
pub mod faulty;
pub mod file;
#[cfg(any(test, feature = "testing"))]
pub mod memory;
mod space;
#[cfg(any(test, feature = "testing"))]
pub mod suite;

use std::{io, ops::Range};

use bytes::Bytes;

/// Number of a pack; grows with creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackId(pub u64);

impl std::fmt::Display for PackId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
}

/// Room on the device, bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Room {
    /// What is free.
    pub free_bytes: u64,
    /// What of that uploads never take.
    pub reserve_bytes: u64,
}

/// Append-only storage of packs.
///
/// A failed `append` or `make_durable` leaves the bytes past the last durable length undefined; the caller never
/// retries on that pack (a page that failed to write may have been marked clean).
pub trait PackBackend: Send + Sync {
    /// Creates an empty pack. Its name is durable at the first [`make_durable`](Self::make_durable).
    /// Fails with [`io::ErrorKind::AlreadyExists`] if the pack exists.
    fn create(&self, pack: PackId) -> io::Result<()>;

    /// Writes the slices, one after the other, at `offset`, which is the sum of what was appended before.
    /// `StorageFull` when the device's reserve would be touched.
    fn append(&self, pack: PackId, offset: u64, data: &[Bytes]) -> io::Result<()>;

    /// Appends to this pack may take from the reserve from now on, though not what of it is left to the metadata: what is
    /// written frees more than it takes. Nothing where there is no reserve.
    fn use_reserve(&self, _pack: PackId) {}

    /// How much room there is; none where nobody can say.
    fn room(&self) -> io::Result<Option<Room>> {
        Ok(None)
    }

    /// Nobody needs these bytes of a sealed pack, though the pack itself is not deleted yet. Their room may be given back;
    /// they read as they did, or as zeros.
    fn release(&self, _pack: PackId, _ranges: &[Range<u64>]) -> io::Result<()> {
        Ok(())
    }

    /// Returns once all that was appended before the call survives a crash.
    fn make_durable(&self, pack: PackId) -> io::Result<()>;

    /// The pack gets no more appends and is cut to `len` bytes, durably. Its write handle is released.
    fn seal(&self, pack: PackId, len: u64) -> io::Result<()>;

    /// The bytes `offset .. offset + len`. `UnexpectedEof` if the pack is shorter, `NotFound` if there is none.
    /// The caller bounds `len`.
    fn read(&self, pack: PackId, offset: u64, len: usize) -> io::Result<Bytes>;

    /// Length in bytes, appended but not yet durable bytes included.
    fn len(&self, pack: PackId) -> io::Result<u64>;

    /// Removes a pack, durably: a crash does not bring it back. Reads that have begun finish. Removing an absent pack is no error.
    fn delete(&self, pack: PackId) -> io::Result<()>;

    /// All packs, ascending.
    fn list(&self) -> io::Result<Vec<PackId>>;
}
