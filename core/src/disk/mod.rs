//! How an imported disk lies in a layer: pure parts of the layout. Reading disks and compressing frames is the importer's.
//!
//! ```text
//! layer  = frame(head) frame(piece)* frame(tail) index
//! frame  = one zstd frame, level 1 of one pinned libzstd: content size present, no dictionary, no checksum
//! head   = tar headers, 4096 bytes                                            see [`tar`]
//! pieces = the file: a canonical qcow2, or a raw image as it came             see [`CanonicalQcow2`], [`piece_len`]
//! tail   = padding to 512 bytes, then 1024 zero bytes
//! index  = BLAKE3 of every frame, seek table: two skippable zstd frames       see [`Index`]
//! ```
//!
//! Equal disks give equal bytes: nothing here depends on time, place, or how the disk was delivered.
//!
//! **Invariant:** the layout is pinned by golden vectors, version by version ([`LAYOUT_VERSION`]). Other bytes for the same
//! disk are correct, but everything pushed afterwards is stored beside its older copy.

mod cluster_map;
mod index;
mod piece;
mod qcow2;
pub mod tar;

pub use cluster_map::ClusterMap;
pub use index::{
    ENTRY_BYTES, FRAMES_MAX, Frame, HASH_BYTES, INDEX_HEAD_BYTES, INDEX_TAIL_BYTES, Index,
    IndexError, IndexLayout, SEEK_TABLE_FOOTER_BYTES,
};
pub use piece::{PAGE_BYTES, PIECE_BYTES_MAX, PIECE_BYTES_MIN, piece_len};
pub use qcow2::{CLUSTER_BYTES, CanonicalQcow2};

/// Version of all rules together, as the layer's annotations give it.
pub const LAYOUT_VERSION: &str = "1";

/// Annotation of the layer's descriptor: [`LAYOUT_VERSION`].
pub const ANNOTATION_LAYOUT: &str = "io.dvcr.disk.layout";

/// Annotation of the layer's descriptor: where the index begins, in bytes from the layer's start. It ends with the layer.
pub const ANNOTATION_INDEX_OFFSET: &str = "io.dvcr.disk.index.offset";

/// Annotation of the layer's descriptor: the index's digest, so that who reads parts of a layer can trust them.
pub const ANNOTATION_INDEX_DIGEST: &str = "io.dvcr.disk.index.digest";
