//! The bodies of the fuzz targets of the importer: images, archives and layers from anywhere in, no panic, bounded work, and
//! what always holds asserted.
//!
//! Included by `fuzz_targets/*.rs` (libFuzzer) and by `importer/tests/hostile/corpora.rs` (plain tests over the corpora).

use std::{
    collections::BTreeMap,
    io::{self, Cursor, Read, Write as _},
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
};

use dvcr_core::{
    chunk::ChunkId,
    disk::{Index, IndexLayout, SEEK_TABLE_FOOTER_BYTES},
};
use dvcr_importer::{
    format::{
        DETECT_HEAD_BYTES, DETECT_TAIL_BYTES, DiskImage, ExtentKind, Format, detect,
        limits::VIRTUAL_BYTES_MAX,
    },
    inspect::partition_table,
    layout::{Archive, FRAME_BYTES_MAX},
    source::{ReadAt, Reader},
    wrapping::{self, Unwrapped, WRAPPINGS_MAX, Wrapping, WrappingError},
};

#[path = "../importer/tests/support/tar.rs"]
#[allow(
    clippy::duplicate_mod,
    reason = "the tests that replay corpora have it, too"
)]
mod tar_files;

#[path = "container_target.rs"]
mod container_target;

pub(crate) use container_target::container;
use tar_files::{Member, set_sum};

/// Longest source: twice what the smallest VHDX has.
const SOURCE_BYTES_MAX: u64 = 16 << 20;

/// Most bytes read for each byte of a source while its map is walked: an L2 table of 512 bytes is read as a page of 64 KiB.
const READ_FACTOR: u64 = 128;

/// Bytes read of any source: its ends, and the pages around its headers.
const READ_FREE_BYTES: u64 = 1 << 20;

/// Extents of which the bytes are read.
const EXTENTS_READ: usize = 64;

/// Most bytes that may come out of what is unwrapped here.
const UNWRAPPED_BYTES_MAX: u64 = 1 << 20;

/// A source that counts what is read of it.
pub(crate) struct Counted<S> {
    inner: S,
    bytes: AtomicU64,
}

impl<S> Counted<S> {
    pub(crate) fn new(inner: S) -> Self {
        Self {
            inner,
            bytes: AtomicU64::new(0),
        }
    }

    /// Bytes read so far.
    pub(crate) fn bytes(&self) -> u64 {
        self.bytes.load(Ordering::Relaxed)
    }
}

impl<S: ReadAt> ReadAt for Counted<S> {
    fn len(&self) -> u64 {
        self.inner.len()
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        self.bytes.fetch_add(buf.len() as u64, Ordering::Relaxed);
        self.inner.read_at(offset, buf)
    }
}

/// A source of zeros with some bytes in it: images are long and mostly empty, inputs should be short.
///
/// Four bytes of length, then for each stretch three bytes of its offset and one of its length, both in units of 16 bytes (the
/// length less 1), and its bytes; little-endian.
#[derive(Clone, Default)]
pub(crate) struct Sparse {
    len: u64,
    units: BTreeMap<u64, [u8; 16]>,
}

impl Sparse {
    fn parse(data: &[u8]) -> Option<Self> {
        let (len, mut rest) = data.split_first_chunk::<4>()?;
        let len = u64::from(u32::from_le_bytes(*len)) % (SOURCE_BYTES_MAX + 1);
        let mut units = BTreeMap::new();
        while let Some(([a, b, c, count], bytes)) = rest.split_first_chunk::<4>() {
            let (stretch, behind) = bytes.split_at(bytes.len().min(16 * (usize::from(*count) + 1)));
            let first = u64::from(u32::from_le_bytes([*a, *b, *c, 0]));
            units.extend((first..).zip(stretch.as_chunks::<16>().0.iter().copied()));
            rest = behind;
        }
        Some(Self { len, units })
    }

    /// The input that stands for these bytes.
    #[allow(dead_code, reason = "for who writes seeds")]
    pub(crate) fn encode(image: &[u8]) -> Vec<u8> {
        let mut input = (image.len() as u32).to_le_bytes().to_vec();
        let mut image = image.to_vec();
        image.resize(image.len().next_multiple_of(16), 0);
        let units = image.as_chunks::<16>().0;
        let mut at = 0;
        while at < units.len() {
            let used = units[at..].iter().take(256);
            let count = used.take_while(|unit| **unit != [0; 16]).count();
            if count > 0 {
                input.extend(&(at as u32).to_le_bytes()[..3]);
                input.push((count - 1) as u8);
                input.extend(units[at..at + count].as_flattened());
            }
            at += count.max(1);
        }
        input
    }

