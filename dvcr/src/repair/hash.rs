//! The digest of a blob, read from packs by a recipe that is not sure to be its.

use dvcr_core::{
    chunk::ChunkId,
    oci::{Algorithm, Digest},
};

use crate::{
    backend::PackBackend,
    meta::record::ChunkRecord,
    store::{
        Hasher,
        pack::{Codec, RECORD_HEADER_LEN, RecordId, open_record},
        recipe::{Piece, RecipePart},
    },
};

/// Zeros that are hashed at once.
static ZEROS: [u8; 64 << 10] = [0; 64 << 10];

/// The digest of what these parts say. None where a chunk cannot be read. `locate` knows where chunks lie. Blocks.
pub(super) fn digest_of(
    packs: &dyn PackBackend,
    parts: &[RecipePart],
    algorithm: Algorithm,
    locate: impl Fn(&ChunkId) -> Option<ChunkRecord>,
) -> Option<Digest> {
    let mut hasher = Hasher::new(algorithm);
    for piece in parts.iter().flat_map(|part| &part.pieces) {
        match piece {
            Piece::Zeros { len } => {
                let mut left = *len;
                while left > 0 {
                    let now = left.min(ZEROS.len() as u64);
                    // At most 64 KiB.
                    hasher.update(&ZEROS[..now as usize]);
                    left -= now;
                }
            }
            Piece::Chunk { id, len } => {
                let chunk = read_chunk(packs, id, &locate(id)?)?;
                if chunk.len() != *len as usize {
                    return None;
                }
                hasher.update(&chunk);
            }
        }
    }
    Some(hasher.finish())
}

/// A chunk, if what lies there is it. Blocks.
pub(super) fn read_chunk(
    packs: &dyn PackBackend,
    id: &ChunkId,
    at: &ChunkRecord,
) -> Option<bytes::Bytes> {
    let len = RECORD_HEADER_LEN + at.stored_len as usize;
    let bytes = packs.read(at.pack, u64::from(at.offset), len).ok()?;
    let (header, payload) = open_record(&bytes).ok()?;
    let chunk = match header.codec() {
        Codec::Raw => payload,
        Codec::Zstd => zstd::bulk::decompress(&payload, header.raw_len())
            .ok()?
            .into(),
    };
    (header.id() == RecordId::Chunk(*id) && ChunkId::of(&chunk) == *id).then_some(chunk)
}
