//! How much of a disk is stored already, with another image.
//!
//! A registry stores a frame of our layout as one chunk, under the hash that the image's index has. So two indexes tell what two
//! images share, to the byte, without reading either disk: an index has 40 bytes a frame. What a registry holds beyond its
//! images is nobody's business: there is no question "do you have this chunk" in the distribution API.

use std::io;

use dvcr_core::{chunk::ChunkId, disk::Frame};
use serde::Serialize;

use crate::{
    format::DiskImage,
    layout::{Archive, Content, Encoder, LayoutError, pieces},
};

/// How much of a layer another has, too. Bytes are compressed ones, as they are stored and sent.
#[derive(Copy, Clone, Default, PartialEq, Eq, Debug, Serialize)]
pub struct Share {
    /// Frames of the layer.
    pub frames: u64,
    /// Bytes of these.
    pub bytes: u64,
    /// Frames that the other layer has.
    pub shared_frames: u64,
    /// Bytes of these, which would take no space.
    pub shared_bytes: u64,
}

impl Share {
    fn add(&mut self, bytes: u64, shared: bool) {
        self.frames += 1;
        self.bytes += bytes;
        self.shared_frames += u64::from(shared);
        self.shared_bytes += u64::from(shared) * bytes;
    }
}

/// The frames that a layer has: the first 64 bits of their hashes, in order. 8 bytes a frame, 256 MiB for 2 TiB of data; of 32 million frames
/// on either side, one counts wrongly in one comparison of 20,000.
#[derive(Debug)]
pub struct StoredFrames(Vec<u64>);

impl StoredFrames {
    /// Those of a layer of our layout, by its index.
    pub fn of(layer: &Archive) -> io::Result<Self> {
        let ids = layer.frames().map(|frame| Ok(short(&frame?.id)));
        let mut ids = ids.collect::<io::Result<Vec<_>>>()?;
        ids.sort_unstable();
        Ok(Self(ids))
    }

    fn contains(&self, id: &ChunkId) -> bool {
        self.0.binary_search(&short(id)).is_ok()
    }
}

fn short(ChunkId(hash): &ChunkId) -> u64 {
    hash.first_chunk()
        .map_or(0, |first| u64::from_be_bytes(*first))
}

/// What a layer of our layout shares with another.
pub fn share_of_layer(layer: &Archive, other: &StoredFrames) -> io::Result<Share> {
    let mut share = Share::default();
    for frame in layer.frames() {
        let Frame { id, stored, .. } = frame?;
        share.add(stored.end - stored.start, other.contains(&id));
    }
    Ok(share)
}

/// What the layer that a disk would become shares with another. Reads the whole disk, twice, and compresses it.
pub fn share_of_disk(image: &DiskImage, other: &StoredFrames) -> Result<Share, LayoutError> {
    let content = Content::disk(image)?;
    let mut encoder = Encoder::new()?;
    let mut share = Share::default();
    for piece in pieces(&content) {
        let frame = encoder.encode(&piece?)?;
        share.add(frame.len() as u64, other.contains(&ChunkId::of(&frame)));
    }
    Ok(share)
}