    fn bytes(&self, at: u64, len: usize) -> Option<Vec<u8>> {
        let mut bytes = vec![0; len];
        self.read_at(at, &mut bytes).ok().map(|()| bytes)
    }

    /// Sets bytes that lie inside of it.
    fn put(&mut self, at: u64, bytes: &[u8]) {
        for (byte, at) in bytes.iter().zip(at..self.len) {
            self.units.entry(at / 16).or_default()[(at % 16) as usize] = *byte;
        }
    }

    /// Sets a checksum: `sum` of a structure with zeros in its place.
    fn put_sum(&mut self, start: u64, len: usize, at: usize, sum: fn(&[u8]) -> [u8; 4]) {
        if let Some(mut bytes) = self.bytes(start, len) {
            bytes[at..at + 4].fill(0);
            self.put(start + at as u64, &sum(&bytes));
        }
    }
}

impl ReadAt for Sparse {
    fn len(&self) -> u64 {
        self.len
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        let end = offset.checked_add(buf.len() as u64);
        let end = end.filter(|end| *end <= self.len);
        let end = end.ok_or(io::ErrorKind::UnexpectedEof)?;
        buf.fill(0);
        for (unit, bytes) in self.units.range(offset / 16..end.div_ceil(16)) {
            let start = unit * 16;
            let (from, to) = (start.max(offset), (start + 16).min(end));
            buf[(from - offset) as usize..(to - offset) as usize]
                .copy_from_slice(&bytes[(from - start) as usize..(to - start) as usize]);
        }
        Ok(())
    }
}

/// An image of this format: its map covers the disk, its bytes are read or refused, and neither takes more than it may.
fn check_image(format: Option<Format>, source: impl ReadAt + 'static) {
    let source = Arc::new(Counted::new(source));
    let len = source.len();
    let opened = match format {
        Some(format) => DiskImage::open_as(format, source.clone()),
        None => DiskImage::open(source.clone()),
    };
    assert!(source.bytes() <= 2 * len + READ_FREE_BYTES);
    if let Ok(image) = opened {
        check_disk(&image);
        // A page or a decoded cluster for each read of ours, and the cluster's compressed bytes.
        let reads = 8 * (EXTENTS_READ as u64) * (4 << 20);
        assert!(source.bytes() <= READ_FACTOR * len + READ_FREE_BYTES + reads);
    }
}

fn check_disk(image: &DiskImage) {
    let len = image.virtual_len();
    assert!(len > 0 && len.is_multiple_of(512) && len <= VIRTUAL_BYTES_MAX);
    let (mut end, mut read) = (0, 0);
    for extent in image.extents() {
        let Ok(extent) = extent else {
            return;
        };
        assert!(extent.offset == end && 0 < extent.len && extent.len <= len - end);
        end += extent.len;
        if read < EXTENTS_READ {
            read += 1;
            let part = extent.len.min(4096);
            for at in [extent.offset, end - part] {
                check_read(image, at, part as usize, extent.kind);
            }
        }
    }
    assert_eq!(end, len);
    assert!(image.read_at(len, &mut [0]).is_err());
    assert!(image.read_at(u64::MAX, &mut [0]).is_err());
}

/// What is read does not depend on where reads begin and end.
fn check_read(image: &DiskImage, at: u64, len: usize, kind: ExtentKind) {
    let mut whole = vec![1; len];
    let result = image.read_at(at, &mut whole);
    if kind == ExtentKind::Zero {
        assert!(result.is_ok() && whole.iter().all(|byte| *byte == 0));
    }
    if result.is_ok() {
        let mut parts = vec![2; len];
        let (first, second) = parts.split_at_mut(len / 3);
        assert!(image.read_at(at + first.len() as u64, second).is_ok());
        assert!(image.read_at(at, first).is_ok());
        assert!(whole == parts);
    }
}

/// The source as it came, then with everything set right that checksums guard: little gets past one by chance.
fn check_mended(format: Format, data: &[u8], mend: fn(&mut Sparse)) {
    let Some(mut source) = Sparse::parse(data) else {
        return;
    };
    check_image(Some(format), source.clone());
    mend(&mut source);
    check_image(Some(format), source);
}

pub(crate) fn qcow2(data: &[u8]) {
    if let Some(source) = Sparse::parse(data) {
        check_image(Some(Format::Qcow2), source);
    }
}

pub(crate) fn vmdk(data: &[u8]) {
    if let Some(source) = Sparse::parse(data) {
        check_image(Some(Format::Vmdk), source);
    }
}

pub(crate) fn vdi(data: &[u8]) {
    if let Some(source) = Sparse::parse(data) {
        check_image(Some(Format::Vdi), source);
    }
}

