//! What a scrub found, and how far it is.

use bytes::Bytes;
use dvcr_core::oci::Digest;

use super::{ChunkRecord, Record, VERSION};
use crate::{
    backend::PackId,
    meta::{
        Value,
        codec::{Decoded, Reader, Writer},
    },
};

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

impl Record for FindingRecord {
    fn encode(&self) -> Value {
        let w = Writer::new(VERSION).u64(self.found_ms);
        let w = match &self.at {
            None => w.u8(0),
            Some(at) => w.u8(1).u64(at.pack.0).u32(at.offset).u32(at.stored_len),
        };
        w.bytes(self.what.as_bytes()).finish()
    }

    fn parse(bytes: &Bytes) -> Decoded<Self> {
        let mut r = Reader::new(bytes, VERSION)?;
        let found_ms = r.u64()?;
        let at = match r.u8()? {
            0 => None,
            1 => Some(ChunkRecord {
                pack: PackId(r.u64()?),
                offset: r.u32()?,
                stored_len: r.u32()?,
            }),
            _ => return Err("a presence byte"),
        };
        let what = r.str()?.to_owned();
        r.end()?;
        Ok(Self { found_ms, at, what })
    }
}

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

impl Record for ScrubRecord {
    fn encode(&self) -> Value {
        Writer::new(VERSION)
            .u64(self.last_pack)
            .u64(self.pass_began_ms)
            .u64(self.pass_bytes)
            .u64(self.full_pass_ms)
            .u64(self.bytes)
            .u64(self.sample_bytes)
            .digest_option(self.sampled.as_ref())
            .finish()
    }

    fn parse(bytes: &Bytes) -> Decoded<Self> {
        let mut r = Reader::new(bytes, VERSION)?;
        let record = Self {
            last_pack: r.u64()?,
            pass_began_ms: r.u64()?,
            pass_bytes: r.u64()?,
            full_pass_ms: r.u64()?,
            bytes: r.u64()?,
            sample_bytes: r.u64()?,
            sampled: r.digest_option()?,
        };
        r.end()?;
        Ok(record)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn check<R: Record + PartialEq + std::fmt::Debug>(record: R) {
        let bytes = record.encode();
        assert_eq!(R::parse(&bytes).unwrap(), record);
        for len in 0..bytes.len() {
            assert!(R::parse(&bytes.slice(..len)).is_err(), "cut to {len}");
        }
    }

    #[test]
    fn records_read_back_as_they_were_written() {
        let at = Some(ChunkRecord {
            pack: PackId(3),
            offset: 4,
            stored_len: 5,
        });
        for at in [None, at] {
            check(FindingRecord {
                found_ms: 9,
                at,
                what: "checksum".into(),
            });
        }
        for sampled in [None, Some(Digest::sha256(b""))] {
            check(ScrubRecord {
                last_pack: 1,
                pass_began_ms: 2,
                pass_bytes: 3,
                full_pass_ms: 4,
                bytes: 5,
                sample_bytes: 6,
                sampled,
            });
        }
    }
}
