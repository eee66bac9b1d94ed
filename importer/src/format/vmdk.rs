//! VMDK sparse extents: monolithicSparse and streamOptimized. Source: VMware "Virtual Disk Format 5.0".
//!
//! The disk is divided into grains; a grain directory points to grain tables, which say where each grain lies. Integers are
//! little-endian, offsets count sectors of 512 bytes.

use super::{
    FormatError,
    fields::Fields,
    layout::{Codec, Layout, Packed, Place, Run},
    limits::{PACKED_CLUSTER_BYTES_MAX, SECTOR_BYTES},
    pages::Pages,
};

/// Sparse extent header: section "Hosted Sparse Extent Header".
const HEADER_BYTES: usize = 512;

/// Grain sizes in sectors: 4 KiB (the format's least) to 2 MiB (QEMU's most).
const GRAIN_SECTORS: std::ops::RangeInclusive<u64> = 8..=4096;

/// Entries of a grain table; the format says 512, QEMU takes fewer as well.
const TABLE_ENTRIES_MAX: u64 = 512;

/// Longest embedded descriptor. VMware and QEMU reserve 10 KiB.
const DESCRIPTOR_BYTES_MAX: u64 = 64 << 10;

/// The directory's offset stands in the footer: section "Stream-Optimized Compressed Sparse Extents".
const DIRECTORY_AT_END: u64 = u64::MAX;

/// Type of the marker that precedes the footer, in the sector before it.
const MARKER_FOOTER: u32 = 3;

/// Header of a compressed grain: its first sector (8 bytes) and the length of the data that follows (4).
const GRAIN_MARKER_BYTES: u64 = 12;

/// Header flags.
mod flag {
    /// Table entries of 1 are grains of zeros.
    pub(super) const ZEROED_GRAINS: u32 = 1 << 2;
    pub(super) const COMPRESSED: u32 = 1 << 16;
}

pub(super) struct Vmdk {
    virtual_len: u64,
    grain_len: u64,
    table_entries: u64,
    directory_at: u64,
    zeroed_grains: bool,
    compressed: bool,
}

/// Checks header, footer and descriptor.
pub(super) fn open(pages: &Pages) -> Result<Vmdk, FormatError> {
    let head: [u8; HEADER_BYTES] = pages.read("the header", 0)?;
    descriptor(pages, &Fields(&head))?;
    let at_end = Fields(&head).u64_le(56) == DIRECTORY_AT_END;
    let head = if at_end { footer(pages)? } else { head };
    let head = Fields(&head);

    let version = head.u32_le(4);
    if !(1..=3).contains(&version) {
        return Err(FormatError::refused(
            "a VMDK of an unknown version",
            format!("version {version}"),
        ));
    }
    let flags = head.u32_le(8);
    let compressed = flags & flag::COMPRESSED != 0;
    let algorithm = head.u16_le(77);
    if compressed && algorithm != 1 {
        return Err(pages.broken(format!("compression algorithm {algorithm}")));
    }
    let grain_sectors = head.u64_le(20);
    if !GRAIN_SECTORS.contains(&grain_sectors) || !grain_sectors.is_power_of_two() {
        return Err(pages.broken(format!("grains of {grain_sectors} sectors")));
    }
    let table_entries = u64::from(head.u32_le(44));
    if !(1..=TABLE_ENTRIES_MAX).contains(&table_entries) {
        return Err(pages.broken(format!("grain tables of {table_entries} entries")));
    }
    let image = Vmdk {
        virtual_len: bytes(pages, "the capacity", head.u64_le(12))?,
        grain_len: grain_sectors * SECTOR_BYTES,
        table_entries,
        directory_at: bytes(pages, "the grain directory", head.u64_le(56))?,
        zeroed_grains: flags & flag::ZEROED_GRAINS != 0,
        compressed,
    };
    pages.check(
        "the grain directory",
        image.directory_at,
        image.virtual_len.div_ceil(image.table_span()) * 4,
    )?;
    pages.check_tables(
        image.directory_at,
        image.virtual_len.div_ceil(image.table_span()),
        // Tables begin with a sector.
        (image.table_entries * 4).next_multiple_of(SECTOR_BYTES),
        |entry: &[u8; 4]| *entry != [0; 4],
    )?;
    Ok(image)
}

fn bytes(pages: &Pages, what: &str, sectors: u64) -> Result<u64, FormatError> {
    sectors
        .checked_mul(SECTOR_BYTES)
        .ok_or_else(|| pages.broken(format!("{what}: {sectors} sectors")))
}

/// The header's copy near the end: footer marker, footer, end-of-stream marker, a sector each.
fn footer(pages: &Pages) -> Result<[u8; HEADER_BYTES], FormatError> {
    const { assert!(HEADER_BYTES as u64 == SECTOR_BYTES) };
    let missing = || pages.broken("its footer is missing; was it cut off?");
    let at = pages
        .source()
        .len()
        .checked_sub(3 * SECTOR_BYTES)
        .ok_or_else(missing)?;
    let marker: [u8; 16] = pages.read("the footer's marker", at)?;
    let footer: [u8; HEADER_BYTES] = pages.read("the footer", at + SECTOR_BYTES)?;
    if Fields(&marker).u32_le(12) != MARKER_FOOTER || !footer.starts_with(b"KDMV") {
        return Err(missing());
    }
    Ok(footer)
}

