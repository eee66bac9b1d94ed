//! Hyper-V's VHDX, dynamic and fixed. Source: Microsoft \[MS-VHDX\] 8.0.
//!
//! Two headers (the newer valid one counts), two copies of a region table that says where the block allocation table (BAT)
//! and the metadata lie. Integers are little-endian. A log that was not replayed means that tables may be half written: it
//! is laid over the source ([`log`]).

mod log;
mod overlay;

use std::sync::Arc;

use super::{
    FormatError,
    fields::Fields,
    layout::{Layout, Run},
    pages::Pages,
};
use crate::source::ReadAt;

/// Section 2.2: where headers and region tables lie.
const HEADERS_AT: [u64; 2] = [64 << 10, 128 << 10];
const REGION_TABLES_AT: [u64; 2] = [192 << 10, 256 << 10];
const HEADER_BYTES: usize = 4 << 10;
const REGION_TABLE_BYTES: usize = 64 << 10;

/// Most entries of the region table (section 2.2.3.1) and of the metadata table (2.6.1.1).
const REGIONS_MAX: usize = 2047;
const METADATA_MAX: usize = 2047;
const METADATA_TABLE_BYTES: u64 = 64 << 10;

/// Section 2.6.2.1.
const BLOCK_BYTES: std::ops::RangeInclusive<u64> = 1 << 20..=256 << 20;

/// The unit of offsets in the BAT (section 2.5.1.1).
const BAT_UNIT: u64 = 1 << 20;

/// 16 bytes of a GUID as they lie in the file.
type Guid = [u8; 16];

/// A GUID from its usual form: the first three groups are little-endian.
const fn guid(a: u32, b: u16, c: u16, d: [u8; 8]) -> Guid {
    let [a0, a1, a2, a3] = a.to_le_bytes();
    let [b0, b1] = b.to_le_bytes();
    let [c0, c1] = c.to_le_bytes();
    let [d0, d1, d2, d3, d4, d5, d6, d7] = d;
    [
        a0, a1, a2, a3, b0, b1, c0, c1, d0, d1, d2, d3, d4, d5, d6, d7,
    ]
}

const BAT_REGION: Guid = guid(
    0x2DC2_7766,
    0xF623,
    0x4200,
    [0x9D, 0x64, 0x11, 0x5E, 0x9B, 0xFD, 0x4A, 0x08],
);
const METADATA_REGION: Guid = guid(
    0x8B7C_A206,
    0x4790,
    0x4B9A,
    [0xB8, 0xFE, 0x57, 0x5F, 0x05, 0x0F, 0x88, 0x6E],
);
const FILE_PARAMETERS: Guid = guid(
    0xCAA1_6737,
    0xFA36,
    0x4D43,
    [0xB3, 0xB6, 0x33, 0xF0, 0xAA, 0x44, 0xE7, 0x6B],
);
const VIRTUAL_DISK_SIZE: Guid = guid(
    0x2FA5_4224,
    0xCD1B,
    0x4876,
    [0xB2, 0x11, 0x5D, 0xBE, 0xD8, 0x3B, 0xF4, 0xB8],
);
const LOGICAL_SECTOR_SIZE: Guid = guid(
    0x8141_BF1D,
    0xA96F,
    0x4709,
    [0xBA, 0x47, 0xF2, 0x33, 0xA8, 0xFA, 0xAB, 0x5F],
);
/// Known, and of no use here.
const IGNORED: [Guid; 2] = [
    guid(
        0xBECA_12AB,
        0xB2E6,
        0x4523,
        [0x93, 0xEF, 0xC3, 0x09, 0xE0, 0x00, 0xC7, 0x46],
    ),
    guid(
        0xCDA3_48C7,
        0x445D,
        0x4471,
        [0x9C, 0xC9, 0xE9, 0x88, 0x52, 0x51, 0xC5, 0x56],
    ),
];

pub(super) struct Vhdx {
    virtual_len: u64,
    block_len: u64,
    /// Payload blocks between two sector bitmap entries of the BAT: section 2.5.
    chunk_ratio: u64,
    bat_at: u64,
}

