//! Archives: their entries, and the disk in one. Source: POSIX pax interchange format (IEEE Std 1003.1, `pax`), GNU tar manual "Basic Tar
//! Format" and "Storing Sparse Files"; OVA is DMTF DSP0243.
//!
//! The disk is the one regular file that is neither text nor shorter than a sector: an OVA begins with its descriptor,
//! others with a README. Where there are several, one that begins like an image goes before others behind it, and else
//! somebody has to say which. Links and directories are passed over, devices and names with `..` refused: no archive of a
//! disk has them.

mod disk;
mod entries;
mod header;
mod member;
mod pax;
mod sparse;

pub use disk::{Disk, ENTRIES_MAX};
pub(crate) use entries::{Entries, Entry, EntryKind, normal};
pub(super) use header::is_tar;
pub use member::member;
pub use sparse::SPARSE_PARTS_MAX;

/// The unit of archives.
const BLOCK: usize = 512;