pub(crate) fn vhd(data: &[u8]) {
    check_mended(Format::Vhd, data, |source| {
        let sum = |bytes: &[u8]| {
            let sum = bytes.iter().map(|byte| u32::from(*byte)).sum::<u32>();
            (!sum).to_be_bytes()
        };
        source.put_sum(0, 512, 64, sum);
        source.put_sum(source.len.saturating_sub(512), 512, 64, sum);
        if let Some(at) = source.bytes(16, 8) {
            let at = u64::from_be_bytes(at.try_into().expect("eight bytes"));
            source.put_sum(at, 1024, 36, sum);
        }
    });
}

pub(crate) fn vhdx(data: &[u8]) {
    check_mended(Format::Vhdx, data, |source| {
        let sum = |bytes: &[u8]| crc32c::crc32c(bytes).to_le_bytes();
        for (at, len) in [(64, 4), (128, 4), (192, 64), (256, 64)] {
            source.put_sum(at << 10, len << 10, 4, sum);
        }
        // The entries of the log that both headers of a new image name, and that of our seeds: one behind the other.
        let mut at = 1 << 20;
        while let Some(header) = source.bytes(at, 16)
            && header.starts_with(b"loge")
        {
            let len = u32::from_le_bytes([header[8], header[9], header[10], header[11]]);
            source.put_sum(at, len.clamp(64, 1 << 20) as usize, 4, sum);
            at += u64::from(len.max(4096));
        }
    });
}

/// Anything, taken for what it looks like.
pub(crate) fn image(data: &[u8]) {
    let tail = data.last_chunk::<DETECT_TAIL_BYTES>();
    let found = detect(data, tail.map(|tail| &tail[..]));
    let head = &data[..data.len().min(DETECT_HEAD_BYTES)];
    let again = detect(head, tail.map(|tail| &tail[..]));
    assert_eq!(found.as_ref().ok(), again.as_ref().ok());
    let opened = DiskImage::open(Arc::new(data.to_vec()));
    match (&found, &opened) {
        (Ok(found), Ok(opened)) => assert_eq!(*found, opened.format()),
        (Err(_), Ok(_)) => panic!("what is refused is opened"),
        (_, Err(_)) => {}
    }
    check_image(None, data.to_vec());
}

/// A disk's partition table.
pub(crate) fn partitions(data: &[u8]) {
    let Some(mut source) = Sparse::parse(data) else {
        return;
    };
    check_partitions(source.clone());
    let last = (source.len / 512).saturating_sub(1) * 512;
    for start in [512, 4096, last] {
        let len = source.bytes(start, 16).map(|header| header[12]);
        source.put_sum(start, usize::from(len.unwrap_or(92)).max(92), 16, |bytes| {
            let crc = bytes.iter().fold(!0u32, |crc, byte| {
                (0..8).fold(crc ^ u32::from(*byte), |crc, _| {
                    crc >> 1 ^ (0xEDB8_8320 & (crc & 1).wrapping_neg())
                })
            });
            (!crc).to_le_bytes()
        });
    }
    check_partitions(source);
}

fn check_partitions(source: Sparse) {
    const PARTITIONS_MAX: usize = 128;
    let source = Arc::new(Counted::new(source));
    let Ok(image) = DiskImage::open_as(Format::Raw, source.clone()) else {
        return;
    };
    if let Ok(Some(table)) = partition_table(&image) {
        // The four of an MBR come on top of the logical ones.
        assert!(table.partitions.len() <= PARTITIONS_MAX + 4);
    }
    // The superblocks of each, the longest table, and the sectors of chains.
    assert!(source.bytes() <= (PARTITIONS_MAX as u64 + 16) * (80 << 10));
}

/// A stream in whatever it says that it is wrapped in, then wrapped some times more.
pub(crate) fn wrapping(data: &[u8]) {
    let found = unwrap(data);
    let mut wrapped = data.to_vec();
    let mut layers = vec![];
    for choice in data.iter().take(2) {
        let (layer, bytes) = match choice % 3 {
            0 => {
                let mut gzip = flate2::write::GzEncoder::new(vec![], flate2::Compression::fast());
                let written = gzip.write_all(&wrapped).and_then(|()| gzip.finish());
                (Wrapping::Gzip, written.expect("writing memory"))
            }
            1 => {
                let zstd = zstd::bulk::compress(&wrapped, 1);
                (Wrapping::Zstd, zstd.expect("writing memory"))
            }
            _ => (
                Wrapping::Tar,
                tar_files::tar(&[Member::File("disk", &wrapped)]),
            ),
        };
        // A file that is no disk is passed over in an archive.
        if layer == Wrapping::Tar && wrapped.len() < 512 {
            continue;
        }
        layers.insert(0, layer);
        wrapped = bytes;
    }
    let Ok((inner, content)) = found else {
        return;
    };
    match unwrap(&wrapped) {
        Ok((all, again)) => {
            assert!(all.starts_with(&layers) && all[layers.len()..] == inner);
            assert!(again == content);
        }
        Err(error) => assert!(
            layers.len() + inner.len() > WRAPPINGS_MAX || layers.contains(&Wrapping::Tar),
            "{error}"
        ),
    }
}

