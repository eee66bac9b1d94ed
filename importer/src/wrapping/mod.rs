//! What disk images come wrapped in: compressed streams and archives, several layers deep.
//!
//! [`Unwrapped`] peels them off by content while it streams; nothing is written anywhere, no name in an archive ever
//! becomes a path. Read to its end it has also read to the end of what the disk was wrapped in, so that every checksum
//! there was compared.
//!
//! **Invariant:** memory does not depend on the input: each decoder's window is bounded, and so are an archive's headers.

mod bounds;
mod decoder;
mod detect;
mod error;
mod peek;
pub mod tar;
mod unwrapped;

pub use bounds::{RATIO_FREE_BYTES, RATIO_MAX};
pub use decoder::{XZ_MEMORY_BYTES_MAX, ZSTD_WINDOW_LOG_MAX};
pub use detect::Wrapping;
pub use error::WrappingError;
pub use unwrapped::{Unwrapped, WRAPPINGS_MAX};
pub(crate) use unwrapped::{no_archive, too_deep};
