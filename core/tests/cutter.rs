//! What holds for every blob, however it arrives.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

mod common;

use common::{cuts, cuts_in_slices, random, signed_lengths, text};
use dvcr_core::chunk::{
    CHUNK_BYTES_MAX, CUT_BYTES_MAX, CUT_BYTES_MIN, CUTTER_STATE_LEN, Cutter, FRAME_MEAN_BYTES_MIN,
    FRAME_SHARE_BYTES_MIN, FRAMES_BEFORE_MEAN, ZERO_RUN_BYTES_MIN,
};
use proptest::prelude::*;

fn frame(content: &[u8]) -> Vec<u8> {
    zstd::bulk::compress(content, 1).unwrap()
}

fn skippable(len: usize) -> Vec<u8> {
    [
        &[0x5E, 0x2A, 0x4D, 0x18],
        &(len as u32).to_le_bytes()[..],
        &vec![7; len],
    ]
    .concat()
}

fn check(data: &[u8], expected: &[i64]) {
    assert_eq!(signed_lengths(&cuts(data)), expected);
    assert_eq!(
        signed_lengths(&cuts_in_slices(data, std::iter::repeat(4093), true)),
        expected
    );
}

#[test]
fn small_blobs_are_one_chunk() {
    check(&[], &[]);
    for len in [1, 3, 4, 100, CUT_BYTES_MIN] {
        check(&random(1, len), &[len as i64]);
    }
    check(&[0], &[-1]);
    check(&[0; 4096], &[-4096]);
}

#[test]
fn zero_runs_at_the_start_of_a_chunk_are_cut_off() {
    let run = ZERO_RUN_BYTES_MIN;
    let data = random(2, 20_000);
    let with_zeros = |zeros: usize| [&vec![0; zeros], &data[..]].concat();
    check(&with_zeros(run), &[-(run as i64), 20_000]);
    check(&with_zeros(run + 1), &[-(run as i64) - 1, 20_000]);
    check(
        &with_zeros(50 * CHUNK_BYTES_MAX),
        &[-50 * CHUNK_BYTES_MAX as i64, 20_000],
    );
    // A shorter run is part of its chunk.
    let short = with_zeros(run - 1);
    assert!(signed_lengths(&cuts(&short)).iter().all(|len| *len > 0));
    // At the end, a run of any length is one.
    let tail = [&random(2, CUT_BYTES_MIN)[..], &[0; 100]].concat();
    // (Here the three bytes that make the best word are zeros themselves.)
    check(&tail, &[CUT_BYTES_MIN as i64 + 3, -97]);
}

#[test]
fn a_zero_run_is_returned_as_it_arrives() {
    let mut cutter = Cutter::new();
    let zeros = vec![0; ZERO_RUN_BYTES_MIN];
    assert_eq!(cutter.next(&zeros[1..], false), None);
    for len in [ZERO_RUN_BYTES_MIN, 1, 500] {
        let cut = cutter.next(&zeros[..len], false).unwrap();
        assert_eq!((cut.len, cut.zero), (len, true));
        cutter = Cutter::restore(&cutter.state(), 0).unwrap();
    }
    let cut = cutter.next(&[0, 0, 1], false).unwrap();
    assert_eq!((cut.len, cut.zero), (2, true));
    // Out of the run, a short one is nothing special.
    assert_eq!(cutter.next(&[1, 0, 0], false), None);
    assert_eq!(cutter.next(&[0, 0], false), None);
}

#[test]
fn frames_are_chunks_until_something_else_comes() {
    let frames: Vec<Vec<u8>> = (1..9)
        .map(|i| frame(&random(i, 9_999 * i as usize)))
        .collect();
    let lengths: Vec<i64> = frames.iter().map(|frame| frame.len() as i64).collect();
    let blob = frames.concat();
    check(&blob, &lengths);
    // With skippable frames, one of them large.
    let with_table = [&blob[..], &skippable(0), &skippable(300_000), &frames[0]].concat();
    check(
        &with_table,
        &[&lengths[..], &[8, 300_008, lengths[0]]].concat(),
    );
    // The longest frame that is a chunk, and one more byte.
    let longest = [&blob[..], &skippable(CHUNK_BYTES_MAX - 8)].concat();
    check(
        &longest,
        &[&lengths[..], &[CHUNK_BYTES_MAX as i64]].concat(),
    );
    let bytes_after = |rest: &[u8]| {
        let blob = [&blob[..], rest].concat();
        let found = signed_lengths(&cuts(&blob));
        check(&blob, &found);
        assert_eq!(found[..lengths.len()], lengths);
        // What follows is cut as if it were a blob of its own that is not frames.
        let mut cutter =
            Cutter::restore(&[1, 2, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0], 0).unwrap();
        let (mut expected, mut rest) = (Vec::new(), rest);
        while let Some(cut) = cutter.next(rest, true) {
            expected.extend(signed_lengths(&[cut]));
            rest = &rest[cut.len..];
        }
        assert_eq!(found[lengths.len()..], expected);
    };
    bytes_after(&[&skippable(CHUNK_BYTES_MAX - 7)[..], &frames[0], &frames[1]].concat());
    bytes_after(&[&b"garbage"[..], &frames[0], &frames[1]].concat());
    bytes_after(&[&[0; 1024][..], &frames[0]].concat());
    bytes_after(&vec![0; 100_000]);
    bytes_after(&frames[7][..frames[7].len() - 1]);
    bytes_after(&frames[7][..3]);
    bytes_after(&frame(&random(7, 3 * CHUNK_BYTES_MAX)));
}

