//! The vocabulary of the OCI distribution and image specifications.
//!
//! Everything here is parsed once, at the edge, and trusted inside: a [`Digest`], [`RepositoryName`] or [`Tag`] that
//! exists is well-formed. Nothing here is a file-system path, and nothing here does I/O.

mod descriptor;
mod digest;
mod error_code;
mod manifest;
pub mod media_type;
mod name;
mod range;
mod reference;
mod route;
mod tag;

pub use descriptor::Descriptor;
pub use digest::{Algorithm, Digest, DigestError};
pub use error_code::ErrorCode;
pub use manifest::{
    DESCRIPTORS_MAX, JSON_VALUES_MAX, MANIFEST_BYTES_MAX, Manifest, ManifestError, ManifestKind,
};
pub use name::{NAME_BYTES_MAX, NameError, RepositoryName};
pub use range::{RANGES_MAX, Ranges, parse_content_range, parse_range};
pub use reference::{Reference, ReferenceError};
pub use route::{Route, RouteError};
pub use tag::{TAG_BYTES_MAX, Tag, TagError};
