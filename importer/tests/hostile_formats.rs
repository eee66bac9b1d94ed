//! Images that lie: each gets a clear error, at once, and none is read as another disk than it was.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod support;

use std::{
    fs,
    sync::Arc,
    time::{Duration, Instant},
};

use dvcr_importer::format::{DiskImage, ExtentKind, FormatError};
use support::{Bench, Pattern};

/// Far above what any of these takes on an idle machine, far below what a loop takes.
const TIME_MAX: Duration = Duration::from_secs(2);

/// Reads the whole disk; `None` for zeros.
fn read_all(bytes: &[u8]) -> Result<Vec<Option<Vec<u8>>>, FormatError> {
    let start = Instant::now();
    let image = DiskImage::open(Arc::new(bytes.to_vec()))?;
    let mut parts = vec![];
    for extent in image.extents() {
        let extent = extent?;
        let mut offset = extent.offset;
        // Zeros of any length are one part, data is cut by the offset: comparable whatever the extents.
        while offset < extent.offset + extent.len {
            let len = (extent.offset + extent.len - offset).min((1 << 20) - offset % (1 << 20));
            if extent.kind == ExtentKind::Data {
                let mut part = vec![0; len as usize];
                image.read_at(offset, &mut part)?;
                parts.push(Some(part));
            } else {
                parts.push(None);
            }
            offset += len;
            assert!(start.elapsed() < TIME_MAX);
        }
    }
    Ok(parts)
}

fn sample(format: &str, options: &[&str]) -> Vec<u8> {
    let bench = Bench::new(Pattern::Mixed, 1 << 20);
    fs::read(bench.image(format, options)).unwrap()
}

/// Applies the patches, then expects an error that says this.
fn check(sample: &[u8], patches: &[(usize, &[u8])], expected: &str) {
    let mut bytes = sample.to_vec();
    for (at, patch) in patches {
        bytes[*at..at + patch.len()].copy_from_slice(patch);
    }
    let start = Instant::now();
    let result = read_all(&bytes);
    assert!(
        start.elapsed() < TIME_MAX,
        "{expected}: {:?}",
        start.elapsed()
    );
    let Err(error) = result else {
        panic!("was read, in spite of {expected:?}");
    };
    let error = error.to_string();
    assert!(
        error.contains(expected),
        "{error:?} does not say {expected:?}"
    );
}

const BIG: [u8; 8] = (1u64 << 63).to_be_bytes();
const BIG_LE: [u8; 8] = (1u64 << 63).to_le_bytes();
const FF: [u8; 8] = [0xFF; 8];

fn be(value: u64) -> [u8; 8] {
    value.to_be_bytes()
}

#[test]
fn qcow2_headers() {
    let image = sample("qcow2", &[]);
    let mut backing = image.clone();
    backing[1024..1035].copy_from_slice(b"/etc/passwd");
    check(
        &backing,
        &[(8, &be(1024)), (16, &11u32.to_be_bytes())],
        "flatten it",
    );
    check(&image, &[(4, &[0, 0, 0, 1])], "version 1");
    check(&image, &[(4, &[0, 0, 0, 4])], "version 4");
    check(&image, &[(20, &[0, 0, 0, 8])], "clusters of 2^8 bytes");
    check(&image, &[(20, &[0, 0, 0, 63])], "clusters of 2^63 bytes");
    check(&image, &[(20, &FF[..4])], "clusters of 2^4294967295 bytes");
    check(&image, &[(24, &BIG)], "L1 table is too small");
    check(&image, &[(24, &FF)], "L1 table is too small");
    check(&image, &[(24, &be(0))], "no bytes");
    check(
        &image,
        &[(24, &be(1 << 50)), (36, &(1u32 << 21).to_be_bytes())],
        "lies beyond the end",
    );
    check(&image, &[(32, &[0, 0, 0, 1])], "encrypted");
    check(&image, &[(32, &[0, 0, 0, 2])], "encrypted");
    check(
        &image,
        &[(36, &FF[..4])],
        "an L1 table of 4294967295 entries",
    );
    check(&image, &[(40, &BIG)], "lies beyond the end");
    check(&image, &[(40, &be(u64::MAX << 16))], "lies beyond the end");
    check(&image, &[(40, &be(12_345))], "not aligned");
    check(&image, &[(72, &be(1 << 1))], "marked corrupt");
    check(&image, &[(72, &be(1 << 2))], "external data file");
    check(&image, &[(72, &be(1 << 5))], "feature bits 0x20");
    check(
        &image,
        &[(72, &be(1 << 63))],
        "feature bits 0x8000000000000000",
    );
    check(&image, &[(72, &be(1 << 3))], "compression type 0");
    check(&image, &[(104, &[1])], "compression type 1");
    check(
        &image,
        &[(72, &be(1 << 3)), (104, &[7])],
        "compression type 7",
    );
    check(&image, &[(100, &[0, 0, 0, 72])], "a header of 72 bytes");
    // Dirty refcounts do not matter for reading.
    let mut dirty = image.clone();
    dirty[72..80].copy_from_slice(&be(1));
    assert_eq!(read_all(&dirty).unwrap(), read_all(&image).unwrap());
}

