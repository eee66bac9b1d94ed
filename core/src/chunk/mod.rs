//! How blobs are cut into chunks, and how chunks are named.
//!
//! A [`Cutter`] is a pure state machine: bytes in, ends of chunks out, whatever the buffering. It decides by the bytes
//! alone, never by a media type, so the same content is cut alike wherever it arrives.
//!
//! **Invariant:** the cutters are versioned and pinned by golden vectors (`core/tests/cut_points.rs`). Moving a cut point
//! corrupts nothing, but it silently halves dedup: all that is pushed afterwards is stored beside its older copy.

mod bytes;
mod cutter;
mod frames;
mod id;
mod zero;

pub use bytes::{CUT_BYTES_MAX, CUT_BYTES_MIN};
pub use cutter::{
    CHUNK_BYTES_MAX, CUTTER_STATE_LEN, Cut, Cutter, FRAME_MEAN_BYTES_MIN, FRAME_SHARE_BYTES_MIN,
    FRAMES_BEFORE_MEAN, ZERO_RUN_BYTES_MIN,
};
pub use frames::BLOCKS_MAX;
pub use id::ChunkId;
pub use zero::is_zero;
