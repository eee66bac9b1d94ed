//! An opened image: extents in guest order and reads at guest offsets, the same for every format.

use std::{io, sync::Arc};

use quick_cache::sync::Cache;

use super::{
    Format, FormatError,
    detect::detect_source,
    layout::{Layout, Packed, Place, Run},
    limits::{
        DATA_EXTENT_BYTES_MAX, DECODED_CLUSTERS, PACKED_CLUSTER_BYTES_MAX, SECTOR_BYTES,
        VIRTUAL_BYTES_MAX,
    },
    pages::Pages,
    qcow2, raw,
    unpack::unpack,
    vdi, vhd, vhdx, vmdk,
};
use crate::source::ReadAt;

/// Least bytes that a compressed cluster counts for when the bytes in use are added up: no stream of a cluster is shorter.
const PACKED_BYTES_MIN: usize = 16;

/// A disk image that was opened, and the disk in it as a guest would see it.
///
/// May be read from several threads at once.
pub struct DiskImage {
    format: Format,
    virtual_len: u64,
    layout: Box<dyn Layout>,
    pages: Pages,
    decoded: Cache<u64, Arc<[u8]>>,
}

/// A part of the disk that is all of one kind.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub struct Extent {
    /// Guest offset in bytes.
    pub offset: u64,
    /// Length in bytes, at least 1.
    pub len: u64,
    /// What is there.
    pub kind: ExtentKind,
}

/// What an extent holds.
#[derive(Copy, Clone, PartialEq, Eq, Debug)]
pub enum ExtentKind {
    /// Bytes that the image stores. They may well be zeros.
    Data,
    /// Zeros that take no space in the image.
    Zero,
}

impl DiskImage {
    /// Opens the image in `source`, whatever its format.
    pub fn open(source: Arc<dyn ReadAt>) -> Result<Self, FormatError> {
        let format = detect_source(&*source)?;
        Self::open_as(format, source)
    }

    /// Opens the image in `source` as one of this format.
    pub fn open_as(format: Format, source: Arc<dyn ReadAt>) -> Result<Self, FormatError> {
        let mut pages = Pages::new(format, source);
        if format == Format::Vhdx {
            pages = Pages::new(format, vhdx::replayed(&pages)?);
        }
        let layout: Box<dyn Layout> = match format {
            Format::Raw | Format::Iso => Box::new(raw::open(&pages)?),
            Format::Qcow2 => Box::new(qcow2::open(&pages)?),
            Format::Vmdk => Box::new(vmdk::open(&pages)?),
            Format::Vdi => Box::new(vdi::open(&pages)?),
            Format::Vhd => Box::new(vhd::open(&pages)?),
            Format::Vhdx => Box::new(vhdx::open(&pages)?),
        };
        let len = layout.virtual_len();
        if len == 0 {
            return Err(pages.broken("the disk in it has no bytes"));
        }
        if len > VIRTUAL_BYTES_MAX {
            return Err(pages.broken(format!(
                "a disk of {len} bytes is above the limit of {VIRTUAL_BYTES_MAX}"
            )));
        }
        Ok(Self {
            format,
            virtual_len: len.next_multiple_of(SECTOR_BYTES),
            layout,
            pages,
            decoded: Cache::new(DECODED_CLUSTERS),
        })
    }

    /// The image's format.
    pub fn format(&self) -> Format {
        self.format
    }

    /// What the image is read from.
    pub fn source(&self) -> &Arc<dyn ReadAt> {
        self.pages.source()
    }

    /// Length of the disk in bytes, a multiple of [`SECTOR_BYTES`].
    pub fn virtual_len(&self) -> u64 {
        self.virtual_len
    }

