//! Decoding of one compressed cluster.

use std::io::{self, Read};

use flate2::read::{DeflateDecoder, ZlibDecoder};

use super::layout::Codec;

/// Largest window of a zstd frame, which the decoder allocates: 8 MiB, what RFC 8878 section 3.1.1.1.2 asks of every
/// decoder. A cluster has 2 MiB at most.
const WINDOW_LOG_MAX: u32 = 23;

/// Decodes `packed`, behind whose stream anything may follow, to exactly `len` bytes.
pub(super) fn unpack(codec: Codec, packed: &[u8], len: usize) -> io::Result<Vec<u8>> {
    let mut decoded = vec![0; len];
    match codec {
        Codec::Deflate => DeflateDecoder::new(packed).read_exact(&mut decoded)?,
        Codec::Zlib => ZlibDecoder::new(packed).read_exact(&mut decoded)?,
        Codec::Zstd => {
            let mut decoder = zstd::Decoder::with_buffer(packed)?.single_frame();
            decoder.window_log_max(WINDOW_LOG_MAX)?;
            decoder.read_exact(&mut decoded)?;
        }
    }
    Ok(decoded)
}
