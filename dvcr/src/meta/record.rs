//! Values of the metadata. Each record starts with a byte that names its schema version; `docs/format.md` has the table.

mod scrub;

pub use scrub::{FindingRecord, ScrubRecord};

use bytes::Bytes;
use dvcr_core::oci::Digest;

use super::{
    MetaError, Value,
    codec::{Decoded, Reader, Writer},
};
use crate::backend::PackId;

/// Every record's schema version as of format 1.
const VERSION: u8 = 1;

/// A value of one keyspace.
pub trait Record: Sized {
    /// The stored bytes.
    fn encode(&self) -> Value;

    /// Reads stored bytes. The error says what was expected.
    fn parse(bytes: &Bytes) -> Result<Self, &'static str>;

    /// Reads the value of `key`.
    fn decode(key: &[u8], bytes: &Bytes) -> Result<Self, MetaError> {
        Self::parse(bytes).map_err(|what| MetaError::Corrupt {
            key: hex::encode(key),
            what,
        })
    }
}

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

impl Record for BlobRecord {
    fn encode(&self) -> Value {
        let (id, parts) = match self.body {
            BlobBody::Inline => (0, 0),
            BlobBody::Recipe { id, parts } => (id, parts),
        };
        Writer::new(VERSION)
            .u64(self.len)
            .u64(id)
            .u32(parts)
            .u64(self.stored_len)
            .u64(self.created_ms)
            .finish()
    }

    fn parse(bytes: &Bytes) -> Decoded<Self> {
        let mut r = Reader::new(bytes, VERSION)?;
        let (len, id, parts) = (r.u64()?, r.u64()?, r.u32()?);
        let body = if id == 0 {
            BlobBody::Inline
        } else {
            BlobBody::Recipe { id, parts }
        };
        let record = Self {
            len,
            body,
            stored_len: r.u64()?,
            created_ms: r.u64()?,
        };
        r.end()?;
        Ok(record)
    }
}

/// A repository holds a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct HoldRecord {
    /// When it was linked, milliseconds since 1970.
    pub linked_ms: u64,
    /// Until when it stays though no manifest refers to it, milliseconds since 1970.
    pub lease_ms: u64,
}

impl Record for HoldRecord {
    fn encode(&self) -> Value {
        Writer::new(VERSION)
            .u64(self.linked_ms)
            .u64(self.lease_ms)
            .finish()
    }

    fn parse(bytes: &Bytes) -> Decoded<Self> {
        let mut r = Reader::new(bytes, VERSION)?;
        let record = Self {
            linked_ms: r.u64()?,
            lease_ms: r.u64()?,
        };
        r.end()?;
        Ok(record)
    }
}

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

impl Record for ChunkRecord {
    fn encode(&self) -> Value {
        Writer::new(VERSION)
            .u64(self.pack.0)
            .u32(self.offset)
            .u32(self.stored_len)
            .finish()
    }

