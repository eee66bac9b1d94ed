//! The first pass over a disk: which clusters hold data.

use dvcr_core::{
    chunk::is_zero,
    disk::{CLUSTER_BYTES, ClusterMap},
};

use super::{Clusters, ImageClusters, LayoutError};
use crate::format::DiskImage;

/// Reads all data of a disk. A cluster counts if it has a byte that is not zero, whatever the image says about it.
pub fn scan(image: &DiskImage) -> Result<ClusterMap, LayoutError> {
    let mut map = ClusterMap::new();
    let mut clusters = ImageClusters::new(image, 0);
    let mut block = vec![];
    while let Some(at) = clusters.next(&mut block)? {
        let first = at / CLUSTER_BYTES as u64;
        for (cluster, number) in block.chunks(CLUSTER_BYTES).zip(first..) {
            if !is_zero(cluster) {
                map.insert(number);
            }
        }
    }
    Ok(map)
}
