//! VDI and VHD.

use crate::sample::{BIG, BIG_LE, FF, be, check, sample};

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