    fn parse(bytes: &Bytes) -> Decoded<Self> {
        let mut r = Reader::new(bytes, VERSION)?;
        let record = Self {
            pack: PackId(r.u64()?),
            offset: r.u32()?,
            stored_len: r.u32()?,
        };
        r.end()?;
        Ok(record)
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

impl Record for PackRecord {
    fn encode(&self) -> Value {
        let state = match self.state {
            PackState::Open => 0,
            PackState::Sealed => 1,
            PackState::Condemned => 2,
        };
        Writer::new(VERSION)
            .u8(state)
            .u64(self.bytes)
            .u32(self.entries)
            .finish()
    }

    fn parse(bytes: &Bytes) -> Decoded<Self> {
        let mut r = Reader::new(bytes, VERSION)?;
        let state = match r.u8()? {
            0 => PackState::Open,
            1 => PackState::Sealed,
            2 => PackState::Condemned,
            _ => return Err("a pack state"),
        };
        let record = Self {
            state,
            bytes: r.u64()?,
            entries: r.u32()?,
        };
        r.end()?;
        Ok(record)
    }
}

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

impl Record for ManifestRecord {
    fn encode(&self) -> Value {
        Writer::new(VERSION)
            .bytes(self.media_type.as_bytes())
            .digest_option(self.subject.as_ref())
            .u64(self.created_ms)
            .tail(&self.bytes)
            .finish()
    }

    fn parse(bytes: &Bytes) -> Decoded<Self> {
        let mut r = Reader::new(bytes, VERSION)?;
        Ok(Self {
            media_type: r.str()?.to_owned(),
            subject: r.digest_option()?,
            created_ms: r.u64()?,
            bytes: bytes.slice_ref(r.tail()),
        })
    }
}

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

impl Record for TagRecord {
    fn encode(&self) -> Value {
        Writer::new(VERSION)
            .digest(&self.digest)
            .u64(self.created_ms)
            .u64(self.pushed_ms)
            .finish()
    }

    fn parse(bytes: &Bytes) -> Decoded<Self> {
        let mut r = Reader::new(bytes, VERSION)?;
        let record = Self {
            digest: r.digest()?,
            created_ms: r.u64()?,
            pushed_ms: r.u64()?,
        };
        r.end()?;
        Ok(record)
    }
}

/// A manifest that perhaps nothing needs any more: it was pushed without a tag, lost one, or lost what listed it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct UntaggedRecord {
    /// Since when, or when somebody last asked for it by its digest; milliseconds since 1970.
    pub since_ms: u64,
    /// Whether it is to go once the lease is over, whatever the retention rules say of untagged manifests: its last tag, or
    /// what listed it, was removed with everything that hangs on it.
    pub let_go: bool,
}

impl Record for UntaggedRecord {
    fn encode(&self) -> Value {
        Writer::new(VERSION)
            .u64(self.since_ms)
            .u8(u8::from(self.let_go))
            .finish()
    }

    fn parse(bytes: &Bytes) -> Decoded<Self> {
        let mut r = Reader::new(bytes, VERSION)?;
        let record = Self {
            since_ms: r.u64()?,
            let_go: match r.u8()? {
                0 => false,
                1 => true,
                _ => return Err("0 or 1"),
            },
        };
        r.end()?;
        Ok(record)
    }
}

/// A repository.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RepositoryRecord {
    /// When something was first pushed to it, milliseconds since 1970.
    pub created_ms: u64,
}

impl Record for RepositoryRecord {
    fn encode(&self) -> Value {
        Writer::new(VERSION).u64(self.created_ms).finish()
    }

    fn parse(bytes: &Bytes) -> Decoded<Self> {
        let mut r = Reader::new(bytes, VERSION)?;
        let record = Self {
            created_ms: r.u64()?,
        };
        r.end()?;
        Ok(record)
    }
}

/// An upload session that has reached a checkpoint.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UploadRecord {
    /// The repository that it belongs to.
    pub repository: String,
    /// The principal that it belongs to.
    pub principal: String,
    /// When it is given up, milliseconds since 1970.
    pub expires_ms: u64,
    /// How far the ingest has come: [`crate::store::IngestState`], encoded.
    pub ingest: Bytes,
}

impl Record for UploadRecord {
    fn encode(&self) -> Value {
        Writer::new(VERSION)
            .bytes(self.repository.as_bytes())
            .bytes(self.principal.as_bytes())
            .u64(self.expires_ms)
            .tail(&self.ingest)
            .finish()
    }

    fn parse(bytes: &Bytes) -> Decoded<Self> {
        let mut r = Reader::new(bytes, VERSION)?;
        Ok(Self {
            repository: r.str()?.to_owned(),
            principal: r.str()?.to_owned(),
            expires_ms: r.u64()?,
            ingest: bytes.slice_ref(r.tail()),
        })
    }
}

/// What was stored at some time.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsageRecord {
    /// Number of blobs.
    pub blobs: u64,
    /// Bytes of all blobs, as clients see them.
    pub logical_bytes: u64,
    /// Bytes of all packs.
    pub stored_bytes: u64,
    /// Number of chunk rows, estimated where there are many.
    pub chunks: u64,
}

