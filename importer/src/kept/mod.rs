//! What an interrupted command keeps on disk, so that the next one goes on where it was.
//!
//! **Invariant:** what is found there is a hint: it is used only as far as its hashes say that it is what was noted.

mod layers;
mod received;
mod work_dir;

pub use layers::KeptLayers;
pub use received::{Feed, Limit, Received, Supply};
pub use work_dir::{ABANDONED, Purpose, WorkDir};
