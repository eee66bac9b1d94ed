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

/// Length of a frame's content, if its header says. RFC 8878 section 3.1.1.1.4. The frame need not tell the truth.
pub(super) fn content_len(frame: &[u8]) -> Option<u64> {
    let rest = frame.strip_prefix(&MAGIC)?;
    let (descriptor, rest) = rest.split_first()?;
    let single_segment = descriptor & 0x20 != 0;
    let dictionary_len = [0, 1, 2, 4][usize::from(descriptor & 0x03)];
    let field = rest.get(usize::from(!single_segment) + dictionary_len..)?;
    match descriptor >> 6 {
        0 if single_segment => field.first().map(|len| u64::from(*len)),
        0 => None,
        1 => Some(u64::from(u16::from_le_bytes(*field.first_chunk()?)) + 256),
        2 => Some(u64::from(u32::from_le_bytes(*field.first_chunk()?))),
        _ => Some(u64::from_le_bytes(*field.first_chunk()?)),
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

#[cfg(test)]
mod tests {
    use super::*;

    const LIMIT: usize = 1 << 20;

    fn check(data: &[u8], expected: Walk) {
        assert_eq!(
            walk(data, LIMIT),
            expected,
            "{} bytes: {:x?}",
            data.len(),
            &data[..data.len().min(24)]
        );
    }

    /// A frame with a one-byte content size, and the blocks.
    fn frame(blocks: &[u8]) -> Vec<u8> {
        [&MAGIC, &[0x20, 0][..], blocks].concat()
    }

    fn block(last: bool, kind: u32, size: u32) -> [u8; 3] {
        let [a, b, c, _] = (u32::from(last) | kind << 1 | size << 3).to_le_bytes();
        [a, b, c]
    }

    #[test]
    fn lengths_of_content() {
        for len in [0, 1, 255, 256, 257, 65_535 + 256, 65_536 + 256, 300_000] {
            let frame = zstd::bulk::compress(&vec![7; len], 1).unwrap();
            assert_eq!(content_len(&frame), Some(len as u64));
            for cut in 0..frame.len().min(8) {
                assert!(content_len(&frame[..cut]).is_none_or(|found| found == len as u64));
            }
        }
        let mut streamed = zstd::Encoder::new(vec![], 1).unwrap();
        std::io::Write::write_all(&mut streamed, b"of unknown length").unwrap();
        assert_eq!(content_len(&streamed.finish().unwrap()), None);
        assert_eq!(content_len(&[0x50, 0x2A, 0x4D, 0x18, 0, 0, 0, 0]), None);
    }

    #[test]
    fn frames_of_the_library_end_where_it_says() {
        let data: Vec<u8> = (0..300_000u32)
            .map(|i| (i.wrapping_mul(i) >> 7) as u8)
            .collect();
        for (len, checksum, content_size, level) in [
            (0, false, true, 1),
            (1, true, true, 1),
            (100, false, false, 3),
            (255, false, true, -5),
            (256, true, true, 1),
            (65_791, true, true, 1),
            (65_792, false, true, 19),
            (300_000, true, false, 1),
            (300_000, false, true, 1),
        ] {
            let mut compressor = zstd::bulk::Compressor::new(level).unwrap();
            compressor.include_checksum(checksum).unwrap();
            compressor.include_contentsize(content_size).unwrap();
            let frame = compressor.compress(&data[..len]).unwrap();
            check(&frame, Walk::Frame(frame.len()));
            check(&[&frame[..], b"more"].concat(), Walk::Frame(frame.len()));
            for cut in (0..frame.len()).step_by(1 + frame.len() / 1000) {
                check(&frame[..cut], Walk::More);
            }
        }
    }

    #[test]
    fn skippable_frames_are_frames() {
        check(b"\x50\x2A\x4D\x18\x00\x00\x00\x00", Walk::Frame(8));
        check(b"\x5F\x2A\x4D\x18\x02\x00\x00\x00abc", Walk::Frame(10));
        check(b"\x5E\x2A\x4D\x18\x04\x00\x00\x00abc", Walk::More);
        for cut in 0..8 {
            check(&b"\x5E\x2A\x4D\x18\x04\x00\x00\x00"[..cut], Walk::More);
        }
        check(b"\x60\x2A\x4D\x18\x00\x00\x00\x00", Walk::Not);
        check(b"\x5E\x2A\x4E", Walk::Not);
        check(b"\x4F", Walk::Not);
        // The limit counts the header.
        let skippable = |len: u32| [&[0x50, 0x2A, 0x4D, 0x18], &len.to_le_bytes()[..]].concat();
        check(&skippable((LIMIT - 8) as u32), Walk::More);
        check(&skippable((LIMIT - 7) as u32), Walk::Not);
        check(&skippable(u32::MAX), Walk::Not);
    }

    #[test]
    fn only_the_outline_of_a_frame_counts() {
        check(&frame(&block(true, 0, 0)), Walk::Frame(9));
        check(
            &frame(&[&block(true, 0, 2)[..], b"ab"].concat()),
            Walk::Frame(11),
        );
        check(
            &frame(&[&block(true, 2, 2)[..], b"ab"].concat()),
            Walk::Frame(11),
        );
        check(
            &frame(&[&block(true, 1, 100_000)[..], b"a"].concat()),
            Walk::Frame(10),
        );
        check(
            &frame(&[&block(false, 1, 5)[..], b"a", &block(true, 0, 0)].concat()),
            Walk::Frame(13),
        );
        // Not frames: reserved block type, block too long, reserved header bit, older and garbled magic numbers.
        check(&frame(&block(true, 3, 0)), Walk::Not);
        check(&frame(&block(true, 0, 128 << 10)), Walk::More);
        check(&frame(&block(true, 0, (128 << 10) + 1)), Walk::Not);
        check(&frame(&block(true, 1, (128 << 10) + 1)), Walk::Not);
        check(&[&MAGIC, &[0x28, 0, 1, 0, 0][..]].concat(), Walk::Not);
        check(b"\x27\xB5\x2F\xFD", Walk::Not);
        check(b"\x28\xB5\x2F\xFE", Walk::Not);
        check(b"PK\x03\x04", Walk::Not);
        check(b"\x1F\x8B", Walk::Not);
        // Every header form: window descriptor unless one segment; dictionary 0, 1, 2, 4; content size 0 or 1, 2, 4, 8.
        for descriptor in 0..=0xFFu8 {
            let single = descriptor & 0x20 != 0;
            let fields = usize::from(!single)
                + [0, 1, 2, 4][usize::from(descriptor & 3)]
                + [usize::from(single), 2, 4, 8][usize::from(descriptor >> 6)];
            let checksum = if descriptor & 4 != 0 { 4 } else { 0 };
            let mut data = [
                &MAGIC[..],
                &[descriptor],
                &vec![0xAA; fields],
                &block(true, 0, 0),
            ]
            .concat();
            data.resize(data.len() + checksum, 0);
            let expected = if descriptor & 8 == 0 {
                Walk::Frame(data.len())
            } else {
                Walk::Not
            };
            check(&data, expected);
        }
    }

    #[test]
    fn a_frame_is_bounded_in_bytes_and_blocks() {
        let empty = block(false, 0, 0);
        let end = block(true, 0, 0);
        let most = frame(&[&empty.repeat(BLOCKS_MAX - 1)[..], &end].concat());
        check(&most, Walk::Frame(most.len()));
        check(&frame(&empty.repeat(BLOCKS_MAX - 1)), Walk::More);
        check(&frame(&empty.repeat(BLOCKS_MAX)), Walk::Not);

        let raw = |len: usize| [&block(false, 0, len as u32)[..], &vec![1; len]].concat();
        let mut long = frame(&raw(128 << 10).repeat(7));
        let rest = LIMIT - long.len() - 3 - 3;
        let exact = [&long[..], &raw(rest), &end].concat();
        assert_eq!(exact.len(), LIMIT);
        check(&exact, Walk::Frame(LIMIT));
        check(&exact[..LIMIT - 1], Walk::More);
        long.extend(raw(rest + 1));
        check(&long, Walk::More);
        long.extend(end);
        check(&long, Walk::Not);
        check(&long[..LIMIT], Walk::Not);
    }
}
