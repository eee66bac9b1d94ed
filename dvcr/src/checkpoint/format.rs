//! Byte layout of a checkpoint: rows in, bytes out, and back. `docs/format.md` has the tables.
//!
//! ```text
//! +--------+-------+-------+-- ... --+-------+---------+
//! | header | block | block |         | block | trailer |
//! |  40 B  |       |       |         |       |  60 B   |
//! +--------+-------+-------+-- ... --+-------+---------+
//! ```
//!
//! A block is a header of 28 bytes and rows, raw or one zstd frame. The trailer counts blocks and rows and has the SHA-256
//! of everything before it: a file without a whole trailer is no checkpoint, so nothing of one that was cut is believed.
//!
//! **Invariant:** nothing here trusts a length that it read, and both directions hold one block in memory.

use std::io::{self, Read, Write};

use bytes::Bytes;
use sha2::{Digest as _, Sha256};

use crate::meta::{Key, Value};

const MAGIC: &[u8; 8] = b"DVCRCKPT";
const BLOCK_MAGIC: &[u8; 4] = b"DVCb";
const TRAILER_MAGIC: &[u8; 8] = b"DVCRCEND";

/// The version that this code writes, and the only one that it reads.
pub const CHECKPOINT_FORMAT: u32 = 1;

const HEADER_LEN: usize = 40;
const BLOCK_HEADER_LEN: usize = 28;
const TRAILER_LEN: usize = 60;

/// A block is written once it has so many bytes: enough for zstd to find what rows share.
const BLOCK_BYTES: usize = 1 << 20;

/// The longest block, decoded or stored. The longest row is a manifest of 8 MiB; what is longer is damage.
const BLOCK_BYTES_MAX: usize = 16 << 20;

/// What zstd may add to bytes that do not compress, so that such a block is refused by nobody.
const STORED_BYTES_MAX: usize = BLOCK_BYTES_MAX + (BLOCK_BYTES_MAX >> 7);

/// Fast, and what rows repeat (repository names, digests) is found all the same.
const ZSTD_LEVEL: i32 = 1;

const RAW: u8 = 0;
const ZSTD: u8 = 1;

/// Why bytes are no checkpoint.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// The file cannot be read.
    #[error("read checkpoint")]
    Io(#[from] io::Error),
    /// A later version of this program wrote it.
    #[error("checkpoint of format {0}, which this program does not know")]
    Version(u32),
    /// It is cut short or damaged.
    #[error("no whole checkpoint: {0}")]
    Damaged(&'static str),
}

/// What a checkpoint says of itself.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointHeader {
    /// Grows with each checkpoint of a data directory.
    pub number: u64,
    /// As of when its rows are, milliseconds since 1970.
    pub created_ms: u64,
}

impl CheckpointHeader {
    fn encode(&self) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(HEADER_LEN);
        bytes.extend_from_slice(MAGIC);
        bytes.extend_from_slice(&CHECKPOINT_FORMAT.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        bytes.extend_from_slice(&self.number.to_le_bytes());
        bytes.extend_from_slice(&self.created_ms.to_le_bytes());
        bytes.extend_from_slice(&[0; 4]);
        put_crc(&mut bytes);
        bytes
    }

    fn decode(bytes: &[u8; HEADER_LEN]) -> Result<Self, CheckpointError> {
        if &bytes[..8] != MAGIC {
            return Err(CheckpointError::Damaged("another magic number"));
        }
        // Before the checksum: a later format may have it elsewhere.
        let version = u32_at(bytes, 8);
        if version != CHECKPOINT_FORMAT {
            return Err(CheckpointError::Version(version));
        }
        check_crc(bytes)?;
        if u32_at(bytes, 12) != 0 || u32_at(bytes, 32) != 0 {
            return Err(CheckpointError::Damaged("reserved bytes are not zero"));
        }
        Ok(Self {
            number: u64_at(bytes, 16),
            created_ms: u64_at(bytes, 24),
        })
    }
}

/// What was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CheckpointSums {
    /// Rows.
    pub rows: u64,
    /// Bytes of the file.
    pub bytes: u64,
}

/// Writes a checkpoint, row by row. Blocks.
pub struct CheckpointWriter<W> {
    out: W,
    hash: Sha256,
    bytes: u64,
    blocks: u64,
    rows: u64,
    block: Vec<u8>,
    block_rows: u32,
    last_key: Vec<u8>,
}

