//! The record that makes a blob known without the database.

use super::{
    Digest, LayoutError,
    error::{Fields, Writer},
};

const LAYOUT: u8 = 1;
const FIXED_LEN: usize = 32;
const WHAT: &str = "blob head";

/// What `repair` has to know of a blob besides its recipe. Written once the blob is complete, in the same segment of
/// appends that is made durable before the upload is acknowledged.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BlobHead {
    /// Digest of the whole blob.
    pub digest: Digest,
    /// Bytes of the blob.
    pub len: u64,
    /// Its recipe.
    pub recipe: u64,
    /// How many parts the recipe has, numbered from 0.
    pub parts: u32,
    /// When it was stored, in milliseconds since 1970.
    pub created_unix_ms: u64,
}

impl BlobHead {
    /// The payload of the record.
    pub fn encode(&self) -> Vec<u8> {
        let key = self.digest.to_key();
        let fixed = Writer::<FIXED_LEN>::new()
            .put(&[LAYOUT, key[0], 0, 0])
            .put(&self.parts.to_le_bytes())
            .put(&self.len.to_le_bytes())
            .put(&self.recipe.to_le_bytes())
            .put(&self.created_unix_ms.to_le_bytes());
        let mut bytes = fixed.bytes.to_vec();
        bytes.extend_from_slice(&key[1..]);
        bytes
    }

    /// Decodes a payload, all of it.
    pub fn decode(bytes: &[u8]) -> Result<BlobHead, LayoutError> {
        let Some((fixed, digest)) = bytes.split_at_checked(FIXED_LEN) else {
            return Err(LayoutError::Short {
                what: WHAT,
                need: FIXED_LEN,
            });
        };
        let mut fields = Fields(fixed);
        if fields.u8() != LAYOUT {
            return Err(LayoutError::Field {
                what: "unknown layout of a blob head",
            });
        }
        let algorithm = fields.u8();
        if fields.u16() != 0 {
            return Err(LayoutError::Field {
                what: "reserved bytes of a blob head are not zero",
            });
        }
        let (parts, len, recipe, created_unix_ms) =
            (fields.u32(), fields.u64(), fields.u64(), fields.u64());
        // One byte more than the longest digest, so that a longer one is refused rather than cut.
        let mut key = Vec::with_capacity(66);
        key.push(algorithm);
        key.extend_from_slice(&digest[..digest.len().min(65)]);
        let digest = Digest::from_key(&key).map_err(|_| LayoutError::Field {
            what: "digest of a blob head",
        })?;
        Ok(BlobHead {
            digest,
            len,
            recipe,
            parts,
            created_unix_ms,
        })
    }
}
