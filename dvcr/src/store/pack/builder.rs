//! Keeps the books of a pack that is being written.

use bytes::Bytes;

use super::{
    Entry, FOOTER_BYTES_MAX, Footer, LayoutError, PACK_BYTES_MAX, PACK_BYTES_TARGET,
    PACK_ENTRIES_MAX, PACK_HEADER_LEN, PackHeader, Record,
};

/// A pack that is being written: what it holds so far and what its next bytes are.
///
/// It does no I/O: the caller appends the slices that it gathers, at the offset where they belong, in order. Memory: 64
/// bytes a record, so at most 16 MiB, and below 1 MiB for the usual 11,000 records.
#[derive(Clone, Debug)]
pub struct PackBuilder {
    header: PackHeader,
    len: u64,
    entries: Vec<Entry>,
}

impl PackBuilder {
    /// A pack of nothing but its header, whose bytes are added to `slices`.
    pub fn new(header: PackHeader, slices: &mut Vec<Bytes>) -> PackBuilder {
        slices.push(Bytes::copy_from_slice(&header.encode()));
        PackBuilder {
            header,
            len: PACK_HEADER_LEN as u64,
            entries: Vec::new(),
        }
    }

    /// Whether there is room for all of these records. What is cut from a block always fits into an empty pack: 2 MiB in frames of
    /// 9 bytes, fewer of which are all equal, are 233,017 records.
    pub fn takes(&self, records: &[Record]) -> bool {
        let bytes = records.iter().map(|record| record.header().record_len());
        self.has_room(records.len(), bytes.sum::<usize>() as u64)
    }

    fn has_room(&self, records: usize, bytes: u64) -> bool {
        self.len + bytes <= PACK_BYTES_MAX - FOOTER_BYTES_MAX as u64
            && self.entries.len() + records <= PACK_ENTRIES_MAX
    }

    /// Adds a record to the pack and its bytes to `slices`. Fails, having done nothing, if the pack has no room:
    /// that is, if the caller did not ask whether it [`takes`](Self::takes) it.
    pub fn push(&mut self, record: Record, slices: &mut Vec<Bytes>) -> Result<Entry, LayoutError> {
        let bytes = record.header().record_len() as u64;
        if !self.has_room(1, bytes) {
            return Err(LayoutError::Field {
                what: "pack has no room",
            });
        }
        // `self.len` is below PACK_BYTES_MAX, hence below 4 GiB.
        let entry = Entry {
            offset: self.len as u32,
            header: *record.header(),
        };
        record.gather(slices);
        self.entries.push(entry);
        self.len += bytes;
        Ok(entry)
    }

    /// Which pack this is.
    pub fn header(&self) -> &PackHeader {
        &self.header
    }

    /// Bytes of header and records: the offset where the next record, or the footer, belongs. Never zero.
    #[expect(
        clippy::len_without_is_empty,
        reason = "a pack has at least its header"
    )]
    pub fn len(&self) -> u64 {
        self.len
    }

    /// The records so far, by ascending offset.
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// The pack should be sealed before anything else is added.
    pub fn is_full(&self) -> bool {
        self.len >= PACK_BYTES_TARGET || self.entries.len() >= PACK_ENTRIES_MAX
    }

    /// Forgets the records that do not end by `len`, because writing them failed, and returns the end of the last one
    /// that is left: the length to seal the pack at.
    pub fn truncate(&mut self, len: u64) -> u64 {
        self.entries.retain(|entry| entry.end() <= len);
        self.len = self
            .entries
            .last()
            .map_or(PACK_HEADER_LEN as u64, Entry::end);
        self.len
    }

    /// The footer, which belongs at [`len`](Self::len). A pack that can no longer be written is sealed without one and
    /// is read by [`RecordWalk`](super::RecordWalk) when it has to be.
    pub fn footer(&self) -> Bytes {
        Footer::encode(&self.header, &self.entries).into()
    }
}
