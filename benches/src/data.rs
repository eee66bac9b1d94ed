//! Test data, made deterministically from a seed: the same run on another machine pushes the same bytes.
//!
//! - *Incompressible*: uniformly random bytes.
//! - *Disk-like*: what a file system image looks like to a chunk store, file by file on a 4 KiB grid. See [`disk`].
//! - *zb*: what zot's benchmark `zb` pushes: 4 KiB of random bytes, then zeros. It flatters every registry that
//!   compresses or deduplicates, so rows with it say so.
//!
//! Content is a function of (kind, seed, number of the 1 MiB piece), so it can be made in parallel or while it is sent.

pub(crate) mod disk;

use std::thread;

use sha2::{Digest, Sha256};

/// Everything is made in pieces of this many bytes.
pub(crate) const PIECE_BYTES: usize = 1 << 20;

/// Shape of the bytes.
#[derive(Copy, Clone, Debug, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Kind {
    /// Uniformly random bytes.
    Incompressible,
    /// Files of a Debian-like disk on a 4 KiB grid; zstd level 1 in 64 KiB pieces halves it and a bit more.
    Disk,
}

impl Kind {
    /// How rows name it.
    pub(crate) fn name(self) -> &'static str {
        match self {
            Kind::Incompressible => "incompressible",
            Kind::Disk => "disk",
        }
    }

    /// Writes one piece.
    pub(crate) fn fill(self, seed: u64, piece: u64, out: &mut [u8]) {
        let mut rng = Rng::new(seed ^ piece.wrapping_mul(0x9E37_79B9_7F4A_7C15));
        match self {
            Kind::Incompressible => rng.fill(out),
            Kind::Disk => disk::fill(&mut rng, out),
        }
    }
}

/// A small fast generator (splitmix64); quality matters only as far as zstd and chunk cutters can tell.
pub(crate) struct Rng(u64);

impl Rng {
    pub(crate) fn new(seed: u64) -> Rng {
        let mut rng = Rng(seed);
        // One step, so that seeds that differ in one bit do not start alike.
        Rng(rng.next())
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        mix(self.0)
    }

    /// Uniform in `0..n` (n well below 2^32, so the bias is nothing).
    pub(crate) fn below(&mut self, n: u64) -> u64 {
        ((self.next() >> 32) * n) >> 32
    }

    pub(crate) fn fill(&mut self, out: &mut [u8]) {
        let start = self.0;
        // By counter, not by state: the steps are independent, so the processor runs many at once.
        for (i, word) in out.chunks_mut(8).enumerate() {
            let value =
                mix(start.wrapping_add(0x9E37_79B9_7F4A_7C15u64.wrapping_mul(i as u64 + 1)));
            word.copy_from_slice(&value.to_le_bytes()[..word.len()]);
        }
        self.0 = mix(start ^ out.len() as u64);
    }
}

fn mix(mut z: u64) -> u64 {
    z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
    z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
    z ^ (z >> 31)
}

/// Bytes in memory with their digest, both made before any timing.
pub(crate) struct Blob {
    pub(crate) bytes: Vec<u8>,
    pub(crate) digest: String,
}

impl Blob {
    /// Makes `pieces` MiB on all cores, then hashes them.
    pub(crate) fn make(kind: Kind, seed: u64, pieces: usize) -> Blob {
        let mut bytes = vec![0; pieces * PIECE_BYTES];
        let workers = thread::available_parallelism().map_or(1, usize::from);
        let share = pieces.div_ceil(workers).max(1) * PIECE_BYTES;
        thread::scope(|scope| {
            for (worker, part) in bytes.chunks_mut(share).enumerate() {
                scope.spawn(move || {
                    for (i, piece) in part.chunks_mut(PIECE_BYTES).enumerate() {
                        kind.fill(seed, (worker * share / PIECE_BYTES + i) as u64, piece);
                    }
                });
            }
        });
        Blob::of(bytes)
    }

    pub(crate) fn of(bytes: Vec<u8>) -> Blob {
        Blob {
            digest: digest_of(&bytes),
            bytes,
        }
    }

    pub(crate) fn len(&self) -> u64 {
        self.bytes.len() as u64
    }
}

/// `sha256:<hex>` of bytes.
pub(crate) fn digest_of(bytes: &[u8]) -> String {
    digest_text(&Sha256::digest(bytes))
}

/// `sha256:<hex>` of a finished hash.
pub(crate) fn digest_text(hash: &[u8]) -> String {
    use std::fmt::Write;
    hash.iter().fold(String::from("sha256:"), |mut text, byte| {
        // Writing to a string cannot fail.
        let _ = write!(text, "{byte:02x}");
        text
    })
}

/// zb's blob: one page of random bytes, then zeros (see the module's documentation).
pub(crate) fn zb_blob(seed: u64, len: usize) -> Blob {
    let mut bytes = vec![0; len];
    Rng::new(seed).fill(&mut bytes[..4096.min(len)]);
    Blob::of(bytes)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ratio(bytes: &[u8], piece: usize) -> f64 {
        let packed: usize = bytes
            .chunks(piece)
            .map(|c| {
                zstd::bulk::compress(c, 1)
                    .expect("memory suffices")
                    .len()
                    .min(c.len())
            })
            .sum();
        bytes.len() as f64 / packed as f64
    }

    #[test]
    fn data_is_the_same_for_the_same_seed_only() {
        for kind in [Kind::Incompressible, Kind::Disk] {
            let make = |seed| Blob::make(kind, seed, 3).digest;
            assert_eq!(make(1), make(1));
            assert_ne!(make(1), make(2));
        }
    }

    #[test]
    fn pieces_do_not_repeat() {
        let blob = Blob::make(Kind::Incompressible, 7, 2);
        assert_ne!(blob.bytes[..PIECE_BYTES], blob.bytes[PIECE_BYTES..]);
    }

    #[test]
    fn disk_like_data_compresses_like_a_debian_disk() {
        // Debian disks: 2.47 at 64 KiB over their non-zero bytes.
        let ratio = ratio(&Blob::make(Kind::Disk, 1, 64).bytes, 64 << 10);
        assert!(
            (2.2..2.5).contains(&ratio),
            "zstd-1 ratio in 64 KiB pieces: {ratio:.3}"
        );
    }

    #[test]
    fn incompressible_data_does_not_compress() {
        assert_eq!(
            ratio(&Blob::make(Kind::Incompressible, 1, 4).bytes, 64 << 10),
            1.0
        );
    }

    #[test]
    fn digests_are_those_of_the_standard() {
        assert_eq!(
            Blob::of(b"abc".to_vec()).digest,
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }
}
