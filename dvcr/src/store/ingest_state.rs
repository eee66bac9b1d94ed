//! How far an ingest has come: enough to go on after a crash.

use bytes::Bytes;
use dvcr_core::{chunk::Cutter, oci::Algorithm};

use super::{hasher::Hasher, recipe::RecipePart};
use crate::meta::{
    Value,
    codec::{Decoded, Reader, Writer},
};

const VERSION: u8 = 1;

/// The state of an ingest between two requests.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IngestState {
    /// Its recipe.
    pub recipe: u64,
    /// Bytes taken in.
    pub offset: u64,
    /// What the chunks so far take in the store, bytes.
    pub stored_len: u64,
    /// The algorithm of `midstate`.
    pub algorithm: Algorithm,
    /// The digest's midstate after `offset` bytes.
    pub midstate: Vec<u8>,
    /// The cutter's state after the last cut.
    pub cutter: Vec<u8>,
    /// Bytes after the last cut.
    pub tail: Bytes,
    /// Where the parts of the recipe start, the unfinished one last.
    pub starts: Vec<u64>,
    /// The unfinished part of the recipe.
    pub part: RecipePart,
}

impl IngestState {
    /// Nothing taken in.
    #[must_use]
    pub fn new(recipe: u64, algorithm: Algorithm) -> Self {
        Self {
            recipe,
            offset: 0,
            stored_len: 0,
            algorithm,
            midstate: Hasher::new(algorithm).save(),
            cutter: Cutter::new().state().to_vec(),
            tail: Bytes::new(),
            starts: vec![0],
            part: RecipePart::default(),
        }
    }

    /// Adds bytes to the tail; only while nothing has been cut.
    pub(super) fn append(&mut self, bytes: &[u8]) -> Result<(), &'static str> {
        let mut hasher = Hasher::restore(self.algorithm, &self.midstate)
            .ok_or("a digest midstate of this version")?;
        hasher.update(bytes);
        self.midstate = hasher.save();
        self.offset += bytes.len() as u64;
        self.tail = [&self.tail[..], bytes].concat().into();
        Ok(())
    }

    /// The stored bytes.
    #[must_use]
    pub fn encode(&self) -> Value {
        let algorithm = match self.algorithm {
            Algorithm::Sha256 => 1,
            Algorithm::Sha512 => 2,
        };
        let mut w = Writer::new(VERSION)
            .u64(self.recipe)
            .u64(self.offset)
            .u64(self.stored_len)
            .u8(algorithm)
            .bytes(&self.midstate)
            .bytes(&self.cutter)
            .bytes(&self.tail)
            .bytes(&self.part.encode());
        for start in &self.starts {
            w = w.u64(*start);
        }
        w.finish()
    }

    /// Reads stored bytes; the error says what was expected.
    pub fn parse(bytes: &Bytes) -> Decoded<Self> {
        let mut r = Reader::new(bytes, VERSION)?;
        let (recipe, offset, stored_len) = (r.u64()?, r.u64()?, r.u64()?);
        let algorithm = match r.u8()? {
            1 => Algorithm::Sha256,
            2 => Algorithm::Sha512,
            _ => return Err("a digest algorithm"),
        };
        let midstate = r.bytes()?.to_vec();
        let cutter = r.bytes()?.to_vec();
        let tail = bytes.slice_ref(r.bytes()?);
        let part = RecipePart::parse(r.bytes()?)?;
        let starts = r.tail();
        if starts.is_empty() || starts.len() % 8 != 0 {
            return Err("where the parts start");
        }
        let starts = starts
            .chunks_exact(8)
            .map(|n| u64::from_le_bytes(n.try_into().expect("eight bytes")))
            .collect();
        Ok(Self {
            recipe,
            offset,
            stored_len,
            algorithm,
            midstate,
            cutter,
            tail,
            starts,
            part,
        })
    }
}

#[cfg(test)]
mod tests {
    use dvcr_core::chunk::ChunkId;

    use super::*;
    use crate::store::recipe::Piece;

    #[test]
    fn a_state_reads_back_as_it_was_written() {
        let mut state = IngestState::new(4, Algorithm::Sha512);
        state.append(b"hello").unwrap();
        state.starts.push(77);
        state.part = RecipePart {
            start: 77,
            pieces: vec![Piece::Chunk {
                id: ChunkId([1; 32]),
                len: 9,
            }],
        };
        let bytes = state.encode();
        assert_eq!(IngestState::parse(&bytes).unwrap(), state);
        for len in 0..bytes.len() {
            let _ = IngestState::parse(&bytes.slice(..len));
        }
    }
}
