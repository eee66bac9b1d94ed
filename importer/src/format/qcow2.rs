//! qcow2, versions 2 and 3. Source: QEMU `docs/interop/qcow2.rst`.
//!
//! The guest's disk is divided into clusters; a two-level table (L1, L2) says where each lies. Integers are big-endian.
//! Refcounts and snapshots are not needed to read the disk and are not looked at.

use super::{
    FormatError,
    fields::Fields,
    layout::{Codec, Layout, Packed, Place, Run},
    pages::Pages,
};

/// Header of version 2; version 3 goes on to byte 104 at least. Section "Header".
const HEADER_V2_BYTES: usize = 72;
const HEADER_V3_BYTES: usize = 104;

/// 512 bytes to 2 MiB, as QEMU accepts.
const CLUSTER_BITS: std::ops::RangeInclusive<u32> = 9..=21;

/// Extended L2 entries need subclusters of at least a sector: section "Extended L2 Entries".
const CLUSTER_BITS_EXTENDED_MIN: u32 = 14;

/// Subclusters of a cluster with extended L2 entries.
const SUBCLUSTERS: u64 = 32;

/// Largest L1 table: 32 MiB, QEMU's own limit (`QCOW_MAX_L1_SIZE`).
const L1_ENTRIES_MAX: u64 = (32 << 20) / 8;

/// Bits 9 to 55 of L1 and L2 entries: a cluster's offset in the file.
const OFFSET_MASK: u64 = 0x00FF_FFFF_FFFF_FE00;
/// Bit 62 of an L2 entry.
const COMPRESSED: u64 = 1 << 62;
/// Bit 0 of a standard L2 entry, from version 3 on.
const ALL_ZEROS: u64 = 1;

/// Incompatible features (header byte 72). "Dirty" concerns refcounts only.
mod incompatible {
    pub(super) const DIRTY: u64 = 1 << 0;
    pub(super) const CORRUPT: u64 = 1 << 1;
    pub(super) const EXTERNAL_DATA: u64 = 1 << 2;
    pub(super) const COMPRESSION_TYPE: u64 = 1 << 3;
    pub(super) const EXTENDED_L2: u64 = 1 << 4;
    pub(super) const KNOWN: u64 = DIRTY | CORRUPT | EXTERNAL_DATA | COMPRESSION_TYPE | EXTENDED_L2;
}

pub(super) struct Qcow2 {
    virtual_len: u64,
    version: u32,
    cluster_bits: u32,
    l1_at: u64,
    codec: Codec,
    extended: bool,
}

/// Checks the header.
pub(super) fn open(pages: &Pages) -> Result<Qcow2, FormatError> {
    let base: [u8; HEADER_V2_BYTES] = pages.read("the header", 0)?;
    let base = Fields(&base);
    let version = base.u32_be(4);
    if !matches!(version, 2 | 3) {
        return Err(FormatError::refused(
            "a qcow image",
            format!("version {version} is neither 2 nor 3"),
        ));
    }
    if base.u64_be(8) != 0 {
        return Err(FormatError::refused(
            "a qcow2 image with a backing file",
            "flatten it with `qemu-img convert -O qcow2` first",
        ));
    }
    if base.u32_be(32) != 0 {
        return Err(FormatError::refused(
            "an encrypted qcow2 image",
            "decrypt it with `qemu-img convert` first",
        ));
    }
    let (features, codec) = if version == 3 {
        extra(pages)?
    } else {
        (0, Codec::Deflate)
    };
    let extended = features & incompatible::EXTENDED_L2 != 0;

    let cluster_bits = base.u32_be(20);
    if !CLUSTER_BITS.contains(&cluster_bits) || extended && cluster_bits < CLUSTER_BITS_EXTENDED_MIN
    {
        return Err(pages.broken(format!("clusters of 2^{cluster_bits} bytes")));
    }
    let image = Qcow2 {
        virtual_len: base.u64_be(24),
        version,
        cluster_bits,
        l1_at: base.u64_be(40),
        codec,
        extended,
    };
    image.check_l1(pages, u64::from(base.u32_be(36)))?;
    Ok(image)
}

