//! Any image of a registry, opened as a disk.
//!
//! Three kinds, told apart by what the manifest and the bytes say, never by names of media types alone:
//!
//! | kind | where the disk is | how it is read |
//! |---|---|---|
//! | [`Kind::Indexed`] | a layer of [`layout`](crate::layout), with annotations that say where its index lies | at random, in parallel; every frame is checked |
//! | [`Kind::ContainerDisk`] | a file in `disk/`, or called `disk`, of the file system that the layers make | the layer is read once |
//! | [`Kind::Artifact`] | the layer is the disk | the layer is read once |
//!
//! A layer that is read once is hashed on the way; whoever reads it to its end has compared its digest. A disk in it that can
//! be read from start to end (raw, ISO) needs no temporary file; any other goes to one.
//!
//! **Invariant:** nothing is declared whole before the digest of the layer that it came from was compared.

mod container;
mod disk;
mod error;
mod layout_dir;
mod platform;
mod registry;
mod repository;
mod resolve;
mod verified;

pub use disk::{Disk, DiskStream, Source};
pub use error::ImageError;
pub use layout_dir::LayoutDir;
pub use registry::Registry;
pub use repository::{Document, Repository};
pub use resolve::{Image, Kind};