#[test]
fn a_blob_that_does_not_begin_with_a_data_frame_is_bytes() {
    let frames = [frame(&random(1, 50_000)), frame(&random(2, 50_000))].concat();
    for blob in [
        [skippable(0), frames.clone()].concat(),
        [&b"x"[..], &frames].concat(),
        frames[1..].to_vec(),
    ] {
        let first = signed_lengths(&cuts(&blob))[0];
        assert!(
            (CUT_BYTES_MIN as i64..=CUT_BYTES_MAX as i64).contains(&first),
            "{first}"
        );
    }
}

/// Disks may begin with text or tables that compress to a fiftieth: their frames are chunks all the same.
#[test]
fn well_compressed_pieces_are_chunks() {
    let same = "the same line again and again, but for a number ".repeat(4);
    let text = |i: u64| -> String {
        let lines = (i * 1000..).map(|number| format!("{same}{number}\n"));
        lines.take(400).collect()
    };
    let frames: Vec<Vec<u8>> = (0..2 * FRAMES_BEFORE_MEAN)
        .map(|i| frame(&text(i).as_bytes()[..64 << 10]))
        .collect();
    let small = frames
        .iter()
        .all(|frame| (256..4096).contains(&frame.len()));
    assert!(small, "{:?}", frames.iter().map(Vec::len).max());
    let blob = frames.concat();
    let mut cutter = Cutter::new();
    let mut at = 0;
    for frame in &frames {
        let cut = cutter.next(&blob[at..], true).unwrap();
        assert_eq!(cut.len, frame.len());
        at += cut.len;
    }
    // Frames of next to nothing are not, whatever they say.
    let nothing = frame(&vec![7; 64 << 10]);
    let blob = nothing.repeat(2 * FRAMES_BEFORE_MEAN as usize);
    let mut cutter = Cutter::new();
    let mut at = 0;
    for _ in 0..FRAMES_BEFORE_MEAN {
        at += cutter.next(&blob[at..], true).unwrap().len;
    }
    assert_ne!(cutter.next(&blob[at..], true).unwrap().len, nothing.len());
}

#[test]
fn too_many_small_frames_are_bytes() {
    fn check(frame_len: usize, expected: usize) {
        let mut blob = frame(b"a data frame comes first");
        let first = blob.len();
        blob.extend(skippable(frame_len * 2 - first - 8));
        let frames = 2 * FRAMES_BEFORE_MEAN as usize;
        blob.extend(skippable(frame_len - 8).repeat(frames - 2));
        let found = signed_lengths(&cuts(&blob));
        let as_frames = found[2..]
            .iter()
            .take_while(|len| **len == frame_len as i64)
            .count()
            + 2;
        assert_eq!(as_frames, expected, "frames of {frame_len} bytes");
        buffered(&blob, &found);
    }
    fn buffered(blob: &[u8], expected: &[i64]) {
        assert_eq!(
            signed_lengths(&cuts_in_slices(blob, std::iter::repeat(10_007), true)),
            expected
        );
    }
    let mean = FRAME_MEAN_BYTES_MIN as usize;
    check(mean, 2 * FRAMES_BEFORE_MEAN as usize);
    check(mean - 1, FRAMES_BEFORE_MEAN as usize);
    check(500, FRAMES_BEFORE_MEAN as usize);
}

/// A frame of little that says it holds much counts for much. It does not pay for frames of next to nothing: each would take
/// more room in packs and rows than it brings.
#[test]
fn frames_that_say_much_do_not_make_room_for_a_flood_of_tiny_ones() {
    let group = |n: u32| {
        // One raw block of 248 bytes, and a content size of 1 MiB.
        let mut group = vec![0x28, 0xB5, 0x2F, 0xFD, 0xA0];
        group.extend((1_u32 << 20).to_le_bytes());
        group.extend(&(248_u32 << 3 | 1).to_le_bytes()[..3]);
        group.resize(group.len() + 248, n as u8);
        for _ in 0..30 {
            group.extend(skippable(4));
        }
        group
    };
    let blob: Vec<u8> = (0..2_000).flat_map(group).collect();
    let chunks = cuts(&blob).len();
    let most = FRAMES_BEFORE_MEAN as usize + blob.len() / FRAME_SHARE_BYTES_MIN;
    assert!(chunks < most, "{chunks} chunks of {} bytes", blob.len());
    // Where the cuts are does not depend on how the bytes came, or on a restart.
    let expected = signed_lengths(&cuts(&blob));
    let found = cuts_in_slices(&blob, std::iter::repeat(10_007), true);
    assert_eq!(signed_lengths(&found), expected);
}

