//! Registry.

pub mod backend;
pub mod store;
