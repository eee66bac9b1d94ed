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

/// How an index of so many frames looks but for what it says of each: so it can be written and read in parts.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct IndexLayout {
    frames: u64,
}

/// Length of what stands before the hashes.
pub const INDEX_HEAD_BYTES: usize = 16;

/// Length of what the index says of one frame's place, and of another's hash.
pub const ENTRY_BYTES: u64 = 8;

/// Length of a hash.
pub const HASH_BYTES: u64 = 32;

/// Length of what stands behind the last frame's entry: that of the frame of hashes, and the footer.
pub const INDEX_TAIL_BYTES: usize = 8 + SEEK_TABLE_FOOTER_BYTES;

impl IndexLayout {
    /// Of so many frames; `None` if there are more than [`FRAMES_MAX`].
    pub fn new(frames: u64) -> Option<Self> {
        (frames <= FRAMES_MAX).then_some(Self { frames })
    }

    /// Of the index of a layer of `layer_len` bytes that ends with `footer`.
    pub fn from_footer(
        footer: &[u8; SEEK_TABLE_FOOTER_BYTES],
        layer_len: u64,
    ) -> Result<Self, IndexError> {
        let [a, b, c, d, descriptor, magic @ ..] = *footer;
        if magic != SEEKABLE_MAGIC {
            return Err(IndexError::Absent);
        }
        let count = u64::from(u32::from_le_bytes([a, b, c, d]));
        let frames = count.checked_sub(1).ok_or(IndexError::Broken)?;
        let layout = Self::new(frames).ok_or(IndexError::Broken)?;
        if descriptor != 0 || layout.len() > layer_len {
            return Err(IndexError::Broken);
        }
        Ok(layout)
    }

    /// How many frames.
    pub fn frames(self) -> u64 {
        self.frames
    }

    /// Length of the whole index.
    #[expect(clippy::len_without_is_empty, reason = "an index is never empty")]
    pub fn len(self) -> u64 {
        self.hash_offset(self.frames)
            + SKIPPABLE_HEADER_BYTES
            + self.frames * ENTRY_BYTES
            + INDEX_TAIL_BYTES as u64
    }

    /// Where in the index the hash of a frame is.
    pub fn hash_offset(self, frame: u64) -> u64 {
        INDEX_HEAD_BYTES as u64 + frame * HASH_BYTES
    }

    /// Where in the index the entry of a frame is.
    pub fn entry_offset(self, frame: u64) -> u64 {
        self.hash_offset(self.frames) + SKIPPABLE_HEADER_BYTES + frame * ENTRY_BYTES
    }

    // All lengths fit: see FRAMES_MAX.

    fn hashes_len(self) -> u32 {
        (HASHES_NAME.len() as u64 + self.frames * HASH_BYTES) as u32
    }

    /// What stands before the hashes.
    pub fn head(self) -> [u8; INDEX_HEAD_BYTES] {
        let mut head = [0; INDEX_HEAD_BYTES];
        head[..4].copy_from_slice(&HASHES_MAGIC);
        head[4..8].copy_from_slice(&self.hashes_len().to_le_bytes());
        head[8..].copy_from_slice(&HASHES_NAME);
        head
    }

    /// Whether this stands before the hashes: if not, the layer has another index, or a broken one.
    pub fn check_head(self, found: &[u8]) -> Result<(), IndexError> {
        let head = self.head();
        match found == head {
            true => Ok(()),
            false if found.get(..4) == Some(&head[..4]) && found.get(8..) == Some(&head[8..]) => {
                Err(IndexError::Broken)
            }
            false => Err(IndexError::Absent),
        }
    }

    /// What stands between the hashes and the entries.
    pub fn table_head(self) -> [u8; SKIPPABLE_HEADER_BYTES as usize] {
        let len = (self.frames + 1) * ENTRY_BYTES + SEEK_TABLE_FOOTER_BYTES as u64;
        let mut head = [0; SKIPPABLE_HEADER_BYTES as usize];
        head[..4].copy_from_slice(&SEEK_TABLE_MAGIC);
        head[4..].copy_from_slice(&(len as u32).to_le_bytes());
        head
    }

