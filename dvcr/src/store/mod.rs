//! The chunk store.

pub mod pack;
