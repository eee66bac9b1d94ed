//! VMDK.

use crate::sample::{BIG_LE, FF, check, read_all, sample};

#[test]
fn headers_and_tables() {
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
