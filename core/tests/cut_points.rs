//! Golden cut points.
//!
//! If one of these fails, do not update it: a cut point that moves corrupts nothing and no other test notices, but
//! everything that is pushed from then on is stored again beside its older copy. Dedup silently halves. Cut points
//! change only together with the version in `Cutter::state`, knowingly.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{cuts, random, signed_lengths, text};

/// Chunks as lengths, zero runs negative.
fn check(data: &[u8], expected: &[i64]) {
    assert_eq!(signed_lengths(&cuts(data)), expected);
}

#[test]
fn of_random_bytes() {
    check(
        &random(1, 2 << 20),
        &[
            55921, 94900, 39850, 78494, 46185, 61460, 84053, 67494, 89395, 59386, 45773, 33905,
            51291, 82128, 54157, 53752, 65065, 40382, 87301, 62672, 38533, 81927, 90468, 71307,
            37140, 75705, 65686, 36112, 70370, 76551, 41453, 81593, 62807, 13936,
        ],
    );
    check(
        &random(0x5EED, 1 << 20),
        &[
            34688, 46492, 88225, 73935, 69965, 83377, 60954, 51127, 55826, 74706, 90442, 52758,
            62686, 64684, 83169, 47234, 8308,
        ],
    );
}

#[test]
fn of_text() {
    check(
        &text(1, 2 << 20),
        &[
            87653, 40744, 45751, 58955, 37278, 92123, 69293, 83909, 33934, 90287, 87683, 32907,
            33671, 73952, 33827, 90891, 33401, 33248, 71953, 84542, 33034, 32961, 33173, 33874,
            66992, 44420, 89079, 32893, 33673, 96990, 85759, 39632, 37691, 54078, 82733, 48463,
            32847, 2858,
        ],
    );
}

#[test]
fn of_little_endian_numbers() {
    let numbers: Vec<u8> = (0..200_000u32).flat_map(u32::to_le_bytes).collect();
    check(
        &numbers,
        &[
            85969, 72447, 43784, 67133, 61804, 73259, 49325, 65303, 87568, 48646, 67815, 61804,
            15143,
        ],
    );
}

#[test]
fn of_a_disk_with_holes() {
    let disk = [
        &vec![0; 70_000],
        &random(2, 200_000)[..],
        &vec![0; 1 << 20],
        &text(3, 150_000),
        &vec![0; 20_000],
        &random(4, 10_000),
        &vec![0xFF; 300_000],
        &vec![0; 12_345],
    ];
    check(
        &disk.concat(),
        &[
            -70000, 83251, 80608, 34086, 32768, -1017863, 67120, 34013, 75275, 32768, 32768, 32768,
            32768, 32768, 32768, 32768, 74218, -12343,
        ],
    );
}

#[test]
fn of_zstd_frames() {
    // Level 1 is the same in libzstd 1.5.4 to 1.5.7: if only this test fails, the encoder has changed.
    let content = [text(5, 400_000), random(6, 200_000), vec![0; 100_000]].concat();
    let frames: Vec<u8> = content
        .chunks(65_536)
        .flat_map(|part| zstd::bulk::compress(part, 1).unwrap())
        .collect();
    check(
        &frames,
        &[
            14010, 14057, 14061, 14067, 14035, 14040, 60449, 65546, 65546, 10208, 20,
        ],
    );
}

#[test]
fn of_frames_and_then_bytes() {
    let frame = zstd::bulk::compress(&random(7, 100_000), 1).unwrap();
    let table = [&[0x5E, 0x2A, 0x4D, 0x18, 17, 0, 0, 0][..], &[1; 17]].concat();
    let mixed = [
        &frame[..],
        &frame,
        &table,
        &vec![0; 30_000],
        &text(8, 200_000),
        &frame,
    ];
    check(
        &mixed.concat(),
        &[
            100012, 100012, 25, -30000, 35032, 32981, 73542, 92803, 44865, 20789,
        ],
    );
}