    /// What stands behind the entries.
    pub fn tail(self) -> [u8; INDEX_TAIL_BYTES] {
        let mut tail = [0; INDEX_TAIL_BYTES];
        let frame_len = self.hashes_len() + SKIPPABLE_HEADER_BYTES as u32;
        tail[..4].copy_from_slice(&frame_len.to_le_bytes());
        tail[8..12].copy_from_slice(&((self.frames + 1) as u32).to_le_bytes());
        tail[13..].copy_from_slice(&SEEKABLE_MAGIC);
        tail
    }

    /// What the index says of a frame beside its hash.
    pub fn entry(stored_len: u32, raw_len: u32) -> [u8; ENTRY_BYTES as usize] {
        let [a, b, c, d] = stored_len.to_le_bytes();
        let [e, f, g, h] = raw_len.to_le_bytes();
        [a, b, c, d, e, f, g, h]
    }

    /// Frames from their entries and hashes, in order, the first of which lies at `stored` in the layer and at `raw` in the archive.
    pub fn read(
        entries: &[u8],
        hashes: &[u8],
        (mut stored, mut raw): (u64, u64),
    ) -> impl Iterator<Item = Frame> {
        let entries = entries.as_chunks::<{ ENTRY_BYTES as usize }>().0.iter();
        let hashes = hashes.as_chunks::<{ HASH_BYTES as usize }>().0;
        entries.zip(hashes).map(move |(entry, id)| {
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
        })
    }
}

/// A layer's index, checked: frames are adjacent, none is empty, and they end where the index begins.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Index {
    frames: Vec<Frame>,
    raw_len: u64,
}

impl Index {
    /// Reads the index of a layer of `layer_len` bytes from all its bytes.
    pub fn parse(index: &[u8], layer_len: u64) -> Result<Self, IndexError> {
        let footer = index.last_chunk().ok_or(IndexError::Absent)?;
        let layout = IndexLayout::from_footer(footer, layer_len)?;
        let len = layout.len();
        if len != index.len() as u64 {
            return Err(IndexError::Broken);
        }
        let (hashes, table) = index.split_at(layout.hash_offset(layout.frames()) as usize);
        let (head, hashes) = hashes.split_at(INDEX_HEAD_BYTES);
        layout.check_head(head)?;
        let (table_head, entries) = table.split_at(SKIPPABLE_HEADER_BYTES as usize);
        let (entries, tail) = entries.split_at((layout.frames() * ENTRY_BYTES) as usize);
        if table_head != layout.table_head() || tail != layout.tail() {
            return Err(IndexError::Broken);
        }
        let frames: Vec<_> = IndexLayout::read(entries, hashes, (0, 0)).collect();
        // A frame of nothing would never be looked at.
        let empty = |frame: &Frame| frame.stored.is_empty() || frame.raw.is_empty();
        let (stored, raw_len) = frames
            .last()
            .map_or((0, 0), |last| (last.stored.end, last.raw.end));
        if stored + len != layer_len || frames.iter().any(empty) {
            return Err(IndexError::Broken);
        }
        Ok(Self { frames, raw_len })
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

#[cfg(test)]
mod tests {
    use super::*;

    fn index(frames: &[(&[u8], usize)]) -> (Vec<u8>, u64) {
        let layout = IndexLayout::new(frames.len() as u64).unwrap();
        let hashes = frames.iter().map(|(frame, _)| ChunkId::of(frame).0);
        let entry =
            |(frame, raw): &(&[u8], usize)| IndexLayout::entry(frame.len() as u32, *raw as u32);
        let bytes = [
            &layout.head()[..],
            &hashes.collect::<Vec<_>>().concat(),
            &layout.table_head(),
            &frames.iter().map(entry).collect::<Vec<_>>().concat(),
            &layout.tail(),
        ]
        .concat();
        let frames: usize = frames.iter().map(|(frame, _)| frame.len()).sum();
        let len = (frames + bytes.len()) as u64;
        (bytes, len)
    }

    #[test]
    fn what_was_written_is_read() {
        let (bytes, len) = index(&[(b"one", 4096), (b"second", 65_536), (b"x", 1024)]);
        let footer = bytes.last_chunk().unwrap();
        let layout = IndexLayout::from_footer(footer, len).unwrap();
        assert_eq!((layout.frames(), layout.len()), (3, bytes.len() as u64));
        let at = layout.hash_offset(1) as usize;
        assert_eq!(bytes[at..at + 32], ChunkId::of(b"second").0);
        let at = layout.entry_offset(2) as usize;
        assert_eq!(bytes[at..at + 8], IndexLayout::entry(1, 1024));
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
