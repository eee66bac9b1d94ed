//! The frames of a layer, without all of its index in memory.

use std::{io, iter, sync::Arc};

use dvcr_client::Hasher;
use dvcr_core::{
    disk::{
        ENTRY_BYTES, Frame, HASH_BYTES, INDEX_HEAD_BYTES, INDEX_TAIL_BYTES, Index, IndexError,
        IndexLayout, SEEK_TABLE_FOOTER_BYTES,
    },
    oci::Digest,
};
use quick_cache::sync::Cache;

use super::{FRAME_BYTES_MAX, LayoutError};
use crate::source::ReadAt;

/// Frames of an index that is held in memory: 32 GiB of a disk, 32 MiB of memory.
const WHOLE_FRAMES_MAX: u64 = 512 << 10;

/// Frames of a page: 1 MiB of hashes and 256 KiB of entries, fetched in one request each, for 2 GiB of a disk.
const PAGE_FRAMES: u64 = 32 << 10;

/// Pages in memory, 2 MiB each: those of all who read at the same time, and some behind them.
const PAGES_CACHED: usize = 16;

/// What is kept of a page that is not in memory, to read it again: where it begins, and what it must hash to.
struct Page {
    stored: u64,
    raw: u64,
    hashes: blake3::Hash,
    entries: blake3::Hash,
}

/// The frames of a layer. All of them if there are not too many; else they are read twice: once to compare the index's digest,
/// and then in pages, each of which must be what it was.
pub(super) struct Frames(Held);

enum Held {
    Whole(Index),
    Paged(Paged),
}

struct Paged {
    layer: Arc<dyn ReadAt>,
    layout: IndexLayout,
    pages: Vec<Page>,
    raw_len: u64,
    page_frames: u64,
    cache: Cache<usize, Arc<[Frame]>>,
}

impl Frames {
    /// Reads the index at the end of a layer. `digest` is what it must hash to, if that is known.
    pub(super) fn open(
        layer: &Arc<dyn ReadAt>,
        digest: Option<&Digest>,
    ) -> Result<Self, LayoutError> {
        Self::open_as(layer, digest, WHOLE_FRAMES_MAX, PAGE_FRAMES)
    }

    fn open_as(
        layer: &Arc<dyn ReadAt>,
        digest: Option<&Digest>,
        whole_max: u64,
        page_frames: u64,
    ) -> Result<Self, LayoutError> {
        let len = layer.len();
        let mut footer = [0; SEEK_TABLE_FOOTER_BYTES];
        let footer_at = len
            .checked_sub(footer.len() as u64)
            .ok_or(LayoutError::Other)?;
        layer.read_at(footer_at, &mut footer)?;
        let layout = IndexLayout::from_footer(&footer, len)?;
        if layout.frames() > whole_max {
            let paged = Paged::open(layer.clone(), layout, digest, page_frames)?;
            return Ok(Self(Held::Paged(paged)));
        }
        let mut index = vec![0; layout.len() as usize];
        layer.read_at(len - layout.len(), &mut index)?;
        if let Some(digest) = digest
            && Digest::of(digest.algorithm(), &index) != *digest
        {
            return Err(OTHER_DIGEST);
        }
        let index = Index::parse(&index, len)?;
        if index.frames().iter().any(is_too_long) {
            return Err(LayoutError::Other);
        }
        Ok(Self(Held::Whole(index)))
    }

    /// All of them, if they are in memory.
    pub(super) fn whole(&self) -> Option<&Index> {
        match &self.0 {
            Held::Whole(index) => Some(index),
            Held::Paged(_) => None,
        }
    }

    /// Length of the archive.
    pub(super) fn raw_len(&self) -> u64 {
        match &self.0 {
            Held::Whole(index) => index.raw_len(),
            Held::Paged(paged) => paged.raw_len,
        }
    }