/// What version 3 added to the header: features and the compression type.
fn extra(pages: &Pages) -> Result<(u64, Codec), FormatError> {
    let bytes: [u8; HEADER_V3_BYTES] = pages.read("the header", 0)?;
    let header = Fields(&bytes);
    let features = header.u64_be(72);
    if features & incompatible::EXTERNAL_DATA != 0 {
        return Err(FormatError::refused(
            "a qcow2 image with an external data file",
            "make it one file with `qemu-img convert -O qcow2` first",
        ));
    }
    if features & incompatible::CORRUPT != 0 {
        return Err(FormatError::refused(
            "a qcow2 image that is marked corrupt",
            "repair it with `qemu-img check -r all` first",
        ));
    }
    let unknown = features & !incompatible::KNOWN;
    if unknown != 0 {
        return Err(FormatError::refused(
            "a qcow2 image with unknown features",
            format!("incompatible feature bits {unknown:#x}"),
        ));
    }
    let header_len = header.u32_be(100);
    if (header_len as usize) < HEADER_V3_BYTES {
        return Err(pages.broken(format!("a header of {header_len} bytes")));
    }
    let mut kind = 0;
    if header_len as usize > HEADER_V3_BYTES {
        [kind] = pages.read("the header", HEADER_V3_BYTES as u64)?;
    }
    let codec = match (features & incompatible::COMPRESSION_TYPE != 0, kind) {
        (false, 0) => Codec::Deflate,
        (true, 1) => Codec::Zstd,
        _ => return Err(pages.broken(format!("compression type {kind} against its features"))),
    };
    Ok((features, codec))
}

impl Qcow2 {
    fn cluster_len(&self) -> u64 {
        1 << self.cluster_bits
    }

    /// Entries of one L2 table, which fills a cluster.
    fn l2_entries(&self) -> u64 {
        self.cluster_len() / if self.extended { 16 } else { 8 }
    }

    /// Guest bytes under one L1 entry.
    fn l2_span(&self) -> u64 {
        self.cluster_len() * self.l2_entries()
    }

    fn check_l1(&self, pages: &Pages, entries: u64) -> Result<(), FormatError> {
        if entries > L1_ENTRIES_MAX {
            return Err(pages.broken(format!("an L1 table of {entries} entries")));
        }
        if entries < self.virtual_len.div_ceil(self.l2_span()) {
            return Err(pages.broken("its L1 table is too small for its size"));
        }
        if !self.l1_at.is_multiple_of(self.cluster_len()) {
            return Err(pages.broken("its L1 table is not aligned"));
        }
        pages.check("the L1 table", self.l1_at, entries * 8)?;
        let used = self.virtual_len.div_ceil(self.l2_span());
        pages.check_tables(self.l1_at, used, self.cluster_len(), |entry: &[u8; 8]| {
            u64::from_be_bytes(*entry) & OFFSET_MASK != 0
        })
    }

    /// Reads an offset of a cluster out of an entry.
    fn cluster_at(&self, pages: &Pages, entry: u64, what: &str) -> Result<u64, FormatError> {
        let at = entry & OFFSET_MASK;
        if !at.is_multiple_of(self.cluster_len()) {
            return Err(pages.broken(format!("{what} at {at} is not aligned")));
        }
        pages.check(what, at, 1)?;
        Ok(at)
    }

    /// A cluster that is not compressed: section "Standard Cluster Descriptor".
    fn standard(&self, pages: &Pages, entry: u64) -> Result<Place, FormatError> {
        let zero = self.version >= 3 && entry & ALL_ZEROS != 0;
        if zero || entry & OFFSET_MASK == 0 {
            return Ok(Place::Zero);
        }
        Ok(Place::Stored(self.cluster_at(pages, entry, "a cluster")?))
    }

    /// Section "Compressed Clusters Descriptor". The length is in sectors that need not end with the file.
    fn packed(&self, pages: &Pages, entry: u64) -> Result<Packed, FormatError> {
        let offset_bits = 62 - (self.cluster_bits - 8);
        let at = entry & ((1 << offset_bits) - 1);
        let sectors = (entry & !COMPRESSED & !(1 << 63)) >> offset_bits;
        let len = (sectors + 1) * 512 - at % 512;
        let rest = pages.source().len().saturating_sub(at);
        if rest == 0 {
            return Err(pages.broken(format!("a compressed cluster at {at} lies beyond the end")));
        }
        Ok(Packed {
            at,
            len: len.min(rest) as usize,
            slack: 511,
            decoded_len: self.cluster_len() as usize,
            codec: self.codec,
        })
    }

