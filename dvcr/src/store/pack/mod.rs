//! Byte layout of packs: bytes in, values out. No I/O here, and no state that outlives a call.
//!
//! A pack is an append-only sequence of *records*, closed by a *footer* when it is sealed:
//!
//! ```text
//! +-------------+--------+--------+-- ... --+--------+-------------+---------+
//! | pack header | record | record |         | record | entry table | trailer |
//! |    40 B     |        |        |         |        |  52 B each  |  40 B   |
//! +-------------+--------+--------+-- ... --+--------+-------------+---------+
//! ```
//!
//! All integers are little-endian. Records follow one another without padding. Every checksum is CRC-32C (RFC 3720,
//! appendix B.4).
//!
//! **Pack header** ([`PackHeader`])
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | magic `DVCRPACK` |
//! | 8 | 4 | format version, 1 |
//! | 12 | 4 | zero |
//! | 16 | 8 | pack id |
//! | 24 | 8 | nonce: random, repeated in the trailer |
//! | 32 | 4 | zero |
//! | 36 | 4 | CRC of bytes 0..36 |
//!
//! **Record header** ([`RecordHeader`]), then `stored_len` bytes of payload
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 4 | magic `DVCr` |
//! | 4 | 1 | kind: 1 chunk, 2 recipe part, 3 blob head |
//! | 5 | 1 | codec: 0 raw, 1 one zstd frame |
//! | 6 | 2 | flags, zero |
//! | 8 | 4 | `stored_len`: bytes of payload |
//! | 12 | 4 | `raw_len`: bytes after decoding; equals `stored_len` for codec 0 |
//! | 16 | 32 | id, see below |
//! | 48 | 4 | CRC of the payload |
//! | 52 | 4 | CRC of bytes 0..52 |
//!
//! The id of a chunk is its `ChunkId`. That of a recipe part is the recipe id (8 bytes), the number of the part (4) and
//! zeros; that of a blob head is the recipe id (8) and zeros.
//!
//! **Blob head** payload ([`BlobHead`])
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 1 | layout version, 1 |
//! | 1 | 1 | digest algorithm: 1 SHA-256, 2 SHA-512 |
//! | 2 | 2 | zero |
//! | 4 | 4 | number of recipe parts |
//! | 8 | 8 | length of the blob |
//! | 16 | 8 | recipe id |
//! | 24 | 8 | created, Unix milliseconds |
//! | 32 | 32 or 64 | digest |
//!
//! **Entry** of the footer's table ([`Entry`]), in the order of the records
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 1 | kind |
//! | 1 | 1 | codec |
//! | 2 | 2 | flags, zero |
//! | 4 | 4 | offset of the record's header in the pack |
//! | 8 | 4 | `stored_len` |
//! | 12 | 4 | `raw_len` |
//! | 16 | 32 | id |
//! | 48 | 4 | CRC of the payload |
//!
//! **Trailer** ([`Footer`]), the last bytes of a sealed pack
//!
//! | offset | bytes | field |
//! |---|---|---|
//! | 0 | 8 | pack id |
//! | 8 | 8 | nonce |
//! | 16 | 4 | number of entries |
//! | 20 | 4 | bytes of the entry table |
//! | 24 | 4 | CRC of the entry table |
//! | 28 | 4 | CRC of bytes 0..28 |
//! | 32 | 8 | magic `DVCRFOOT` |
//!
//! Why the nonce: a payload is whatever a client sent. Were the last payload of a pack that never got its footer shaped
//! like a footer, a reader that looks from the end would believe it and map chunk ids to bytes of the client's choice.
//! Nobody who cannot read the pack file can guess 64 random bits, so [`Footer::decode`] asks for the header and
//! compares.
//!
//! **Invariant:** nothing here trusts a length that it read: each is compared with a named bound before it is used.

mod blob_head;
mod builder;
mod error;
mod footer;
mod header;
mod record;
#[cfg(test)]
mod tests;
mod walk;

pub use blob_head::BlobHead;
pub use builder::PackBuilder;
pub use error::LayoutError;
pub use footer::{Entry, Footer};
pub use header::PackHeader;
pub use record::{Codec, Record, RecordHeader, RecordId, open_record, verify};
pub use walk::{RecordWalk, WalkEnd, Walked};

use dvcr_core::{chunk::ChunkId, oci::Digest};

/// A pack is sealed once it has this many bytes. 256 MiB: 4,096 packs a TiB, and repacking one takes about a second.
pub const PACK_BYTES_TARGET: u64 = 256 << 20;

/// No pack is longer. A pack that is just short of [`PACK_BYTES_TARGET`] still takes what was gathered for one append,
/// and then its footer; four times the target leaves room for any batch and keeps offsets far below 4 GiB.
pub const PACK_BYTES_MAX: u64 = 1 << 30;

/// A pack is sealed once it has this many records, so that a reader of footers needs at most 13 MiB for one table.
/// Only records below 1 KiB on average get there: at the usual 24 KiB a full pack has 11,000.
pub const PACK_ENTRIES_MAX: usize = 1 << 18;

/// The longest payload, stored or decoded. Chunks have at most 1 MiB, a recipe part of 4,096 entries about 160 KiB;
/// 64 KiB more cover what an encoder may add to bytes that do not compress (zstd: 1/256, that is 4 KiB).
pub const PAYLOAD_BYTES_MAX: usize = (1 << 20) + (64 << 10);

/// Bytes of the header at the start of a pack.
pub const PACK_HEADER_LEN: usize = 40;

/// Bytes of the header before each payload.
pub const RECORD_HEADER_LEN: usize = 56;

/// Bytes of one entry of a footer's table.
pub const ENTRY_LEN: usize = 52;

/// Bytes at the end of a sealed pack that say how long its table is.
pub const TRAILER_LEN: usize = 40;

/// The longest footer.
pub const FOOTER_BYTES_MAX: usize = PACK_ENTRIES_MAX * ENTRY_LEN + TRAILER_LEN;

/// The format version that this code writes, and the only one that it reads.
pub const PACK_FORMAT: u32 = 1;
