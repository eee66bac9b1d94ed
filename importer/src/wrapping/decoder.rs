//! One decoder for each compression. All take several members, frames or streams in a row, and need all of the last.

use std::io::{self, Read};

use super::Wrapping;

/// Most memory that decoding xz may take: 128 MiB. `xz -9` needs 65 MiB.
pub const XZ_MEMORY_BYTES_MAX: u64 = 128 << 20;

/// Largest zstd window, as a power of two: 128 MiB, what `zstd` itself decodes without being asked (`--ultra -22` included).
pub const ZSTD_WINDOW_LOG_MAX: u32 = 27;

/// Decodes `source`, compressed with `wrapping`; gives it back if that is an archive.
pub(super) fn decoder(
    wrapping: Wrapping,
    source: Box<dyn Read + Send>,
) -> io::Result<Result<Box<dyn Read + Send>, Box<dyn Read + Send>>> {
    Ok(Ok(match wrapping {
        Wrapping::Gzip => Box::new(flate2::read::MultiGzDecoder::new(source)),
        Wrapping::Bzip2 => Box::new(bzip2::read::MultiBzDecoder::new(source)),
        Wrapping::Zstd => {
            let mut decoder = zstd::Decoder::new(source)?;
            decoder.window_log_max(ZSTD_WINDOW_LOG_MAX)?;
            Box::new(decoder)
        }
        Wrapping::Xz => {
            let stream = liblzma::stream::Stream::new_stream_decoder(
                XZ_MEMORY_BYTES_MAX,
                liblzma::stream::CONCATENATED,
            )?;
            Box::new(liblzma::read::XzDecoder::new_stream(source, stream))
        }
        Wrapping::Tar => return Ok(Err(source)),
    }))
}