    /// Section "Standard L2 Entries", `skip` bytes into the cluster of the first entry.
    fn run(&self, pages: &Pages, entries: &[[u8; 8]], skip: u64) -> Result<Run, FormatError> {
        let mut entries = entries.iter().map(|entry| u64::from_be_bytes(*entry));
        let first = entries.next().unwrap_or(0);
        let len = self.cluster_len() - skip;
        if first & COMPRESSED != 0 {
            let place = Place::Packed {
                cluster: self.packed(pages, first)?,
                skip: skip as usize,
            };
            return Ok(Run { len, place });
        }
        // How many of the following clusters continue it; whatever is wrong with one is found when it comes first.
        Ok(match self.standard(pages, first)? {
            Place::Stored(at) => {
                let more = (1..)
                    .zip(entries)
                    .take_while(|(i, entry)| {
                        entry & (COMPRESSED | ALL_ZEROS) == 0
                            && entry & OFFSET_MASK == at + i * self.cluster_len()
                    })
                    .count() as u64;
                Run::stored(at + skip, len + more * self.cluster_len())
            }
            _ => {
                let more = entries
                    .take_while(|entry| {
                        entry & COMPRESSED == 0
                            && (entry & OFFSET_MASK == 0
                                || self.version >= 3 && entry & ALL_ZEROS != 0)
                    })
                    .count() as u64;
                Run::zero(len + more * self.cluster_len())
            }
        })
    }

    /// Section "Extended L2 Entries": a bitmap says which subclusters are there, and which are zero.
    fn run_extended(
        &self,
        pages: &Pages,
        entries: &[[u8; 16]],
        skip: u64,
    ) -> Result<Run, FormatError> {
        let parts = |bytes: &[u8; 16]| {
            let fields = Fields(bytes);
            (fields.u64_be(0), fields.u32_be(8), fields.u32_be(12))
        };
        let Some((entry, zero, allocated)) = entries.first().map(parts) else {
            return Err(pages.broken("an L2 table ends early"));
        };
        if entry & COMPRESSED != 0 {
            let place = Place::Packed {
                cluster: self.packed(pages, entry)?,
                skip: skip as usize,
            };
            let len = self.cluster_len() - skip;
            return Ok(Run { len, place });
        }
        if zero & allocated != 0 {
            return Err(pages.broken("a subcluster is both data and zeros"));
        }
        let subcluster_len = self.cluster_len() / SUBCLUSTERS;
        let first = (skip / subcluster_len) as u32;
        let inside = skip % subcluster_len;
        let state = allocated >> first;
        if state & 1 == 1 {
            if entry & OFFSET_MASK == 0 {
                return Err(pages.broken("a subcluster lies nowhere"));
            }
            let at = self.cluster_at(pages, entry, "a cluster")?;
            let count = u64::from(state.trailing_ones());
            return Ok(Run::stored(at + skip, count * subcluster_len - inside));
        }
        // Neither allocated nor backed by another file is zeros, too.
        let count = u64::from(state.trailing_zeros().min(SUBCLUSTERS as u32 - first));
        let mut len = count * subcluster_len - inside;
        if u64::from(first) + count == SUBCLUSTERS {
            let empty = |bytes: &&[u8; 16]| {
                let (entry, _, allocated) = parts(bytes);
                entry & COMPRESSED == 0 && allocated == 0
            };
            len += entries[1..].iter().take_while(empty).count() as u64 * self.cluster_len();
        }
        Ok(Run::zero(len))
    }
}

impl Layout for Qcow2 {
    fn virtual_len(&self) -> u64 {
        self.virtual_len
    }

    fn run_at(&self, pages: &Pages, guest: u64) -> Result<Run, FormatError> {
        let l1_index = guest / self.l2_span();
        let l1_rest = self.virtual_len.div_ceil(self.l2_span()) - l1_index;
        let (entry, empty) = pages.entries(self.l1_at + l1_index * 8, l1_rest, |entries| {
            let entries = entries.iter().map(|entry| u64::from_be_bytes(*entry));
            let empty = entries.clone().take_while(|entry| entry & OFFSET_MASK == 0);
            (entries.clone().next().unwrap_or(0), empty.count() as u64)
        })?;
        if empty > 0 {
            return Ok(Run::zero(empty * self.l2_span() - guest % self.l2_span()));
        }
        let l2_at = self.cluster_at(pages, entry, "an L2 table")?;
        pages.check("an L2 table", l2_at, self.cluster_len())?;

        let index = guest % self.l2_span() / self.cluster_len();
        let rest = self.l2_entries() - index;
        let skip = guest % self.cluster_len();
        if self.extended {
            pages.entries(l2_at + index * 16, rest, |entries| {
                self.run_extended(pages, entries, skip)
            })?
        } else {
            pages.entries(l2_at + index * 8, rest, |entries| {
                self.run(pages, entries, skip)
            })?
        }
    }
}
