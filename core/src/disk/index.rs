//! The index at a layer's end: what each frame's bytes hash to, and where each lies.
//!
//! Two skippable zstd frames (RFC 8878 section 3.1.2), integers little-endian:
//!
//! | bytes | field |
//! |---|---|
//! | 4 | magic `5D 2A 4D 18` |
//! | 4 | length of what follows in this frame: 32 n + 8 |
//! | 8 | `DVCRB3` and two zero bytes |
//! | 32 each | BLAKE3 of each frame's bytes |
//!
//! | bytes | field |
//! |---|---|
//! | 4 | magic `5E 2A 4D 18` |
//! | 4 | length of what follows: 8 (n + 1) + 9 |
//! | 8 each | compressed and raw length of each frame; the last entry is the frame of hashes, with raw length 0 |
//! | 4 | number of entries, n + 1 |
//! | 1 | descriptor, 0: no checksums |
//! | 4 | `B1 EA 92 8F` |
//!
//! The second is the seek table of the zstd seekable format (zstd `contrib/seekable_format`, 0.1.0), which must come last.

use std::ops::Range;

use crate::chunk::ChunkId;

/// Most frames: what the seekable format allows, less the frame of hashes. 8 TiB of data.
pub const FRAMES_MAX: u64 = (1 << 27) - 1;

/// Length of the end of a seek table, from which its beginning follows.
pub const SEEK_TABLE_FOOTER_BYTES: usize = 9;

const HASHES_MAGIC: [u8; 4] = [0x5D, 0x2A, 0x4D, 0x18];
const SEEK_TABLE_MAGIC: [u8; 4] = [0x5E, 0x2A, 0x4D, 0x18];
const HASHES_NAME: [u8; 8] = *b"DVCRB3\0\0";
const SEEKABLE_MAGIC: [u8; 4] = [0xB1, 0xEA, 0x92, 0x8F];

/// Magic number and length of a skippable frame.
const SKIPPABLE_HEADER_BYTES: u64 = 8;

/// One frame of a layer.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Frame {
    /// Where its bytes lie in the layer.
    pub stored: Range<u64>,
    /// Which bytes of the archive it holds.
    pub raw: Range<u64>,
    /// What its stored bytes hash to: its name in a registry, which stores a frame as one chunk.
    pub id: ChunkId,
}

/// Why an index cannot be read.
#[derive(Copy, Clone, PartialEq, Eq, Debug, thiserror::Error)]
pub enum IndexError {
    /// No magic number where it should be: the layer has no index of this kind.
    #[error("the layer has no index")]
    Absent,
    /// Lengths and counts contradict each other or the layer's length.
    #[error("the layer's index is broken")]
    Broken,
}

/// Frames in order, as they are written.
#[derive(Default, Debug)]
pub struct IndexWriter {
    entries: Vec<u8>,
    hashes: Vec<u8>,
}

impl IndexWriter {
    /// Notes the next frame. `None` if there are too many, or if it is longer than the index can say.
    pub fn push(&mut self, frame: &[u8], raw_len: usize) -> Option<()> {
        let stored_len = u32::try_from(frame.len()).ok()?;
        self.push_known(ChunkId::of(frame), stored_len, u32::try_from(raw_len).ok()?)
    }

    /// Notes a frame whose hash is known. `None` if there are too many.
    pub fn push_known(&mut self, id: ChunkId, stored_len: u32, raw_len: u32) -> Option<()> {
        if self.hashes.len() as u64 / 32 >= FRAMES_MAX {
            return None;
        }
        self.entries.extend(stored_len.to_le_bytes());
        self.entries.extend(raw_len.to_le_bytes());
        self.hashes.extend(id.0);
        Some(())
    }

