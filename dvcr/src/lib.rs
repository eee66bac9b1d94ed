//! Registry.

pub mod blocking;
pub mod meta;
