//! Everything that there is to say about a disk.

use serde::Serialize;

use super::{PartitionTable, filesystem, partition_table};
use crate::format::{DiskImage, ExtentKind, FormatError};

/// What is on a disk.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Report {
    /// Format of the image: `raw`, `qcow2` and so on.
    pub format: &'static str,
    /// Length of the disk in bytes, as a guest sees it.
    pub virtual_size: u64,
    /// Bytes that the image stores for it, before any compression; zeros among them count.
    pub data_bytes: u64,
    /// The partition table, if there is one.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub partition_table: Option<PartitionTable>,
    /// The file system of a disk without partitions.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filesystem: Option<&'static str>,
}

/// Looks at a disk: at its map, its partition table, and the first bytes of each partition.
pub fn inspect(image: &DiskImage) -> Result<Report, FormatError> {
    let mut data_bytes = 0;
    for extent in image.extents() {
        let extent = extent?;
        data_bytes += u64::from(extent.kind == ExtentKind::Data) * extent.len;
    }
    let partition_table = partition_table(image)?;
    let filesystem = match partition_table {
        Some(_) => None,
        None => filesystem(image, 0, image.virtual_len())?,
    };
    Ok(Report {
        format: image.format().name(),
        virtual_size: image.virtual_len(),
        data_bytes,
        partition_table,
        filesystem,
    })
}
