//! The fuzz corpora as plain tests: every seed, and a few thousand deterministic mutations of each, through the same
//! bodies that libFuzzer runs. A file that libFuzzer finds is added to `fuzz/corpus/` and stays covered.

#![allow(clippy::unwrap_used, reason = "a test that cannot go on has failed")]

use std::{fs, panic, path::Path};

#[path = "../../fuzz/targets.rs"]
mod targets;

/// Deterministic: xorshift64.
struct Random(u64);

impl Random {
    fn below(&mut self, bound: usize) -> usize {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        (self.0 >> 11) as usize % bound.max(1)
    }
}

/// One to four small changes: flip, overwrite, insert, remove, repeat, splice in a part of another seed.
fn mutate(data: &mut Vec<u8>, other: &[u8], random: &mut Random) {
    const INTERESTING: &[u8] = b"\x00\x01\x28\x50\x7F\x80\xFF/:%.,-=_\"{}[]0A";
    for _ in 0..1 + random.below(4) {
        let at = random.below(data.len() + 1);
        match random.below(6) {
            0 if at < data.len() => data[at] ^= 1 << random.below(8),
            1 if at < data.len() => data[at] = INTERESTING[random.below(INTERESTING.len())],
            2 => data.insert(at, INTERESTING[random.below(INTERESTING.len())]),
            3 => drop(data.drain(at..data.len().min(at + 1 + random.below(8)))),
            4 => {
                let part = data[at..data.len().min(at + 1 + random.below(32))].to_vec();
                data.splice(at..at, part);
            }
            _ => {
                let from = random.below(other.len());
                let part = other[from..other.len().min(from + 1 + random.below(64))].to_vec();
                data.splice(at..at, part);
            }
        }
    }
}

fn check(target: &str, body: fn(&[u8]), mutations: usize) {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../fuzz/corpus")
        .join(target);
    let mut paths: Vec<_> = fs::read_dir(&corpus)
        .unwrap()
        .map(|entry| entry.unwrap().path())
        .collect();
    // The order of a directory is not the same everywhere.
    paths.sort();
    let seeds: Vec<Vec<u8>> = paths.iter().map(|path| fs::read(path).unwrap()).collect();
    assert!(seeds.len() >= 5, "{target} has {} seeds", seeds.len());
    let mut random = Random(0x9E37_79B9_7F4A_7C15);
    for (path, seed) in paths.iter().zip(&seeds) {
        body(seed);
        for round in 0..mutations {
            let mut data = seed.clone();
            let other = &seeds[random.below(seeds.len())];
            mutate(&mut data, other, &mut random);
            if let Err(cause) = panic::catch_unwind(|| body(&data)) {
                println!(
                    "{}, mutation {round}: {:?}",
                    path.display(),
                    String::from_utf8_lossy(&data)
                );
                panic::resume_unwind(cause);
            }
        }
    }
}

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
