//! Registry.

pub mod backend;
pub mod data_dir;
pub mod store;
