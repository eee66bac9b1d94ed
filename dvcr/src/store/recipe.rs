//! A recipe: the ordered pieces of one blob, stored in parts of a bounded number of pieces.
//!
//! A part's value is a schema version byte, the offset in the blob of its first byte (u64), then its pieces: a chunk is
//! `0, length u32, ChunkId [32]`, a zero run is `1, length u64`.

use bytes::Bytes;
use dvcr_core::chunk::{CHUNK_BYTES_MAX, ChunkId};

use crate::meta::{
    Key, MetaError, Value,
    codec::{Decoded, Reader, Writer},
    key, record,
};

/// Most pieces of a part: 4,096 chunks of 64 KiB are 256 MiB of a blob in a row of 150 KiB, small enough to read for
/// one Range request, large enough that a TiB has 4,096 rows.
pub const PART_PIECES_MAX: usize = 4096;

const VERSION: u8 = 1;

/// A piece of a blob.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Piece {
    /// A chunk of the store.
    Chunk {
        /// Its id.
        id: ChunkId,
        /// Its length, bytes.
        len: u32,
    },
    /// Zero bytes, which take no space.
    Zeros {
        /// How many.
        len: u64,
    },
}

impl Piece {
    /// Length in the blob, bytes; never 0.
    #[must_use]
    pub fn len(&self) -> u64 {
        match self {
            Self::Chunk { len, .. } => u64::from(*len),
            Self::Zeros { len } => *len,
        }
    }

    /// Always false; a piece holds at least one byte.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// Consecutive pieces of a blob.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct RecipePart {
    /// Offset in the blob of the first piece, bytes.
    pub start: u64,
    /// The pieces, at most [`PART_PIECES_MAX`].
    pub pieces: Vec<Piece>,
}

impl RecipePart {
    /// The stored bytes.
    #[must_use]
    pub fn encode(&self) -> Value {
        let mut w = Writer::new(VERSION).u64(self.start);
        for piece in &self.pieces {
            w = match piece {
                Piece::Chunk { id, len } => w.u8(0).u32(*len).tail(&id.0),
                Piece::Zeros { len } => w.u8(1).u64(*len),
            };
        }
        w.finish()
    }

    /// Reads stored bytes; the error says what was expected.
    pub fn parse(bytes: &[u8]) -> Result<Self, &'static str> {
        let mut r = Reader::new(bytes, VERSION)?;
        let start = r.u64()?;
        let mut rest = r.tail();
        let mut pieces = Vec::with_capacity((rest.len() / 37).min(PART_PIECES_MAX));
        let mut end = start;
        while !rest.is_empty() {
            if pieces.len() == PART_PIECES_MAX {
                return Err("at most 4096 pieces");
            }
            let piece = take_piece(&mut rest)?;
            end = end.checked_add(piece.len()).ok_or("a blob below 16 EiB")?;
            pieces.push(piece);
        }
        Ok(Self { start, pieces })
    }

    /// Reads the value of `key`.
    pub(crate) fn decode(key: &[u8], bytes: &Bytes) -> Result<Self, MetaError> {
        Self::parse(bytes).map_err(|what| MetaError::Corrupt {
            key: hex::encode(key),
            what,
        })
    }

    /// The chunks, in order; one that comes again is there again.
    pub fn chunks(&self) -> impl Iterator<Item = ChunkId> {
        self.pieces.iter().filter_map(|piece| match piece {
            Piece::Chunk { id, .. } => Some(*id),
            Piece::Zeros { .. } => None,
        })
    }

    /// Offset in the blob of the first byte past this part.
    #[must_use]
    pub fn end(&self) -> u64 {
        self.start + self.pieces.iter().map(Piece::len).sum::<u64>()
    }
}

fn take_piece(rest: &mut &[u8]) -> Decoded<Piece> {
    fn take<'a>(rest: &mut &'a [u8], n: usize) -> Decoded<&'a [u8]> {
        let (head, tail) = rest.split_at_checked(n).ok_or("a whole piece")?;
        *rest = tail;
        Ok(head)
    }
    let piece = match take(rest, 1)?[0] {
        0 => {
            let len = u32::from_le_bytes(take(rest, 4)?.try_into().expect("four bytes"));
            let id = ChunkId(take(rest, 32)?.try_into().expect("32 bytes"));
            if len as usize > CHUNK_BYTES_MAX {
                return Err("a chunk length within the limit");
            }
            Piece::Chunk { id, len }
        }
        1 => Piece::Zeros {
            len: u64::from_le_bytes(take(rest, 8)?.try_into().expect("eight bytes")),
        },
        _ => return Err("a kind of piece"),
    };
    if piece.is_empty() {
        Err("a piece of at least one byte")
    } else {
        Ok(piece)
    }
}

/// Builds the recipe of a blob piece by piece.
#[derive(Clone, Debug)]
pub(crate) struct RecipeBuilder {
    id: u64,
    /// Offsets of the first byte of each part, the unfinished one included.
    starts: Vec<u64>,
    /// The unfinished part.
    part: RecipePart,
    /// Finished parts whose rows are not written yet.
    finished: Vec<(u32, RecipePart)>,
}

impl RecipeBuilder {
    #[cfg(test)]
    pub(crate) fn new(id: u64) -> Self {
        Self::resume(id, vec![0], RecipePart::default())
    }

