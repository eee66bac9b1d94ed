//! Telling wrappings apart by their first bytes.

use std::fmt;

use super::tar;

/// What an image can be wrapped in.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum Wrapping {
    /// RFC 1952, of any number of members.
    Gzip,
    /// The .xz format 1.2, of any number of streams.
    Xz,
    /// RFC 8878, of any number of frames.
    Zstd,
    /// bzip2, of any number of streams.
    Bzip2,
    /// An archive (ustar, PAX or GNU), OVA included.
    Tar,
}

impl Wrapping {
    /// The wrapping whose stream begins with these bytes: at least 512 of them, unless there are fewer.
    pub fn detect(head: &[u8]) -> Option<Self> {
        match head {
            [0x1F, 0x8B, 8, ..] => Some(Self::Gzip),
            [0xFD, b'7', b'z', b'X', b'Z', 0, ..] => Some(Self::Xz),
            // Tools that compress in parallel begin with a skippable frame.
            [0x28, 0xB5, 0x2F, 0xFD, ..] | [0x50..=0x5F, 0x2A, 0x4D, 0x18, ..] => Some(Self::Zstd),
            // Behind the level comes the magic number of a block, or of the end.
            [b'B', b'Z', b'h', b'1'..=b'9', 0x31, 0x41, 0x59, 0x26, ..]
            | [b'B', b'Z', b'h', b'1'..=b'9', 0x17, 0x72, 0x45, 0x38, ..] => Some(Self::Bzip2),
            _ => tar::is_tar(head).then_some(Self::Tar),
        }
    }

    /// The name that messages use: `gzip`, `xz`, `zstd`, `bzip2`, `tar`.
    pub fn name(self) -> &'static str {
        match self {
            Self::Gzip => "gzip",
            Self::Xz => "xz",
            Self::Zstd => "zstd",
            Self::Bzip2 => "bzip2",
            Self::Tar => "tar",
        }
    }
}

impl fmt::Display for Wrapping {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}
