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

use std::io;

use bytes::Bytes;

/// Number of a pack; grows with creation.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct PackId(pub u64);

impl std::fmt::Display for PackId {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:016x}", self.0)
    }
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