#[test]
fn a_state_is_restored_or_refused() {
    fn check(state: &[u8], good: bool) {
        let restored = Cutter::restore(state, 0);
        assert_eq!(restored.is_some(), good, "{state:?}");
        if let Some(cutter) = restored {
            assert_eq!(cutter.state(), state);
        }
    }
    check(&Cutter::new().state(), true);
    let of = |version: u8, mode: u8, count: u64, bytes: u64| {
        [
            &[version, mode][..],
            &count.to_le_bytes(),
            &bytes.to_le_bytes(),
        ]
        .concat()
    };
    assert_eq!(of(1, 0, 0, 0).len(), CUTTER_STATE_LEN);
    for mode in [0, 2, 3] {
        check(&of(1, mode, 0, 0), true);
        check(&of(1, mode, 1, 1), false);
    }
    check(&of(1, 1, 3, 77_777), true);
    check(&of(1, 1, u64::MAX, u64::MAX), true);
    check(&of(1, 1, 0, 0), false);
    check(&of(1, 4, 0, 0), false);
    check(&of(0, 0, 0, 0), false);
    check(&of(2, 0, 0, 0), false);
    check(&[], false);
    check(&[1; 17], false);
    check(&[0; 19], false);
    // Numbers that nobody can have counted do not overflow.
    let mut cutter = Cutter::restore(&of(1, 1, u64::MAX, u64::MAX), u64::MAX).unwrap();
    assert!(cutter.next(&skippable(5), true).is_some());
}

#[test]
fn an_inserted_byte_moves_only_the_cuts_near_it() {
    let data = random(5, 4 << 20);
    let ends = |data: &[u8]| -> Vec<usize> {
        let ends = cuts(data).into_iter().scan(0, |at, cut| {
            *at += cut.len;
            Some(*at)
        });
        ends.collect()
    };
    let before = ends(&data);
    let at = 2 << 20;
    let after = ends(&[&data[..at], b"!", &data[at..]].concat());
    let kept = before
        .iter()
        .filter(|end| after.contains(&if **end <= at { **end } else { **end + 1 }))
        .count();
    assert!(
        before.len() - kept <= 4,
        "{} of {} cuts moved",
        before.len() - kept,
        before.len()
    );
}

/// A stretch of a blob.
fn stretch() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![
        (1u64.., 0..150_000usize).prop_map(|(seed, len)| random(seed, len)),
        (1u64.., 0..150_000usize).prop_map(|(seed, len)| text(seed, len)),
        (0..150_000usize).prop_map(|len| vec![0; len]),
        (0..5usize).prop_map(|off| vec![0; ZERO_RUN_BYTES_MIN + off - 2]),
        (1u64.., 0..150_000usize).prop_map(|(seed, len)| frame(&random(seed, len))),
        (1u64.., 0..9_000usize, 1..40usize)
            .prop_map(|(seed, len, n)| frame(&text(seed, len)).repeat(n)),
        (0..150_000usize).prop_map(skippable),
        (1..300usize).prop_map(|n| skippable(0).repeat(n)),
        Just(skippable(CHUNK_BYTES_MAX - 8)),
        Just(vec![0x28, 0xB5, 0x2F, 0xFD]),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    #[test]
    fn chunks_do_not_depend_on_the_buffering(
        first_is_frame: bool,
        stretches in prop::collection::vec(stretch(), 0..8),
        slices in prop::collection::vec(prop_oneof![1..20usize, 1..5_000usize, 1..400_000usize], 0..200),
        revive: bool,
    ) {
        let mut data = if first_is_frame { frame(b"first") } else { Vec::new() };
        data.extend(stretches.concat());
        let expected = cuts(&data);
        prop_assert_eq!(expected.iter().map(|cut| cut.len).sum::<usize>(), data.len());
        prop_assert_eq!(cuts_in_slices(&data, slices, revive), expected);
    }

    #[test]
    fn content_chunks_keep_their_bounds(seed in 1u64.., len in 0..1_000_000usize) {
        let found = cuts(&random(seed, len));
        if let Some((last, others)) = found.split_last() {
            prop_assert!(last.len <= CUT_BYTES_MAX);
            prop_assert!(others.iter().all(|cut| (CUT_BYTES_MIN..=CUT_BYTES_MAX).contains(&cut.len)));
        }
    }
}
