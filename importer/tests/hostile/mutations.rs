//! Small images of each format, bent at random some ten thousand times: no panic, little memory, an end.
//!
//! The generator's seed is the number of the mutation, so that a failure names what to run again.

use std::{
    collections::HashMap,
    fs, io,
    panic::{AssertUnwindSafe, catch_unwind},
    sync::Arc,
};

use dvcr_importer::{
    format::{DiskImage, ExtentKind},
    source::ReadAt,
};

use crate::{
    corpora::targets::Counted,
    counting::peak,
    support::{Bench, Pattern, Random},
};

/// Mutations of each image.
const ROUNDS: u64 = 10_000;

/// Tables and decoded clusters in cache, a compressed cluster, and the buffer of the test: see `format::limits`.
const MEMORY_MAX: usize = 40 << 20;

/// Most bytes read for each byte of an image of so few: an L2 table of 512 bytes is read as a page of 64 KiB.
const READ_FACTOR: u64 = 128;

/// An image with some bytes changed.
struct Bent {
    image: Arc<Vec<u8>>,
    changes: HashMap<usize, u8>,
    len: usize,
}

impl ReadAt for Bent {
    fn len(&self) -> u64 {
        self.len as u64
    }

    fn read_at(&self, offset: u64, buf: &mut [u8]) -> io::Result<()> {
        if offset
            .checked_add(buf.len() as u64)
            .is_none_or(|end| end > self.len as u64)
        {
            return Err(io::ErrorKind::UnexpectedEof.into());
        }
        self.image.read_at(offset, buf)?;
        let start = offset as usize;
        for (at, byte) in &self.changes {
            if let Some(place) = at.checked_sub(start).and_then(|at| buf.get_mut(at)) {
                *place = *byte;
            }
        }
        Ok(())
    }
}

/// Bytes that are not zero outside long stretches of data: headers and tables.
fn metadata(image: &[u8]) -> Vec<usize> {
    image
        .chunks(512)
        .enumerate()
        .filter(|(_, sector)| sector.iter().filter(|byte| **byte != 0).count() < 400)
        .flat_map(|(i, sector)| {
            let used = sector.iter().enumerate().filter(|(_, byte)| **byte != 0);
            used.map(move |(at, _)| i * 512 + at)
        })
        .collect()
}

fn bend(image: &Arc<Vec<u8>>, places: &[usize], seed: u64, fix: fn(&mut Bent)) -> Bent {
    let mut random = Random::new(seed);
    let bytes = image.as_slice();
    let mut bent = Bent {
        image: image.clone(),
        changes: HashMap::new(),
        len: bytes.len(),
    };
    for _ in 0..1 + random.below(4) {
        let place = places[random.below(places.len() as u64) as usize];
        let at = match random.below(4) {
            0 => random.below(bytes.len() as u64) as usize,
            1 => random.below(256) as usize,
            2 => place,
            _ => place & !7,
        };
        let from = places[random.below(places.len() as u64) as usize] & !7;
        let small = random.below(70_000);
        let value: Vec<u8> = match random.below(9) {
            0 => vec![random.next() as u8],
            1 => vec![bytes[at] ^ 1 << random.below(8)],
            2 => vec![0xFF; 1 << random.below(4)],
            3 => vec![0; 1 << random.below(4)],
            4 => small.to_be_bytes().to_vec(),
            5 => small.to_le_bytes()[..4].to_vec(),
            6 => (1u64 << random.below(64)).to_be_bytes().to_vec(),
            7 => (1u64 << random.below(64)).to_le_bytes().to_vec(),
            // One table entry in place of another: loops and overlaps.
            _ => bytes[from..(from + 8).min(bytes.len())].to_vec(),
        };
        let changes = value
            .into_iter()
            .enumerate()
            .map(|(i, byte)| (at + i, byte));
        bent.changes
            .extend(changes.filter(|(at, _)| *at < bytes.len()));
    }
    if random.below(20) == 0 {
        bent.len = random.below(bytes.len() as u64) as usize;
    }
    if random.below(2) == 0 {
        fix(&mut bent);
    }
    bent
}