    /// Continues a recipe whose parts start at `starts` and whose last part is `part`.
    pub(crate) fn resume(id: u64, starts: Vec<u64>, part: RecipePart) -> Self {
        Self {
            id,
            starts,
            part,
            finished: Vec::new(),
        }
    }

    /// Adds a piece. Returns the part that this piece completed, if it did.
    pub(crate) fn push(&mut self, piece: Piece) -> Option<(u32, &RecipePart)> {
        if let (Piece::Zeros { len }, Some(Piece::Zeros { len: last })) =
            (&piece, self.part.pieces.last_mut())
        {
            *last += len;
            return None;
        }
        let mut completed = false;
        if self.part.pieces.len() == PART_PIECES_MAX {
            let next = RecipePart {
                start: self.part.end(),
                pieces: Vec::new(),
            };
            self.starts.push(next.start);
            let number = self.current();
            let done = std::mem::replace(&mut self.part, next);
            self.finished.push((number - 1, done));
            completed = true;
        }
        self.part.pieces.push(piece);
        completed
            .then(|| self.finished.last().map(|(n, p)| (*n, p)))
            .flatten()
    }

    /// Number of the unfinished part.
    fn current(&self) -> u32 {
        u32::try_from(self.starts.len() - 1).expect("a blob has fewer than 2^32 parts")
    }

    /// The unfinished part and its number.
    pub(crate) fn last_part(&self) -> (u32, &RecipePart) {
        (self.current(), &self.part)
    }

    /// Number of parts, the unfinished one included.
    pub(crate) fn parts(&self) -> u32 {
        self.current() + 1
    }

    pub(crate) fn id(&self) -> u64 {
        self.id
    }

    /// Offsets of the first byte of each part.
    pub(crate) fn starts(&self) -> &[u64] {
        &self.starts
    }

    /// The rows that bring what is stored up to date.
    pub(crate) fn take_rows(&mut self) -> Vec<(Key, Value)> {
        let mut rows: Vec<_> = self
            .finished
            .drain(..)
            .map(|(n, part)| (key::recipe(self.id, n), part.encode()))
            .collect();
        rows.push((key::recipe(self.id, self.current()), self.part.encode()));
        if self.starts.len() > 1 {
            rows.push((
                key::recipe(self.id, key::RECIPE_STARTS),
                record::encode_numbers(&self.starts),
            ));
        }
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn chunk(n: u64) -> Piece {
        Piece::Chunk {
            id: ChunkId::of(&n.to_le_bytes()),
            len: 1000,
        }
    }

    #[test]
    fn parts_read_back_as_they_were_written() {
        let part = RecipePart {
            start: 7,
            pieces: vec![chunk(1), Piece::Zeros { len: 1 << 40 }, chunk(2)],
        };
        let bytes = part.encode();
        assert_eq!(RecipePart::parse(&bytes), Ok(part.clone()));
        assert_eq!(part.end(), 7 + 2000 + (1 << 40));
        for len in 10..bytes.len() {
            let cut = RecipePart::parse(&bytes[..len]);
            assert!(cut.is_err() || cut.unwrap().pieces.len() < 3);
        }
    }

    #[test]
    fn golden_part() {
        let part = RecipePart {
            start: 0x0102,
            pieces: vec![
                Piece::Chunk {
                    id: ChunkId([0xab; 32]),
                    len: 0x10000,
                },
                Piece::Zeros { len: 5 },
            ],
        };
        let expected = format!(
            "010201000000000000{}{}{}",
            "0000000100",
            "ab".repeat(32),
            "010500000000000000"
        );
        assert_eq!(hex::encode(part.encode()), expected);
    }

    #[test]
    fn zero_runs_merge_and_full_parts_are_handed_out_once() {
        let mut builder = RecipeBuilder::new(3);
        for _ in 0..10 {
            assert!(builder.push(Piece::Zeros { len: 5 }).is_none());
        }
        assert_eq!(builder.last_part().1.pieces, vec![Piece::Zeros { len: 50 }]);
        for n in 1..PART_PIECES_MAX as u64 {
            assert!(builder.push(chunk(n)).is_none());
        }
        let (number, part) = builder.push(chunk(0)).map(|(n, p)| (n, p.clone())).unwrap();
        assert_eq!((number, part.pieces.len()), (0, PART_PIECES_MAX));
        assert_eq!(builder.parts(), 2);
        assert_eq!(builder.last_part().1.start, 50 + 4095 * 1000);
        let rows = builder.take_rows();
        assert_eq!(
            rows.len(),
            3,
            "the full part, the unfinished one, the starts"
        );
        assert_eq!(
            builder.take_rows().len(),
            2,
            "the full part is not written again"
        );
    }

    #[test]
    fn hostile_parts_are_refused() {
        let start = [1u8, 0, 0, 0, 0, 0, 0, 0, 0];
        let check = |tail: &[u8]| RecipePart::parse(&[&start[..], tail].concat()).is_err();
        assert!(check(&[2]), "unknown kind");
        assert!(check(&[1, 0, 0, 0, 0, 0, 0, 0, 0]), "empty run");
        assert!(
            check(&[&[0, 255, 255, 255, 255][..], &[0; 32]].concat()),
            "chunk over the limit"
        );
        let run = [1u8, 255, 255, 255, 255, 255, 255, 255, 255];
        assert!(check(&[run, run].concat()), "length overflow");
    }
}