    /// The frame that holds the archive's byte at `offset`.
    pub(super) fn at(&self, offset: u64) -> io::Result<Frame> {
        let frame = match &self.0 {
            Held::Whole(index) => index.frame_at(offset).cloned(),
            Held::Paged(paged) => paged.frame_at(offset)?,
        };
        frame.ok_or_else(|| io::ErrorKind::UnexpectedEof.into())
    }

    /// All of them, in order. Ends after the first error.
    pub(super) fn iter(&self) -> impl Iterator<Item = io::Result<Frame>> {
        let mut next = Some(0);
        iter::from_fn(move || {
            let frame = self.at(next.filter(|at| *at < self.raw_len())?);
            next = frame.as_ref().ok().map(|frame| frame.raw.end);
            Some(frame)
        })
    }
}

const OTHER_DIGEST: LayoutError = LayoutError::Broken("its index has another digest");

fn is_too_long(frame: &Frame) -> bool {
    let too_long = |range: &std::ops::Range<u64>| range.end - range.start > FRAME_BYTES_MAX;
    too_long(&frame.stored) || too_long(&frame.raw)
}

impl Paged {
    fn open(
        layer: Arc<dyn ReadAt>,
        layout: IndexLayout,
        digest: Option<&Digest>,
        page_frames: u64,
    ) -> Result<Self, LayoutError> {
        let mut hasher = digest.map(|digest| Hasher::new(digest.algorithm()));
        let start = layer.len() - layout.len();
        let mut at = start;
        let mut next = |len: usize| {
            let mut bytes = vec![0; len];
            layer.read_at(at, &mut bytes)?;
            at += len as u64;
            if let Some(hasher) = &mut hasher {
                hasher.update(&bytes);
            }
            io::Result::Ok(bytes)
        };
        layout.check_head(&next(INDEX_HEAD_BYTES)?)?;
        let counts = (0..layout.frames())
            .step_by(page_frames as usize)
            .map(|first| page_frames.min(layout.frames() - first));
        let mut pages = vec![];
        for count in counts.clone() {
            pages.push(Page {
                stored: 0,
                raw: 0,
                hashes: blake3::hash(&next((count * HASH_BYTES) as usize)?),
                entries: blake3::hash(&[]),
            });
        }
        let table_head = layout.table_head();
        if next(table_head.len())? != table_head {
            return Err(IndexError::Broken.into());
        }
        let (mut stored, mut raw) = (0, 0);
        for (page, count) in pages.iter_mut().zip(counts) {
            let entries = next((count * ENTRY_BYTES) as usize)?;
            (page.stored, page.raw) = (stored, raw);
            page.entries = blake3::hash(&entries);
            let hashes = vec![0; (count * HASH_BYTES) as usize];
            for frame in IndexLayout::read(&entries, &hashes, (stored, raw)) {
                if frame.stored.is_empty() || frame.raw.is_empty() {
                    return Err(IndexError::Broken.into());
                }
                if is_too_long(&frame) {
                    return Err(LayoutError::Other);
                }
                (stored, raw) = (frame.stored.end, frame.raw.end);
            }
        }
        if next(INDEX_TAIL_BYTES)? != layout.tail() || stored != start {
            return Err(IndexError::Broken.into());
        }
        if hasher.map(Hasher::finish).as_ref() != digest {
            return Err(OTHER_DIGEST);
        }
        Ok(Self {
            layer,
            layout,
            pages,
            raw_len: raw,
            page_frames,
            cache: Cache::new(PAGES_CACHED),
        })
    }

    fn frame_at(&self, offset: u64) -> io::Result<Option<Frame>> {
        if offset >= self.raw_len {
            return Ok(None);
        }
        // The first page begins at 0.
        let number = self.pages.partition_point(|page| page.raw <= offset) - 1;
        let frames = self
            .cache
            .get_or_insert_with(&number, || self.read(number))?;
        let frame = frames.partition_point(|frame| frame.raw.end <= offset);
        Ok(frames.get(frame).cloned())
    }

