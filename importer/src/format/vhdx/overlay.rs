//! Sectors laid over a source.

use std::{collections::BTreeMap, io, sync::Arc};

use crate::source::ReadAt;

/// The unit of the log: section 2.3 of \[MS-VHDX\].
pub(super) const SECTOR_BYTES: usize = 4096;

const SECTOR: u64 = SECTOR_BYTES as u64;

/// A source as it would be once some sectors were written, and others set to zero.
pub(super) struct Overlay {
    source: Arc<dyn ReadAt>,
    len: u64,
    /// By offset: disjoint, and aligned to sectors.
    parts: BTreeMap<u64, Part>,
}

struct Part {
    end: u64,
    /// One sector; `None` for zeros of any length.
    data: Option<Box<[u8; SECTOR_BYTES]>>,
}

impl Overlay {
    /// The source, followed by zeros up to `len`.
    pub(super) fn new(source: Arc<dyn ReadAt>, len: u64) -> Self {
        Self {
            source,
            len,
            parts: BTreeMap::new(),
        }
    }

    /// Writes a sector. `None` if it lies beyond the end, or is not aligned.
    pub(super) fn write(&mut self, at: u64, data: Box<[u8; SECTOR_BYTES]>) -> Option<()> {
        let end = at.checked_add(SECTOR)?;
        self.put(at, end, Some(data))
    }

    /// Sets sectors to zero.
    pub(super) fn zero(&mut self, at: u64, end: u64) -> Option<()> {
        self.put(at, end, None)
    }

    fn put(&mut self, at: u64, end: u64, data: Option<Box<[u8; SECTOR_BYTES]>>) -> Option<()> {
        let aligned = at.is_multiple_of(SECTOR) && end.is_multiple_of(SECTOR);
        // The file may end within its last sector.
        if !aligned || end > self.len.next_multiple_of(SECTOR) {
            return None;
        }
        if at >= end {
            return Some(());
        }
        // Only zeros are longer than a sector, so only they can be cut.
        let mut rest = None;
        if let Some((_, before)) = self.parts.range_mut(..at).next_back()
            && before.end > at
        {
            rest = Some(before.end);
            before.end = at;
        }
        while let Some((start, _)) = self.parts.range(at..end).next() {
            let start = *start;
            rest = self.parts.remove(&start).map(|part| part.end);
        }
        if let Some(rest) = rest.filter(|rest| *rest > end) {
            let part = Part {
                end: rest,
                data: None,
            };
            self.parts.insert(end, part);
        }
        self.parts.insert(at, Part { end, data });
        Some(())
    }
}

impl ReadAt for Overlay {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let end = offset
            .checked_add(buf.len() as u64)
            .filter(|end| *end <= self.len)
            .ok_or(io::ErrorKind::UnexpectedEof)?;
        let there = self.source.len().clamp(offset, end);
        let (below, behind) = buf.split_at_mut((there - offset) as usize);
        if !below.is_empty() {
            self.source.read_at(offset, below)?;
        }
        behind.fill(0);
        let first = self.parts.range(..=offset).next_back();
        let start = first.map_or(offset, |(start, _)| *start);
        for (start, part) in self.parts.range(start..end) {
            let (from, to) = ((*start).max(offset), part.end.min(end));
            if from >= to {
                continue;
            }
            let target = &mut buf[(from - offset) as usize..(to - offset) as usize];
            match &part.data {
                Some(data) => {
                    target.copy_from_slice(&data[(from - start) as usize..(to - start) as usize]);
                }
                None => target.fill(0),
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Against a plain array, by writes of every kind over each other.
    #[test]
    fn later_writes_hide_earlier_ones() {
        const SECTORS: u64 = 24;
        let source = vec![7; (SECTORS * SECTOR) as usize - 100];
        let mut state = 1u64;
        let mut random = |bound: u64| {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            (state >> 33) % bound
        };
        for _ in 0..200 {
            let mut expected = source.clone();
            let len = (SECTORS + 2) * SECTOR;
            expected.resize(len as usize, 0);
            let mut overlay = Overlay::new(Arc::new(source.clone()), len);
            for i in 0..12 {
                let at = random(SECTORS + 2) * SECTOR;
                if random(2) == 0 {
                    let end = at + random(SECTORS + 2 - at / SECTOR + 1) * SECTOR;
                    overlay.zero(at, end).unwrap();
                    expected[at as usize..end as usize].fill(0);
                } else {
                    overlay.write(at, Box::new([i + 10; SECTOR_BYTES])).unwrap();
                    expected[at as usize..][..SECTOR_BYTES].fill(i + 10);
                }
            }
            let mut found = vec![1; expected.len()];
            overlay.read_at(0, &mut found).unwrap();
            assert!(found == expected);
            for _ in 0..20 {
                let at = random(len) as usize;
                let part = random((len as usize - at + 1) as u64) as usize;
                overlay.read_at(at as u64, &mut found[..part]).unwrap();
                assert!(found[..part] == expected[at..at + part]);
            }
        }
    }

    #[test]
    fn writes_stay_inside() {
        let mut overlay = Overlay::new(Arc::new(vec![]), 2 * SECTOR);
        assert!(overlay.zero(SECTOR, 3 * SECTOR).is_none());
        assert!(overlay.zero(1, SECTOR).is_none());
        assert!(
            overlay
                .write(2 * SECTOR, Box::new([0; SECTOR_BYTES]))
                .is_none()
        );
        assert!(
            overlay
                .write(u64::MAX - 4095, Box::new([0; SECTOR_BYTES]))
                .is_none()
        );
        assert!(overlay.read_at(2 * SECTOR, &mut [0]).is_err());
        assert!(overlay.read_at(u64::MAX, &mut [0]).is_err());
    }
}