/// The source as its last writer left it: what is still in the log counts.
pub(super) fn replayed(pages: &Pages) -> Result<Arc<dyn ReadAt>, FormatError> {
    let log = log(pages)?;
    if log.id == [0; 16] {
        return Ok(pages.source().clone());
    }
    log::replay(pages, &log)
}

/// Checks region table and metadata of what [`replayed`] gave.
pub(super) fn open(pages: &Pages) -> Result<Vhdx, FormatError> {
    let [bat, metadata] = regions(pages)?;
    let Metadata {
        block_len,
        virtual_len,
        sector_len,
    } = metadata_items(pages, metadata)?;

    if !BLOCK_BYTES.contains(&block_len) || !block_len.is_power_of_two() {
        return Err(pages.broken(format!("blocks of {block_len} bytes")));
    }
    if !matches!(sector_len, 512 | 4096) {
        return Err(pages.broken(format!("sectors of {sector_len} bytes")));
    }
    // At least 16, because blocks have at most 256 MiB.
    let chunk_ratio = (sector_len << 23) / block_len;
    let blocks = virtual_len.div_ceil(block_len);
    let entries = blocks + blocks.saturating_sub(1) / chunk_ratio;
    if entries > bat.len / 8 {
        return Err(pages.broken("its block table is too small for its size"));
    }
    Ok(Vhdx {
        virtual_len,
        block_len,
        chunk_ratio,
        bat_at: bat.at,
    })
}

/// Section 2.2.2: of the valid headers the one with the higher sequence number, and what it says of the log.
fn log(pages: &Pages) -> Result<log::Log, FormatError> {
    let mut newest: Option<(u64, [u8; HEADER_BYTES])> = None;
    for at in HEADERS_AT {
        let bytes: [u8; HEADER_BYTES] = pages.read("a header", at)?;
        let sequence = Fields(&bytes).u64_le(8);
        if bytes.starts_with(b"head")
            && sum_is_right(&bytes)
            && newest.as_ref().is_none_or(|(other, _)| sequence > *other)
        {
            newest = Some((sequence, bytes));
        }
    }
    let Some((_, header)) = newest else {
        return Err(pages.broken("neither of its headers is valid"));
    };
    let header = Fields(&header);
    let version = header.u16_le(66);
    if version != 1 {
        return Err(FormatError::refused(
            "a VHDX of an unknown version",
            format!("version {version}"),
        ));
    }
    Ok(log::Log {
        id: *header.bytes::<16>(48),
        version: header.u16_le(64),
        len: u64::from(header.u32_le(68)),
        at: header.u64_le(72),
    })
}

/// CRC-32C over a structure whose bytes 4 to 8 hold it.
fn sum_is_right(bytes: &[u8]) -> bool {
    let sum = crc32c::crc32c(&bytes[..4]);
    let sum = crc32c::crc32c_append(sum, &[0; 4]);
    let sum = crc32c::crc32c_append(sum, &bytes[8..]);
    Fields(bytes).u32_le(4) == sum
}

#[derive(Copy, Clone)]
struct Region {
    at: u64,
    len: u64,
}

/// BAT and metadata regions: section 2.2.3.
fn regions(pages: &Pages) -> Result<[Region; 2], FormatError> {
    for at in REGION_TABLES_AT {
        pages.check("a region table", at, REGION_TABLE_BYTES as u64)?;
        let mut table = vec![0; REGION_TABLE_BYTES];
        pages.source().read_at(at, &mut table)?;
        let count = Fields(&table).u32_le(8) as usize;
        if !table.starts_with(b"regi") || !sum_is_right(&table) || count > REGIONS_MAX {
            continue;
        }
        let (mut bat, mut metadata) = (None, None);
        for entry in table[16..].as_chunks::<32>().0.iter().take(count) {
            let entry = Fields(entry);
            let region = Region {
                at: entry.u64_le(16),
                len: u64::from(entry.u32_le(24)),
            };
            let required = entry.u32_le(28) & 1 == 1;
            match *entry.bytes::<16>(0) {
                BAT_REGION => bat = Some(region),
                METADATA_REGION => metadata = Some(region),
                _ if required => {
                    return Err(FormatError::refused(
                        "a VHDX with unknown regions",
                        "it needs a newer reader",
                    ));
                }
                _ => {}
            }
        }
        let (Some(bat), Some(metadata)) = (bat, metadata) else {
            return Err(pages.broken("its region table names no BAT or no metadata"));
        };
        pages.check("the BAT", bat.at, bat.len)?;
        pages.check(
            "the metadata",
            metadata.at,
            metadata.len.max(METADATA_TABLE_BYTES),
        )?;
        return Ok([bat, metadata]);
    }
    Err(pages.broken("neither of its region tables is valid"))
}