#[test]
fn qcow2_tables() {
    let image = sample("qcow2", &[]);
    let at = |offset: usize| u64::from_be_bytes(*image[offset..].first_chunk().unwrap());
    let l1 = at(40) as usize;
    let l2 = (at(l1) & 0x00FF_FFFF_FFFF_FE00) as usize;
    let cluster = at(l2 + 16) & 0x00FF_FFFF_FFFF_FE00;
    assert_ne!(cluster, 0);

    check(&image, &[(l1, &be(1 << 50))], "lies beyond the end");
    check(&image, &[(l1, &be(512))], "not aligned");
    check(&image, &[(l2 + 16, &be(1 << 50))], "lies beyond the end");
    check(&image, &[(l2 + 16, &be(cluster + 512))], "not aligned");
    check(
        &image,
        &[(l2 + 16, &be(1 << 62 | 1 << 50))],
        "lies beyond the end",
    );
    // Compressed, but not a stream: a cluster of random bytes.
    check(
        &image,
        &[(l2 + 16, &be(1 << 62 | cluster))],
        "decode the cluster",
    );
    // Every cluster the same one, or the L2 table itself: more data than the file has.
    let all_same: Vec<u8> = be(cluster).repeat(8192);
    let large = be(8 << 20);
    check(
        &image,
        &[(24, &large), (l2, &all_same)],
        "more data than the file has",
    );
    let own: Vec<u8> = be(l2 as u64).repeat(8192);
    check(
        &image,
        &[(24, &large), (l2, &own)],
        "more data than the file has",
    );
    // 64 TiB by way of one L2 table that all L1 entries share.
    let check_looping = |image: &[u8], l2: usize, entries: &[u8]| {
        let far = image.len().next_multiple_of(65_536);
        let mut looping = image.to_vec();
        looping.resize(far, 0);
        looping.extend(be(l2 as u64).repeat(131_072));
        let header = [
            (24, &be(64 << 40)[..]),
            (36, &131_072u32.to_be_bytes()),
            (40, &be(far as u64)),
        ];
        check(
            &looping,
            &[&header[..], &[(l2, entries)]].concat(),
            "more data than the file has",
        );
    };
    check_looping(&image, l2, &all_same);
    // The same with compressed clusters.
    let packed = sample("qcow2", &["-c"]);
    let l1 = u64::from_be_bytes(*packed[40..].first_chunk().unwrap()) as usize;
    let l2 = u64::from_be_bytes(*packed[l1..].first_chunk().unwrap()) as usize & 0xFFFF_FE00;
    check_looping(&packed, l2, &packed[l2 + 8..l2 + 16].repeat(8192));
}

#[test]
fn qcow2_extended_l2() {
    let image = sample("qcow2", &["-o", "extended_l2=on"]);
    let at = |offset: usize| u64::from_be_bytes(*image[offset..].first_chunk().unwrap());
    let l1 = at(40) as usize;
    let l2 = (at(l1) & 0x00FF_FFFF_FFFF_FE00) as usize;
    check(&image, &[(l2 + 8, &FF)], "both data and zeros");
    check(
        &image,
        &[(l2, &[0; 8]), (l2 + 8, &be(0xFF))],
        "lies nowhere",
    );
    check(&image, &[(20, &[0, 0, 0, 13])], "clusters of 2^13 bytes");
}

