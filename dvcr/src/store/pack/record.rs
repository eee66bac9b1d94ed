//! One record: a header that describes and protects the payload behind it.

use bytes::Bytes;

use super::{
    ChunkId, LayoutError, PAYLOAD_BYTES_MAX, RECORD_HEADER_LEN,
    error::{Fields, Writer},
};

const MAGIC: &[u8; 4] = b"DVCr";
const WHAT: &str = "record header";

/// What a record holds, and its name.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum RecordId {
    /// A chunk, named by the BLAKE3 of its decoded bytes.
    Chunk(ChunkId),
    /// Some consecutive entries of a recipe.
    RecipePart {
        /// The recipe.
        recipe: u64,
        /// Number of the part, from 0.
        part: u32,
    },
    /// A [`BlobHead`](super::BlobHead). It is written after all parts of its recipe.
    BlobHead {
        /// The recipe of the blob.
        recipe: u64,
    },
}

impl RecordId {
    pub(super) fn kind(&self) -> u8 {
        match self {
            RecordId::Chunk(_) => 1,
            RecordId::RecipePart { .. } => 2,
            RecordId::BlobHead { .. } => 3,
        }
    }

    pub(super) fn encode(&self) -> [u8; 32] {
        match self {
            RecordId::Chunk(id) => id.0,
            RecordId::RecipePart { recipe, part } => {
                Writer::new()
                    .put(&recipe.to_le_bytes())
                    .put(&part.to_le_bytes())
                    .bytes
            }
            RecordId::BlobHead { recipe } => Writer::new().put(&recipe.to_le_bytes()).bytes,
        }
    }

    pub(super) fn decode(kind: u8, bytes: [u8; 32]) -> Result<RecordId, LayoutError> {
        let mut fields = Fields(&bytes);
        let (id, zeros) = match kind {
            1 => return Ok(RecordId::Chunk(ChunkId(bytes))),
            2 => (
                RecordId::RecipePart {
                    recipe: fields.u64(),
                    part: fields.u32(),
                },
                fields.0,
            ),
            3 => (
                RecordId::BlobHead {
                    recipe: fields.u64(),
                },
                fields.0,
            ),
            _ => {
                return Err(LayoutError::Field {
                    what: "unknown kind of record",
                });
            }
        };
        if zeros.iter().any(|&byte| byte != 0) {
            return Err(LayoutError::Field {
                what: "unused bytes of a record id are not zero",
            });
        }
        Ok(id)
    }
}

/// How a payload was encoded.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
#[repr(u8)]
pub enum Codec {
    /// As it is.
    Raw = 0,
    /// One zstd frame.
    Zstd = 1,
}

impl Codec {
    /// The byte that stands for this codec, here and in rows.
    pub fn as_byte(self) -> u8 {
        self as u8
    }

    /// The codec that a byte stands for.
    pub fn from_byte(byte: u8) -> Option<Codec> {
        match byte {
            0 => Some(Codec::Raw),
            1 => Some(Codec::Zstd),
            _ => None,
        }
    }
}

/// Describes a payload. Its lengths are within bounds: a header is made by [`Record::new`] and the decoders only.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RecordHeader {
    pub(super) id: RecordId,
    pub(super) codec: Codec,
    pub(super) stored_len: u32,
    pub(super) raw_len: u32,
    pub(super) payload_crc: u32,
}

impl RecordHeader {
    /// The fields after the magic, as the header and the footer's entries both have them.
    pub(super) fn from_fields(
        kind: u8,
        codec: u8,
        flags: u16,
        stored_len: u32,
        raw_len: u32,
        id: [u8; 32],
        payload_crc: u32,
    ) -> Result<RecordHeader, LayoutError> {
        // A flag of a later version may change what the payload means.
        if flags != 0 {
            return Err(LayoutError::Field {
                what: "unknown flags of a record",
            });
        }
        let codec = Codec::from_byte(codec).ok_or(LayoutError::Field {
            what: "unknown codec",
        })?;
        check_lengths(codec, stored_len as usize, raw_len as usize)?;
        Ok(RecordHeader {
            id: RecordId::decode(kind, id)?,
            codec,
            stored_len,
            raw_len,
            payload_crc,
        })
    }

    /// The bytes before the payload.
    pub fn encode(&self) -> [u8; RECORD_HEADER_LEN] {
        Writer::new()
            .put(MAGIC)
            .put(&[self.id.kind(), self.codec.as_byte(), 0, 0])
            .put(&self.stored_len.to_le_bytes())
            .put(&self.raw_len.to_le_bytes())
            .put(&self.id.encode())
            .put(&self.payload_crc.to_le_bytes())
            .put_crc()
            .bytes
    }

