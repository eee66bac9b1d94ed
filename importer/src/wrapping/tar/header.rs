//! One header block.

use super::BLOCK;

/// What an entry is.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub(super) enum Kind {
    /// A regular file; a contiguous one is the same.
    File,
    /// A file with holes, whose map follows the header (GNU's old format).
    SparseFile,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// Another name of a file that came before.
    HardLink,
    /// Character or block device, FIFO.
    Device,
    /// Extended header for the next entry.
    Pax,
    /// The next entry's name, when it is long (GNU).
    LongName,
    /// The next entry's link target, when it is long (GNU).
    LongLink,
    /// Anything else whose content is passed over: global headers, a writer's own inventions.
    Other,
}

/// A header block that was checked.
#[derive(Debug)]
pub(super) struct Header<'a> {
    block: &'a [u8; BLOCK],
    pub(super) kind: Kind,
    /// Bytes of content that follow.
    pub(super) len: u64,
}

/// Whether a stream that begins with `head` is an archive.
pub(in super::super) fn is_tar(head: &[u8]) -> bool {
    head.first_chunk::<BLOCK>()
        .is_some_and(|block| Header::parse(block).is_some())
}

impl<'a> Header<'a> {
    /// `None` if the magic number, the checksum or the length is wrong.
    pub(super) fn parse(block: &'a [u8; BLOCK]) -> Option<Self> {
        // "ustar\0" "00" as POSIX has it, "ustar  \0" as GNU does.
        if &block[257..262] != b"ustar" {
            return None;
        }
        let sum: u64 = block.iter().map(|byte| u64::from(*byte)).sum();
        let own: u64 = block[148..156].iter().map(|byte| u64::from(*byte)).sum();
        // Its own field counts as eight spaces.
        if number(&block[148..156])? != sum - own + 8 * u64::from(b' ') {
            return None;
        }
        let kind = match block[156] {
            b'0' | b'7' | 0 => Kind::File,
            b'S' => Kind::SparseFile,
            b'5' => Kind::Directory,
            b'2' => Kind::Symlink,
            b'1' => Kind::HardLink,
            b'3' | b'4' | b'6' => Kind::Device,
            b'x' => Kind::Pax,
            b'L' => Kind::LongName,
            b'K' => Kind::LongLink,
            _ => Kind::Other,
        };
        // Links may have a length, and nothing that follows.
        let len = if matches!(block[156], b'1' | b'2' | b'3' | b'4' | b'5' | b'6') {
            0
        } else {
            number(&block[124..136])?
        };
        Some(Self { block, kind, len })
    }

    /// Prefix and name, as the archive's maker spelled them.
    pub(super) fn name(&self) -> Vec<u8> {
        let name = text(&self.block[..100]);
        // GNU has other fields there.
        let posix = &self.block[257..263] == b"ustar\0";
        let prefix = if posix {
            text(&self.block[345..500])
        } else {
            b""
        };
        if prefix.is_empty() {
            name.to_vec()
        } else {
            [prefix, b"/", name].concat()
        }
    }

    /// What a link leads to, as the archive's maker spelled it.
    pub(super) fn link(&self) -> Vec<u8> {
        text(&self.block[157..257]).to_vec()
    }

    /// Permission bits; those of a file that anybody may read if the field is garbled.
    pub(super) fn mode(&self) -> u32 {
        let mode = number(&self.block[100..108]).unwrap_or(0o644);
        (mode & 0o7777) as u32
    }

    /// Of a [`Kind::SparseFile`]: the part of the map that is in the header, whether more follows, the file's length.
    pub(super) fn sparse(&self) -> Option<(&'a [u8], bool, u64)> {
        let len = number(&self.block[483..495])?;
        Some((&self.block[386..482], self.block[482] != 0, len))
    }
}

/// Bytes before the first NUL.
pub(super) fn text(field: &[u8]) -> &[u8] {
    field.split(|byte| *byte == 0).next().unwrap_or_default()
}

/// A numeric field: octal digits, or with the top bit set a big-endian integer (GNU, for what does not fit).
pub(super) fn number(field: &[u8]) -> Option<u64> {
    match field {
        [0x80, rest @ ..] => rest.iter().try_fold(0u64, |value, byte| {
            (value >> 56 == 0).then_some(value << 8 | u64::from(*byte))
        }),
        // Negative, or beyond any file.
        [0x81..=0xFF, ..] => None,
        _ => {
            let digits = text(field).trim_ascii();
            digits.iter().try_fold(0u64, |value, byte| match byte {
                b'0'..=b'7' => value.checked_mul(8)?.checked_add(u64::from(byte - b'0')),
                _ => None,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers() {
        for (field, expected) in [
            (&b"0000644\0"[..], Some(0o644)),
            (b"   644 \0", Some(0o644)),
            (b"\0\0\0\0", Some(0)),
            (b"77777777777\0", Some((8 << 30) - 1)),
            (b"\x80\0\0\0\0\0\0\x02\0\0\0\0", Some(8 << 30)),
            (
                b"\x80\0\0\0\x7F\xFF\xFF\xFF\xFF\xFF\xFF\xFF",
                Some(i64::MAX as u64),
            ),
            (b"\x80\0\0\x01\0\0\0\0\0\0\0\0", None),
            (b"\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF\xFF", None),
            (b"644x\0", None),
            (b"-1\0", None),
            (b"789\0", None),
        ] {
            assert_eq!(number(field), expected, "{field:x?}");
        }
    }
}