impl<W: Write> CheckpointWriter<W> {
    /// Begins with the header.
    pub fn new(out: W, header: &CheckpointHeader) -> io::Result<Self> {
        let mut writer = Self {
            out,
            hash: Sha256::new(),
            bytes: 0,
            blocks: 0,
            rows: 0,
            block: Vec::new(),
            block_rows: 0,
            last_key: Vec::new(),
        };
        writer.put(&header.encode())?;
        Ok(writer)
    }

    /// Adds a row. Keys ascend. `InvalidInput` if they do not, or if the row is longer than any of ours.
    pub fn row(&mut self, key: &[u8], value: &[u8]) -> io::Result<()> {
        let invalid = |what| io::Error::new(io::ErrorKind::InvalidInput, what);
        let key_len = u16::try_from(key.len()).map_err(|_| invalid("a key of 64 KiB"))?;
        let row_len = 6 + key.len() + value.len();
        if row_len > BLOCK_BYTES_MAX {
            return Err(invalid("a row of more than 16 MiB"));
        }
        if key <= self.last_key.as_slice() {
            return Err(invalid("keys that do not ascend"));
        }
        if !self.block.is_empty() && self.block.len() + row_len > BLOCK_BYTES {
            self.end_block()?;
        }
        self.block.extend_from_slice(&key_len.to_le_bytes());
        // Below BLOCK_BYTES_MAX.
        self.block
            .extend_from_slice(&(value.len() as u32).to_le_bytes());
        self.block.extend_from_slice(key);
        self.block.extend_from_slice(value);
        self.block_rows += 1;
        self.last_key.clear();
        self.last_key.extend_from_slice(key);
        Ok(())
    }

    /// Bytes written so far.
    #[must_use]
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// Ends with the trailer; the caller makes it durable.
    pub fn finish(mut self) -> io::Result<(W, CheckpointSums)> {
        if !self.block.is_empty() {
            self.end_block()?;
        }
        let mut trailer = Vec::with_capacity(TRAILER_LEN);
        trailer.extend_from_slice(TRAILER_MAGIC);
        trailer.extend_from_slice(&self.blocks.to_le_bytes());
        trailer.extend_from_slice(&self.rows.to_le_bytes());
        trailer.extend_from_slice(&self.hash.clone().finalize());
        put_crc(&mut trailer);
        self.put(&trailer)?;
        self.out.flush()?;
        let sums = CheckpointSums {
            rows: self.rows,
            bytes: self.bytes,
        };
        Ok((self.out, sums))
    }

    fn end_block(&mut self) -> io::Result<()> {
        let raw = std::mem::take(&mut self.block);
        let packed = zstd::bulk::compress(&raw, ZSTD_LEVEL)?;
        let (codec, stored) = if packed.len() < raw.len() {
            (ZSTD, &packed)
        } else {
            (RAW, &raw)
        };
        let mut header = Vec::with_capacity(BLOCK_HEADER_LEN);
        header.extend_from_slice(BLOCK_MAGIC);
        header.extend_from_slice(&[codec, 0, 0, 0]);
        // Both at most BLOCK_BYTES_MAX.
        header.extend_from_slice(&(stored.len() as u32).to_le_bytes());
        header.extend_from_slice(&(raw.len() as u32).to_le_bytes());
        header.extend_from_slice(&self.block_rows.to_le_bytes());
        header.extend_from_slice(&crc32c::crc32c(stored).to_le_bytes());
        put_crc(&mut header);
        self.put(&header)?;
        self.put(stored)?;
        self.blocks += 1;
        self.rows += u64::from(self.block_rows);
        self.block_rows = 0;
        self.block = raw;
        self.block.clear();
        Ok(())
    }

    fn put(&mut self, bytes: &[u8]) -> io::Result<()> {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        self.out.write_all(bytes)
    }
}

/// Reads a checkpoint, row by row. Rows may be believed once [`rows`](Self::next_row) has come to its end, not before.
pub struct CheckpointReader<R> {
    input: R,
    header: CheckpointHeader,
    hash: Sha256,
    blocks: u64,
    rows: u64,
    /// The rest of the current block, and its rows.
    block: Bytes,
    block_rows: u32,
    last_key: Key,
    ended: bool,
}

impl<R: Read> CheckpointReader<R> {
    /// Reads the header.
    pub fn new(mut input: R) -> Result<Self, CheckpointError> {
        let mut bytes = [0; HEADER_LEN];
        read_exact(&mut input, &mut bytes)?;
        let header = CheckpointHeader::decode(&bytes)?;
        let mut hash = Sha256::new();
        hash.update(bytes);
        Ok(Self {
            input,
            header,
            hash,
            blocks: 0,
            rows: 0,
            block: Bytes::new(),
            block_rows: 0,
            last_key: Key::new(),
            ended: false,
        })
    }

