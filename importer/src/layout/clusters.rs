//! The data of a disk in guest order, cluster by cluster, whether it can be read at random or only comes by.

use std::io::Read;

use dvcr_core::disk::CLUSTER_BYTES;

use super::LayoutError;
use crate::format::{DiskImage, ExtentKind, Extents};

const CLUSTER: u64 = CLUSTER_BYTES as u64;

/// Bytes that are read at a time.
pub(super) const READ_BYTES: u64 = 1 << 20;

/// Where a disk's bytes come from.
pub trait Clusters: Send {
    /// Fills `block` with what comes next, and says where it begins; `None` at the end. Blocks ascend and do not overlap, begin
    /// at a cluster and have whole ones (the last block of a file that is kept as it came may have less). What lies in no
    /// block is zeros.
    fn next(&mut self, block: &mut Vec<u8>) -> Result<Option<u64>, LayoutError>;
}

/// The clusters of an image that hold data as far as the image knows.
pub struct ImageClusters<'a> {
    image: &'a DiskImage,
    extents: Extents<'a>,
    /// Whole clusters that were not read yet.
    unread: std::ops::Range<u64>,
}

impl<'a> ImageClusters<'a> {
    /// From the cluster that holds `start` on.
    pub fn new(image: &'a DiskImage, start: u64) -> Self {
        let start = start / CLUSTER * CLUSTER;
        Self {
            image,
            extents: image.extents(),
            unread: start..start,
        }
    }
}

impl Clusters for ImageClusters<'_> {
    fn next(&mut self, block: &mut Vec<u8>) -> Result<Option<u64>, LayoutError> {
        while self.unread.is_empty() {
            let Some(extent) = self.extents.next().transpose()? else {
                return Ok(None);
            };
            if extent.kind == ExtentKind::Zero {
                continue;
            }
            // Extents need not begin or end at a cluster of ours: what two of them share is read once.
            let start = extent.offset / CLUSTER * CLUSTER;
            let end = (extent.offset + extent.len).next_multiple_of(CLUSTER);
            let done = self.unread.end;
            self.unread = start.max(done)..end.max(done);
        }
        let at = self.unread.start;
        // Reads end on the grid.
        let len = (READ_BYTES - at % READ_BYTES).min(self.unread.end - at);
        self.unread.start += len;
        block.clear();
        block.resize(len as usize, 0);
        // Behind the disk's end, in its last cluster, are zeros.
        let inside = len.min(self.image.virtual_len() - at);
        self.image.read_at(at, &mut block[..inside as usize])?;
        Ok(Some(at))
    }
}

/// A stream of a disk, byte by byte.
pub struct StreamClusters<R> {
    stream: R,
    pub(super) at: u64,
    /// Whether the last cluster is filled up with zeros.
    whole: bool,
}

impl<R: Read + Send> StreamClusters<R> {
    /// A raw disk.
    pub fn disk(stream: R) -> Self {
        Self {
            stream,
            at: 0,
            whole: true,
        }
    }

    /// Any file, of which `stream` is what follows `start`.
    pub fn verbatim(stream: R, start: u64) -> Self {
        Self {
            stream,
            at: start,
            whole: false,
        }
    }

    /// What was read.
    pub fn into_stream(self) -> R {
        self.stream
    }

    /// Bytes that were read so far: at the end, the length of the stream.
    pub fn len(&self) -> u64 {
        self.at
    }

    /// Whether nothing was read so far.
    pub fn is_empty(&self) -> bool {
        self.at == 0
    }
}

impl<R: Read + Send> Clusters for StreamClusters<R> {
    fn next(&mut self, block: &mut Vec<u8>) -> Result<Option<u64>, LayoutError> {
        block.clear();
        let stream = self.stream.by_ref();
        let len = stream.take(READ_BYTES).read_to_end(block)?;
        if len == 0 {
            return Ok(None);
        }
        let at = self.at;
        self.at += len as u64;
        if self.whole {
            block.resize(len.next_multiple_of(CLUSTER_BYTES), 0);
        }
        Ok(Some(at))
    }
}
