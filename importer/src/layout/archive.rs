//! Reading a layer at random, without the rest of it.

use std::{cell::RefCell, io, sync::Arc};

use dvcr_core::{
    chunk::ChunkId,
    disk::{
        Frame, Index,
        tar::{self, HEAD_BYTES, QCOW2_NAME},
    },
    oci::Digest,
};
use quick_cache::sync::Cache;

use super::{LayoutError, frames::Frames};
use crate::{
    format::{DETECT_HEAD_BYTES, DiskImage, Format},
    source::{ReadAt, Slice},
    wrapping::Wrapping,
};

/// Longest frame that is read, stored or raw: 1 MiB, of which a registry makes one chunk. Ours have 96 KiB at most.
pub const FRAME_BYTES_MAX: u64 = 1 << 20;

/// Decoded frames that are kept: 6 MiB of ours.
const FRAMES_CACHED: usize = 64;

thread_local! {
    /// Each thread's decoder: making one takes longer than decoding a frame.
    static DECODER: RefCell<Option<zstd::bulk::Decompressor<'static>>> = const { RefCell::new(None) };
}

/// The archive in a layer of this layout. May be read from several threads at once; every frame is checked against its hash.
pub struct Archive {
    layer: Arc<dyn ReadAt>,
    frames: Frames,
    decoded: Cache<u64, Arc<[u8]>>,
}

impl Archive {
    /// Reads the index at the layer's end. `digest` is what the layer's descriptor says of it, if that is known: without it
    /// a source that lies can make up everything.
    pub fn open(layer: Arc<dyn ReadAt>, digest: Option<&Digest>) -> Result<Self, LayoutError> {
        let frames = Frames::open(&layer, digest)?;
        Ok(Self {
            layer,
            frames,
            decoded: Cache::new(FRAMES_CACHED),
        })
    }

    /// Where each frame lies and what it holds; `None` if the disk is so large that this is not held in memory.
    pub fn index(&self) -> Option<&Index> {
        self.frames.whole()
    }

    /// The frames in order, however many. Ends after the first error.
    pub fn frames(&self) -> impl Iterator<Item = io::Result<Frame>> {
        self.frames.iter()
    }

    /// Fetches, checks and decodes one frame.
    pub fn read_frame(&self, frame: &Frame) -> io::Result<Vec<u8>> {
        let mut raw = vec![0; (frame.raw.end - frame.raw.start) as usize];
        self.read_frame_into(frame, &mut raw)?;
        Ok(raw)
    }

    /// The same, into memory of the frame's length.
    fn read_frame_into(&self, frame: &Frame, raw: &mut [u8]) -> io::Result<()> {
        let broken =
            |reason| io::Error::new(io::ErrorKind::InvalidData, LayoutError::Broken(reason));
        let mut stored = vec![0; (frame.stored.end - frame.stored.start) as usize];
        self.layer.read_at(frame.stored.start, &mut stored)?;
        if ChunkId::of(&stored) != frame.id {
            return Err(broken("a frame has another hash"));
        }
        let len = DECODER.with_borrow_mut(|decoder| {
            let decoder = match decoder {
                Some(decoder) => decoder,
                None => decoder.insert(zstd::bulk::Decompressor::new()?),
            };
            let decoded = decoder.decompress_to_buffer(&stored, raw);
            decoded.map_err(|_| broken("a frame does not decode to its length"))
        })?;
        if len != raw.len() {
            return Err(broken("a frame decodes to less than its length"));
        }
        Ok(())
    }

    /// Name and length of the file in the archive.
    fn file(&self) -> Result<(&'static str, u64), LayoutError> {
        let mut head = [0; HEAD_BYTES];
        if self.frames.raw_len() < head.len() as u64 {
            return Err(LayoutError::Other);
        }
        self.read_at(0, &mut head)?;
        tar::parse_head(&head).ok_or(LayoutError::Other)
    }

    /// Name of the file in the archive.
    pub fn file_name(&self) -> Result<&'static str, LayoutError> {
        Ok(self.file()?.0)
    }

    /// The image in the archive. A file that was kept as it came, in a wrapping, is [`LayoutError::Other`]: it is read as a stream,
    /// like any other image's.
    pub fn image(self) -> Result<DiskImage, LayoutError> {
        let (name, len) = self.file()?;
        let file = Slice::new(self, HEAD_BYTES as u64, len)
            .ok_or(LayoutError::Broken("its file is longer than its archive"))?;
        let file = Arc::new(file);
        // The name is the layout's own, not a guess.
        if name == QCOW2_NAME {
            return Ok(DiskImage::open_as(Format::Qcow2, file)?);
        }
        let mut head = vec![0; len.min(DETECT_HEAD_BYTES as u64) as usize];
        file.read_at(0, &mut head)?;
        match Wrapping::detect(&head) {
            None => Ok(DiskImage::open(file)?),
            Some(_) => Err(LayoutError::Other),
        }
    }
}

impl ReadAt for Archive {
    fn len(&self) -> u64 {
        self.frames.raw_len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let (mut offset, mut rest) = (offset, buf);
        while !rest.is_empty() {
            let frame = self.frames.at(offset)?;
            let len = (frame.raw.end - frame.raw.start) as usize;
            if frame.raw.start == offset && len <= rest.len() && self.decoded.get(&offset).is_none()
            {
                // All of it is wanted, and nobody else will want it soon.
                let (part, behind) = rest.split_at_mut(len);
                self.read_frame_into(&frame, part)?;
                offset += len as u64;
                rest = behind;
                continue;
            }
            let raw = self.decoded.get_or_insert_with(&frame.raw.start, || {
                self.read_frame(&frame).map(Arc::<[u8]>::from)
            })?;
            let raw = &raw[(offset - frame.raw.start) as usize..];
            let (part, behind) = rest.split_at_mut(raw.len().min(rest.len()));
            part.copy_from_slice(&raw[..part.len()]);
            offset += part.len() as u64;
            rest = behind;
        }
        Ok(())
    }
}