    /// The index's bytes.
    pub fn finish(mut self) -> Vec<u8> {
        // Both lengths fit: see FRAMES_MAX.
        let hashes_len = (HASHES_NAME.len() + self.hashes.len()) as u32;
        let frame_len = hashes_len + SKIPPABLE_HEADER_BYTES as u32;
        self.entries.extend(frame_len.to_le_bytes());
        self.entries.extend([0; 4]);
        let table_len = (self.entries.len() + SEEK_TABLE_FOOTER_BYTES) as u32;
        let count = (self.entries.len() / 8) as u32;
        [
            &HASHES_MAGIC[..],
            &hashes_len.to_le_bytes(),
            &HASHES_NAME,
            &self.hashes,
            &SEEK_TABLE_MAGIC,
            &table_len.to_le_bytes(),
            &self.entries,
            &count.to_le_bytes(),
            &[0],
            &SEEKABLE_MAGIC,
        ]
        .concat()
    }
}

/// A layer's index, checked: frames are adjacent, none is empty, and they end where the index begins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Index {
    frames: Vec<Frame>,
    raw_len: u64,
}

impl Index {
    /// Length of the whole index of a layer of `layer_len` bytes that ends with `footer`.
    pub fn len_from_footer(
        footer: &[u8; SEEK_TABLE_FOOTER_BYTES],
        layer_len: u64,
    ) -> Result<u64, IndexError> {
        let [a, b, c, d, descriptor, magic @ ..] = *footer;
        if magic != SEEKABLE_MAGIC {
            return Err(IndexError::Absent);
        }
        let count = u64::from(u32::from_le_bytes([a, b, c, d]));
        if descriptor != 0 || count == 0 || count > FRAMES_MAX + 1 {
            return Err(IndexError::Broken);
        }
        let table = SKIPPABLE_HEADER_BYTES + count * 8 + SEEK_TABLE_FOOTER_BYTES as u64;
        let hashes = SKIPPABLE_HEADER_BYTES + HASHES_NAME.len() as u64 + (count - 1) * 32;
        let len = table + hashes;
        if len > layer_len {
            return Err(IndexError::Broken);
        }
        Ok(len)
    }

    /// Reads the index of a layer of `layer_len` bytes from all its bytes.
    pub fn parse(index: &[u8], layer_len: u64) -> Result<Self, IndexError> {
        let footer = index.last_chunk().ok_or(IndexError::Absent)?;
        let len = Self::len_from_footer(footer, layer_len)?;
        if len != index.len() as u64 {
            return Err(IndexError::Broken);
        }
        let (count, _) = footer.split_first_chunk::<4>().ok_or(IndexError::Broken)?;
        let count = u32::from_le_bytes(*count) as usize - 1;
        let hashes_len = SKIPPABLE_HEADER_BYTES as usize + HASHES_NAME.len() + count * 32;
        let (hashes, table) = index.split_at(hashes_len);
        let table = &table[..table.len() - SEEK_TABLE_FOOTER_BYTES];

        let hashes = content(hashes, HASHES_MAGIC, 0)?
            .strip_prefix(&HASHES_NAME)
            .ok_or(IndexError::Absent)?;
        let entries = content(table, SEEK_TABLE_MAGIC, SEEK_TABLE_FOOTER_BYTES)?;
        let (entries, last) = entries.split_at(count * 8);
        if last != [(hashes_len as u32).to_le_bytes(), [0; 4]].concat() {
            return Err(IndexError::Broken);
        }

        let (mut stored, mut raw) = (0u64, 0u64);
        let entries = entries.as_chunks::<8>().0.iter();
        let frames = entries.zip(hashes.as_chunks::<32>().0).map(|(entry, id)| {
            let [a, b, c, d, e, f, g, h] = *entry;
            let stored_end = stored + u64::from(u32::from_le_bytes([a, b, c, d]));
            let raw_end = raw + u64::from(u32::from_le_bytes([e, f, g, h]));
            let frame = Frame {
                stored: stored..stored_end,
                raw: raw..raw_end,
                id: ChunkId(*id),
            };
            (stored, raw) = (stored_end, raw_end);
            frame
        });
        let frames: Vec<_> = frames.collect();
        // A frame of nothing would never be looked at.
        let empty = |frame: &Frame| frame.stored.is_empty() || frame.raw.is_empty();
        if stored + len != layer_len || frames.iter().any(empty) {
            return Err(IndexError::Broken);
        }
        Ok(Self {
            frames,
            raw_len: raw,
        })
    }

