//! Virtual PC's and Azure's VHD, dynamic and fixed. Source: Microsoft "Virtual Hard Disk Image Format Specification" 1.0.
//!
//! A fixed disk is the raw disk and a footer. A dynamic one begins with a copy of the footer; a table says where each block
//! lies, each behind a bitmap of its sectors. Integers are big-endian.
//!
//! The bitmap is not looked at: in a dynamic disk a sector without its bit holds zeros, unless the writer ignored bitmaps
//! (QEMU and VirtualBox do), and then it holds data.

use super::{
    FormatError,
    fields::Fields,
    layout::{Layout, Run},
    limits::SECTOR_BYTES,
    pages::Pages,
};

pub(super) const FOOTER_BYTES: usize = 512;

/// First bytes of a footer.
pub(super) const COOKIE: &[u8] = b"conectix";

/// A disk that lies as it is before its footer.
const FIXED: u32 = 2;
const DYNAMIC_HEADER_BYTES: usize = 1024;

/// 2 MiB is what everybody makes.
const BLOCK_BYTES: std::ops::RangeInclusive<u64> = 512..=256 << 20;

/// Entry of a block that was never written.
const UNALLOCATED: u32 = u32::MAX;

pub(super) enum Vhd {
    Fixed { virtual_len: u64 },
    Dynamic(Dynamic),
}

pub(super) struct Dynamic {
    virtual_len: u64,
    block_len: u64,
    table_at: u64,
}

/// Checks the footer and the dynamic header.
pub(super) fn open(pages: &Pages) -> Result<Vhd, FormatError> {
    let mut footer: [u8; FOOTER_BYTES] = pages.read("the footer", 0)?;
    let mut footer_at = 0;
    if !footer.starts_with(COOKIE) {
        footer_at = pages.source().len().saturating_sub(FOOTER_BYTES as u64);
        footer = pages.read("the footer", footer_at)?;
    }
    check_sum(pages, "footer", &footer, 64)?;
    let footer = Fields(&footer);
    // Not the geometry, which cannot express every size: Virtual PC alone went by it.
    let virtual_len = footer.u64_be(48);
    match footer.u32_be(60) {
        FIXED => {
            // Which is 0 for a footer at the start, where only a dynamic disk has one.
            if virtual_len > footer_at {
                return Err(pages.broken(format!(
                    "a fixed disk of {virtual_len} bytes in a file of {}",
                    pages.source().len()
                )));
            }
            Ok(Vhd::Fixed { virtual_len })
        }
        3 => Ok(Vhd::Dynamic(open_dynamic(
            pages,
            footer.u64_be(16),
            virtual_len,
        )?)),
        4 => Err(FormatError::refused(
            "a differencing VHD",
            "merge it with its parent first",
        )),
        kind => Err(pages.broken(format!("disk type {kind}"))),
    }
}

fn open_dynamic(pages: &Pages, at: u64, virtual_len: u64) -> Result<Dynamic, FormatError> {
    let head: [u8; DYNAMIC_HEADER_BYTES] = pages.read("the dynamic header", at)?;
    if !head.starts_with(b"cxsparse") {
        return Err(pages.broken("its dynamic header has no cookie"));
    }
    check_sum(pages, "dynamic header", &head, 36)?;
    let head = Fields(&head);
    let disk = Dynamic {
        virtual_len,
        block_len: u64::from(head.u32_be(32)),
        table_at: head.u64_be(16),
    };
    if !BLOCK_BYTES.contains(&disk.block_len) || !disk.block_len.is_power_of_two() {
        return Err(pages.broken(format!("blocks of {} bytes", disk.block_len)));
    }
    let entries = u64::from(head.u32_be(28));
    if entries < virtual_len.div_ceil(disk.block_len) {
        return Err(pages.broken("its block table is too small for its size"));
    }
    pages.check("the block table", disk.table_at, entries * 4)?;
    Ok(disk)
}

/// Whether this is the footer of a fixed disk of `virtual_len` bytes.
pub(super) fn is_fixed_footer(footer: &[u8; FOOTER_BYTES], virtual_len: u64) -> bool {
    let fields = Fields(footer);
    sum_fits(footer, 64) && fields.u32_be(60) == FIXED && fields.u64_be(48) == virtual_len
}

fn check_sum(pages: &Pages, what: &str, bytes: &[u8], at: usize) -> Result<(), FormatError> {
    if sum_fits(bytes, at) {
        Ok(())
    } else {
        Err(pages.broken(format!("the checksum of its {what} is wrong")))
    }
}

/// One's complement of the sum of all bytes but the checksum's own, which stands at `at`.
fn sum_fits(bytes: &[u8], at: usize) -> bool {
    let sum = |bytes: &[u8]| bytes.iter().map(|byte| u32::from(*byte)).sum::<u32>();
    Fields(bytes).u32_be(at) == !(sum(bytes) - sum(&bytes[at..at + 4]))
}

impl Dynamic {
    /// Length of the bitmap before each block, padded to a sector.
    fn bitmap_len(&self) -> u64 {
        self.block_len
            .div_ceil(SECTOR_BYTES * 8)
            .next_multiple_of(SECTOR_BYTES)
    }
}

impl Layout for Vhd {
    fn virtual_len(&self) -> u64 {
        match self {
            Self::Fixed { virtual_len } => *virtual_len,
            Self::Dynamic(disk) => disk.virtual_len,
        }
    }

    fn run_at(&self, pages: &Pages, guest: u64) -> Result<Run, FormatError> {
        let disk = match self {
            Self::Fixed { virtual_len } => return Ok(Run::stored(guest, virtual_len - guest)),
            Self::Dynamic(disk) => disk,
        };
        let index = guest / disk.block_len;
        let skip = guest % disk.block_len;
        let rest = disk.virtual_len.div_ceil(disk.block_len) - index;
        pages.entries(disk.table_at + index * 4, rest, |entries| {
            let entries = entries.iter().map(|entry| u32::from_be_bytes(*entry));
            let empty = entries
                .clone()
                .take_while(|entry| *entry == UNALLOCATED)
                .count() as u64;
            if empty > 0 {
                return Run::zero(empty * disk.block_len - skip);
            }
            let first = entries.clone().next().unwrap_or(UNALLOCATED);
            let at = u64::from(first) * SECTOR_BYTES + disk.bitmap_len();
            Run::stored(at + skip, disk.block_len - skip)
        })
    }
}
