//! Keys of what a scrub finds, and of how far it is.

use dvcr_core::{chunk::ChunkId, oci::Digest};

use super::{FINDING, SCRUB, key, prefix};
use crate::{
    backend::PackId,
    meta::{Key, KeyRange},
};

/// What a scrub found to be damaged.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Finding {
    /// A chunk, where its row leads.
    Chunk(ChunkId),
    /// A blob of which a chunk is damaged, or whose bytes have another digest.
    Blob(Digest),
    /// A pack whose records cannot be listed.
    Pack(PackId),
}

/// A finding.
#[must_use]
pub fn finding(finding: &Finding) -> Key {
    match finding {
        Finding::Blob(digest) => key(FINDING, &[b"b", &digest.to_key()]),
        Finding::Chunk(id) => key(FINDING, &[b"c", &id.0]),
        Finding::Pack(pack) => key(FINDING, &[b"p", &pack.0.to_be_bytes()]),
    }
}

/// All findings: blobs, chunks, packs.
#[must_use]
pub fn findings() -> KeyRange {
    prefix(vec![FINDING])
}

/// The blobs among the findings.
#[must_use]
pub fn found_blobs() -> KeyRange {
    prefix(key(FINDING, &[b"b"]))
}

/// What a row among the findings is about.
#[must_use]
pub fn finding_of(key: &[u8]) -> Option<Finding> {
    let (kind, rest) = key.strip_prefix(&[FINDING])?.split_first()?;
    match kind {
        b'b' => Digest::from_key(rest).ok().map(Finding::Blob),
        b'c' => Some(Finding::Chunk(ChunkId(rest.try_into().ok()?))),
        b'p' => Some(Finding::Pack(PackId(u64::from_be_bytes(
            rest.try_into().ok()?,
        )))),
        _ => None,
    }
}

/// How far a scrub has come.
#[must_use]
pub fn scrub_state() -> Key {
    key(SCRUB, &[b"state"])
}

/// Until when no pack is removed.
#[must_use]
pub fn pack_hold() -> Key {
    key(SCRUB, &[b"hold"])
}