    /// What the checkpoint says of itself.
    #[must_use]
    pub fn header(&self) -> &CheckpointHeader {
        &self.header
    }

    /// The next row; nothing after the last, when the trailer has been found right and the file ends.
    pub fn next_row(&mut self) -> Result<Option<(Key, Value)>, CheckpointError> {
        while self.block.is_empty() {
            if self.block_rows != 0 {
                return Err(CheckpointError::Damaged("a block with other rows"));
            }
            if self.ended || !self.next_block()? {
                self.ended = true;
                return Ok(None);
            }
        }
        let short = || CheckpointError::Damaged("a block that ends within a row");
        let block = &mut self.block;
        let lens = (block.len() >= 6).then(|| block.split_to(6));
        let lens = lens.ok_or_else(short)?;
        let key_len = usize::from(u16::from_le_bytes([lens[0], lens[1]]));
        let value_len = u32_at(&lens, 2) as usize;
        if block.len() < key_len || block.len() - key_len < value_len || self.block_rows == 0 {
            return Err(short());
        }
        let key = block.split_to(key_len).to_vec();
        let value = block.split_to(value_len);
        if key <= self.last_key {
            return Err(CheckpointError::Damaged("keys that do not ascend"));
        }
        self.block_rows -= 1;
        self.last_key.clone_from(&key);
        Ok(Some((key, value)))
    }

    /// Reads all of it, and returns the number of its rows.
    pub fn verify(mut self) -> Result<u64, CheckpointError> {
        while self.next_row()?.is_some() {}
        Ok(self.rows)
    }

    /// Reads a block; false if it was the trailer instead.
    fn next_block(&mut self) -> Result<bool, CheckpointError> {
        let mut header = [0; BLOCK_HEADER_LEN];
        read_exact(&mut self.input, &mut header)?;
        if header.starts_with(TRAILER_MAGIC) {
            self.check_trailer(&header)?;
            return Ok(false);
        }
        if &header[..4] != BLOCK_MAGIC {
            return Err(CheckpointError::Damaged("no block where one should begin"));
        }
        check_crc(&header)?;
        let (codec, stored_len, raw_len) = (
            header[4],
            u32_at(&header, 8) as usize,
            u32_at(&header, 12) as usize,
        );
        let lens_fit = (1..=STORED_BYTES_MAX).contains(&stored_len)
            && (1..=BLOCK_BYTES_MAX).contains(&raw_len)
            && (codec != RAW || stored_len == raw_len);
        if !lens_fit || header[5..8] != [0; 3] {
            return Err(CheckpointError::Damaged("a block of impossible length"));
        }
        // The length is not believed before the bytes are there.
        let mut stored = Vec::new();
        (&mut self.input)
            .take(stored_len as u64)
            .read_to_end(&mut stored)?;
        if stored.len() != stored_len || crc32c::crc32c(&stored) != u32_at(&header, 20) {
            return Err(CheckpointError::Damaged("checksum of a block"));
        }
        self.hash.update(header);
        self.hash.update(&stored);
        self.block = match codec {
            RAW => stored.into(),
            ZSTD => {
                let raw = zstd::bulk::decompress(&stored, raw_len)
                    .map_err(|_| CheckpointError::Damaged("a block that does not decode"))?;
                if raw.len() != raw_len {
                    return Err(CheckpointError::Damaged("a block of another length"));
                }
                raw.into()
            }
            _ => return Err(CheckpointError::Damaged("unknown codec")),
        };
        self.block_rows = u32_at(&header, 16);
        self.blocks += 1;
        self.rows += u64::from(self.block_rows);
        Ok(true)
    }

    fn check_trailer(&mut self, begin: &[u8; BLOCK_HEADER_LEN]) -> Result<(), CheckpointError> {
        let mut trailer = [0; TRAILER_LEN];
        trailer[..BLOCK_HEADER_LEN].copy_from_slice(begin);
        read_exact(&mut self.input, &mut trailer[BLOCK_HEADER_LEN..])?;
        check_crc(&trailer)?;
        let hash = self.hash.clone().finalize();
        if u64_at(&trailer, 8) != self.blocks
            || u64_at(&trailer, 16) != self.rows
            || trailer[24..56] != hash[..]
        {
            return Err(CheckpointError::Damaged("its blocks are not the trailer's"));
        }
        if self.input.read(&mut [0])? != 0 {
            return Err(CheckpointError::Damaged("bytes behind the trailer"));
        }
        Ok(())
    }
}