#[test]
fn vmdk() {
    let image = sample("vmdk", &["-o", "subformat=monolithicSparse"]);
    check(&image, &[(4, &[9])], "version 9");
    check(&image, &[(12, &BIG_LE)], "the capacity");
    check(
        &image,
        &[(12, &(1u64 << 40).to_le_bytes())],
        "lies beyond the end",
    );
    check(&image, &[(12, &[0; 8])], "no bytes");
    check(&image, &[(20, &[0; 8])], "grains of 0 sectors");
    check(&image, &[(20, &[129])], "grains of 129 sectors");
    check(
        &image,
        &[(20, &BIG_LE)],
        "grains of 9223372036854775808 sectors",
    );
    check(&image, &[(44, &[0; 4])], "grain tables of 0 entries");
    check(
        &image,
        &[(44, &FF[..4])],
        "grain tables of 4294967295 entries",
    );
    check(&image, &[(28, &[0; 8])], "one extent of a split VMDK");
    check(&image, &[(28, &BIG_LE)], "the descriptor");
    check(
        &image,
        &[(36, &(1u64 << 20).to_le_bytes())],
        "a descriptor of 536870912 bytes",
    );
    check(&image, &[(56, &BIG_LE)], "the grain directory");
    check(
        &image,
        &[(56, &(1u64 << 40).to_le_bytes())],
        "lies beyond the end",
    );
    check(&image, &[(56, &FF)], "its footer is missing");
    check(
        &image,
        &[(8, &(1u32 << 16).to_le_bytes())],
        "compression algorithm 0",
    );

    let find = |text: &[u8]| {
        image
            .windows(text.len())
            .position(|part| part == text)
            .unwrap()
    };
    let descriptor = |from: &str, to: &str, expected: &str| {
        assert_eq!(from.len(), to.len());
        check(&image, &[(find(from.as_bytes()), to.as_bytes())], expected);
    };
    descriptor("parentCID=ffffffff", "parentCID=12345678", "snapshot");
    descriptor(
        "\"monolithicSparse\"",
        "\"twoGbMaxExtentFl\"",
        "neither monolithicSparse",
    );
    descriptor("createType", "createTypo", "names no type");
    descriptor(
        "# The Disk Data Base",
        "RW 5 FLAT \"/etc/pass",
        "names 2 extents",
    );

    let directory = u64::from_le_bytes(*image[56..].first_chunk().unwrap()) as usize * 512;
    let table = u32::from_le_bytes(*image[directory..].first_chunk().unwrap()) as usize * 512;
    check(&image, &[(directory, &FF[..4])], "a grain table");
    check(&image, &[(table, &FF[..4])], "data");
    let loops = image[table + 4..table + 8].repeat(512);
    let capacity = (32u64 << 20) / 512;
    check(
        &image,
        &[(12, &capacity.to_le_bytes()), (table, &loops)],
        "more data than the file",
    );

    let image = sample("vmdk", &["-o", "subformat=streamOptimized"]);
    // As VMware writes it: the directory's place is known at the end only.
    let mut streamed = image.clone();
    streamed[56..64].copy_from_slice(&FF);
    check(&streamed, &[], "its footer is missing");
    let mut marker = [0; 512];
    (marker[0], marker[12]) = (1, 3);
    streamed.extend(marker);
    let footer = streamed.len();
    streamed.extend(&image[..512]);
    streamed.extend([0; 512]);
    assert!(read_all(&streamed).unwrap() == read_all(&image).unwrap());
    check(
        &streamed,
        &[(footer - 512 + 12, &[9])],
        "its footer is missing",
    );
    check(&streamed, &[(footer, b"XXXX")], "its footer is missing");
    check(&streamed, &[(footer + 56, &FF)], "the grain directory");
    let directory = u64::from_le_bytes(*image[56..].first_chunk().unwrap()) as usize * 512;
    let table = u32::from_le_bytes(*image[directory..].first_chunk().unwrap()) as usize * 512;
    let grain = u32::from_le_bytes(*image[table + 4..].first_chunk().unwrap()) as usize * 512;
    check(&image, &[(grain, &[7])], "is that of sector 7");
    check(
        &image,
        &[(grain + 8, &FF[..4])],
        "a compressed grain of 4294967295 bytes",
    );
    check(&image, &[(grain + 12, &FF)], "decode the cluster");
    // All grains the same: the marker tells.
    let loops = image[table + 4..table + 8].repeat(512);
    check(
        &image,
        &[(table, &loops)],
        "is that of sector 128, not of 0",
    );
}

