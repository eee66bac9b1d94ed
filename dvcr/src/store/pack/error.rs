//! Why bytes are not a pack's.

/// Bytes that do not have the layout of this module.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum LayoutError {
    /// There are too few bytes. With `need` of them (for a footer: from the end of the pack) decoding can go on.
    #[error("{what} needs {need} bytes")]
    Short {
        /// What was being decoded.
        what: &'static str,
        /// Bytes needed.
        need: usize,
    },
    /// Something else, or nothing, was written here.
    #[error("no {what} here")]
    Magic {
        /// What was expected.
        what: &'static str,
    },
    /// The pack was written by a version of the registry that this one does not know.
    #[error(
        "pack format {found}: this version reads format {}",
        super::PACK_FORMAT
    )]
    Version {
        /// The version that the pack names.
        found: u32,
    },
    /// The bytes are not those that were written.
    #[error("checksum of {what} does not match")]
    Checksum {
        /// What the checksum covers.
        what: &'static str,
    },
    /// A field has a value that is never written.
    #[error("{what}")]
    Field {
        /// The field and what is wrong with it.
        what: &'static str,
    },
}

/// Reads little-endian integers off the front of bytes whose length was checked before.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl Fields<'_> {
    pub(super) fn array<const N: usize>(&mut self) -> [u8; N] {
        let (head, rest) = self
            .0
            .split_first_chunk::<N>()
            .expect("the caller checked the length of the whole");
        self.0 = rest;
        *head
    }

    pub(super) fn u8(&mut self) -> u8 {
        self.array::<1>()[0]
    }

    pub(super) fn u16(&mut self) -> u16 {
        u16::from_le_bytes(self.array())
    }

    pub(super) fn u32(&mut self) -> u32 {
        u32::from_le_bytes(self.array())
    }

    pub(super) fn u64(&mut self) -> u64 {
        u64::from_le_bytes(self.array())
    }
}

/// Writes fields at the front of an array, one after the other.
pub(super) struct Writer<const N: usize> {
    pub(super) bytes: [u8; N],
    pub(super) at: usize,
}

impl<const N: usize> Writer<N> {
    pub(super) fn new() -> Writer<N> {
        Writer {
            bytes: [0; N],
            at: 0,
        }
    }

    pub(super) fn put(mut self, field: &[u8]) -> Writer<N> {
        self.bytes[self.at..self.at + field.len()].copy_from_slice(field);
        self.at += field.len();
        self
    }

    /// Appends the CRC of all that was put.
    pub(super) fn put_crc(self) -> Writer<N> {
        let crc = crc32c::crc32c(&self.bytes[..self.at]);
        self.put(&crc.to_le_bytes())
    }
}