fn read_exact(input: &mut impl Read, bytes: &mut [u8]) -> Result<(), CheckpointError> {
    input.read_exact(bytes).map_err(|error| {
        if error.kind() == io::ErrorKind::UnexpectedEof {
            CheckpointError::Damaged("it is cut short")
        } else {
            error.into()
        }
    })
}

fn put_crc(bytes: &mut Vec<u8>) {
    let crc = crc32c::crc32c(bytes);
    bytes.extend_from_slice(&crc.to_le_bytes());
}

/// The last four bytes are the CRC of those before.
fn check_crc(bytes: &[u8]) -> Result<(), CheckpointError> {
    let end = bytes.len() - 4;
    if u32_at(bytes, end) == crc32c::crc32c(&bytes[..end]) {
        Ok(())
    } else {
        Err(CheckpointError::Damaged("checksum of a header"))
    }
}

/// Callers know that the field lies within the bytes.
fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().expect("four bytes"))
}

fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from_le_bytes(bytes[at..at + 8].try_into().expect("eight bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEADER: CheckpointHeader = CheckpointHeader {
        number: 3,
        created_ms: 0x0102_0304,
    };

    fn written(rows: &[(Vec<u8>, Vec<u8>)]) -> Vec<u8> {
        let mut writer = CheckpointWriter::new(Vec::new(), &HEADER).unwrap();
        for (key, value) in rows {
            writer.row(key, value).unwrap();
        }
        let (bytes, sums) = writer.finish().unwrap();
        assert_eq!(sums.bytes, bytes.len() as u64);
        assert_eq!(sums.rows, rows.len() as u64);
        bytes
    }

    type Rows = Vec<(Vec<u8>, Vec<u8>)>;

    fn read(bytes: &[u8]) -> Result<Rows, CheckpointError> {
        let mut reader = CheckpointReader::new(bytes)?;
        let mut rows = Vec::new();
        while let Some((key, value)) = reader.next_row()? {
            rows.push((key, value.to_vec()));
        }
        Ok(rows)
    }

    #[test]
    fn golden_checkpoint() {
        let bytes = written(&[(vec![1, 2], vec![9]), (vec![1, 3], vec![])]);
        assert_eq!(
            hex::encode(bytes),
            concat!(
                "44564352434b505401000000000000000300000000000000040302010000000000000000dc004286",
                "44564362000000001100000011000000020000003e255cd8991e1f87",
                "0200010000000102090200000000000103",
                "4456435243454e4401000000000000000200000000000000",
                "26c23332a1f93142094fcc2a74ec9e5f96e200f07606d751eb1db63aa45737a9",
                "cdadec6c",
            )
        );
    }

    #[test]
    fn rows_read_back_as_they_were_written() {
        assert_eq!(read(&written(&[])).unwrap(), []);
        // Several blocks, one of them a row longer than a block usually is.
        let mut rows: Vec<_> = (0..40_000u32)
            .map(|n| (n.to_be_bytes().to_vec(), vec![n as u8; 60]))
            .collect();
        rows.push((vec![1], vec![7; 3 << 20]));
        let bytes = written(&rows);
        assert!(bytes.len() < 1 << 20, "what repeats is compressed");
        assert!(read(&bytes).unwrap() == rows);
    }

    #[test]
    fn what_is_cut_or_bent_is_no_checkpoint() {
        let rows: Vec<_> = (0..9u8).map(|n| (vec![n + 1], vec![n; 9])).collect();
        let bytes = written(&rows);
        for len in 0..bytes.len() {
            assert!(read(&bytes[..len]).is_err(), "cut to {len}");
        }
        for at in 0..bytes.len() {
            let mut bent = bytes.clone();
            bent[at] ^= 4;
            assert!(read(&bent).is_err(), "byte {at} changed");
        }
        let longer = [&bytes[..], &[0]].concat();
        assert!(read(&longer).is_err(), "something behind it");
        let mut newer = bytes.clone();
        newer[8] = 2;
        assert!(matches!(read(&newer), Err(CheckpointError::Version(2))));
    }

    #[test]
    fn keys_ascend() {
        let mut writer = CheckpointWriter::new(Vec::new(), &HEADER).unwrap();
        writer.row(&[2], &[]).unwrap();
        assert!(writer.row(&[2], &[]).is_err());
        assert!(writer.row(&[1], &[]).is_err());
    }
}
