//! VirtualBox's VDI, dynamic and fixed. Source: VirtualBox `src/VBox/Storage/VDICore.h`; QEMU `block/vdi.c`.
//!
//! The disk is divided into blocks; one map says which block of the data area holds each. Integers are little-endian.

use super::{
    FormatError,
    fields::Fields,
    layout::{Layout, Run},
    pages::Pages,
};

/// Pre-header (72 bytes) and header of version 1.1.
const HEADER_BYTES: usize = 0x1C8;

const VERSION: u32 = 0x0001_0001;

/// Image types: normal (dynamic) and fixed. The others are undo and differencing images.
const TYPES: std::ops::RangeInclusive<u32> = 1..=2;

/// 1 MiB is what VirtualBox makes unless told otherwise.
const BLOCK_BYTES: std::ops::RangeInclusive<u64> = 4096..=256 << 20;

/// Map entries from here on name no block: 0xFFFFFFFE was discarded, 0xFFFFFFFF was never written.
const UNALLOCATED: u32 = 0xFFFF_FFFE;

pub(super) struct Vdi {
    virtual_len: u64,
    block_len: u64,
    map_at: u64,
    data_at: u64,
}

/// Checks the header.
pub(super) fn open(pages: &Pages) -> Result<Vdi, FormatError> {
    let head: [u8; HEADER_BYTES] = pages.read("the header", 0)?;
    let head = Fields(&head);
    let version = head.u32_le(0x44);
    if version != VERSION {
        return Err(FormatError::refused(
            "a VDI of an unknown version",
            format!("version {}.{}", version >> 16, version & 0xFFFF),
        ));
    }
    // The parent's UUID is null in an image without one.
    if !TYPES.contains(&head.u32_le(0x4C)) || *head.bytes::<16>(0x1A8) != [0; 16] {
        return Err(FormatError::refused(
            "a differencing VDI",
            "merge it with its parent first, for example by `VBoxManage clonemedium`",
        ));
    }
    let image = Vdi {
        virtual_len: head.u64_le(0x170),
        block_len: u64::from(head.u32_le(0x178)),
        map_at: u64::from(head.u32_le(0x154)),
        data_at: u64::from(head.u32_le(0x158)),
    };
    if !BLOCK_BYTES.contains(&image.block_len) || !image.block_len.is_power_of_two() {
        return Err(pages.broken(format!("blocks of {} bytes", image.block_len)));
    }
    if head.u32_le(0x168) != 512 || head.u32_le(0x17C) != 0 {
        return Err(pages.broken("sectors other than 512 bytes, or extra bytes in blocks"));
    }
    let blocks = u64::from(head.u32_le(0x180));
    if blocks < image.virtual_len.div_ceil(image.block_len) {
        return Err(pages.broken("its block map is too small for its size"));
    }
    pages.check("the block map", image.map_at, blocks * 4)?;
    Ok(image)
}

impl Layout for Vdi {
    fn virtual_len(&self) -> u64 {
        self.virtual_len
    }

    fn run_at(&self, pages: &Pages, guest: u64) -> Result<Run, FormatError> {
        let index = guest / self.block_len;
        let skip = guest % self.block_len;
        let rest = self.virtual_len.div_ceil(self.block_len) - index;
        pages.entries(self.map_at + index * 4, rest, |entries| {
            let entries = entries.iter().map(|entry| u32::from_le_bytes(*entry));
            let first = entries.clone().next().unwrap_or(UNALLOCATED);
            if first >= UNALLOCATED {
                let blocks = entries.take_while(|entry| *entry >= UNALLOCATED).count() as u64;
                return Run::zero(blocks * self.block_len - skip);
            }
            let adjacent = entries
                .zip(first..)
                .take_while(|(entry, next)| entry == next);
            let blocks = adjacent.count() as u64;
            let at = self.data_at + u64::from(first) * self.block_len;
            Run::stored(at + skip, blocks * self.block_len - skip)
        })
    }
}