/// Walks the map and reads the ends of every extent of data. Returns whether all of it could be.
fn visit(bent: &Arc<Counted<Bent>>, buf: &mut [u8]) -> bool {
    let Ok(image) = DiskImage::open(bent.clone()) else {
        return false;
    };
    let mut end = 0;
    for extent in image.extents() {
        let Ok(extent) = extent else {
            return false;
        };
        assert!(extent.offset == end && extent.len > 0);
        end += extent.len;
        if extent.kind == ExtentKind::Zero {
            continue;
        }
        let len = extent.len.min(buf.len() as u64);
        let part = &mut buf[..len as usize];
        if image.read_at(extent.offset, part).is_err() || image.read_at(end - len, part).is_err() {
            return false;
        }
    }
    assert_eq!(end, image.virtual_len());
    true
}

/// Where the image can have checksums, `fix` sets them right.
fn check(format: &str, options: &[&str], fix: fn(&mut Bent)) {
    let bench = Bench::new(Pattern::Mixed, 700 << 10);
    let image = Arc::new(fs::read(bench.image(format, options)).unwrap());
    let places = metadata(&image);
    let mut buf = vec![0; 64 << 10];
    let mut fine = 0;
    for seed in 0..ROUNDS {
        let bent = Arc::new(Counted::new(bend(&image, &places, seed, fix)));
        let (result, memory) = peak(|| catch_unwind(AssertUnwindSafe(|| visit(&bent, &mut buf))));
        let Ok(whole) = result else {
            panic!("{format} {options:?} panics with seed {seed}");
        };
        fine += u64::from(whole);
        assert!(
            memory < MEMORY_MAX,
            "{format} {options:?} takes {memory} bytes with seed {seed}"
        );
        assert!(
            bent.bytes() <= READ_FACTOR * image.len() as u64,
            "{format} {options:?} reads {} bytes with seed {seed}",
            bent.bytes()
        );
    }
    println!("{format} {options:?}: {fine} of {ROUNDS} read to their end");
    assert!(
        fine > 0 && fine < ROUNDS * 99 / 100,
        "{format} {options:?}: {fine} of {ROUNDS}"
    );
}

fn nothing(_: &mut Bent) {}

#[test]
fn qcow2() {
    check("qcow2", &[], nothing);
    check("qcow2", &["-o", "cluster_size=512"], nothing);
    check("qcow2", &["-o", "extended_l2=on,cluster_size=16k"], nothing);
}

#[test]
fn qcow2_compressed() {
    check("qcow2", &["-c", "-o", "cluster_size=16k"], nothing);
    check("qcow2", &["-c", "-o", "compression_type=zstd"], nothing);
}

#[test]
fn vmdk() {
    check("vmdk", &["-o", "subformat=monolithicSparse"], nothing);
    check("vmdk", &["-o", "subformat=streamOptimized"], nothing);
}

#[test]
fn vdi() {
    check("vdi", &[], nothing);
}

#[test]
fn vhd() {
    check("vpc", &["-o", "subformat=dynamic,force_size=on"], |bent| {
        for (range, sum) in [(0..512, 64), (512..1536, 36)] {
            fix_sum(bent, range, sum, |bytes| {
                (!bytes.iter().map(|byte| u32::from(*byte)).sum::<u32>()).to_be_bytes()
            });
        }
    });
}

#[test]
fn vhdx() {
    check("vhdx", &["-o", "block_size=1M"], |bent| {
        for (start, len) in [(64, 4), (128, 4), (192, 64), (256, 64)] {
            let range = start << 10..(start + len) << 10;
            fix_sum(bent, range, 4, |bytes| crc32c::crc32c(bytes).to_le_bytes());
        }
    });
}

/// Sets the checksum at `at` in a structure: `sum` of its bytes with zeros in place of the checksum.
fn fix_sum(bent: &mut Bent, range: std::ops::Range<usize>, at: usize, sum: fn(&[u8]) -> [u8; 4]) {
    // Nothing bent, nothing to set right.
    if range.end > bent.len || !bent.changes.keys().any(|at| range.contains(at)) {
        return;
    }
    let mut bytes = vec![0; range.len()];
    bent.read_at(range.start as u64, &mut bytes).unwrap();
    bytes[at..at + 4].fill(0);
    let sum = sum(&bytes).into_iter().enumerate();
    bent.changes
        .extend(sum.map(|(i, byte)| (range.start + at + i, byte)));
}
