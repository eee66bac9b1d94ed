//! Where a disk goes: a raw file, a qcow2 file, or a block device.
//!
//! A target knows what reads as zeros already: a file that was just made does, a device does not, and is made to by
//! `fallocate`, which the kernel answers with zeros that are guaranteed (`BLKZEROOUT`), never with a discard that may or may not
//! leave old bytes behind.
//!
//! **Invariant:** the source itself is no target: what was opened is compared with it before anything is changed.
//!
//! **Invariant:** whether a disk fits is known before its first byte is written, wherever its length is known.

mod aligned;
mod error;
mod file_id;
mod place;
mod qcow2;
mod raw;
mod space;

use std::io;

pub use aligned::{ALIGNMENT, AlignedBuf};
pub use error::TargetError;
pub use file_id::FileId;
pub use place::Place;
pub use qcow2::{Qcow2Target, stored_clusters};
pub use raw::{RawOptions, RawTarget};
pub use space::{ALIGN_BYTES, Sizing, usable_bytes};

/// A disk that is being written, at the guest's offsets. May be used from several threads at once, at different places.
pub trait Target: Send + Sync {
    /// Bytes that the guest will see; `None` while only the source's end can tell.
    fn guest_len(&self) -> Option<u64>;

    /// Length of the longest disk that fits.
    fn room(&self) -> u64;

    /// Reads back what was written.
    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()>;

    /// Writes all of `data`.
    fn write_at(&self, offset: u64, data: &[u8]) -> io::Result<()>;

    /// Makes sure that a part reads as zeros. Costs nothing where it does already.
    fn zero_at(&self, offset: u64, len: u64) -> io::Result<()>;

    /// Everything written so far is durable when this returns.
    fn sync(&self) -> io::Result<()>;

    /// Says that `len` bytes came. The disk gets its length, which the guest will see and which is returned, and all of it becomes
    /// durable, its name included.
    fn finish(&self, len: u64) -> io::Result<u64>;
}