struct Metadata {
    block_len: u64,
    virtual_len: u64,
    sector_len: u64,
}

/// Section 2.6.
fn metadata_items(pages: &Pages, region: Region) -> Result<Metadata, FormatError> {
    let head: [u8; 32] = pages.read("the metadata table", region.at)?;
    let count = usize::from(Fields(&head).u16_le(10));
    if !head.starts_with(b"metadata") || count > METADATA_MAX {
        return Err(pages.broken("its metadata table is invalid"));
    }
    let (mut block_len, mut virtual_len, mut sector_len) = (None, None, None);
    for i in 1..=count as u64 {
        let entry: [u8; 32] = pages.entries(region.at + 32 * i, 1, |entries| entries[0])?;
        let entry = Fields(&entry);
        let item = region.at.saturating_add(u64::from(entry.u32_le(16)));
        let required = entry.u32_le(24) & 4 != 0;
        match *entry.bytes::<16>(0) {
            FILE_PARAMETERS => {
                let value: [u8; 8] = pages.read("the file parameters", item)?;
                if Fields(&value).u32_le(4) & 2 != 0 {
                    return Err(FormatError::refused(
                        "a differencing VHDX",
                        "merge it with its parent first",
                    ));
                }
                block_len = Some(u64::from(Fields(&value).u32_le(0)));
            }
            VIRTUAL_DISK_SIZE => {
                virtual_len = Some(u64::from_le_bytes(pages.read("the disk's size", item)?));
            }
            LOGICAL_SECTOR_SIZE => {
                let value = u32::from_le_bytes(pages.read("the sector size", item)?);
                sector_len = Some(u64::from(value));
            }
            other if required && !IGNORED.contains(&other) => {
                return Err(FormatError::refused(
                    "a VHDX with unknown metadata",
                    "it needs a newer reader",
                ));
            }
            _ => {}
        }
    }
    let (Some(block_len), Some(virtual_len), Some(sector_len)) =
        (block_len, virtual_len, sector_len)
    else {
        return Err(pages.broken("its metadata lack the block, disk or sector size"));
    };
    Ok(Metadata {
        block_len,
        virtual_len,
        sector_len,
    })
}

impl Layout for Vhdx {
    fn virtual_len(&self) -> u64 {
        self.virtual_len
    }

    fn run_at(&self, pages: &Pages, guest: u64) -> Result<Run, FormatError> {
        let block = guest / self.block_len;
        let skip = guest % self.block_len;
        let at = self.bat_at + (block + block / self.chunk_ratio) * 8;
        // Not beyond the next sector bitmap entry.
        let rest = self.chunk_ratio - block % self.chunk_ratio;
        let rest = rest.min(self.virtual_len.div_ceil(self.block_len) - block);
        let (first, zeros) = pages.entries(at, rest, |entries| {
            let entries = entries.iter().map(|entry| u64::from_le_bytes(*entry));
            let zeros = entries
                .clone()
                .take_while(|entry| is_zero_state(*entry))
                .count();
            (entries.clone().next().unwrap_or(0), zeros as u64)
        })?;
        if zeros > 0 {
            return Ok(Run::zero(zeros * self.block_len - skip));
        }
        // Section 2.5.1.1: 6 is fully present; 7, partially, occurs with a parent only; the rest is reserved.
        let state = first & 7;
        if state != 6 {
            return Err(pages.broken(format!("a block in state {state}")));
        }
        let at = (first >> 20).saturating_mul(BAT_UNIT);
        if at < BAT_UNIT {
            return Err(pages.broken("a block lies over the headers"));
        }
        Ok(Run::stored(at.saturating_add(skip), self.block_len - skip))
    }
}

/// Not present, undefined, zero, unmapped: without a parent all read as zeros.
fn is_zero_state(entry: u64) -> bool {
    entry & 7 <= 3
}
