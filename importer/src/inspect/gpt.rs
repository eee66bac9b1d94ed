//! GUID partition tables. Source: UEFI specification 2.10, section 5.3.

use super::table::{PARTITIONS_MAX, Partition, PartitionTable, read, u32_at, u64_at};
use crate::format::{DiskImage, FormatError};

const SIGNATURE: &[u8; 8] = b"EFI PART";

/// Lengths of a disk's sector that are tried.
const SECTORS: [u64; 2] = [512, 4096];

/// Longest header and longest entry that are read: both are 92 and 128 bytes in practice.
const HEADER_BYTES_MAX: usize = 512;
const ENTRY_BYTES_MAX: usize = 4096;

/// Types of partitions, as GUIDs are written.
const TYPES: [(&str, &str); 12] = [
    ("c12a7328-f81f-11d2-ba4b-00a0c93ec93b", "EFI system"),
    ("21686148-6449-6e6f-744e-656564454649", "BIOS boot"),
    ("0fc63daf-8483-4772-8e79-3d69d8477de4", "Linux"),
    (
        "4f68bce3-e8cd-4db1-96e7-fbcaf984b709",
        "Linux root (x86-64)",
    ),
    ("b921b045-1df0-41c3-af44-4c6f280d3fae", "Linux root (arm64)"),
    (
        "bc13c2ff-59e6-4262-a352-b275fd6f7172",
        "Linux extended boot",
    ),
    ("0657fd6d-a4ab-43c4-84e5-0933c84b4f4f", "Linux swap"),
    ("e6d6d379-f507-44c2-a23c-238f2a3df928", "Linux LVM"),
    ("a19d880f-05fc-4d3b-a006-743f0f84911e", "Linux RAID"),
    (
        "ebd0a0a2-b9e5-4433-87c0-68b6b72699c7",
        "Microsoft basic data",
    ),
    ("e3c9e316-0b5c-4db8-817d-f92df00215ae", "Microsoft reserved"),
    ("de94bba4-06d1-4d40-a16a-bfd50179d6ac", "Windows recovery"),
];

/// The table of a disk, or its copy at the disk's end if the first is damaged.
pub(super) fn read_disk(image: &DiskImage) -> Result<Option<PartitionTable>, FormatError> {
    for sector in SECTORS {
        let last = (image.virtual_len() / sector).saturating_sub(1);
        for at in [1, last] {
            if let Some(table) = read_table(image, sector, at)? {
                return Ok(Some(table));
            }
        }
    }
    Ok(None)
}

fn read_table(
    image: &DiskImage,
    sector: u64,
    at: u64,
) -> Result<Option<PartitionTable>, FormatError> {
    let mut header = read(image, at * sector, HEADER_BYTES_MAX)?;
    let len = u32_at(&header, 12) as usize;
    if !header.starts_with(SIGNATURE) || !(92..=HEADER_BYTES_MAX).contains(&len) {
        return Ok(None);
    }
    let sum = u32_at(&header, 16);
    // The field itself counts as zeros.
    header[16..20].fill(0);
    if crc32(&header[..len]) != sum {
        return Ok(None);
    }
    let (entries_at, count) = (u64_at(&header, 72), u32_at(&header, 80));
    let entry_len = u32_at(&header, 84) as usize;
    let start = entries_at.checked_mul(sector);
    let Some(start) = start.filter(|_| (128..=ENTRY_BYTES_MAX).contains(&entry_len)) else {
        return Ok(None);
    };
    let count = (count as usize).min(PARTITIONS_MAX);
    let entries = read(image, start, count * entry_len)?;
    let partitions = entries
        .chunks(entry_len)
        .zip(1..)
        .filter(|(entry, _)| entry[..16] != [0; 16])
        .map(|(entry, number)| partition(number, entry, sector));
    Ok(Some(PartitionTable {
        kind: "gpt",
        partitions: partitions.collect(),
    }))
}

fn partition(number: u32, entry: &[u8], sector: u64) -> Partition {
    let (first, last) = (u64_at(entry, 32), u64_at(entry, 40));
    let guid = guid(&entry[..16]);
    let known = TYPES.iter().find(|(known, _)| *known == guid);
    let units = entry[56..128].as_chunks::<2>().0.iter();
    let units: Vec<_> = units.map(|unit| u16::from_le_bytes(*unit)).collect();
    let name = String::from_utf16_lossy(&units);
    let name = name.trim_end_matches('\0');
    // Attribute bit 2: legacy BIOS bootable.
    let bootable = u64_at(entry, 48) & 4 != 0;
    Partition {
        number,
        start: first.saturating_mul(sector),
        size: last.checked_sub(first).map_or(0, |sectors| {
            sectors.saturating_add(1).saturating_mul(sector)
        }),
        kind: known.map_or(guid, |(_, name)| (*name).to_owned()),
        name: (!name.is_empty()).then(|| name.to_owned()),
        bootable,
        filesystem: None,
    }
}

/// The first three groups are little-endian.
fn guid(bytes: &[u8]) -> String {
    let hex = |order: &[usize]| -> String {
        order.iter().map(|i| format!("{:02x}", bytes[*i])).collect()
    };
    [
        hex(&[3, 2, 1, 0]),
        hex(&[5, 4]),
        hex(&[7, 6]),
        hex(&[8, 9]),
        hex(&[10, 11, 12, 13, 14, 15]),
    ]
    .join("-")
}

/// CRC-32 as in IEEE 802.3, a bit at a time: there are a hundred bytes.
fn crc32(bytes: &[u8]) -> u32 {
    !bytes.iter().fold(!0, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
            crc >> 1 ^ (0xEDB8_8320 & (crc & 1).wrapping_neg())
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn checks_and_names() {
        assert_eq!(crc32(b"123456789"), 0xCBF4_3926);
        let bytes: Vec<_> = (0..16).collect();
        assert_eq!(guid(&bytes), "03020100-0504-0706-0809-0a0b0c0d0e0f");
    }
}
