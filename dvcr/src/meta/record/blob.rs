//! Blobs, and the repositories that hold them.

use super::record;
use crate::meta::codec::{Decoded, Field, Reader, Writer};

/// Where the bytes of a blob are.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BlobBody {
    /// In the row `inline` of the same digest.
    Inline,
    /// In chunks, as a recipe says.
    Recipe {
        /// Recipe id.
        id: u64,
        /// Number of its parts.
        parts: u32,
    },
}

impl Field for BlobBody {
    /// Recipe id and number of parts; both 0 for [`BlobBody::Inline`].
    fn put(&self, w: Writer) -> Writer {
        let (id, parts) = match *self {
            Self::Inline => (0, 0),
            Self::Recipe { id, parts } => (id, parts),
        };
        w.u64(id).u32(parts)
    }

    fn take(r: &mut Reader<'_>) -> Decoded<Self> {
        Ok(match (r.u64()?, r.u32()?) {
            (0, _) => Self::Inline,
            (id, parts) => Self::Recipe { id, parts },
        })
    }
}

/// A blob: content-addressed bytes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BlobRecord {
    /// Length in bytes.
    pub len: u64,
    /// Where the bytes are.
    pub body: BlobBody,
    /// What its chunks took when it was pushed, whoever stored them; a hint whether compression pays. Bytes.
    pub stored_len: u64,
    /// When it was first pushed, milliseconds since 1970.
    pub created_ms: u64,
}

record!(BlobRecord: len, body, stored_len, created_ms);

/// A repository holds a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoldRecord {
    /// When it was linked, milliseconds since 1970.
    pub linked_ms: u64,
    /// Until when it stays though no manifest refers to it, milliseconds since 1970.
    pub lease_ms: u64,
}

record!(HoldRecord: linked_ms, lease_ms);