#[test]
fn vdi() {
    let image = sample("vdi", &[]);
    check(&image, &[(0x44, &[9])], "version 1.9");
    check(&image, &[(0x4C, &[4])], "differencing");
    check(&image, &[(0x1A8, &[1])], "differencing");
    check(&image, &[(0x154, &FF[..4])], "lies beyond the end");
    check(&image, &[(0x158, &FF[..4])], "lies beyond the end");
    check(&image, &[(0x168, &[0; 4])], "sectors other than 512 bytes");
    check(&image, &[(0x170, &BIG_LE)], "block map is too small");
    check(&image, &[(0x170, &[0; 8])], "no bytes");
    check(
        &image,
        &[(0x170, &(60u64 << 40).to_le_bytes()), (0x180, &FF[..4])],
        "lies beyond the end",
    );
    check(&image, &[(0x178, &[0; 4])], "blocks of 0 bytes");
    check(
        &image,
        &[(0x178, &[0, 0, 0x11, 0])],
        "blocks of 1114112 bytes",
    );
    check(
        &image,
        &[(0x178, &[0, 0, 0, 0x80])],
        "blocks of 2147483648 bytes",
    );
    let map = u32::from_le_bytes(*image[0x154..].first_chunk().unwrap()) as usize;
    check(
        &image,
        &[(map, &[0xFF, 0xFF, 0xFF, 0x0F])],
        "lies beyond the end",
    );
    let size = (8u64 << 20).to_le_bytes();
    check(
        &image,
        &[(0x170, &size), (0x180, &[8]), (map, &[0; 32])],
        "more data than the file",
    );
}

/// Sets the checksum of a VHD's structure anew.
fn vhd_sum(bytes: &mut [u8], at: usize) {
    bytes[at..at + 4].fill(0);
    let sum: u32 = bytes.iter().map(|byte| u32::from(*byte)).sum();
    bytes[at..at + 4].copy_from_slice(&(!sum).to_be_bytes());
}

#[test]
fn vhd() {
    let image = sample("vpc", &["-o", "subformat=dynamic,force_size=on"]);
    let footer = |at: usize, patch: &[u8], expected: &str| {
        let mut image = image.clone();
        image[at..at + patch.len()].copy_from_slice(patch);
        vhd_sum(&mut image[..512], 64);
        check(&image, &[], expected);
    };
    let header = |at: usize, patch: &[u8], expected: &str| {
        let mut image = image.clone();
        image[512 + at..512 + at + patch.len()].copy_from_slice(patch);
        vhd_sum(&mut image[512..1536], 36);
        check(&image, &[], expected);
    };
    check(&image, &[(100, &[1])], "the checksum of its footer");
    check(
        &image,
        &[(512 + 100, &[1])],
        "the checksum of its dynamic header",
    );
    footer(16, &FF, "lies beyond the end");
    footer(16, &be(1024), "has no cookie");
    footer(48, &BIG, "block table is too small");
    footer(48, &[0; 8], "no bytes");
    footer(60, &[0, 0, 0, 2], "a fixed disk of");
    footer(60, &[0, 0, 0, 4], "differencing");
    footer(60, &[0, 0, 0, 5], "disk type 5");
    header(16, &FF, "lies beyond the end");
    header(28, &FF[..4], "lies beyond the end");
    header(28, &[0; 4], "block table is too small");
    header(32, &[0; 4], "blocks of 0 bytes");
    header(32, &FF[..4], "blocks of 4294967295 bytes");
    let table = u64::from_be_bytes(*image[512 + 16..].first_chunk().unwrap()) as usize;
    check(&image, &[(table, &[0x7F, 0, 0, 0])], "lies beyond the end");

    let image = sample("vpc", &["-o", "subformat=fixed,force_size=on"]);
    let mut longer = image.clone();
    let at = image.len() - 512;
    longer[at + 48..at + 56].copy_from_slice(&BIG);
    vhd_sum(&mut longer[at..], 64);
    check(&longer, &[], "a fixed disk of 9223372036854775808 bytes");
}

/// Sets the checksum of a VHDX's structure anew.
fn vhdx_sum(bytes: &mut [u8]) {
    bytes[4..8].fill(0);
    let sum = crc32c::crc32c(bytes);
    bytes[4..8].copy_from_slice(&sum.to_le_bytes());
}