    fn read(&self, number: usize) -> io::Result<Arc<[Frame]>> {
        let first = number as u64 * self.page_frames;
        let count = self.page_frames.min(self.layout.frames() - first);
        let page = &self.pages[number];
        let start = self.layer.len() - self.layout.len();
        let part = |offset: u64, len: u64, hash: &blake3::Hash| {
            let mut bytes = vec![0; len as usize];
            self.layer.read_at(start + offset, &mut bytes)?;
            if blake3::hash(&bytes) != *hash {
                let changed = LayoutError::Broken("its index changed while it was read");
                return Err(io::Error::new(io::ErrorKind::InvalidData, changed));
            }
            Ok(bytes)
        };
        let hashes = part(
            self.layout.hash_offset(first),
            count * HASH_BYTES,
            &page.hashes,
        )?;
        let entries = part(
            self.layout.entry_offset(first),
            count * ENTRY_BYTES,
            &page.entries,
        )?;
        Ok(IndexLayout::read(&entries, &hashes, (page.stored, page.raw)).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::layout::IndexSpool;

    /// Memory for the frames of a disk of 2 TiB that is full of data: 64 KiB a frame, and 56 MiB at most.
    #[test]
    fn memory_does_not_grow_with_the_disk() {
        let frames = (2_u64 << 40) / (64 << 10);
        let pages = frames.div_ceil(PAGE_FRAMES);
        let noted = pages * size_of::<Page>() as u64;
        let frame = size_of::<Frame>() as u64;
        let cached = PAGES_CACHED as u64 * PAGE_FRAMES * frame;
        let read = PAGE_FRAMES * (HASH_BYTES + ENTRY_BYTES);
        assert!(frames > WHOLE_FRAMES_MAX);
        assert!(noted + cached + 8 * read <= 56 << 20, "{noted} {cached}");
        assert!(WHOLE_FRAMES_MAX * (frame + HASH_BYTES + ENTRY_BYTES) <= 56 << 20);
    }

    /// A layer of `count` frames of different lengths.
    fn layer(count: u32) -> (Vec<u8>, Digest) {
        let mut index = IndexSpool::new(&std::env::temp_dir());
        let mut layer = vec![];
        for i in 0..count {
            let frame = vec![i as u8; 1 + i as usize % 50];
            index.push(&frame, 1 + i as usize % 7000).unwrap();
            layer.extend(frame);
        }
        let (_, digest) = index.finish(&mut layer).unwrap();
        (layer, digest)
    }

    fn open(layer: &[u8], digest: &Digest, whole_max: u64) -> Result<Frames, LayoutError> {
        let layer: Arc<dyn ReadAt> = Arc::new(layer.to_vec());
        Frames::open_as(&layer, Some(digest), whole_max, 64)
    }

    #[test]
    fn pages_have_the_same_frames() {
        for count in [1, 63, 64, 65, 5000] {
            let (layer, digest) = layer(count);
            let whole = open(&layer, &digest, u64::MAX).unwrap();
            let paged = open(&layer, &digest, 0).unwrap();
            assert!(whole.whole().is_some() && paged.whole().is_none());
            assert_eq!(whole.raw_len(), paged.raw_len());
            for at in (0..whole.raw_len()).step_by(997) {
                assert_eq!(whole.at(at).unwrap(), paged.at(at).unwrap());
            }
            assert!(paged.at(paged.raw_len()).is_err());
            let frames: Vec<_> = paged.iter().map(Result::unwrap).collect();
            assert_eq!(frames, whole.whole().unwrap().frames());
        }
    }

    #[test]
    fn bent_indexes_are_refused() {
        let (good, digest) = layer(300);
        let start = good.len() - IndexLayout::new(300).unwrap().len() as usize;
        for at in (start..good.len()).step_by(41) {
            let mut bent = good.clone();
            bent[at] ^= 1;
            assert!(open(&bent, &digest, 0).is_err(), "{at}");
        }
        assert!(open(&good[1..], &digest, 0).is_err());
    }
}
