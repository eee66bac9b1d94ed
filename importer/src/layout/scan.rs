//! The first pass over a disk: which clusters hold data.

use dvcr_core::{
    chunk::is_zero,
    disk::{CLUSTER_BYTES, ClusterMap},
};

use crate::format::{DiskImage, ExtentKind, FormatError};

/// Bytes that are read at a time.
const READ_BYTES: u64 = 1 << 20;

/// Reads all data of a disk. A cluster counts if it has a byte that is not zero, whatever the image says about it.
pub fn scan(image: &DiskImage) -> Result<ClusterMap, FormatError> {
    let mut map = ClusterMap::new();
    let mut buf = vec![0; READ_BYTES as usize];
    for extent in image.extents() {
        let extent = extent?;
        if extent.kind == ExtentKind::Zero {
            continue;
        }
        let end = extent.offset + extent.len;
        let mut offset = extent.offset;
        while offset < end {
            // Reads end on the grid, so that every part but the first is of one cluster from its start.
            let len = (READ_BYTES - offset % READ_BYTES).min(end - offset);
            let buf = &mut buf[..len as usize];
            image.read_at(offset, buf)?;
            let first = CLUSTER_BYTES - (offset % CLUSTER_BYTES as u64) as usize;
            let (first, rest) = buf.split_at(first.min(buf.len()));
            let parts = std::iter::once(first).chain(rest.chunks(CLUSTER_BYTES));
            for (part, cluster) in parts.zip(offset / CLUSTER_BYTES as u64..) {
                if !is_zero(part) {
                    map.insert(cluster);
                }
            }
            offset += len;
        }
    }
    Ok(map)
}
