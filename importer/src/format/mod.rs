//! Disk image formats: told apart by content, read through one small interface.
//!
//! A format is a [`Layout`](layout::Layout): it says where each byte of the guest's disk lies in the source. Everything
//! else exists once: page cache for tables, decoding of compressed clusters, extents in guest order, reads.
//!
//! **Invariant:** a table is never read whole and nothing is allocated by a count or size from a header; all metadata goes
//! through one bounded cache of pages ([`pages`]). Headers are checked when an image is opened: each table must lie inside
//! the source, every size below a constant of [`limits`].
//!
//! **Invariant:** what an image refers to outside itself (backing file, data file, parent, further extents) is refused, not
//! looked for.

mod detect;
mod error;
mod fields;
mod image;
mod layout;
pub mod limits;
mod pages;
mod qcow2;
mod raw;
mod unpack;
mod vdi;
mod vhd;
mod vhdx;
mod vmdk;
mod without_footer;

pub use detect::{DETECT_HEAD_BYTES, DETECT_TAIL_BYTES, Format, detect};
pub use error::FormatError;
pub use image::{DiskImage, Extent, ExtentKind, Extents};
pub use without_footer::WithoutFooter;
