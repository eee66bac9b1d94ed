//! Decoding of one compressed cluster.

use std::io::{self, Read};

use flate2::read::{DeflateDecoder, ZlibDecoder};

use super::layout::Codec;

/// Decodes `packed`, behind whose stream anything may follow, to exactly `len` bytes.
pub(super) fn unpack(codec: Codec, packed: &[u8], len: usize) -> io::Result<Vec<u8>> {
    let mut decoded = vec![0; len];
    match codec {
        Codec::Deflate => DeflateDecoder::new(packed).read_exact(&mut decoded)?,
        Codec::Zlib => ZlibDecoder::new(packed).read_exact(&mut decoded)?,
        // Writes into what is there, so a frame that claims more fails instead of growing anything.
        Codec::Zstd => zstd::Decoder::with_buffer(packed)?
            .single_frame()
            .read_exact(&mut decoded)?,
    }
    Ok(decoded)
}
