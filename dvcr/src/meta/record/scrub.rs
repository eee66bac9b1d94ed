//! What a scrub found, and how far it is.

use dvcr_core::oci::Digest;

use super::{ChunkRecord, record};

/// Damage that a scrub found.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FindingRecord {
    /// When it was found, milliseconds since 1970.
    pub found_ms: u64,
    /// Where the damaged record of the chunk lies, or of one of the blob's chunks. A chunk whose row leads elsewhere has been
    /// stored anew. None for a pack, and for a blob whose chunks are whole and make another digest.
    pub at: Option<ChunkRecord>,
    /// What is wrong, for people.
    pub what: String,
}

record!(FindingRecord: found_ms, at, what);

/// How far the scrub in the background has come, and what all scrubs have done.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ScrubRecord {
    /// Number of the last pack that was read in this pass; the pass goes on behind it.
    pub last_pack: u64,
    /// When this pass began, milliseconds since 1970; 0 before the first.
    pub pass_began_ms: u64,
    /// Bytes read in this pass.
    pub pass_bytes: u64,
    /// When the last pass over all packs ended, milliseconds since 1970; 0 while there was none.
    pub full_pass_ms: u64,
    /// Bytes read in all passes.
    pub bytes: u64,
    /// Bytes that may be spent on comparing digests of whole blobs.
    pub sample_bytes: u64,
    /// The blob whose digest was compared last; those behind it follow.
    pub sampled: Option<Digest>,
}

record!(ScrubRecord: last_pack, pass_began_ms, pass_bytes, full_pass_ms, bytes, sample_bytes, sampled);