impl Record for UsageRecord {
    fn encode(&self) -> Value {
        Writer::new(VERSION)
            .u64(self.blobs)
            .u64(self.logical_bytes)
            .u64(self.stored_bytes)
            .u64(self.chunks)
            .finish()
    }

    fn parse(bytes: &Bytes) -> Decoded<Self> {
        let mut r = Reader::new(bytes, VERSION)?;
        let record = Self {
            blobs: r.u64()?,
            logical_bytes: r.u64()?,
            stored_bytes: r.u64()?,
            chunks: r.u64()?,
        };
        r.end()?;
        Ok(record)
    }
}

/// A collection of garbage that is over.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GcRunRecord {
    /// Whether somebody asked for it.
    pub requested: bool,
    /// Whether a full device began it.
    pub full: bool,
    /// Whether it might remove more at once than is allowed.
    pub force: bool,
    /// Whether packs were not emptied because that would have removed more at once than is allowed.
    pub refused: bool,
    /// The grace that was asked for, milliseconds.
    pub grace_ms: Option<u64>,
    /// When it began, milliseconds since 1970.
    pub started_ms: u64,
    /// When it ended, milliseconds since 1970.
    pub finished_ms: u64,
    /// Reviews that were due.
    pub reviews: u64,
    /// Blobs that a repository lost.
    pub unlinked: u64,
    /// Blobs that are gone.
    pub removed: u64,
    /// Length of those, bytes.
    pub removed_bytes: u64,
    /// Packs chosen to be emptied.
    pub chosen_packs: u64,
    /// Packs emptied and removed.
    pub packs: u64,
    /// Bytes given back, less what was copied.
    pub freed_bytes: u64,
    /// Bytes copied.
    pub moved_bytes: u64,
    /// Packs that stay because of damage.
    pub damaged: u64,
    /// Why it failed; empty if it did not.
    pub error: String,
}

/// Flags of a collection.
const GC_REQUESTED: u8 = 1;
const GC_FORCE: u8 = 2;
const GC_REFUSED: u8 = 4;
const GC_GRACE: u8 = 8;
const GC_FULL: u8 = 16;

impl Record for GcRunRecord {
    fn encode(&self) -> Value {
        let flags = [
            (GC_REQUESTED, self.requested),
            (GC_FORCE, self.force),
            (GC_REFUSED, self.refused),
            (GC_GRACE, self.grace_ms.is_some()),
            (GC_FULL, self.full),
        ];
        let set = flags.iter().filter(|(_, set)| *set).map(|(bit, _)| bit);
        Writer::new(VERSION)
            .u8(set.sum())
            .u64(self.grace_ms.unwrap_or(0))
            .u64(self.started_ms)
            .u64(self.finished_ms)
            .u64(self.reviews)
            .u64(self.unlinked)
            .u64(self.removed)
            .u64(self.removed_bytes)
            .u64(self.chosen_packs)
            .u64(self.packs)
            .u64(self.freed_bytes)
            .u64(self.moved_bytes)
            .u64(self.damaged)
            .tail(self.error.as_bytes())
            .finish()
    }

    fn parse(bytes: &Bytes) -> Decoded<Self> {
        let mut r = Reader::new(bytes, VERSION)?;
        let flags = r.u8()?;
        let has = |bit| flags & bit != 0;
        let grace_ms = r.u64()?;
        Ok(Self {
            requested: has(GC_REQUESTED),
            full: has(GC_FULL),
            force: has(GC_FORCE),
            refused: has(GC_REFUSED),
            grace_ms: has(GC_GRACE).then_some(grace_ms),
            started_ms: r.u64()?,
            finished_ms: r.u64()?,
            reviews: r.u64()?,
            unlinked: r.u64()?,
            removed: r.u64()?,
            removed_bytes: r.u64()?,
            chosen_packs: r.u64()?,
            packs: r.u64()?,
            freed_bytes: r.u64()?,
            moved_bytes: r.u64()?,
            damaged: r.u64()?,
            error: String::from_utf8_lossy(r.tail()).into_owned(),
        })
    }
}