    /// Decodes the header at the front of `bytes`; more may follow it.
    pub fn decode(bytes: &[u8]) -> Result<RecordHeader, LayoutError> {
        let Some(bytes) = bytes.get(..RECORD_HEADER_LEN) else {
            return Err(LayoutError::Short {
                what: WHAT,
                need: RECORD_HEADER_LEN,
            });
        };
        let mut fields = Fields(bytes);
        if &fields.array::<4>() != MAGIC {
            return Err(LayoutError::Magic { what: WHAT });
        }
        let (kind, codec, flags) = (fields.u8(), fields.u8(), fields.u16());
        let (stored_len, raw_len) = (fields.u32(), fields.u32());
        let (id, payload_crc) = (fields.array(), fields.u32());
        if fields.u32() != crc32c::crc32c(&bytes[..RECORD_HEADER_LEN - 4]) {
            return Err(LayoutError::Checksum { what: WHAT });
        }
        RecordHeader::from_fields(kind, codec, flags, stored_len, raw_len, id, payload_crc)
    }

    /// What the payload is.
    pub fn id(&self) -> RecordId {
        self.id
    }

    /// How the payload is encoded.
    pub fn codec(&self) -> Codec {
        self.codec
    }

    /// Bytes of the payload, 1 to [`PAYLOAD_BYTES_MAX`].
    pub fn stored_len(&self) -> usize {
        self.stored_len as usize
    }

    /// Bytes of the payload once decoded, 1 to [`PAYLOAD_BYTES_MAX`].
    pub fn raw_len(&self) -> usize {
        self.raw_len as usize
    }

    /// CRC-32C of the payload.
    pub fn payload_crc(&self) -> u32 {
        self.payload_crc
    }

    /// Bytes of header and payload.
    pub fn record_len(&self) -> usize {
        RECORD_HEADER_LEN + self.stored_len()
    }
}

fn check_lengths(codec: Codec, stored_len: usize, raw_len: usize) -> Result<(), LayoutError> {
    let bounds = 1..=PAYLOAD_BYTES_MAX;
    if !bounds.contains(&stored_len) || !bounds.contains(&raw_len) {
        return Err(LayoutError::Field {
            what: "length of a record is out of bounds",
        });
    }
    if codec == Codec::Raw && stored_len != raw_len {
        return Err(LayoutError::Field {
            what: "a raw record has two lengths",
        });
    }
    Ok(())
}

/// Tells whether `payload` is what the header was written for: its length and its checksum.
///
/// This guards against what disks and memory do by accident; that a chunk has the bytes of its id is for BLAKE3 to say.
pub fn verify(header: &RecordHeader, payload: &[u8]) -> Result<(), LayoutError> {
    if payload.len() != header.stored_len() {
        return Err(LayoutError::Short {
            what: "payload",
            need: header.stored_len(),
        });
    }
    if crc32c::crc32c(payload) != header.payload_crc {
        return Err(LayoutError::Checksum { what: "payload" });
    }
    Ok(())
}

/// Takes a whole record (header and payload, and nothing behind them) apart and verifies it.
/// The payload shares the memory of `bytes`.
pub fn open_record(bytes: &Bytes) -> Result<(RecordHeader, Bytes), LayoutError> {
    let header = RecordHeader::decode(bytes)?;
    let payload = bytes.slice(RECORD_HEADER_LEN..);
    verify(&header, &payload)?;
    Ok((header, payload))
}

/// A record to append. The payload stays where it is, in as many pieces as it came in.
#[derive(Clone, Debug)]
pub struct Record {
    header: RecordHeader,
    payload: Vec<Bytes>,
}

impl Record {
    /// A record of the pieces of `payload`, one after the other, which decode to `raw_len` bytes.
    /// Fails if a length is zero or above [`PAYLOAD_BYTES_MAX`], or if the codec is raw and the lengths differ.
    pub fn new(
        id: RecordId,
        codec: Codec,
        raw_len: usize,
        payload: Vec<Bytes>,
    ) -> Result<Record, LayoutError> {
        let stored_len = payload.iter().map(Bytes::len).sum();
        check_lengths(codec, stored_len, raw_len)?;
        let payload_crc = payload
            .iter()
            .fold(0, |crc, piece| crc32c::crc32c_append(crc, piece));
        // Both are below PAYLOAD_BYTES_MAX.
        let (stored_len, raw_len) = (stored_len as u32, raw_len as u32);
        Ok(Record {
            header: RecordHeader {
                id,
                codec,
                stored_len,
                raw_len,
                payload_crc,
            },
            payload,
        })
    }

    /// The header that goes before the payload.
    pub fn header(&self) -> &RecordHeader {
        &self.header
    }

    /// Adds the record's slices to those of an append.
    pub fn gather(self, slices: &mut Vec<Bytes>) {
        slices.push(Bytes::copy_from_slice(&self.header.encode()));
        slices.extend(self.payload);
    }
}
