//! The one encoder of frames.

use std::io;

/// Level of compression. Level 1 came out alike in libzstd 1.5.4, 1.5.6 and 1.5.7; level 3 did not.
const LEVEL: i32 = 1;

/// Compresses pieces to frames, each on its own.
///
/// Its output is part of the layout: another library version may only take its place if the golden vectors hold.
pub struct Encoder(zstd::bulk::Compressor<'static>);

impl Encoder {
    /// An encoder for any number of pieces.
    pub fn new() -> io::Result<Self> {
        let mut compressor = zstd::bulk::Compressor::new(LEVEL)?;
        compressor.include_contentsize(true)?;
        compressor.include_checksum(false)?;
        compressor.include_dictid(false)?;
        Ok(Self(compressor))
    }

    /// The frame of a piece.
    pub fn encode(&mut self, piece: &[u8]) -> io::Result<Vec<u8>> {
        self.0.compress(piece)
    }
}

#[cfg(test)]
mod tests {
    #[test]
    fn the_library_is_the_pinned_one() {
        assert_eq!(zstd::zstd_safe::version_string(), "1.5.7");
    }
}
