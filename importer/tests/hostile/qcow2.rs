//! qcow2.

use crate::sample::{BIG, FF, be, check, read_all, sample};

#[test]
fn headers() {
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
fn tables() {
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
            "more tables than the file has room for",
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
fn extended_l2() {
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
