//! The layer that a disk becomes, and reading it back at random. [`dvcr_core::disk`] says how it looks.
//!
//! Tables come first in the file, and they depend on which clusters hold nothing but zeros. So a disk at hand is read twice:
//! [`scan`], then [`write_layer`]. Of one that only comes by, [`DataPieces`] are kept as frames until all are there; where it is
//! cut is decided in the same place, so that the layers are equal.

mod archive;
mod clusters;
mod data;
mod encoder;
mod error;
mod frames;
mod index_spool;
mod pieces;
mod pipeline;
mod scan;
mod writer;

pub use archive::{Archive, FRAME_BYTES_MAX};
pub use clusters::{Clusters, ImageClusters, StreamClusters};
pub use data::{DataPieces, Piece};
pub use encoder::Encoder;
pub use error::LayoutError;
pub use index_spool::IndexSpool;
pub use pieces::{Content, Surrounding, pieces};
pub use pipeline::encode;
pub use scan::scan;
pub(crate) use writer::{Hashed, digest};
pub use writer::{Layer, write_layer, write_layer_in, write_plain};
