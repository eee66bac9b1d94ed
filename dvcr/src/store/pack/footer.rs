//! What a sealed pack says about itself at its end. Footers alone suffice to rebuild the rows of all chunks.

use super::{
    ENTRY_LEN, LayoutError, PACK_BYTES_MAX, PACK_ENTRIES_MAX, PACK_HEADER_LEN, PackHeader,
    RecordHeader, TRAILER_LEN,
    error::{Fields, Writer},
};
use crate::backend::PackId;

const MAGIC: &[u8; 8] = b"DVCRFOOT";
const WHAT: &str = "footer";

/// Where a record lies.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Offset of the record's header in the pack.
    pub offset: u32,
    /// What the header there says.
    pub header: RecordHeader,
}

impl Entry {
    /// The first offset behind the record.
    pub fn end(&self) -> u64 {
        u64::from(self.offset) + self.header.record_len() as u64
    }

    fn encode(&self) -> [u8; ENTRY_LEN] {
        let header = &self.header;
        Writer::new()
            .put(&[header.id.kind(), header.codec.as_byte(), 0, 0])
            .put(&self.offset.to_le_bytes())
            .put(&header.stored_len.to_le_bytes())
            .put(&header.raw_len.to_le_bytes())
            .put(&header.id.encode())
            .put(&header.payload_crc.to_le_bytes())
            .bytes
    }

    fn decode(bytes: &[u8; ENTRY_LEN]) -> Result<Entry, LayoutError> {
        let mut fields = Fields(bytes);
        let (kind, codec, flags) = (fields.u8(), fields.u8(), fields.u16());
        let offset = fields.u32();
        let (stored_len, raw_len) = (fields.u32(), fields.u32());
        let (id, payload_crc) = (fields.array(), fields.u32());
        let header =
            RecordHeader::from_fields(kind, codec, flags, stored_len, raw_len, id, payload_crc)?;
        Ok(Entry { offset, header })
    }
}

/// All records of a sealed pack, by ascending offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Footer {
    /// The records; they do not overlap.
    pub entries: Vec<Entry>,
    /// The first offset behind the last byte that may belong to a record: where the footer begins.
    pub start: u64,
}

impl Footer {
    /// The bytes that seal the pack with this header and these records, ascending by offset.
    ///
    /// # Panics
    /// If there are more than [`PACK_ENTRIES_MAX`] entries, which [`PackBuilder`](super::PackBuilder) prevents.
    pub fn encode(header: &PackHeader, entries: &[Entry]) -> Vec<u8> {
        assert!(
            entries.len() <= PACK_ENTRIES_MAX,
            "a pack is sealed before it has too many records"
        );
        let table_len = entries.len() * ENTRY_LEN;
        let mut bytes = Vec::with_capacity(table_len + TRAILER_LEN);
        for entry in entries {
            bytes.extend_from_slice(&entry.encode());
        }
        let table_crc = crc32c::crc32c(&bytes);
        let trailer = Writer::<TRAILER_LEN>::new()
            .put(&header.pack.0.to_le_bytes())
            .put(&header.nonce.to_le_bytes())
            // At most PACK_ENTRIES_MAX and FOOTER_BYTES_MAX.
            .put(&(entries.len() as u32).to_le_bytes())
            .put(&(table_len as u32).to_le_bytes())
            .put(&table_crc.to_le_bytes())
            .put_crc()
            .put(MAGIC);
        bytes.extend_from_slice(&trailer.bytes);
        bytes
    }

    /// Decodes the footer from the last bytes of a pack of `pack_len` bytes that begins with `header`.
    ///
    /// `tail` may be any length from [`TRAILER_LEN`] up to the whole pack; if it does not hold the whole footer,
    /// [`LayoutError::Short`] says how many bytes do. [`LayoutError::Magic`] means that the pack was never sealed, or
    /// that a client made its last payload look like a footer: walk over its records.
    pub fn decode(header: &PackHeader, pack_len: u64, tail: &[u8]) -> Result<Footer, LayoutError> {
        let Some(table_end) = tail.len().checked_sub(TRAILER_LEN) else {
            return Err(LayoutError::Short {
                what: WHAT,
                need: TRAILER_LEN,
            });
        };
        let trailer = &tail[table_end..];
        let mut fields = Fields(trailer);
        let (pack, nonce) = (PackId(fields.u64()), fields.u64());
        let (count, table_len) = (fields.u32() as usize, fields.u32() as usize);
        let (table_crc, trailer_crc) = (fields.u32(), fields.u32());
        if &fields.array::<8>() != MAGIC {
            return Err(LayoutError::Magic { what: WHAT });
        }
        if trailer_crc != crc32c::crc32c(&trailer[..TRAILER_LEN - 12]) {
            return Err(LayoutError::Checksum { what: "trailer" });
        }
        if (pack, nonce) != (header.pack, header.nonce) {
            return Err(LayoutError::Magic {
                what: "footer of this pack",
            });
        }
        if count > PACK_ENTRIES_MAX || table_len != count * ENTRY_LEN {
            return Err(LayoutError::Field {
                what: "length of an entry table is out of bounds",
            });
        }
        let start = pack_len
            .checked_sub((table_len + TRAILER_LEN) as u64)
            .filter(|start| *start >= PACK_HEADER_LEN as u64 && pack_len <= PACK_BYTES_MAX)
            .ok_or(LayoutError::Field {
                what: "a footer does not fit into its pack",
            })?;
        let Some(table_start) = table_end.checked_sub(table_len) else {
            return Err(LayoutError::Short {
                what: WHAT,
                need: table_len + TRAILER_LEN,
            });
        };
        let table = &tail[table_start..table_end];
        if table_crc != crc32c::crc32c(table) {
            return Err(LayoutError::Checksum {
                what: "entry table",
            });
        }

        let mut entries = Vec::with_capacity(count);
        let mut end = PACK_HEADER_LEN as u64;
        for bytes in table.as_chunks::<ENTRY_LEN>().0 {
            let entry = Entry::decode(bytes)?;
            if u64::from(entry.offset) < end || entry.end() > start {
                return Err(LayoutError::Field {
                    what: "records of an entry table overlap",
                });
            }
            end = entry.end();
            entries.push(entry);
        }
        Ok(Footer { entries, start })
    }
}
