//! The fuzz corpora as plain tests: every seed, and a few thousand deterministic mutations of each, through the same
//! bodies that libFuzzer runs. A file that libFuzzer finds is added to `fuzz/corpus/` and stays covered.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{fs, path::Path};

#[path = "../../fuzz/replay.rs"]
mod replay;
#[path = "../../fuzz/targets.rs"]
mod targets;

use replay::check;

#[test]
fn route() {
    check("route", targets::route, 3000);
}

#[test]
fn range() {
    check("range", targets::range, 3000);
}

#[test]
fn manifest() {
    check("manifest", targets::manifest, 2000);
}

#[test]
fn cutter() {
    check("cutter", targets::cutter, 1000);
}

#[test]
fn frames() {
    check("frames", targets::frames, 1000);
}

mod seeds {
    use super::*;

    /// A frame by libzstd.
    fn frame(data: &[u8], level: i32, checksum: bool, content_size: bool) -> Vec<u8> {
        let mut compressor = zstd::bulk::Compressor::new(level).unwrap();
        compressor.include_checksum(checksum).unwrap();
        compressor.include_contentsize(content_size).unwrap();
        compressor.compress(data).unwrap()
    }

    /// A frame of one segment and no content-size field of more than a byte, and a block with three bytes of header.
    fn by_hand(len: u8, blocks: &[(u32, &[u8], u32)]) -> Vec<u8> {
        let mut frame = vec![0x28, 0xB5, 0x2F, 0xFD, 0x20, len];
        for (at, (kind, content, size)) in blocks.iter().enumerate() {
            let last = u32::from(at + 1 == blocks.len());
            frame.extend(&(last | kind << 1 | size << 3).to_le_bytes()[..3]);
            frame.extend(*content);
        }
        frame
    }

    #[test]
    #[ignore = "writes the seeds anew"]
    fn write_frames() {
        let text = b"a frame of words, words, words and of other words ".repeat(20);
        let skippable = b"\x5E\x2A\x4D\x18\x03\0\0\0abc";
        let noise: Vec<u8> = (0..200u32)
            .map(|i| (i.wrapping_mul(2_654_435_761) >> 24) as u8)
            .collect();
        let plain = frame(&text, 1, false, true);
        let seeds = [
            ("plain", plain.clone()),
            ("checksum", frame(&text, 3, true, false)),
            ("high-level", frame(&text, 19, true, true)),
            ("incompressible", frame(&noise, 1, false, true)),
            ("empty-frame", frame(b"", 1, false, true)),
            (
                "blocks",
                by_hand(12, &[(0, b"raw", 3), (1, b"r", 5), (0, b"last", 4)]),
            ),
            (
                "two-and-a-skippable",
                [&plain[..], skippable, &plain[..], b"rest"].concat(),
            ),
            ("many", frame(b"x", 1, false, true).repeat(300)),
            ("skippable-first", [&skippable[..], &plain].concat()),
            ("torn", plain[..plain.len() - 5].to_vec()),
        ];
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fuzz/corpus/frames");
        fs::create_dir_all(&corpus).unwrap();
        for (name, bytes) in seeds {
            fs::write(corpus.join(name), bytes).unwrap();
        }
    }
}