#[test]
fn vhdx() {
    const HEADERS: [usize; 2] = [64 << 10, 128 << 10];
    const REGIONS: [usize; 2] = [192 << 10, 256 << 10];
    let image = sample("vhdx", &["-o", "block_size=1M"]);
    let headers = |at: usize, patch: &[u8], expected: &str| {
        let mut image = image.clone();
        for header in HEADERS {
            image[header + at..header + at + patch.len()].copy_from_slice(patch);
            vhdx_sum(&mut image[header..header + 4096]);
        }
        check(&image, &[], expected);
    };
    headers(48, &[1], "was not closed");
    headers(66, &[2], "version 2");
    headers(0, b"dead", "neither of its headers");
    check(
        &image,
        &[(HEADERS[0] + 9, &[1]), (HEADERS[1] + 9, &[1])],
        "neither of its headers",
    );

    let entry = |image: &[u8], first: u8| {
        let table = &image[REGIONS[0] + 16..];
        REGIONS[0]
            + 16
            + 32 * table
                .chunks(32)
                .position(|entry| entry[0] == first)
                .unwrap()
    };
    let (bat, metadata) = (entry(&image, 0x66), entry(&image, 0x06));
    let regions = |patches: &[(usize, &[u8])], expected: &str| {
        let mut image = image.clone();
        for (at, patch) in patches {
            image[*at..at + patch.len()].copy_from_slice(patch);
        }
        vhdx_sum(&mut image[REGIONS[0]..REGIONS[0] + 65_536]);
        image[REGIONS[1]] = 0;
        check(&image, &[], expected);
    };
    regions(&[(bat + 16, &BIG_LE)], "the BAT");
    regions(&[(bat + 24, &FF[..4])], "the BAT");
    regions(&[(bat + 24, &[0; 4])], "block table is too small");
    regions(&[(metadata + 16, &FF)], "the metadata");
    regions(&[(bat, &[0]), (bat + 28, &[1])], "unknown regions");
    regions(&[(REGIONS[0] + 8, &[1])], "no BAT or no metadata");
    regions(
        &[(REGIONS[0] + 8, &FF[..4])],
        "neither of its region tables",
    );

    let at = |offset: usize| u64::from_le_bytes(*image[offset..].first_chunk().unwrap()) as usize;
    let (bat, metadata) = (at(bat + 16), at(metadata + 16));
    let item = |first: u8| {
        let table = &image[metadata + 32..];
        let entry = 32
            * (1 + table
                .chunks(32)
                .position(|entry| entry[0] == first)
                .unwrap());
        let offset = &image[metadata + entry + 16..];
        (
            metadata + entry,
            metadata + u32::from_le_bytes(*offset.first_chunk().unwrap()) as usize,
        )
    };
    let (parameters_entry, parameters) = item(0x37);
    let (_, size) = item(0x24);
    let (_, sector) = item(0x1D);
    check(&image, &[(metadata, &[0])], "metadata table is invalid");
    check(
        &image,
        &[(metadata + 10, &FF[..2])],
        "metadata table is invalid",
    );
    check(&image, &[(metadata + 10, &[0, 0])], "lack the block");
    check(
        &image,
        &[(parameters_entry + 16, &FF[..4])],
        "lies beyond the end",
    );
    check(&image, &[(parameters_entry, &[0])], "unknown metadata");
    check(&image, &[(parameters + 4, &[2])], "differencing");
    check(&image, &[(parameters, &[0; 4])], "blocks of 0 bytes");
    check(
        &image,
        &[(parameters, &FF[..4])],
        "blocks of 4294967295 bytes",
    );
    check(&image, &[(size, &BIG_LE)], "block table is too small");
    check(&image, &[(size, &[0; 8])], "no bytes");
    check(&image, &[(sector, &[1, 1])], "sectors of 257 bytes");
    check(&image, &[(bat, &[7])], "a block in state 7");
    check(
        &image,
        &[(bat, &[6, 0, 0, 0, 0, 0, 0, 0])],
        "over the headers",
    );
    check(
        &image,
        &[(bat, &[6, 0, 0, 0, 0, 0, 0, 0xFF])],
        "lies beyond the end",
    );
}

/// Cut anywhere, an image is refused, or everything was there before the cut.
#[test]
fn truncated_images() {
    for (format, options) in [
        ("qcow2", &[][..]),
        ("qcow2", &["-c"]),
        ("qcow2", &["-c", "-o", "compression_type=zstd"]),
        ("qcow2", &["-o", "extended_l2=on"]),
        ("vmdk", &["-o", "subformat=monolithicSparse"]),
        ("vmdk", &["-o", "subformat=streamOptimized"]),
        ("vdi", &[]),
        ("vpc", &["-o", "subformat=dynamic,force_size=on"]),
        ("vhdx", &["-o", "block_size=1M"]),
    ] {
        let image = sample(format, options);
        let whole = read_all(&image).unwrap();
        let mut errors = 0;
        let step = image.len() / 400;
        for len in (8..image.len())
            .step_by(step)
            .chain(image.len() - 600..image.len())
        {
            // Shorter, it is a raw disk for all that anybody can see.
            if format == "vdi" && len < 0x44 {
                continue;
            }
            match read_all(&image[..len]) {
                Ok(disk) => assert!(disk == whole, "{format} {options:?} cut at {len}"),
                Err(_) => errors += 1,
            }
        }
        assert!(errors > 100, "{format} {options:?}: {errors}");
    }
}
