//! The layer that a disk becomes, and reading it back at random. [`dvcr_core::disk`] says how it looks.
//!
//! Writing takes two passes over the disk: tables come first in the file, and they depend on which clusters hold nothing
//! but zeros ([`scan`]).

mod archive;
mod encoder;
mod error;
mod pieces;
mod scan;
mod writer;

pub use archive::{Archive, FRAME_BYTES_MAX};
pub use encoder::Encoder;
pub use error::LayoutError;
pub use pieces::{Content, Pieces};
pub use scan::scan;
pub use writer::{Layer, write_layer};
