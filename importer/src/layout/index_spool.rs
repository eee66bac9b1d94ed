//! The index of a layer while the layer is written: in memory as long as it is small.

use std::{
    io::{Read as _, Seek as _, Write},
    path::Path,
};

use dvcr_core::{chunk::ChunkId, disk::IndexLayout, oci::Digest};
use sha2::{Digest as _, Sha256};
use tempfile::SpooledTempFile;

use super::{LayoutError, digest};

/// Bytes of hashes, and of entries, that stay in memory: a quarter of a million frames of the former, 16 GiB of a disk.
const MEMORY_BYTES: usize = 8 << 20;

/// Hashes and entries of frames in order, each in a temporary file once there are many: memory does not grow with the disk.
pub struct IndexSpool {
    hashes: SpooledTempFile,
    entries: SpooledTempFile,
    frames: u64,
}

impl IndexSpool {
    /// Of no frames. `dir` is where temporary files go; they have no name there.
    pub fn new(dir: &Path) -> Self {
        Self::in_memory_up_to(MEMORY_BYTES, dir)
    }

    fn in_memory_up_to(bytes: usize, dir: &Path) -> Self {
        Self {
            hashes: tempfile::spooled_tempfile_in(bytes, dir),
            entries: tempfile::spooled_tempfile_in(bytes, dir),
            frames: 0,
        }
    }

    /// Notes the next frame, of a piece of `raw_len` bytes.
    pub fn push(&mut self, frame: &[u8], raw_len: usize) -> Result<(), LayoutError> {
        let len = |len| u32::try_from(len).map_err(|_| LayoutError::TooLarge);
        self.push_known(ChunkId::of(frame), len(frame.len())?, len(raw_len)?)
    }

    /// Notes a frame whose hash is known.
    pub fn push_known(
        &mut self,
        id: ChunkId,
        stored_len: u32,
        raw_len: u32,
    ) -> Result<(), LayoutError> {
        self.frames += 1;
        IndexLayout::new(self.frames).ok_or(LayoutError::TooLarge)?;
        self.hashes.write_all(&id.0)?;
        self.entries
            .write_all(&IndexLayout::entry(stored_len, raw_len))?;
        Ok(())
    }

    /// Writes the index; its length and digest.
    pub fn finish(mut self, out: &mut dyn Write) -> Result<(u64, Digest), LayoutError> {
        let layout = IndexLayout::new(self.frames).ok_or(LayoutError::TooLarge)?;
        self.hashes.rewind()?;
        self.entries.rewind()?;
        let (head, table_head, tail) = (layout.head(), layout.table_head(), layout.tail());
        let mut index = head[..]
            .chain(self.hashes)
            .chain(&table_head[..])
            .chain(self.entries)
            .chain(&tail[..]);
        let mut hash = Sha256::new();
        let mut buf = vec![0; 256 << 10];
        loop {
            let len = index.read(&mut buf)?;
            if len == 0 {
                return Ok((layout.len(), digest(hash)));
            }
            hash.update(&buf[..len]);
            out.write_all(&buf[..len])?;
        }
    }
}

#[cfg(test)]
mod tests {
    use dvcr_core::disk::Index;

    use super::*;

    #[test]
    fn files_make_the_same_index() {
        let dir = tempfile::tempdir().unwrap();
        let made = |bytes| {
            let mut index = IndexSpool::in_memory_up_to(bytes, dir.path());
            for i in 0..1000_u32 {
                index.push(&i.to_le_bytes(), 65_536).unwrap();
            }
            let mut out = vec![];
            let (len, digest) = index.finish(&mut out).unwrap();
            assert_eq!((len, digest), (out.len() as u64, Digest::sha256(&out)));
            out
        };
        let index = made(1 << 20);
        assert!(index == made(100));
        let parsed = Index::parse(&index, index.len() as u64 + 4000).unwrap();
        assert_eq!(parsed.frames().len(), 1000);
        assert_eq!(parsed.frames()[7].id, ChunkId::of(&7_u32.to_le_bytes()));
    }
}
