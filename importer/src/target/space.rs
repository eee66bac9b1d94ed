//! How large a disk may become, as CDI computes it.

use std::{fs, io, os::unix::fs::MetadataExt, path::Path};

/// What CDI rounds sizes to: 1 MiB.
pub const ALIGN_BYTES: u64 = 1 << 20;

/// What is wanted of a disk's length.
#[derive(Copy, Clone, PartialEq, Debug, Default)]
pub struct Sizing {
    /// Size of the claim in bytes: the disk grows to it. It keeps its own length if absent.
    pub claim: Option<u64>,
    /// Part of a file system that the disk must leave free for the file system's own needs, from 0 to 1.
    pub overhead: f64,
}

/// What of `available` bytes a disk may take: `available / (1 + overhead)`, rounded up to a byte, then down to 1 MiB.
/// Source: CDI `pkg/util`, `GetUsableSpace`, with its floating-point arithmetic: 1 GiB with an overhead of 0.06 is 966 MiB.
pub fn usable_bytes(available: u64, overhead: f64) -> u64 {
    let usable = (available as f64 / (1.0 + overhead)).ceil() as u64;
    usable / ALIGN_BYTES * ALIGN_BYTES
}

impl Sizing {
    /// Length of a disk of `virtual_len` bytes in a file, where `free` bytes are free. `Err` has what would be usable.
    ///
    /// The claim, or less if there is less, is what the disk grows to; it never shrinks. Without a claim nothing is rounded.
    pub(super) fn file_len(&self, virtual_len: u64, free: u64) -> Result<u64, u64> {
        let usable = self.usable(free);
        if virtual_len > usable {
            return Err(usable);
        }
        Ok(virtual_len.max(self.least_len(free)))
    }

    /// What a shorter disk grows to; 0 without a claim.
    pub(super) fn least_len(&self, free: u64) -> u64 {
        self.claim.map_or(0, |claim| claim.min(self.usable(free)))
    }

    /// The longest disk that fits where `free` bytes are free.
    pub(super) fn usable(&self, free: u64) -> u64 {
        let available = self.claim.map_or(free, |claim| claim.min(free));
        match self.claim {
            None if self.overhead == 0.0 => available,
            _ => usable_bytes(available, self.overhead),
        }
    }
}

/// Bytes that a file at `path` can have: what is free to us, and what the file has taken already.
pub(super) fn free_bytes(path: &Path) -> io::Result<u64> {
    let parent = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty());
    let stat = rustix::fs::statvfs(parent.unwrap_or(Path::new(".")))?;
    // st_blocks counts 512 bytes whatever the file system's blocks are.
    let taken = fs::metadata(path).map_or(0, |metadata| metadata.blocks() * 512);
    Ok(stat.f_bavail.saturating_mul(stat.f_frsize) + taken)
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    #[test]
    fn as_cdi_computes_it() {
        for (available, overhead, expected) in [
            (GIB, 0.0, GIB),
            (GIB, 0.06, 966 * MIB),
            (GIB, 0.055, 970 * MIB),
            (1_138_166_334, 0.06, GIB),
            (1_138_166_333, 0.06, GIB),
            (1_138_166_332, 0.06, 1023 * MIB),
            (GIB - 1, 0.0, 1023 * MIB),
            (GIB, 1.0, 512 * MIB),
            (0, 0.06, 0),
        ] {
            assert_eq!(
                usable_bytes(available, overhead),
                expected,
                "{available} {overhead}"
            );
        }
    }

    /// Length of a disk of so many MiB, claim and free space in MiB as well.
    fn check(disk: u64, claim: Option<u64>, overhead: f64, free: u64, expected: Result<u64, u64>) {
        let claim = claim.map(|claim| claim * MIB);
        let found = Sizing { claim, overhead }.file_len(disk * MIB, free * MIB);
        let expected = expected.map(|len| len * MIB).map_err(|len| len * MIB);
        assert_eq!(found, expected, "{disk} {claim:?} {overhead} {free}");
    }

    #[test]
    fn disks_grow_to_the_claim() {
        check(100, None, 0.0, 1000, Ok(100));
        check(100, Some(500), 0.0, 1000, Ok(500));
        check(100, Some(1024), 0.06, 2000, Ok(966));
        check(100, Some(2000), 0.0, 700, Ok(700));
        check(500, Some(500), 0.0, 1000, Ok(500));
        check(500, Some(499), 0.0, 1000, Err(499));
        check(967, Some(1024), 0.06, 2000, Err(966));
        check(100, None, 0.0, 99, Err(99));
        check(100, None, 0.06, 106, Ok(100));
        check(100, None, 0.06, 105, Err(99));
    }
}
