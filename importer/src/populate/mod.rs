//! From a disk to a target: windows of the disk on several threads, holes kept, resumable.
//!
//! ```text
//! extents -> windows of 512 KiB -> [ read, decode, verify | look for zeros | write | note ] x threads -> sync
//! ```
//!
//! A disk that can be read at random is populated in windows in any order, and a run that was cut off goes on: see [`State`]. A
//! stream is written as it comes; its end decides whether it was worth anything.
//!
//! **Invariant:** memory is bounded by a few windows a thread, whatever the disk.

mod ahead;
mod archive;
mod engine;
mod error;
mod pages;
mod progress;
mod state;
mod windows;

pub use ahead::Ahead;
pub use archive::{ExtractError, Extracted, extract};
pub(crate) use engine::fill;
pub use engine::{Options, data_bytes, populate, populate_blank, populate_stream};
pub use error::PopulateError;
pub(crate) use pages::parts;
pub use progress::Progress;
pub use state::{Header, State};
pub use windows::WINDOW_BYTES;
