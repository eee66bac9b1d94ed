//! Manifests and their tags.

use bytes::Bytes;
use dvcr_core::oci::Digest;

use super::record;

/// A manifest, exactly as it was pushed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ManifestRecord {
    /// Its media type, without parameters.
    pub media_type: String,
    /// What it refers to by `subject`.
    pub subject: Option<Digest>,
    /// When it was first pushed, milliseconds since 1970.
    pub created_ms: u64,
    /// The document.
    pub bytes: Bytes,
}

record!(ManifestRecord: media_type, subject, created_ms; rest bytes);

/// A tag's target.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TagRecord {
    /// The manifest.
    pub digest: Digest,
    /// When the tag came to be, milliseconds since 1970.
    pub created_ms: u64,
    /// When a push last named it, whether or not that moved it; milliseconds since 1970.
    pub pushed_ms: u64,
}

record!(TagRecord: digest, created_ms, pushed_ms);

/// A manifest that perhaps nothing needs any more: it was pushed without a tag, lost one, or lost what listed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UntaggedRecord {
    /// Since when, or when somebody last asked for it by its digest; milliseconds since 1970.
    pub since_ms: u64,
    /// Whether it is to go once the lease is over, whatever the retention rules say of untagged manifests: its last tag, or
    /// what listed it, was removed with everything that hangs on it.
    pub let_go: bool,
}

record!(UntaggedRecord: since_ms, let_go);
