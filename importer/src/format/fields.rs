//! Integers at fixed offsets of a header.

/// A header of fixed length. Offsets are constants of the format, below that length; beyond it the accessors panic.
pub(super) struct Fields<'a>(pub(super) &'a [u8]);

impl<'a> Fields<'a> {
    pub(super) fn bytes<const N: usize>(&self, at: usize) -> &'a [u8; N] {
        self.0[at..]
            .first_chunk()
            .expect("fields lie inside their header")
    }

    pub(super) fn u16_le(&self, at: usize) -> u16 {
        u16::from_le_bytes(*self.bytes(at))
    }

    pub(super) fn u32_le(&self, at: usize) -> u32 {
        u32::from_le_bytes(*self.bytes(at))
    }

    pub(super) fn u64_le(&self, at: usize) -> u64 {
        u64::from_le_bytes(*self.bytes(at))
    }

    pub(super) fn u32_be(&self, at: usize) -> u32 {
        u32::from_be_bytes(*self.bytes(at))
    }

    pub(super) fn u64_be(&self, at: usize) -> u64 {
        u64::from_be_bytes(*self.bytes(at))
    }
}
