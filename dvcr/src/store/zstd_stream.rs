//! A blob as one zstd stream made of what is stored, without decoding (RFC 8878: concatenated frames are one stream).
//!
//! Compressed chunks are frames already; raw ones are wrapped in raw blocks, zero runs become RLE blocks. Every frame
//! says its content size and is a single segment, so a decoder needs a window of at most [`ZEROS_FRAME_BYTES_MAX`],
//! below the 8 MiB that RFC 9659 lets it insist on.

use bytes::Bytes;

/// Most bytes of a block (RFC 8878, 3.1.1.2.4).
const BLOCK_BYTES_MAX: u64 = 128 << 10;

/// Most zero bytes of one frame; also of one body frame of an identity response.
pub(crate) const ZEROS_FRAME_BYTES_MAX: u64 = 1 << 20;

/// Magic number, a frame header descriptor (single segment, content size of 4 bytes), the size.
const FRAME_HEADER_LEN: u64 = 9;
const BLOCK_HEADER_LEN: u64 = 3;

fn frame_header(len: u64) -> [u8; FRAME_HEADER_LEN as usize] {
    let size = u32::try_from(len)
        .expect("frames are bounded")
        .to_le_bytes();
    [
        0x28,
        0xb5,
        0x2f,
        0xfd,
        0b1010_0000,
        size[0],
        size[1],
        size[2],
        size[3],
    ]
}

fn block_header(len: u64, kind: u32, last: bool) -> [u8; 3] {
    let [a, b, c, _] =
        (u32::try_from(len).expect("blocks are bounded") << 3 | kind << 1 | u32::from(last))
            .to_le_bytes();
    [a, b, c]
}

/// Length of a raw chunk of `len` bytes, wrapped.
pub(crate) fn raw_len(len: u64) -> u64 {
    FRAME_HEADER_LEN + len.div_ceil(BLOCK_BYTES_MAX).max(1) * BLOCK_HEADER_LEN + len
}

/// A raw chunk as a frame: small headers between slices of the chunk.
pub(crate) fn wrap_raw(chunk: &Bytes) -> Vec<Bytes> {
    let mut out = vec![Bytes::copy_from_slice(&frame_header(chunk.len() as u64))];
    let step = usize::try_from(BLOCK_BYTES_MAX).expect("fits");
    let mut at = 0;
    loop {
        let end = (at + step).min(chunk.len());
        out.push(Bytes::copy_from_slice(&block_header(
            (end - at) as u64,
            0,
            end == chunk.len(),
        )));
        if end > at {
            out.push(chunk.slice(at..end));
        }
        at = end;
        if at == chunk.len() {
            return out;
        }
    }
}

/// Length of `len` zero bytes, wrapped.
pub(crate) fn zeros_len(len: u64) -> u64 {
    let frame = |n: u64| FRAME_HEADER_LEN + n.div_ceil(BLOCK_BYTES_MAX) * (BLOCK_HEADER_LEN + 1);
    let rest = len % ZEROS_FRAME_BYTES_MAX;
    len / ZEROS_FRAME_BYTES_MAX * frame(ZEROS_FRAME_BYTES_MAX)
        + if rest > 0 { frame(rest) } else { 0 }
}

/// `len` zero bytes, at most [`ZEROS_FRAME_BYTES_MAX`] and at least one, as a frame.
pub(crate) fn wrap_zeros(len: u64) -> Bytes {
    let mut out = frame_header(len).to_vec();
    let mut left = len;
    while left > 0 {
        let n = left.min(BLOCK_BYTES_MAX);
        left -= n;
        out.extend_from_slice(&block_header(n, 1, left == 0));
        out.push(0);
    }
    out.into()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn decode(frames: &[Bytes]) -> Vec<u8> {
        zstd::stream::decode_all(&frames.concat()[..]).unwrap()
    }

    #[test]
    fn wrapped_chunks_decode_to_themselves_and_have_the_promised_length() {
        for len in [0, 1, 1000, 131_071, 131_072, 131_073, 1 << 20] {
            let chunk = Bytes::from((0..len).map(|i| i as u8).collect::<Vec<_>>());
            let frames = wrap_raw(&chunk);
            assert_eq!(
                frames.iter().map(|f| f.len() as u64).sum::<u64>(),
                raw_len(len as u64),
                "{len}"
            );
            assert_eq!(decode(&frames), chunk, "{len}");
        }
    }

    #[test]
    fn zero_runs_decode_to_zeros_and_have_the_promised_length() {
        for len in [1, 131_072, 131_073, ZEROS_FRAME_BYTES_MAX] {
            let frame = wrap_zeros(len);
            assert_eq!(frame.len() as u64, zeros_len(len), "{len}");
            assert_eq!(decode(&[frame]), vec![0; len as usize], "{len}");
        }
        let long = 3 * ZEROS_FRAME_BYTES_MAX + 5;
        assert_eq!(
            zeros_len(long),
            3 * zeros_len(ZEROS_FRAME_BYTES_MAX) + zeros_len(5)
        );
    }
}
