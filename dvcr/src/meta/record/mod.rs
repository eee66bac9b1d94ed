//! Values of the metadata. Each record starts with a byte that names its schema version; `docs/format.md` has the table.

mod blob;
mod gc;
mod manifest;
mod pack;
mod repository;
mod scrub;
#[cfg(test)]
mod tests;
mod upload;
mod usage;

use bytes::Bytes;

pub use self::{
    blob::{BlobBody, BlobRecord, HoldRecord},
    gc::GcRunRecord,
    manifest::{ManifestRecord, TagRecord, UntaggedRecord},
    pack::{ChunkRecord, PackRecord, PackState},
    repository::RepositoryRecord,
    scrub::{FindingRecord, ScrubRecord},
    upload::UploadRecord,
    usage::UsageRecord,
};
use super::{
    MetaError, Value,
    codec::{Decoded, Reader, Writer},
};

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

/// A record whose value is its fields, in this order. The one behind `rest` goes up to the end of the value.
macro_rules! record {
    ($record:ident: $($field:ident),+ $(; rest $rest:ident)?) => {
        impl crate::meta::record::Record for $record {
            fn encode(&self) -> crate::meta::Value {
                use crate::meta::codec::{Field as _, Writer};
                let w = Writer::new(crate::meta::record::VERSION);
                $(let w = self.$field.put(w);)+
                $(let w = w.tail(&self.$rest);)?
                w.finish()
            }

            fn parse(bytes: &bytes::Bytes) -> crate::meta::codec::Decoded<Self> {
                use crate::meta::codec::{Field, Reader};
                let mut r = Reader::new(bytes, crate::meta::record::VERSION)?;
                $(let $field = Field::take(&mut r)?;)+
                $(let $rest = bytes.slice_ref(r.tail());)?
                r.end()?;
                Ok(Self { $($field,)+ $($rest)? })
            }
        }
    };
}
use record;

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
