//! Packs, and the chunks in them.

use super::record;
use crate::{
    backend::PackId,
    meta::codec::{Decoded, Field, Reader, Writer},
};

/// Where a chunk lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ChunkRecord {
    /// The pack.
    pub pack: PackId,
    /// Offset of its record in the pack, bytes.
    pub offset: u32,
    /// Length of its payload as stored, bytes. Equal to the chunk's length exactly where it is stored raw.
    pub stored_len: u32,
}

record!(ChunkRecord: pack, offset, stored_len);

impl Field for ChunkRecord {
    fn put(&self, w: Writer) -> Writer {
        self.pack.put(w).u32(self.offset).u32(self.stored_len)
    }

    fn take(r: &mut Reader<'_>) -> Decoded<Self> {
        Ok(Self {
            pack: PackId::take(r)?,
            offset: r.u32()?,
            stored_len: r.u32()?,
        })
    }
}

impl Field for PackId {
    fn put(&self, w: Writer) -> Writer {
        w.u64(self.0)
    }

    fn take(r: &mut Reader<'_>) -> Decoded<Self> {
        r.u64().map(Self)
    }
}

/// Life of a pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PackState {
    /// A lane appends to it; it has no footer yet.
    Open,
    /// Immutable, with a footer.
    Sealed,
    /// Being emptied by garbage collection; a look-up treats its chunks as absent.
    Condemned,
}

impl Field for PackState {
    fn put(&self, w: Writer) -> Writer {
        w.u8(match self {
            Self::Open => 0,
            Self::Sealed => 1,
            Self::Condemned => 2,
        })
    }

    fn take(r: &mut Reader<'_>) -> Decoded<Self> {
        match r.u8()? {
            0 => Ok(Self::Open),
            1 => Ok(Self::Sealed),
            2 => Ok(Self::Condemned),
            _ => Err("a pack state"),
        }
    }
}

/// A pack.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PackRecord {
    /// Where it is in its life.
    pub state: PackState,
    /// Length of the file; 0 while open.
    pub bytes: u64,
    /// Number of records; 0 while open.
    pub entries: u32,
}

record!(PackRecord: state, bytes, entries);
