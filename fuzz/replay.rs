//! The corpora as plain tests: every seed, and some deterministic mutations of each.
//!
//! Included by the tests of each crate that has targets. A file that libFuzzer finds is added to `fuzz/corpus/` and stays
//! covered.

use std::{
    fs,
    panic::{self, AssertUnwindSafe},
    path::Path,
};

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

/// Runs a target's body over each of its seeds, and over so many mutations of each.
pub(crate) fn check(target: &str, body: impl Fn(&[u8]), mutations: usize) {
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
            if let Err(cause) = panic::catch_unwind(AssertUnwindSafe(|| body(&data))) {
                println!(
                    "{}, mutation {round}: {}",
                    path.display(),
                    data.escape_ascii()
                );
                panic::resume_unwind(cause);
            }
        }
    }
}