    /// All frames in order: adjacent, from 0 on, both as stored and raw.
    pub fn frames(&self) -> &[Frame] {
        &self.frames
    }

    /// Length of the archive.
    pub fn raw_len(&self) -> u64 {
        self.raw_len
    }

    /// The frame that holds the archive's byte at `offset`.
    pub fn frame_at(&self, offset: u64) -> Option<&Frame> {
        let i = self.frames.partition_point(|frame| frame.raw.end <= offset);
        self.frames.get(i)
    }
}

/// What a skippable frame holds, as far as it is there: its last `missing` bytes are not.
fn content(frame: &[u8], magic: [u8; 4], missing: usize) -> Result<&[u8], IndexError> {
    let (found, rest) = frame.split_first_chunk::<4>().ok_or(IndexError::Broken)?;
    let (len, content) = rest.split_first_chunk::<4>().ok_or(IndexError::Broken)?;
    if *found != magic {
        return Err(IndexError::Absent);
    }
    if u32::from_le_bytes(*len) as usize != content.len() + missing {
        return Err(IndexError::Broken);
    }
    Ok(content)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn index(frames: &[(&[u8], usize)]) -> (Vec<u8>, u64) {
        let mut writer = IndexWriter::default();
        for (frame, raw_len) in frames {
            writer.push(frame, *raw_len).unwrap();
        }
        let bytes = writer.finish();
        let frames: usize = frames.iter().map(|(frame, _)| frame.len()).sum();
        let len = (frames + bytes.len()) as u64;
        (bytes, len)
    }

    #[test]
    fn what_was_written_is_read() {
        let (bytes, len) = index(&[(b"one", 4096), (b"second", 65_536), (b"x", 1024)]);
        let footer = bytes.last_chunk().unwrap();
        assert_eq!(Index::len_from_footer(footer, len), Ok(bytes.len() as u64));
        let index = Index::parse(&bytes, len).unwrap();
        let [one, second, third] = index.frames() else {
            panic!("{index:?}");
        };
        assert_eq!((one.stored.clone(), one.raw.clone()), (0..3, 0..4096));
        assert_eq!(
            (second.stored.clone(), second.raw.clone()),
            (3..9, 4096..69_632)
        );
        assert_eq!(third.id, ChunkId::of(b"x"));
        assert_eq!(index.raw_len(), 70_656);
        assert_eq!(index.frame_at(0), Some(one));
        assert_eq!(index.frame_at(4095), Some(one));
        assert_eq!(index.frame_at(4096), Some(second));
        assert_eq!(index.frame_at(70_655), Some(third));
        assert_eq!(index.frame_at(70_656), None);
    }

    #[test]
    fn bent_indexes_are_refused() {
        let (bytes, len) = index(&[(b"one", 4096), (b"second", 65_536)]);
        assert!(Index::parse(&bytes, len - 1).is_err());
        assert!(Index::parse(&bytes, len + 1).is_err());
        for cut in 0..bytes.len() {
            assert!(Index::parse(&bytes[cut + 1..], len).is_err(), "{cut}");
            assert!(Index::parse(&bytes[..cut], len).is_err(), "{cut}");
        }
        for bit in 0..bytes.len() * 8 {
            let mut bent = bytes.clone();
            bent[bit / 8] ^= 1 << (bit % 8);
            // Hashes and raw lengths are checked by the index's digest, the rest by itself.
            if let Ok(index) = Index::parse(&bent, len) {
                assert_eq!(index.frames().len(), 2);
                assert_eq!(index.frames()[1].stored.end, 9);
            }
        }
    }
}
