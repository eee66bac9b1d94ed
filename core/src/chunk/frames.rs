//! Where a zstd frame ends, without decoding it.
//!
//! Source: RFC 8878 sections 3.1.1 (frames) and 3.1.2 (skippable frames). A frame that passes here need not decode: only its
//! outline is read.

/// Most blocks of a frame that is walked. A frame is walked anew whenever more of it has arrived, and one of empty blocks
/// would make that quadratic. Blocks hold up to 128 KiB, so frames of up to 512 MiB of content stay below.
pub const BLOCKS_MAX: usize = 4096;

/// First bytes of a zstd frame: 0xFD2FB528, little-endian.
const MAGIC: [u8; 4] = [0x28, 0xB5, 0x2F, 0xFD];

/// Longest content, or compressed content, of a block. RFC 8878 section 3.1.1.2.4.
const BLOCK_BYTES_MAX: usize = 128 << 10;

/// What the bytes at the start of a chunk are.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Walk {
    /// A frame of this many bytes, all of them present.
    Frame(usize),
    /// The beginning of a frame, as far as one can tell.
    More,
    /// No frame, or one longer than the limit.
    Not,
}

/// Whether `data` begins with, or is the beginning of, a zstd frame's magic number; skippable frames do not count.
pub(super) fn is_zstd(data: &[u8]) -> bool {
    data.iter().zip(MAGIC).all(|(found, magic)| *found == magic)
}

/// Finds the end of the frame that `data` begins with. A frame longer than `limit` is none.
pub(super) fn walk(data: &[u8], limit: usize) -> Walk {
    match frame_len(data, limit) {
        // Reading stopped at the end of the data, which is not the end of the frame.
        Err(Walk::More) if data.len() >= limit => Walk::Not,
        Err(walk) => walk,
        Ok(len) if len > limit => Walk::Not,
        Ok(len) if len > data.len() => Walk::More,
        Ok(len) => Walk::Frame(len),
    }
}

/// Length of the frame, which may be more than there is. `Err(More)` if the data ends before the length is known.
fn frame_len(data: &[u8], limit: usize) -> Result<usize, Walk> {
    let mut reader = Reader { data, at: 0 };
    let Ok(magic) = reader.take::<4>() else {
        let skippable = data
            .iter()
            .skip(1)
            .zip([0x2A, 0x4D])
            .all(|(found, magic)| *found == magic)
            && data.first().is_none_or(|byte| byte >> 4 == 5);
        return Err(if is_zstd(data) || skippable {
            Walk::More
        } else {
            Walk::Not
        });
    };
    if matches!(magic, [0x50..=0x5F, 0x2A, 0x4D, 0x18]) {
        let len = u32::from_le_bytes(reader.take()?) as usize;
        return Ok(reader.at.saturating_add(len));
    }
    if magic != MAGIC {
        return Err(Walk::Not);
    }

    // Frame header: section 3.1.1.1.
    let [descriptor] = reader.take()?;
    let single_segment = descriptor & 0x20 != 0;
    let reserved = descriptor & 0x08 != 0;
    let checksum = descriptor & 0x04 != 0;
    if reserved {
        return Err(Walk::Not);
    }
    let window_len = usize::from(!single_segment);
    let dictionary_len = [0, 1, 2, 4][usize::from(descriptor & 0x03)];
    let content_size_len = [usize::from(single_segment), 2, 4, 8][usize::from(descriptor >> 6)];
    reader.at += window_len + dictionary_len + content_size_len;

    // Blocks: section 3.1.1.2.
    for _ in 0..BLOCKS_MAX {
        let [a, b, c] = reader.take()?;
        let header = u32::from_le_bytes([a, b, c, 0]);
        let (last, kind, size) = (header & 1 != 0, header >> 1 & 3, (header >> 3) as usize);
        if size > BLOCK_BYTES_MAX {
            return Err(Walk::Not);
        }
        reader.at += match kind {
            // Raw and compressed blocks.
            0 | 2 => size,
            // One byte, `size` times.
            1 => 1,
            // Reserved.
            _ => return Err(Walk::Not),
        };
        if last {
            return Ok(reader.at + if checksum { 4 } else { 0 });
        }
        if reader.at > limit {
            return Err(Walk::Not);
        }
    }
    Err(Walk::Not)
}

/// Reads forward; `at` may lie behind the end.
struct Reader<'a> {
    data: &'a [u8],
    at: usize,
}

impl Reader<'_> {
    fn take<const N: usize>(&mut self) -> Result<[u8; N], Walk> {
        let bytes = self
            .data
            .get(self.at..)
            .and_then(<[u8]>::first_chunk)
            .ok_or(Walk::More)?;
        self.at += N;
        Ok(*bytes)
    }
}
