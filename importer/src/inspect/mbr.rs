//! The partition table of PCs, with its chain of logical partitions.

use super::table::{PARTITIONS_MAX, Partition, PartitionTable, read, u32_at};
use crate::format::{DiskImage, FormatError};

const SECTOR: u64 = 512;

/// Where the four entries of 16 bytes are.
const ENTRIES: usize = 446;

/// Types of extended partitions, which hold logical ones.
const EXTENDED: [u8; 3] = [0x05, 0x0F, 0x85];

/// The table in the first sector, if it looks like one. The first sector of a FAT or NTFS ends alike: what its "entries" say
/// makes no sense there.
fn read_table(sector: &[u8], sectors: u64) -> Option<Vec<(u8, bool, u64, u64)>> {
    if sector.get(510..512) != Some(&[0x55, 0xAA]) {
        return None;
    }
    let entries = sector[ENTRIES..510].chunks(16).map(|entry| {
        let flag = entry[0];
        let (kind, start, len) = (entry[4], u32_at(entry, 8), u32_at(entry, 12));
        let sound =
            flag & 0x7F == 0 && (kind == 0 || start > 0 && len > 0 && u64::from(start) < sectors);
        sound.then_some((kind, flag == 0x80, u64::from(start), u64::from(len)))
    });
    let entries: Option<Vec<_>> = entries.collect();
    entries.filter(|entries| entries.iter().any(|(kind, ..)| *kind != 0))
}

fn read_chain(
    image: &DiskImage,
    start: u64,
    partitions: &mut Vec<Partition>,
) -> Result<(), FormatError> {
    let (mut at, mut number) = (start, 5);
    // Links that name no partition count, too.
    for _ in partitions.len()..PARTITIONS_MAX {
        let sector = read(image, at * SECTOR, SECTOR as usize)?;
        if sector[510..] != [0x55, 0xAA] {
            break;
        }
        let (kind, first, len) = (
            sector[ENTRIES + 4],
            u32_at(&sector, ENTRIES + 8),
            u32_at(&sector, ENTRIES + 12),
        );
        if kind != 0 && len > 0 {
            let entry = (kind, false, at + u64::from(first), u64::from(len));
            partitions.push(partition(number, entry));
            number += 1;
        }
        let (next_kind, next) = (sector[ENTRIES + 20], u32_at(&sector, ENTRIES + 24));
        let next = start + u64::from(next);
        // The chain leads forward; one that does not would have no end.
        if !EXTENDED.contains(&next_kind) || next <= at {
            break;
        }
        at = next;
    }
    Ok(())
}

/// The table of a disk.
pub(super) fn read_disk(image: &DiskImage) -> Result<Option<PartitionTable>, FormatError> {
    let sector = read(image, 0, SECTOR as usize)?;
    let Some(entries) = read_table(&sector, image.virtual_len() / SECTOR) else {
        return Ok(None);
    };
    let mut partitions = vec![];
    for (entry, number) in entries.into_iter().zip(1..) {
        if entry.0 != 0 {
            partitions.push(partition(number, entry));
        }
        if EXTENDED.contains(&entry.0) {
            read_chain(image, entry.2, &mut partitions)?;
        }
    }
    Ok(Some(PartitionTable {
        kind: "mbr",
        partitions,
    }))
}

fn partition(number: u32, (kind, bootable, start, len): (u8, bool, u64, u64)) -> Partition {
    Partition {
        number,
        start: start * SECTOR,
        size: len * SECTOR,
        kind: type_name(kind),
        name: None,
        bootable,
        filesystem: None,
    }
}

fn type_name(kind: u8) -> String {
    match kind {
        0x01 | 0x04 | 0x06 | 0x0E => "FAT16",
        0x0B | 0x0C => "FAT32",
        0x05 | 0x0F | 0x85 => "extended",
        0x07 => "NTFS or exFAT",
        0x82 => "Linux swap",
        0x83 => "Linux",
        0x8E => "Linux LVM",
        0xA5 => "FreeBSD",
        0xEE => "GPT",
        0xEF => "EFI system",
        0xFD => "Linux RAID",
        other => return format!("0x{other:02x}"),
    }
    .to_owned()
}
