//! How much of a disk is stored already, with another image.
//!
//! A registry stores a frame of our layout as one chunk, under the hash that the image's index has. So two indexes tell what two
//! images share, to the byte, without reading either disk: an index has 40 bytes a frame. What a registry holds beyond its
//! images is nobody's business: there is no question "do you have this chunk" in the distribution API.

use std::collections::HashSet;

use dvcr_core::{chunk::ChunkId, disk::Index};
use serde::Serialize;

use crate::{
    format::DiskImage,
    layout::{Content, Encoder, LayoutError, pieces},
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

fn ids(index: &Index) -> HashSet<ChunkId> {
    index.frames().iter().map(|frame| frame.id).collect()
}

/// What a layer of our layout shares with another.
pub fn share_of_index(index: &Index, other: &Index) -> Share {
    let other = ids(other);
    let mut share = Share::default();
    for frame in index.frames() {
        share.add(
            frame.stored.end - frame.stored.start,
            other.contains(&frame.id),
        );
    }
    share
}

/// What the layer that a disk would become shares with another. Reads the whole disk, twice, and compresses it.
pub fn share_of_disk(image: &DiskImage, other: &Index) -> Result<Share, LayoutError> {
    let other = ids(other);
    let content = Content::disk(image)?;
    let mut encoder = Encoder::new()?;
    let mut share = Share::default();
    for piece in pieces(&content) {
        let frame = encoder.encode(&piece?)?;
        share.add(frame.len() as u64, other.contains(&ChunkId::of(&frame)));
    }
    Ok(share)
}