    /// The whole disk as extents: adjacent, in guest order, from offset 0 to [`DiskImage::virtual_len`]. Kinds need not
    /// alternate, because data is reported in extents of at most [`DATA_EXTENT_BYTES_MAX`].
    ///
    /// An image that maps more bytes than its source has is broken, and reported as such once they add up.
    pub fn extents(&self) -> Extents<'_> {
        Extents {
            image: self,
            offset: 0,
            ahead: None,
            used: 0,
        }
    }

    /// Fills `buf` with the disk's bytes from `offset` on. They must lie before the disk's end.
    pub fn read_at(&self, offset: u64, buf: &mut [u8]) -> Result<(), FormatError> {
        let end = offset.checked_add(buf.len() as u64);
        if end.is_none_or(|end| end > self.virtual_len) {
            return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into());
        }
        let (mut guest, mut rest) = (offset, buf);
        while !rest.is_empty() {
            let run = self.joined_run_at(guest, rest.len() as u64)?;
            let (part, behind) = rest.split_at_mut(run.len as usize);
            match run.place {
                Place::Zero => part.fill(0),
                Place::Stored(at) => self.pages.source().read_at(at, part)?,
                Place::Packed { cluster, skip } => {
                    let decoded = self.decode(cluster)?;
                    part.copy_from_slice(&decoded[skip..skip + part.len()]);
                }
            }
            guest += run.len;
            rest = behind;
        }
        Ok(())
    }

    /// What lies at `guest`, at most `limit` bytes of it; neighbours in the source count as one run, because reading them
    /// one by one would be slow over a network.
    fn joined_run_at(&self, guest: u64, limit: u64) -> Result<Run, FormatError> {
        let mut run = self.run_at(guest)?;
        while run.len < limit {
            let next = self.run_at(guest + run.len)?;
            match (run.place, next.place) {
                (Place::Zero, Place::Zero) => run.len += next.len,
                (Place::Stored(at), Place::Stored(next_at)) if at + run.len == next_at => {
                    run.len += next.len;
                }
                _ => break,
            }
        }
        run.len = run.len.min(limit);
        Ok(run)
    }

    /// The layout's answer, checked: at least one byte, not beyond the disk's end, stored bytes inside the source.
    fn run_at(&self, guest: u64) -> Result<Run, FormatError> {
        let layout_len = self.layout.virtual_len();
        if guest >= layout_len {
            // What rounding up to a sector added.
            return Ok(Run::zero(self.virtual_len - guest));
        }
        let mut run = self.layout.run_at(&self.pages, guest)?;
        run.len = run.len.min(layout_len - guest);
        match run.place {
            Place::Zero => {}
            Place::Stored(at) => {
                self.pages.check("data", at, run.len)?;
            }
            Place::Packed { cluster, skip } => {
                let rest = cluster.decoded_len.saturating_sub(skip);
                run.len = run.len.min(rest as u64);
                if cluster.decoded_len > PACKED_CLUSTER_BYTES_MAX
                    || cluster.len > 2 * PACKED_CLUSTER_BYTES_MAX
                {
                    return Err(self.pages.broken("a compressed cluster is too large"));
                }
                self.pages
                    .check("a compressed cluster", cluster.at, cluster.len as u64)?;
            }
        }
        if run.len == 0 {
            return Err(self.pages.broken("a cluster has no bytes"));
        }
        Ok(run)
    }

    fn decode(&self, cluster: Packed) -> Result<Arc<[u8]>, FormatError> {
        self.decoded.get_or_insert_with(&cluster.at, || {
            let mut packed = vec![0; cluster.len];
            self.pages.source().read_at(cluster.at, &mut packed)?;
            let decoded = unpack(cluster.codec, &packed, cluster.decoded_len).map_err(|error| {
                let at = cluster.at;
                self.pages
                    .broken(format!("decode the cluster at {at}: {error}"))
            })?;
            Ok(decoded.into())
        })
    }
}

impl std::fmt::Debug for DiskImage {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DiskImage")
            .field("format", &self.format)
            .field("virtual_len", &self.virtual_len)
            .finish_non_exhaustive()
    }
}

/// See [`DiskImage::extents`]. Ends after the first error.
#[derive(Debug)]
pub struct Extents<'a> {
    image: &'a DiskImage,
    /// Where the next look at the layout goes.
    offset: u64,
    /// Seen already, but of another kind than what came before it.
    ahead: Option<Extent>,
    /// Bytes of the source that all runs so far take.
    used: u64,
}

impl Extents<'_> {
    /// The next run as an extent; `None` at the disk's end.
    fn step(&mut self) -> Result<Option<Extent>, FormatError> {
        if self.offset == self.image.virtual_len {
            return Ok(None);
        }
        let run = self.image.run_at(self.offset)?;
        let (kind, used) = match run.place {
            Place::Zero => (ExtentKind::Zero, 0),
            Place::Stored(_) => (ExtentKind::Data, run.len),
            Place::Packed { cluster, .. } => {
                let least = cluster.len.saturating_sub(cluster.slack);
                (ExtentKind::Data, least.max(PACKED_BYTES_MIN) as u64)
            }
        };
        self.used = self.used.saturating_add(used);
        if self.used > self.image.pages.source().len() {
            return Err(self
                .image
                .pages
                .broken("its tables map more data than the file has"));
        }
        let extent = Extent {
            offset: self.offset,
            len: run.len,
            kind,
        };
        self.offset += run.len;
        Ok(Some(extent))
    }

    fn advance(&mut self) -> Result<Option<Extent>, FormatError> {
        let Some(mut extent) = self
            .ahead
            .take()
            .map_or_else(|| self.step(), |e| Ok(Some(e)))?
        else {
            return Ok(None);
        };
        while extent.kind == ExtentKind::Zero || extent.len < DATA_EXTENT_BYTES_MAX {
            match self.step()? {
                Some(next) if next.kind == extent.kind => extent.len += next.len,
                next => {
                    self.ahead = next;
                    break;
                }
            }
        }
        if extent.kind == ExtentKind::Data && extent.len > DATA_EXTENT_BYTES_MAX {
            self.ahead = Some(Extent {
                offset: extent.offset + DATA_EXTENT_BYTES_MAX,
                len: extent.len - DATA_EXTENT_BYTES_MAX,
                kind: extent.kind,
            });
            extent.len = DATA_EXTENT_BYTES_MAX;
        }
        Ok(Some(extent))
    }
}

impl Iterator for Extents<'_> {
    type Item = Result<Extent, FormatError>;

    fn next(&mut self) -> Option<Self::Item> {
        let result = self.advance();
        if result.is_err() {
            self.offset = self.image.virtual_len;
            self.ahead = None;
        }
        result.transpose()
    }
}