/// A number: of a counter, or of the first byte of each part of a recipe.
pub fn encode_numbers(numbers: &[u64]) -> Value {
    let mut w = Writer::new(VERSION);
    for number in numbers {
        w = w.u64(*number);
    }
    w.finish()
}

/// Reads what [`encode_numbers`] wrote.
pub fn decode_numbers(key: &[u8], bytes: &Bytes) -> Result<Vec<u64>, MetaError> {
    let parse = || -> Decoded<Vec<u64>> {
        let tail = Reader::new(bytes, VERSION)?.tail();
        if tail.len() % 8 != 0 {
            return Err("whole numbers");
        }
        Ok(tail
            .chunks_exact(8)
            .map(|n| u64::from_le_bytes(n.try_into().expect("chunks of eight")))
            .collect())
    };
    parse().map_err(|what| MetaError::Corrupt {
        key: hex::encode(key),
        what,
    })
}

/// A row that says all by being there.
#[must_use]
pub fn mark() -> Value {
    Bytes::from_static(&[VERSION])
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<R: Record + PartialEq + std::fmt::Debug>(record: R) {
        let bytes = record.encode();
        assert_eq!(R::parse(&bytes).unwrap(), record);
        for len in 0..bytes.len() {
            // A cut record is an error or, where the last field is free bytes, a shorter one; never a panic.
            let _ = R::parse(&bytes.slice(..len));
        }
        let mut newer = bytes.to_vec();
        newer[0] = 99;
        assert!(
            R::parse(&newer.into()).is_err(),
            "a newer schema is refused"
        );
    }

    #[test]
    fn records_read_back_as_they_were_written() {
        let digest = Digest::sha256(b"x");
        check(BlobRecord {
            len: 5,
            body: BlobBody::Inline,
            stored_len: 5,
            created_ms: 7,
        });
        check(BlobRecord {
            len: 5,
            body: BlobBody::Recipe { id: 9, parts: 2 },
            stored_len: 5,
            created_ms: 7,
        });
        check(HoldRecord {
            linked_ms: 1,
            lease_ms: 2,
        });
        check(ChunkRecord {
            pack: PackId(3),
            offset: 4,
            stored_len: 5,
        });
        for state in [PackState::Open, PackState::Sealed, PackState::Condemned] {
            check(PackRecord {
                state,
                bytes: 6,
                entries: 7,
            });
        }
        for subject in [None, Some(digest)] {
            check(ManifestRecord {
                media_type: "a/b".into(),
                subject,
                created_ms: 8,
                bytes: Bytes::from_static(b"{}"),
            });
        }
        check(TagRecord {
            digest,
            created_ms: 1,
            pushed_ms: 2,
        });
        for let_go in [false, true] {
            check(UntaggedRecord {
                since_ms: 1,
                let_go,
            });
        }
        check(RepositoryRecord { created_ms: 1 });
        check(UploadRecord {
            repository: "a".into(),
            principal: "p".into(),
            expires_ms: 3,
            ingest: Bytes::from_static(b"i"),
        });
        check(UsageRecord {
            blobs: 1,
            logical_bytes: 2,
            stored_bytes: 3,
            chunks: 4,
        });
        for (requested, grace_ms) in [(true, None), (false, Some(0)), (false, Some(7))] {
            check(GcRunRecord {
                requested,
                full: !requested,
                force: !requested,
                refused: requested,
                grace_ms,
                started_ms: 1,
                finished_ms: 2,
                reviews: 3,
                unlinked: 4,
                removed: 5,
                removed_bytes: 6,
                chosen_packs: 7,
                packs: 8,
                freed_bytes: 9,
                moved_bytes: 10,
                damaged: 11,
                error: "full".to_owned(),
            });
        }
        let numbers = vec![1, u64::MAX];
        assert_eq!(
            decode_numbers(b"", &encode_numbers(&numbers)).unwrap(),
            numbers
        );
    }
}
