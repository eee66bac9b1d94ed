//! DVCR: a registry for virtual-machine disks.
//!
//! Dependencies point one way: `http -> registry -> gc -> {store, meta} -> backend`. Start at [`registry`] for what the
//! program does, at [`store`] for how bytes are kept, at [`meta`] for how they are found again.

pub mod backend;
pub mod blocking;
pub mod checkpoint;
pub mod cli;
pub mod clock;
pub mod data_dir;
pub mod durations;
pub mod gc;
pub mod http;
pub mod logging;
pub mod meta;
pub mod metrics;
pub mod migrate;
mod random;
pub mod registry;
pub mod repair;
pub mod serve;
pub mod settings;
#[cfg(any(test, feature = "testing"))]
pub mod simulation;
pub mod store;
#[cfg(test)]
mod testing;
