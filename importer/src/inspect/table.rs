//! The partition table of a disk.

use serde::Serialize;

use super::{filesystem, gpt, mbr};
use crate::format::{DiskImage, FormatError};

/// Most partitions that are listed: GPT's usual table has room for as many.
pub(super) const PARTITIONS_MAX: usize = 128;

/// A partition table.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct PartitionTable {
    /// `gpt` or `mbr`.
    pub kind: &'static str,
    /// In the table's order; empty slots are left out.
    pub partitions: Vec<Partition>,
}

/// One partition.
#[derive(Clone, PartialEq, Eq, Debug, Serialize)]
pub struct Partition {
    /// As Linux counts them.
    pub number: u32,
    /// Where it begins, in bytes.
    pub start: u64,
    /// Its length in bytes.
    pub size: u64,
    /// What the table says that it is for: a name, or the number or GUID if that is not known here.
    #[serde(rename = "type")]
    pub kind: String,
    /// The name that GPT has for it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// Whether firmware boots from it.
    pub bootable: bool,
    /// What is on it.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub filesystem: Option<String>,
}

/// The partition table of a disk; `None` if it has none. Partitions that lie outside of the disk are listed, too, but not looked
/// into.
pub fn partition_table(image: &DiskImage) -> Result<Option<PartitionTable>, FormatError> {
    let table = match gpt::read_disk(image)? {
        Some(table) => Some(table),
        None => mbr::read_disk(image)?,
    };
    let Some(mut table) = table else {
        return Ok(None);
    };
    for partition in &mut table.partitions {
        let found = filesystem(
            image,
            partition.start.min(image.virtual_len()),
            partition.size,
        )?;
        partition.filesystem = found.map(str::to_owned);
    }
    Ok(Some(table))
}

/// Bytes of the disk, zeros where it ends.
pub(super) fn read(image: &DiskImage, offset: u64, len: usize) -> Result<Vec<u8>, FormatError> {
    let mut bytes = vec![0; len];
    let rest = image.virtual_len().saturating_sub(offset);
    let there = usize::try_from(rest).unwrap_or(usize::MAX).min(len);
    if there > 0 {
        image.read_at(offset, &mut bytes[..there])?;
    }
    Ok(bytes)
}

/// A little-endian integer inside of `bytes`, which is long enough.
pub(super) fn u32_at(bytes: &[u8], at: usize) -> u32 {
    let field = bytes
        .get(at..at + 4)
        .and_then(|field| field.try_into().ok());
    field.map_or(0, u32::from_le_bytes)
}

pub(super) fn u64_at(bytes: &[u8], at: usize) -> u64 {
    u64::from(u32_at(bytes, at)) | u64::from(u32_at(bytes, at + 4)) << 32
}