fn unwrap(data: &[u8]) -> Result<(Vec<Wrapping>, Vec<u8>), WrappingError> {
    let stream = Unwrapped::new(Cursor::new(data.to_vec()), UNWRAPPED_BYTES_MAX);
    let result = stream.and_then(|mut stream| {
        let mut content = vec![];
        stream.read_to_end(&mut content)?;
        assert!(content.starts_with(stream.head()));
        Ok((stream.wrappings().to_vec(), content))
    });
    match &result {
        Ok((wrappings, content)) => {
            assert!(wrappings.len() <= WRAPPINGS_MAX);
            assert!(wrappings.is_empty() || content.len() as u64 <= UNWRAPPED_BYTES_MAX);
            assert!(!wrappings.is_empty() || content == data);
        }
        // Memory does not fail.
        Err(error) => assert!(!matches!(error, WrappingError::Source(_)), "{error:?}"),
    }
    result
}

/// An archive: what is found where it lies, and what comes out of the stream, is the same.
pub(crate) fn archive(data: &[u8]) {
    check_archive(data);
    let mut mended = data.to_vec();
    for block in mended.chunks_exact_mut(512) {
        if &block[257..262] == b"ustar" {
            set_sum(block);
        }
    }
    check_archive(&mended);
}

fn check_archive(data: &[u8]) {
    if Wrapping::detect(data) != Some(Wrapping::Tar) {
        return;
    }
    let source = Arc::new(Counted::new(data.to_vec()));
    let shared: Arc<dyn ReadAt> = source.clone();
    for wanted in [None, Some("disk")] {
        let lies = wrapping::tar::member(&shared, wanted);
        let mut content = vec![];
        let streamed = wrapping::tar::Disk::find(Cursor::new(data), wanted);
        let streamed = streamed.map_err(io::Error::from).and_then(|disk| {
            // Holes need not end.
            let mut disk = disk.take(UNWRAPPED_BYTES_MAX);
            disk.read_to_end(&mut content)
        });
        match lies {
            Ok(Some(disk)) => {
                let mut found = vec![];
                let read = Reader::new(disk).read_to_end(&mut found);
                assert!(read.is_ok() && streamed.is_ok() && found == content);
            }
            Ok(None) => {}
            Err(error) => assert!(
                streamed.is_err() || content.len() as u64 == UNWRAPPED_BYTES_MAX,
                "{error}"
            ),
        }
    }
    // Each block is read once for each search, and once as content.
    assert!(source.bytes() <= 4 * (data.len() as u64 + 512));
}

/// A layer of our layout: its frames are what the index says, or refused.
pub(crate) fn layer(data: &[u8]) {
    check_layer(data);
    let footer = data.last_chunk::<SEEK_TABLE_FOOTER_BYTES>();
    let len = data.len() as u64;
    let Some(layout) = footer.and_then(|footer| IndexLayout::from_footer(footer, len).ok()) else {
        return;
    };
    let index_at = data.len() - layout.len() as usize;
    if let Ok(index) = Index::parse(&data[index_at..], len) {
        let mut mended = data.to_vec();
        for (frame, number) in index.frames().iter().zip(0..) {
            let stored = &data[frame.stored.start as usize..frame.stored.end as usize];
            let hash = ChunkId::of(stored).0;
            let at = index_at + layout.hash_offset(number) as usize;
            mended[at..at + hash.len()].copy_from_slice(&hash);
        }
        check_layer(&mended);
    }
}

fn check_layer(data: &[u8]) {
    let Ok(archive) = Archive::open(Arc::new(data.to_vec()), None) else {
        return;
    };
    let (mut stored, mut raw) = (0, 0);
    let index = archive.index().expect("an index of a few frames is held");
    for frame in index.frames().iter().take(EXTENTS_READ) {
        assert!(frame.stored.start == stored && frame.raw.start == raw);
        (stored, raw) = (frame.stored.end, frame.raw.end);
        let len = frame.raw.end - frame.raw.start;
        assert!(0 < len && len <= FRAME_BYTES_MAX);
        if let Ok(bytes) = archive.read_frame(frame) {
            assert_eq!(bytes.len() as u64, len);
        }
    }
    assert!(archive.read_at(archive.len(), &mut [0]).is_err());
    if let Ok(image) = archive.image() {
        check_disk(&image);
    }
}