/// Refuses disks of several extents or with a parent: section "The Descriptor".
fn descriptor(pages: &Pages, head: &Fields<'_>) -> Result<(), FormatError> {
    let (sector, sectors) = (head.u64_le(28), head.u64_le(36));
    if sector == 0 || sectors == 0 {
        return Err(FormatError::refused(
            "one extent of a split VMDK",
            "convert the whole disk with `qemu-img convert -O qcow2` first",
        ));
    }
    let at = bytes(pages, "the descriptor", sector)?;
    let len = bytes(pages, "the descriptor", sectors)?;
    if len > DESCRIPTOR_BYTES_MAX {
        return Err(pages.broken(format!("a descriptor of {len} bytes")));
    }
    pages.check("the descriptor", at, len)?;
    let mut text = vec![0; len as usize];
    pages.source().read_at(at, &mut text)?;
    let text = text.split(|byte| *byte == 0).next().unwrap_or_default();
    check_descriptor(pages, &String::from_utf8_lossy(text))
}

fn check_descriptor(pages: &Pages, text: &str) -> Result<(), FormatError> {
    let setting = |name: &str| {
        text.lines().find_map(|line| {
            let (key, value) = line.split_once('=')?;
            key.trim()
                .eq_ignore_ascii_case(name)
                .then(|| value.trim().trim_matches('"'))
        })
    };
    match setting("createType") {
        Some("monolithicSparse" | "streamOptimized") => {}
        Some(kind) => {
            return Err(FormatError::refused(
                "a VMDK of this type",
                format!("{kind:?} is neither monolithicSparse nor streamOptimized"),
            ));
        }
        None => return Err(pages.broken("its descriptor names no type")),
    }
    if setting("parentCID").is_some_and(|id| !id.eq_ignore_ascii_case("ffffffff")) {
        return Err(FormatError::refused(
            "a VMDK snapshot",
            "consolidate it with its parent first",
        ));
    }
    // An extent's line: access, sectors, type, file name.
    let extents = text.lines().filter(|line| {
        let mut words = line.split_whitespace();
        matches!(words.next(), Some("RW" | "RDONLY" | "NOACCESS"))
            && words.next().is_some_and(|word| word.parse::<u64>().is_ok())
    });
    match extents.count() {
        1 => Ok(()),
        count => Err(FormatError::refused(
            "a VMDK of several extents",
            format!("it names {count} extents; convert it with `qemu-img convert -O qcow2` first"),
        )),
    }
}

impl Vmdk {
    /// Guest bytes under one entry of the grain directory.
    fn table_span(&self) -> u64 {
        self.grain_len * self.table_entries
    }

    fn is_zero(&self, entry: u32) -> bool {
        entry == 0 || entry == 1 && self.zeroed_grains
    }

    /// A compressed grain, behind its marker.
    fn packed(&self, pages: &Pages, at: u64, guest: u64) -> Result<Packed, FormatError> {
        let marker: [u8; GRAIN_MARKER_BYTES as usize] = pages.read("a grain", at)?;
        let marker = Fields(&marker);
        let start = guest - guest % self.grain_len;
        let sector = marker.u64_le(0);
        if sector != start / SECTOR_BYTES {
            return Err(pages.broken(format!(
                "the grain at {at} is that of sector {sector}, not of {}",
                start / SECTOR_BYTES
            )));
        }
        let len = marker.u32_le(8) as usize;
        if len == 0 || len > 2 * PACKED_CLUSTER_BYTES_MAX {
            return Err(pages.broken(format!("a compressed grain of {len} bytes")));
        }
        Ok(Packed {
            at: at + GRAIN_MARKER_BYTES,
            len,
            slack: 0,
            // The last grain of a disk may end with it.
            decoded_len: self.grain_len.min(self.virtual_len - start) as usize,
            codec: Codec::Zlib,
        })
    }
}

impl Layout for Vmdk {
    fn virtual_len(&self) -> u64 {
        self.virtual_len
    }

    fn run_at(&self, pages: &Pages, guest: u64) -> Result<Run, FormatError> {
        let span = self.table_span();
        let index = guest / span;
        let rest = self.virtual_len.div_ceil(span) - index;
        let (table, empty) = pages.entries(self.directory_at + index * 4, rest, |entries| {
            let empty = entries.iter().take_while(|entry| **entry == [0; 4]).count();
            (
                entries
                    .first()
                    .map_or(0, |entry| u32::from_le_bytes(*entry)),
                empty as u64,
            )
        })?;
        if empty > 0 {
            return Ok(Run::zero(empty * span - guest % span));
        }
        let table_at = u64::from(table) * SECTOR_BYTES;
        pages.check("a grain table", table_at, self.table_entries * 4)?;

        let index = guest % span / self.grain_len;
        let skip = guest % self.grain_len;
        let rest = self.table_entries - index;
        let (grain, zeros, adjacent) = pages.entries(table_at + index * 4, rest, |entries| {
            let mut entries = entries.iter().map(|entry| u32::from_le_bytes(*entry));
            let first = entries.clone().next().unwrap_or(0);
            let zeros = entries
                .clone()
                .take_while(|entry| self.is_zero(*entry))
                .count() as u64;
            let step = self.grain_len / SECTOR_BYTES;
            let adjacent = (u64::from(first)..)
                .step_by(step as usize)
                .zip(entries.by_ref())
                .take_while(|(expected, entry)| *expected == u64::from(*entry))
                .count() as u64;
            (first, zeros, adjacent)
        })?;
        if zeros > 0 {
            return Ok(Run::zero(zeros * self.grain_len - skip));
        }
        let at = u64::from(grain) * SECTOR_BYTES;
        if self.compressed {
            let cluster = self.packed(pages, at, guest)?;
            return Ok(Run {
                len: self.grain_len - skip,
                place: Place::Packed {
                    cluster,
                    skip: skip as usize,
                },
            });
        }
        Ok(Run::stored(at + skip, adjacent * self.grain_len - skip))
    }
}
