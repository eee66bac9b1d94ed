//! Files with holes: a map of the parts that are stored, then these.

use std::io::{self, Read};

use super::{BLOCK, header::number, pax::decimal};

/// Most parts of a file with holes: 16 MiB of map, for a disk with a million holes.
pub const SPARSE_PARTS_MAX: usize = 1 << 20;

/// The map: parts in ascending order, none overlapping.
#[derive(Default, Debug)]
pub(super) struct Map {
    /// Offset and length.
    parts: Vec<(u64, u64)>,
    /// Bytes of all parts.
    stored: u64,
}

/// Why there is no map.
#[derive(Debug)]
pub(super) enum MapError {
    Read(io::Error),
    Broken(&'static str),
}

impl From<io::Error> for MapError {
    fn from(error: io::Error) -> Self {
        Self::Read(error)
    }
}

impl Map {
    /// GNU's formats 0.0 and 0.1: everything is in the extended header.
    pub(super) fn of_parts(parts: &[(u64, u64)]) -> Result<Self, MapError> {
        let mut map = Self::default();
        for (offset, len) in parts {
            map.push(*offset, *len)?;
        }
        Ok(map)
    }

    fn push(&mut self, offset: u64, len: u64) -> Result<(), MapError> {
        let end = self.parts.last().map_or(0, |(offset, len)| offset + len);
        if offset < end || offset.checked_add(len).is_none() {
            return Err(MapError::Broken("the parts of a file with holes overlap"));
        }
        if self.parts.len() == SPARSE_PARTS_MAX {
            return Err(MapError::Broken("a file has too many holes"));
        }
        self.parts.push((offset, len));
        self.stored += len;
        Ok(())
    }

    /// GNU's old format: entries of two numeric fields in the header and in blocks that follow it.
    pub(super) fn read_old(
        head: &[u8],
        mut more: bool,
        source: &mut impl Read,
    ) -> Result<Self, MapError> {
        let mut map = Self::default();
        map.push_entries(head)?;
        while more {
            let mut block = [0; BLOCK];
            source.read_exact(&mut block)?;
            map.push_entries(&block[..504])?;
            more = block[504] != 0;
        }
        Ok(map)
    }

    fn push_entries(&mut self, entries: &[u8]) -> Result<(), MapError> {
        for entry in entries.as_chunks::<24>().0 {
            let (offset, len) = entry.split_at(12);
            // Unused entries are empty.
            if offset[0] == 0 {
                break;
            }
            let numbers = number(offset).zip(number(len));
            let (offset, len) = numbers.ok_or(MapError::Broken("a map of holes is garbled"))?;
            self.push(offset, len)?;
        }
        Ok(())
    }

    /// GNU's format 1.0: decimal lines at the start of the content, padded to a block: count, then offset and length each.
    pub(super) fn read_pax(source: &mut impl Read) -> Result<Self, MapError> {
        let mut lines = Lines {
            source,
            block: [0; BLOCK],
            at: BLOCK,
        };
        let mut map = Self::default();
        let count = lines.next()?;
        for _ in 0..count {
            let (offset, len) = (lines.next()?, lines.next()?);
            map.push(offset, len)?;
        }
        Ok(map)
    }

    /// Whether the map fits a file of `len` bytes of which `stored` follow.
    pub(super) fn fits(&self, len: u64, stored: u64) -> bool {
        let end = self.parts.last().map_or(0, |(offset, len)| offset + len);
        end <= len && self.stored == stored
    }
}

struct Lines<'a, R> {
    source: &'a mut R,
    block: [u8; BLOCK],
    at: usize,
}

impl<R: Read> Lines<'_, R> {
    fn next(&mut self) -> Result<u64, MapError> {
        let mut digits = vec![];
        // No number has more digits.
        while digits.len() <= 20 {
            if self.at == BLOCK {
                self.source.read_exact(&mut self.block)?;
                self.at = 0;
            }
            let byte = self.block[self.at];
            self.at += 1;
            if byte == b'\n' {
                return decimal(&digits).ok_or(MapError::Broken("a map of holes is garbled"));
            }
            digits.push(byte);
        }
        Err(MapError::Broken("a map of holes is garbled"))
    }
}

/// A file with its holes filled with zeros.
pub(super) struct Filled {
    map: Map,
    /// The part that comes next or is being read.
    next: usize,
    at: u64,
    len: u64,
}

impl Filled {
    pub(super) fn new(map: Map, len: u64) -> Self {
        Self {
            map,
            next: 0,
            at: 0,
            len,
        }
    }

    /// Reads on; `source` is where the stored parts come from.
    pub(super) fn read(&mut self, source: &mut impl Read, buf: &mut [u8]) -> io::Result<usize> {
        while self
            .map
            .parts
            .get(self.next)
            .is_some_and(|(offset, len)| self.at >= offset + len)
        {
            self.next += 1;
        }
        let (offset, len) = self
            .map
            .parts
            .get(self.next)
            .copied()
            .unwrap_or((self.len, 0));
        let stored = self.at >= offset && self.at < self.len;
        let end = if stored { offset + len } else { offset };
        let room = usize::try_from(end - self.at)
            .unwrap_or(usize::MAX)
            .min(buf.len());
        let buf = &mut buf[..room];
        let count = if stored {
            source.read(buf)?
        } else {
            buf.fill(0);
            room
        };
        if stored && count == 0 && room > 0 {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.at += count as u64;
        Ok(count)
    }
}
